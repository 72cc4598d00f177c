"""The registry: what it keeps of a scan, gives to training, takes in as outcomes, and forgets."""

import csv
import math
import tomllib
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from dicomnode.analysis.findings import Flag, Risk
from dicomnode.analysis.risk.predict import age_years
from dicomnode.cli import app
from dicomnode.errors import RefusedError, UsageError
from dicomnode.registry import rows as recorder
from dicomnode.registry import shadow
from dicomnode.registry.export import export
from dicomnode.registry.forget import Forgotten, forget
from dicomnode.store.catalog.registry import RegistryRisk
from tests.helpers import report_cases
from tests.helpers.registry_node import NOW, Node, analysis, findings, header
from training.data import registry_folder


def test_a_scan_goes_in_and_comes_out_for_training(node: Node, tmp_path: Path) -> None:
    for uid, studied in (("1.1", "20200101"), ("1.2", "20210301")):
        node.study(uid, b"PAT-1", b"HOSPITAL")
        assert node.keep(analysis(uid, studied))
    node.study("1.3", b"PAT-2")
    assert node.keep(analysis("1.3", "20200101", Flag("cut-off", "error", "the lungs are cut off")))
    done = export(node.catalog, tmp_path / "out")
    assert (done.scans, done.patients, done.doubtful, done.volumes) == (2, 1, 1, 2)
    with (tmp_path / "out" / "scans.csv").open() as file:
        first, second = csv.DictReader(file)
    assert first["patient"] == second["patient"]
    assert date.fromisoformat(second["date"]) - date.fromisoformat(first["date"]) == timedelta(425)
    assert (first["age_years"], first["sex"]) == ("66.0", "F")
    features = parquet.read_table(tmp_path / "out" / "features.parquet").to_pylist()
    assert features[0]["scan"] == first["scan"]
    assert features[0]["quantities.lungs.haa_percent"] == 12.5
    assert features[0]["radiomics.lungs.original_firstorder_Mean"] == -800.0
    assert tomllib.loads((tmp_path / "out" / "registry.toml").read_text())["made_by"] == "node"
    exported = b"".join(p.read_bytes() for p in (tmp_path / "out").iterdir() if p.is_file())
    assert not any(secret in exported for secret in (b"PAT-1", b"20200101", b"2020-01-01", b"1.2.3.4", b"HOSPITAL"))


def test_a_study_that_is_analysed_again_keeps_its_place(node: Node) -> None:
    node.study("1.1", b"PAT-1")
    node.keep(analysis("1.1", "20200101"))
    again = analysis("1.1", "20200101")
    node.keep(replace(again, findings=replace(again.findings, algorithm_digest="ff" * 32)))
    (scan,) = node.catalog.registry_scans()
    assert scan.algorithm_digest == "ff" * 32


@pytest.mark.parametrize(
    ("changes", "age"),
    [
        ({}, 66.0),
        ({"PatientAge": "018M"}, 1.5),
        ({"PatientAge": ""}, 60.0),
        ({"PatientAge": "", "PatientBirthDate": ""}, None),
        ({"PatientAge": "", "PatientBirthDate": "20990101"}, None),
        ({"PatientAge": "097Y"}, 90.0),
    ],
)
def test_age(changes: dict[str, str], age: float | None) -> None:
    assert age_years(findings("1.1", "20200101"), header(**changes)) == age


@pytest.mark.parametrize("studied", ["", "2020", "00010101", "18991231", "20991231"])
def test_without_a_date_there_is_no_place_in_time(node: Node, studied: str, caplog: pytest.LogCaptureFixture) -> None:
    node.study("1.1", b"PAT-1")
    assert not node.keep(analysis("1.1", studied))
    assert "no usable Study Date" in caplog.text


