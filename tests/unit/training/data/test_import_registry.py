"""One's own tables: what fits becomes a registry, what does not is refused by row, column and cure."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest

from dicomnode.errors import UsageError
from dicomnode.registry_format.provenance import Provenance
from training.data import cohort, follow_up, registry_folder
from training.data.import_columns import read_asked
from training.data.import_registry import ImportSummary, import_table
from training.data.matching import matching
from training.run.start import begin

KNOWN = Provenance("non-small cell lung cancer", "a public table, CC BY", ("Maastricht",))
MEAN, VOLUME = "original_firstorder_Mean", "original_shape_MeshVolume"
COLUMNS = """
[covariates.stage]
column = "Overall.Stage"
type = "category"
categories = ["I", "II", "III"]
[covariates.pack_years]
type = "number"
unit = "pack-years"
range = [0, 200]
"""


def plain(**changes: object) -> pd.DataFrame:
    """Four patients with their ends, as a public table has them; `changes` replace or add columns."""
    frame = pd.DataFrame(
        {
            "PatientID": ["LUNG1-001", "LUNG1-002", "LUNG1-003", "LUNG1-004"],
            MEAN: [-20.5, 30.25, 12.0, -1.5],
            VOLUME: [1200.0, 3500.0, None, 900.0],
            "age": [61, 72, None, 55],
            "gender": ["male", "female", "male", "M"],
            "time_days": [100, 2000, 365, 900],
            "event": [1, 0, 1, 0],
        }
    )
    return frame.assign(**changes)


def imported(
    folder: Path,
    table: pd.DataFrame | str | bytes,
    *,
    outcomes: pd.DataFrame | str | None = None,
    roles: Mapping[str, str] | None = None,
    columns: str = "",
    unit: str = "",
    known: Provenance = KNOWN,
    settings: str = "",
    index: bool = True,
) -> ImportSummary:
    def written(name: str, content: pd.DataFrame | str | bytes) -> Path:
        path = folder / name
        if isinstance(content, pd.DataFrame):
            content.to_csv(path, index=index)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content, encoding="utf-8")
        return path

    toml = written("columns.toml", columns) if columns else None
    ends = None if outcomes is None else written("outcomes.csv", outcomes)
    yaml = written("params.yaml", settings) if settings else None
    asked = read_asked(toml, roles or {}, unit, "roi")
    return import_table(written("features.csv", table), ends, folder / "registry", asked, known, yaml)


def test_a_table_as_pandas_saves_it_becomes_a_registry(tmp_path: Path) -> None:
    made = imported(
        tmp_path,
        plain(**{"Overall.Stage": ["I", "III", "II", None], "pack_years": [40, 0, 12.5, 30], "dlco_ml_min_mmhg": 18.0}),
        columns=COLUMNS,
    )
    assert made.features == (f"radiomics.roi.{MEAN}", f"radiomics.roi.{VOLUME}") and made.scans == 4
    assert made.passed_over == ("the column without a name",)
    read = registry_folder.read(tmp_path / "registry")
    assert read.imported and read.provenance.disease == KNOWN.disease and read.provenance.sites == ("Maastricht",)
    assert "LUNG1" not in "".join(p.read_text() for p in (tmp_path / "registry").glob("*.csv"))
    _, found = begin(tmp_path / "registry", made, (2,))
    assert (found.patients, found.matched, found.deaths, found.warnings[0]) == (4, 4, 2, "1 of 4 scans have no age")
    shown = {one.name: one for one in found.covariates}
    assert shown["stage"].patients == 3 and shown["dlco_mmol_min_kpa"].values.startswith("median 6.026")
    frame = cohort.build(
        read,
        follow_up.read_outcomes(tmp_path / "registry/outcomes.csv"),
        follow_up.read_covariates(tmp_path / "registry/covariates.csv", free=made.declared),
    ).frame
    assert sorted(frame["time_years"].round(2)) == [0.27, 1.0, 2.46, 5.48]
    assert sorted(frame["stage"]) == ["", "I", "II", "III"] and frame["pack_years"].dtype == "float64"


def test_dates_are_shifted_and_outcomes_may_stand_apart(tmp_path: Path) -> None:
    table = plain(scan_date=["2010-01-01", "2012-05-05 00:00:00", "2011-01-01", "2015-06-01"])
    table = table.drop(columns=["time_days", "event"])
    ends = "patient,death_date,last_contact_date\nLUNG1-001,2011-01-01,\nLUNG1-002,,2014-01-01\nOTHER,,2014-01-01\n"
    made = imported(tmp_path, table, outcomes=ends)
    read = registry_folder.read(tmp_path / "registry")
    assert read.provenance.period == "2010 to 2015" and read.provenance.dates == "shifted by patient"
    assert not set(read.scans["date"].dt.strftime("%Y-%m-%d")) & {"2010-01-01", "2015-06-01"}
    outcomes = follow_up.read_outcomes(tmp_path / "registry/outcomes.csv")
    found = matching(read, outcomes)
    assert (found.matched, found.without_outcome, found.without_scan, made.scans) == (2, 2, 1, 4)
    assert "2 of 4 patients of the registry have no outcome" in found.warnings[0]
    years = cohort.build(read, outcomes).frame["time_years"].round(2)
    assert sorted(years) == [1.0, 1.66]


def test_hospitals_and_years_are_kept_where_they_are_asked_for(tmp_path: Path) -> None:
    table = plain(
        center=["Bern", "Graz", "Bern", "Lund"], date=["2011-03-01", "2014-07-09", "2011-12-31", "2016-01-01"]
    )
    earlier = table.iloc[[1]].assign(date="2012-02-02", center="Oslo", time_days=2888)
    both = pd.concat([table, earlier], ignore_index=True)
    imported(tmp_path, both, columns='site = "center"\nkeep_first_year = true\n')
    kept = pd.read_csv(tmp_path / "registry" / "groups.csv")
    scans = pd.read_csv(tmp_path / "registry" / "scans.csv")
    assert list(kept) == ["patient", "site", "first_scan"] and set(kept["patient"]) == set(scans["patient"])
    assert sorted(zip(kept["site"], kept["first_scan"], strict=True)) == [
        ("Bern", 2011), ("Bern", 2011), ("Lund", 2016), ("Oslo", 2012)
    ]  # fmt: skip
    (tmp_path / "bare").mkdir()
    imported(tmp_path / "bare", plain())
    assert not (tmp_path / "bare" / "registry" / "groups.csv").exists()
    shutil.rmtree(tmp_path / "bare" / "registry")
    for columns, message in (
        ("keep_first_year = true", "no scan has a date: name their column"),
        ('site = "clinic"', "there is no column 'clinic'"),
        ("site = 3", "site: 3: give the name of a column"),
        ('keep_first_year = "yes"', "keep_first_year: 'yes': give true or false"),
    ):
        with pytest.raises(UsageError, match=message):
            imported(tmp_path / "bare", plain(), columns=columns)


def test_pyradiomics_settings_come_from_its_own_columns_or_file(tmp_path: Path) -> None:
    stated = plain(
        diagnostics_Configuration_Settings="{'binWidth': 25, 'resampledPixelSpacing': [3, 3, 3]}",
        diagnostics_Configuration_EnabledImageTypes="{'Original': {}}",
    )
    assert imported(tmp_path, stated).spacing_mm == 3
    about = registry_folder.read(tmp_path / "registry").about
    assert json.loads(str(about["radiomics_settings"]))["setting"]["binWidth"] == 25
    (tmp_path / "other").mkdir()
    assert (
        imported(tmp_path / "other", plain(), settings="setting:\n  resampledPixelSpacing: [2, 2, 2]\n").spacing_mm == 2
    )


@dataclass(frozen=True)
class Wrong:
    """A table that must not get through, and what the refusal says."""

    name: str
    table: pd.DataFrame | str | bytes | Callable[[], pd.DataFrame]
    says: tuple[str, ...]
    more: dict[str, object] = field(default_factory=dict)


def _rows(*rows: str, header: str = f"PatientID,{MEAN},time_days,event") -> str:
    return "\n".join((header, *rows)) + "\n"


_DATED = plain(scan_date=["2010-01-01"] * 4).drop(columns=["time_days", "event"])
_NO_ENDS = plain().drop(columns=["time_days", "event"])
_TIMES = "patient,time_days,event\nLUNG1-001,5,1\nLUNG1-002,9,0\nLUNG1-003,9,1\nLUNG1-004,9,0\n"
_DATES = "patient,death_date,last_contact_date\n"
_TYPES = {"columns": COLUMNS}


def _staged(**changes: object) -> pd.DataFrame:
    return plain(**{"Overall.Stage": ["I", "I", "II", "III"], "pack_years": [1, 2, 3, 4], **changes})


WRONG = (
    # the file
    Wrong("semicolons", plain().to_csv(sep=";"), ("row 1: its columns are separated by semicolons", "CSV UTF-8")),
    Wrong("tabs", plain().to_csv(sep="\t"), ("separated by tabs",)),
    Wrong("bars", plain().to_csv(sep="|"), ("separated by vertical bars",)),
    Wrong("utf16", plain().to_csv().encode("utf-16"), ("UTF-16 (Excel's «Unicode text»)", "save it as «CSV UTF-8»")),
    Wrong("latin1", plain(gender="männlich").to_csv().encode("latin-1"), ("is not a CSV file in UTF-8",)),
    Wrong("workbook", b"PK\x03\x04rest", ("an Excel workbook",)),
    Wrong("parquet", b"PAR1rest", ("a Parquet file",)),
    Wrong("gzip", b"\x1f\x8b\x08rest", ("compressed (gzip)",)),
    Wrong("empty", b"", ("there is no header",)),
    Wrong("header-alone", _rows(), ("has a header but no rows",)),
    Wrong("ragged", _rows("A,1,2,1", "B,1,2"), ("row 3: 3 values for 4 columns",)),
    Wrong("decimal-commas", _rows("A,1,5,20,1"), ("row 2: 5 values for 4 columns", "decimal comma")),
    Wrong("open-quote", _rows('"A,1,2,1'), ("is not a CSV file",)),
    # the columns
    Wrong(
        "transposed",
        plain()[["PatientID", MEAN, VOLUME]].set_index("PatientID").T.to_csv(),
        ("the table is transposed", "frame.T"),
    ),
    Wrong("no-patient", plain().drop(columns="PatientID"), ("no column of patients: name it with --patient",)),
    Wrong("two-patients", plain(subject="x"), ("'PatientID' and 'subject' both look like patient", "--patient")),
    Wrong("misspelt", plain().rename(columns={MEAN: "orignal_firstorder_Mean"}), ("unknown column 'orignal_",)),
    Wrong("undeclared", plain(smoker="yes"), ("unknown column 'smoker'", "[covariates.smoker]", "ignore = ['smoker']")),
    Wrong("outcome-as-feature", plain(survival_months=1), ("unknown column 'survival_months'",)),
    Wrong("doubled-by-pandas", plain(**{f"{MEAN}.1": 1.0}), (f"unknown column '{MEAN}.1'", "pandas names a column")),
    Wrong("doubled", _rows("A,1,2,3,1", header=f"PatientID,{MEAN},{MEAN},time_days,event"), ("occurs twice",)),
    Wrong(
        "spaces-hide-a-double",
        _rows("A,1,2,3,1", header=f"PatientID,{MEAN}, {MEAN},time_days,event"),
        ("occurs twice",),
    ),
    Wrong("two-ages", plain(Age=50), ("'age' and 'Age' both look like age_years",)),
    Wrong(
        "nameless-values", _rows("x,A,1,2,1", header=f",PatientID,{MEAN},time_days,event"), ("column 1 has no name",)
    ),
    Wrong("no-features", plain()[["PatientID", "time_days", "event"]], ("no column is a measurement",)),
    Wrong("asked-for-nothing", plain(), ("there is no column 'Subject'",), {"roles": {"patient": "Subject"}}),
    Wrong("declared-for-nothing", plain(), ("there is no column 'Overall.Stage'",), _TYPES),
    # measurements
    Wrong("words", plain(**{MEAN: ["1", "2", "low", "4"]}), (f"row 4, column {MEAN}: 'low' is not a number",)),
    Wrong(
        "infinite", plain(**{MEAN: [1.0, float("inf"), 2, 3]}), (f"row 3, column {MEAN}: 'inf' is no finite number",)
    ),
    Wrong(
        "quoted-comma",
        plain(**{MEAN: ["1,5", "2", "3", "4"]}),
        ("row 2", "'1,5' is not a number but has a decimal comma"),
    ),
    Wrong("underscores", plain(**{MEAN: ["1_000", "2", "3", "4"]}), ("'1_000' is not a number",)),
    Wrong("unit-in-cell", plain(**{VOLUME: ["12 ml", "2", "3", "4"]}), ("'12 ml' is not a number", "without a unit")),
    Wrong("empty-column", plain(**{VOLUME: None}), (f"column {VOLUME}: holds no value",)),
    Wrong("placeholder", plain(**{VOLUME: [100.5, -999, 300.2, 80.0]}), ("row 3", "looks like «not known»")),
    Wrong("truth-values", plain(**{VOLUME: [True, False, True, True]}), ("'True' is not a number",)),
    # patients
    Wrong("patient-twice", plain(PatientID=["A", "B", "A", "C"]), ("row 4, column PatientID", "row 2", "--date")),
    Wrong("patient-missing", plain(PatientID=["A", None, "B", "C"]), ("row 3, column PatientID", "is missing")),
    Wrong(
        "scan-twice", plain(scan_date="2010-01-01", PatientID="A", time_days=9, event=1), ("row 3", "several regions")
    ),
    # age, sex, lung function
    Wrong("age-0", plain(age=[0, 50, 60, 70]), ("row 2, column age: '0' is no age", "leave it empty")),
    Wrong("age-in-months", plain(age=[720, 50, 60, 70]), ("'720' is not between 1 and 120 years",)),
    Wrong("birth-year", plain(age=[1955, 50, 60, 70]), ("'1955' is not between 1 and 120",)),
    Wrong("coded-sex", plain(gender=[1, 2, 1, 2]), ("row 2, column gender: '1' is not allowed: write F, M or O",)),
    Wrong(
        "dlco-in-the-other-unit",
        plain(dlco_mmol_min_kpa=[8, 18, 7, 6]),
        ("row 3", "'18' is not between", "ml/min/mmHg?"),
    ),
    Wrong(
        "fvc-in-litres",
        plain(fvc_percent_predicted=[2.5, 80, 70, 60]),
        ("'2.5' is not between 10 and 200", "(is it l?)"),
    ),
    Wrong("fvc-in-ml", plain(fvc_l=[2500, 2, 3, 4]), ("'2500' is not between 0.2 and 9.9 l",)),
    # free covariates
    Wrong(
        "other-category",
        _staged(**{"Overall.Stage": ["I", "IV", "I", "I"]}),
        ("row 3, column Overall.Stage: 'IV'", "one of I, II, III"),
        _TYPES,
    ),
    Wrong("other-case", _staged(**{"Overall.Stage": ["i", "I", "I", "I"]}), ("row 2", "written 'I' there"), _TYPES),
    Wrong(
        "beyond-the-range",
        _staged(pack_years=[900, 1, 2, 3]),
        ("'900' is not pack_years as declared (0 to 200 pack-years)",),
        _TYPES,
    ),
    Wrong("placeholder-in-range", _staged(pack_years=[-9, 1, 2, 3]), ("'-9' is not pack_years as declared",), _TYPES),
    Wrong("empty-covariate", _staged(pack_years=None), ("column pack_years: holds no value",), _TYPES),
    Wrong(
        "no-unit",
        plain(x=1),
        ("covariates.x", "a number has a unit"),
        {"columns": '[covariates.x]\ntype="number"\nrange=[0,2]'},
    ),
    Wrong(
        "no-range",
        plain(x=1),
        ("a number has a unit", "and a range"),
        {"columns": '[covariates.x]\ntype="number"\nunit="1"'},
    ),
    Wrong(
        "turned-range",
        plain(x=1),
        ("must be the lower one",),
        {"columns": '[covariates.x]\ntype="number"\nunit="1"\nrange=[5,1]'},
    ),
    Wrong(
        "one-category",
        plain(x="a"),
        ("at least two categories",),
        {"columns": '[covariates.x]\ntype="category"\ncategories=["a"]'},
    ),
    Wrong(
        "same-categories",
        plain(x="a"),
        ("are not distinct",),
        {"columns": '[covariates.x]\ntype="category"\ncategories=["a","A"]'},
    ),
    Wrong(
        "taken-name",
        plain(event2=1),
        ("covariates.event: the name 'event' has a meaning",),
        {"columns": '[covariates.event]\ncolumn="event2"\ntype="number"\nunit="1"\nrange=[0,2]'},
    ),
    # ends
    Wrong("no-outcomes", _NO_ENDS, ("has no outcomes", "--outcomes")),
    Wrong("outcomes-twice", plain(), ("has outcomes itself",), {"outcomes": _TIMES}),
    Wrong(
        "no-time-unit",
        plain().rename(columns={"time_days": "t"}),
        ("column t: in which unit? Give --time-unit",),
        {"roles": {"time": "t"}},
    ),
    Wrong(
        "wrong-time-unit",
        plain().rename(columns={"time_days": "t"}),
        ("'100' years is not between 0 and 60 years",),
        {"roles": {"time": "t"}, "unit": "years"},
    ),
    Wrong("negative-time", plain(time_days=[-1, 2, 3, 4]), ("row 2, column time_days: '-1' days is not between",)),
    Wrong("no-time", plain(time_days=[None, 2, 3, 4]), ("row 2, column time_days: '' is missing",)),
    Wrong("event-2", plain(event=[1, 2, 1, 0]), ("row 3, column event: '2' is no event", "1 where the death")),
    Wrong("no-event", plain(event=[1, None, 1, 0]), ("row 3, column event: '' is missing",)),
    Wrong("time-alone", plain().drop(columns="event"), ("a column of event is missing: name it with --event",)),
    Wrong(
        "dates-for-undated-scans",
        _NO_ENDS,
        ("gives dates, but", "--date"),
        {"outcomes": _DATES + "LUNG1-001,2011-01-01,\n"},
    ),
    Wrong("nobody-in-common", _DATED, ("have no patient in common",), {"outcomes": _DATES + "X,2011-01-01,\n"}),
    Wrong(
        "ids-as-floats",
        _DATED.assign(PatientID=["7", "8", "9", "10"]),
        ("row 2, column PatientID", ".0", "write both alike"),
        {"outcomes": _DATES + "7.0,2011-01-01,\n"},
    ),
    Wrong(
        "ids-in-another-case",
        _DATED,
        ("row 2", "written otherwise (case"),
        {"outcomes": _DATES + "lung1-001,2011-01-01,\n"},
    ),
    Wrong(
        "outcome-twice",
        _DATED,
        ("outcomes.csv, row 3, column patient", "row 2 already"),
        {"outcomes": _DATES + "LUNG1-001,2011-01-01,\nLUNG1-001,2012-01-01,\n"},
    ),
    Wrong("no-end", _DATED, ("row 2", "is empty, and no other end is there"), {"outcomes": _DATES + "LUNG1-001,,\n"}),
    Wrong(
        "alive-after-death",
        _DATED,
        ("is after the death on 2011-01-01",),
        {"outcomes": _DATES + "LUNG1-001,2011-01-01,2012-01-01\n"},
    ),
    Wrong(
        "scan-after-death",
        _DATED,
        ("row 2, column scan_date: '2010-01-01' is after the end in",),
        {"outcomes": _DATES + "LUNG1-001,2009-01-01,\n"},
    ),
    Wrong("future-death", _DATED, ("is in the future",), {"outcomes": _DATES + "LUNG1-001,2999-01-01,\n"}),
    Wrong(
        "excel-date",
        plain(scan_date=[40179] * 4),
        ("row 2, column scan_date: '40179'", "Excel's number of 2010-01-01", "YYYY-MM-DD"),
    ),
    Wrong("slashed-date", plain(scan_date=["01/02/2010"] * 4), ("'01/02/2010' is not a date (day and month",)),
    Wrong("dicom-date", plain(scan_date=["20100102"] * 4), ("as DICOM writes it (YYYYMMDD)",)),
    Wrong("date-with-a-time", plain(scan_date=["2010-01-02 13:30"] * 4), ("alone (it has a time of day)",)),
    Wrong("no-such-day", plain(scan_date=["2010-02-30"] * 4), ("'2010-02-30' is not a valid date",)),
    Wrong(
        "a-date-missing",
        plain(scan_date=["2010-01-02", None, "2010-01-02", "2010-01-02"]),
        ("row 3, column scan_date: '' is missing",),
    ),
    Wrong(
        "two-ends-of-one-patient",
        plain(PatientID=["A", "A", "B", "C"], scan_date=["2010-01-01", "2011-01-01"] * 2),
        ("row 3, column time_days", "one patient has one end"),
    ),
    # who they are
    Wrong("no-disease", plain(), ("state the disease of the data with --disease",), {"known": Provenance("", "x")}),
    Wrong("no-source", plain(), ("state the source of the data with --source",), {"known": Provenance("x", "")}),
    Wrong(
        "other-settings",
        plain(diagnostics_Configuration_Settings=["{'a': 1}", "{'a': 2}", "{'a': 1}", "{'a': 1}"]),
        ("row 3", "not comparable"),
    ),
    Wrong("bad-settings-file", plain(), ("is neither YAML nor JSON",), {"settings": "a: [1"}),
)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda one: one.name)
def test_a_wrong_table_is_refused_by_name(wrong: Wrong, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        imported(tmp_path, wrong.table, **wrong.more)  # type: ignore[arg-type]
    for words in wrong.says:
        assert words in str(refused.value), str(refused.value)
    assert ": " in str(refused.value) and not (tmp_path / "registry").exists()


def test_there_are_sixty_of_them() -> None:
    assert len({one.name for one in WRONG}) == len(WRONG) >= 60


def test_no_message_shows_a_patient_id(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        imported(tmp_path, plain(PatientID=["SECRET", "B", "SECRET", "C"]))
    assert "SECRET" not in str(refused.value)


def test_links_are_followed_and_broken_ones_named(tmp_path: Path) -> None:
    plain().to_csv(tmp_path / "real.csv")
    (tmp_path / "features.csv").symlink_to(tmp_path / "real.csv")
    asked = read_asked(None, {}, "", "roi")
    assert import_table(tmp_path / "features.csv", None, tmp_path / "a", asked, KNOWN, None).scans == 4
    (tmp_path / "broken.csv").symlink_to(tmp_path / "gone.csv")
    with pytest.raises(UsageError, match=r"broken\.csv is a link to .*gone\.csv, which does not exist"):
        import_table(tmp_path / "broken.csv", None, tmp_path / "b", asked, KNOWN, None)
    with pytest.raises(UsageError, match="is a folder"):
        import_table(tmp_path, None, tmp_path / "b", asked, KNOWN, None)


def test_a_byte_order_mark_is_no_name(tmp_path: Path) -> None:
    table = ("\ufeff\ufeff" + plain().to_csv(index=False)).encode()
    assert imported(tmp_path, table).scans == 4
