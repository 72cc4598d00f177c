"""Splits by site and in time: who learns from whom, and what they hang on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dicomnode.errors import UsageError
from training.data.registry_folder import Registry
from training.data.split_kinds import SplitAsked, draw, statement
from training.data.splits import LeakageError, Nested

SITES = ("Bern", "Graz", "Lund")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path, {"made_by": "node"}, pd.DataFrame(), pd.DataFrame(), "")


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Sixty patients, two scans each; two of five die; the second scan by another manufacturer."""
    patients = [f"P{i:02d}" for i in range(60) for _ in range(2)]
    return pd.DataFrame(
        {
            "scan": [f"{p}-{i % 2}" for i, p in enumerate(patients)],
            "patient": patients,
            "date": [f"{2010 + i // 24}-0{1 + i % 2}-01" for i in range(120)],
            "event": [i // 2 % 5 < 2 and i % 2 == 1 for i in range(120)],
            "manufacturer": ["GE" if i // 2 % 2 else "Siemens" if i % 2 == 0 else "Canon" for i in range(120)],
        }
    )


def groups(folder: Path, *columns: str, rows: int = 60) -> Path:
    known = {"site": lambda i: SITES[i % 3], "first_scan": lambda i: str(2010 + i // 12)}
    lines = [",".join(["patient", *columns])]
    lines += [",".join([f"P{i:02d}", *(known[c](i) for c in columns)]) for i in range(rows)]
    (folder / "groups.csv").write_text("\n".join(lines) + "\n")
    return folder / "groups.csv"


def test_each_site_is_predicted_by_the_others(frame: pd.DataFrame, registry: Registry) -> None:
    groups(registry.folder, "site")
    drawn = draw(frame, registry, 1, SplitAsked("sites"))
    patients = frame["patient"].to_list()
    drawn.nested.check(patients)
    assert drawn.facts["names"] == list(SITES) and drawn.facts["patients"] == [20, 20, 20]
    for number, fold in enumerate(drawn.nested.outer):
        assert {int(p[1:]) % 3 for p in fold} == {number}
        train, test = drawn.nested.fold(number, patients)
        assert len(train) == 80 and len(test) == 40
        assert len(drawn.nested.inner_folds(number, patients)) == 3
    assert "each of Bern, Graz, Lund is predicted by models fitted on the others" in statement(drawn.facts)
    np.testing.assert_array_equal(drawn.nested.judged(patients), np.arange(120))
    # The scanner stands in the scans themselves: a patient's first decides.
    by_maker = draw(frame, registry, 1, SplitAsked("sites", by="manufacturer"))
    assert by_maker.facts["names"] == ["GE", "Siemens"] and by_maker.facts["patients"] == [30, 30]


def test_later_patients_are_judged_and_no_model_learns_from_them(frame: pd.DataFrame, registry: Registry) -> None:
    groups(registry.folder, "first_scan")
    drawn = draw(frame, registry, 1, SplitAsked("temporal", outer=3, inner=2, cut="2013"))
    patients, split = frame["patient"].to_list(), drawn.nested
    split.check(patients)
    later = {f"P{i:02d}" for i in range(36, 60)}
    assert set(split.outer[0]) == later and drawn.facts["later"] == 24 and drawn.facts["earlier"] == 36
    assert {patients[row] for row in split.judged(patients)} == later
    for number in range(3):
        train, test = split.fold(number, patients)
        assert not {patients[row] for row in train} & (later | {patients[row] for row in test})
        for fit, validate in split.inner_folds(number, patients):
            assert {*fit, *validate} == set(train)
    assert len(split.fold(0, patients)[0]) == 72 and "first scanned before 2013-01-01" in statement(drawn.facts)
    split.save(registry.folder / "splits.json")
    assert Nested.load(registry.folder / "splits.json") == split
    planted = tuple((*part, split.outer[0][0]) if i == 0 else part for i, part in enumerate(split.inner[1]))
    with pytest.raises(LeakageError, match="inner folds"):
        replace(split, inner=(split.inner[0], planted, *split.inner[2:])).check(patients)
    with pytest.raises(LeakageError, match="has been changed"):
        text = (registry.folder / "splits.json").read_text().replace('"later": true', '"later": false')
        (registry.folder / "splits.json").write_text(text)
        Nested.load(registry.folder / "splits.json")
    by_share = draw(frame, registry, 1, SplitAsked("temporal", outer=3, inner=2, share=0.6))
    assert by_share.facts["earlier"] == 36, "a year is not torn apart"


def test_time_that_is_not_there_is_not_used(frame: pd.DataFrame, registry: Registry) -> None:
    asked = SplitAsked("temporal", outer=3, inner=2, cut="2013")
    for stated in ({"made_by": "node"}, {"made_by": "import"}, {"made_by": "import", "dates": "none"}):
        with pytest.raises(UsageError, match=r"are no calendar dates \(.*Give the year of each patient's first scan"):
            draw(frame, replace(registry, about=stated), 1, asked)
    for stated in ({"made_by": "import", "dates": "true"}, {"made_by": "synthetic"}):
        assert draw(frame, replace(registry, about=stated), 1, asked).facts["later"] == 24


@pytest.mark.parametrize(
    ("asked", "columns", "message"),
    [
        (SplitAsked("sites"), (), "nothing says at which site a patient was scanned: put groups.csv with"),
        (SplitAsked("sites"), ("first_scan",), "nothing says at which site"),
        (SplitAsked("sites", inner=9), ("site",), "without site Bern, 0 patients died, and 9 inner folds need as many"),
        (SplitAsked("temporal", cut="2030"), ("first_scan",), "of 0 patients first scanned from 2030-01-01 on, 0 died"),
        (SplitAsked("temporal", cut="2010-02-01"), ("first_scan",), "before 2010-02-01, 6 patients died, and 12 inner"),
    ],
)
def test_a_split_that_cannot_be_is_refused(
    frame: pd.DataFrame, registry: Registry, asked: SplitAsked, columns: tuple[str, ...], message: str
) -> None:
    if columns:
        groups(registry.folder, *columns)
    if message.startswith("without"):  # all deaths at one site
        frame = frame.assign(event=[int(p[1:]) % 3 == 0 for p in frame["patient"]])
    with pytest.raises(UsageError) as refused:
        draw(frame, registry, 1, asked)
    assert message in str(refused.value)


def test_groups_that_do_not_fit_are_refused(frame: pd.DataFrame, registry: Registry) -> None:
    asked = SplitAsked("sites")
    groups(registry.folder, "site", rows=59)
    with pytest.raises(UsageError, match=r"groups.csv lacks 1 of 60 patients of the cohort"):
        draw(frame, registry, 1, asked)
    path = groups(registry.folder, "site")
    for old, new, message in (
        ("P01,", "P00,", "row 3.*already occurs in row 2"),
        ("P01,Graz", "P01, ", "row 3.*is empty: name the site"),
        ("Graz", "Bern", "1 values of site"),
    ):
        whole = path.read_text()
        path.write_text(whole.replace(old, new).replace("Lund", "Bern" if old == "Graz" else "Lund"))
        with pytest.raises(UsageError, match=message):
            draw(frame, registry, 1, asked)
        path.write_text(whole)
    groups(registry.folder, "first_scan").write_text("patient,first_scan\nP00,spring\n")
    with pytest.raises(UsageError, match="row 2.*is neither a year nor a date: write 2014"):
        draw(frame, registry, 1, SplitAsked("temporal"))