def test_trouble_with_the_registry_stops_no_result(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    node.study("1.1", b"PAT-1")
    node.table.folder.write_text("a file where the folder should be")
    assert not node.keep(analysis("1.1", "20200101"))
    assert "not recorded in the registry" in caplog.text
    assert "PAT-1" not in caplog.text


def test_what_nobody_expects_stops_no_result_and_tells_nothing_of_the_patient(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    error = RuntimeError("no memory left for PAT-1")

    def fail(*_args: object, **_more: object) -> None:
        raise error

    caplog.set_level("INFO")
    monkeypatch.setattr(recorder, "row", fail)
    node.study("1.1", b"PAT-1")
    assert not node.keep(analysis("1.1", "20200101"))
    assert "study 1.1 not recorded in the registry: RuntimeError" in caplog.text
    assert "PAT-1" not in caplog.text


@dataclass
class Candidate:
    """A bundle that answers, or fails, as it is told."""

    error: Exception | None
    name: str = "candidate"
    version: str = "2"

    def predict(self, *_args: object, **_more: object) -> Risk:
        if self.error is not None:
            raise self.error
        return replace(report_cases.risk(), bundle=self.name, bundle_sha256="c" * 64, version=self.version)


@pytest.mark.parametrize(
    ("error", "risks", "says"),
    [
        (None, 2, "ran in"),
        (RefusedError("features-missing", "the model lacks 3 features"), 1, "the model lacks 3 features"),
        (RuntimeError("out of memory with PAT-1"), 1, "RuntimeError"),
    ],
)
def test_a_candidate_that_fails_keeps_no_scan_out(
    node: Node, error: Exception | None, risks: int, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    node.study("1.1", b"PAT-1")
    assert node.keep(analysis("1.1", "20200101"), Candidate(error))
    assert len(node.catalog.registry_scans()) == 1
    assert len(node.catalog.registry_risks()) == risks
    assert says in caplog.text
    assert "PAT-1" not in caplog.text


def test_studies_of_nobody_are_no_patient_together(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    for uid in ("1.1", "1.2"):
        node.study(uid, b" ")
        assert not node.keep(analysis(uid, "20200101"))
    assert node.catalog.registry_scans() == []
    assert "study 1.2 not recorded in the registry: no Patient ID" in caplog.text


@pytest.mark.parametrize(("stated", "kept"), [(0.0, None), (math.nan, None), (500.0, None), (1.25, 1.25)])
def test_a_thickness_that_is_none_is_not_kept(node: Node, tmp_path: Path, stated: float, kept: float | None) -> None:
    """One image with Slice Thickness 0 would make the whole registry unreadable for training."""
    made = analysis("1.1", "20200101")
    assert made.findings.series is not None
    series = replace(made.findings.series, slice_thickness_mm=stated)
    node.study("1.1", b"PAT-1")
    assert node.keep(replace(made, findings=replace(made.findings, series=series)))
    assert [s.slice_thickness_mm for s in node.catalog.registry_scans()] == [kept]
    export(node.catalog, tmp_path / "out")
    assert len(registry_folder.read(tmp_path / "out").scans) == 1


def test_a_forgotten_patient_stays_away(node: Node, tmp_path: Path) -> None:
    for uid, patient in (("1.1", b"PAT-1"), ("1.2", b"PAT-2")):
        node.study(uid, patient)
        node.keep(analysis(uid, "20200101"))
    node.outcomes("patient_id,death_date,last_contact_date\nPAT-1,2021-01-01,\nPAT-2,2021-01-01,\n")
    assert forget(node.table.folder, node.catalog, "PAT-1", "", is_pseudonym=False, now=NOW) == Forgotten(1, 1, 1)
    assert not node.keep(analysis("1.1", "20200101"))
    assert len(list((node.table.folder / "volumes").iterdir())) == 1
    done = export(node.catalog, tmp_path / "out")
    assert (done.patients, done.outcomes) == (1, 1)
    assert len(node.catalog.registry_risks()) == 1


def test_a_stopped_forgetting_leaves_no_voxels_behind(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_args: object, **_more: object) -> None:
        raise KeyboardInterrupt

    node.study("1.1", b"PAT-1")
    node.keep(analysis("1.1", "20200101"))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", stop)
        with pytest.raises(KeyboardInterrupt):
            forget(node.table.folder, node.catalog, "PAT-1", "", is_pseudonym=False, now=NOW)
    assert forget(node.table.folder, node.catalog, "PAT-1", "", is_pseudonym=False, now=NOW) == Forgotten(1, 0, 1)
    assert list((node.table.folder / "volumes").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["PAT-1", "--issuer", "H"], 0, "1 scan, 0 outcomes and 1 volume"),
        (["PAT-1"], 3, "holds nothing of this patient"),
        (["0" * 32, "--pseudonym"], 3, "holds nothing of this patient"),
    ],
)
def test_the_command_tells_whether_anybody_was_forgotten(
    node: Node, tmp_path: Path, arguments: list[str], status: int, says: str
) -> None:
    node.study("1.1", b"PAT-1", b"H")
    node.keep(analysis("1.1", "20200101"))
    path = tmp_path / "ae_config.toml"
    path.write_text('[storage]\nstate = "."\n[registry]\nfolder = "registry"\n')
    done = CliRunner().invoke(app, ["registry", "forget", *arguments, "--config", str(path)])
    assert done.exit_code == status
    assert says in done.output
    assert len(node.catalog.registry_scans()) == (1 if status else 0)


@pytest.mark.parametrize("pseudonym", ["PAT-1", "A" * 32, "a" * 31])
def test_a_pseudonym_that_is_none_blocks_nobody(node: Node, pseudonym: str) -> None:
    with pytest.raises(UsageError, match="not a pseudonym") as raised:
        forget(node.table.folder, node.catalog, pseudonym, "", is_pseudonym=True, now=NOW)
    assert pseudonym not in str(raised.value)


def test_an_empty_registry_and_a_full_folder_are_refused(node: Node, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no scans"):
        export(node.catalog, tmp_path / "out")
    with pytest.raises(UsageError, match="is not empty"):
        export(node.catalog, tmp_path)


def test_a_candidate_is_compared_where_both_read_the_scan() -> None:
    def risk(scan: str, sha: str, served: bool, one: float) -> RegistryRisk:
        return RegistryRisk(scan, sha * 64, "p", "b", "1", served, {1: one, 3: 2 * one}, NOW)

    rows = shadow.compare(
        [
            risk("a", "0", True, 0.1),
            risk("a", "1", False, 0.2),
            risk("b", "0", True, 0.2),
            risk("b", "1", False, 0.1),
            risk("c", "1", False, 0.4),
        ]
    )
    assert [(r.years, r.scans) for r in rows] == [(1, 2), (3, 2)]
    assert rows[0].mean_difference == pytest.approx(0.0)
    assert rows[0].largest_difference == pytest.approx(0.1)
