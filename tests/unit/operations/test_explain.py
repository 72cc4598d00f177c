"""`dicomnode explain`: the decision on every series, and nothing about the patient."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from typer.testing import CliRunner

from dicomnode import cli
from dicomnode.analysis.series.selection_rules import Rules
from dicomnode.operations.explain import explain
from tests.helpers.ct_files import ct_series, write


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A thin series in two acquisitions, a thick one, a scout and a text file."""
    thin = ct_series(np.zeros((160, 2, 2), np.int16), step_mm=1.0, AcquisitionNumber="1")
    uids = {k: thin[0][k].value for k in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    again = ct_series(np.ones((160, 2, 2), np.int16), step_mm=1.0, AcquisitionNumber="2", **uids)
    study_uid = thin[0].StudyInstanceUID
    scout = ct_series(
        np.zeros((2, 2, 2), np.int16), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], StudyInstanceUID=study_uid
    )
    thick = ct_series(StudyInstanceUID=study_uid)
    for name, datasets in {"thin": thin + again, "thick": thick, "scout": scout}.items():
        write(datasets, tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("Secret^Name")
    return tmp_path / "in"


def test_rows(study: Path) -> None:
    found = explain(study, Rules())
    rows = {(r.slices, r.part): r for r in found.rows}
    chosen = rows[160, "AcquisitionNumber 1"]
    assert (chosen.chosen, chosen.step_mm, chosen.kernel, chosen.coverage_mm) == (True, 1.0, "B60f", 159.0)
    assert chosen.decision.startswith("chosen: AcquisitionNumber 1; 1.0 mm slice spacing")
    assert rows[160, "AcquisitionNumber 2"].codes == ("another-series-preferred",)
    assert rows[40, ""].codes == ("another-series-preferred",)
    assert rows[2, ""].codes == ("localizer", "too-few-slices", "coverage")
    assert sum(r.chosen for r in found.rows) == 1
    assert [f.split(":")[0] for f in found.flags] == ["info", "info"]


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        (
            {"SeriesDescription": "MonoE 40keV[HU]", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "MONOENERGETIC"]},
            {"SeriesDescription": "Thorax 3.0 conventional"},
        ),
        ({"SeriesDescription": "HRCT PRONE"}, {"SeriesDescription": "HRCT SUPINE"}),
        ({"SeriesDescription": "Thorax EKG 75 %"}, {"SeriesDescription": "Thorax"}),
        ({"SeriesDescription": "CT WB AC 4.0"}, {"SeriesDescription": "Thorax"}),
        ({"SeriesDescription": "Lung EXP"}, {"SeriesDescription": "Lung INSP"}),
    ],
    ids=["spectral", "prone", "gated", "attenuation correction", "expiratory"],
)
def test_the_right_one_of_two_real_series_is_chosen_though_it_is_the_shorter(
    data: Path, tmp_path: Path, worse: dict[str, object], better: dict[str, object]
) -> None:
    for number, (name, attributes) in enumerate((("worse", worse), ("better", better))):
        (tmp_path / name).mkdir()
        for position, path in enumerate(sorted((data / "chest_tiny_cip" / "ct-64Dicom").glob("*.dcm"))[number::2]):
            image = dcmread(path)
            image.SeriesInstanceUID, image.PatientPosition = f"2.25.{number + 1}", "HFS"
            image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number + 1}{position:03}"
            for keyword, value in attributes.items():
                setattr(image, keyword, value)
            image.save_as(tmp_path / name / path.name)
    rows = explain(tmp_path, Rules()).rows
    (chosen,) = [row for row in rows if row.chosen]
    assert (chosen.series_uid, chosen.slices) == ("2.25.2", 39)
    alone = explain(tmp_path / "worse", Rules())  # where there is no other, it is taken with a flag
    assert [row.chosen for row in alone.rows] == [True]
    assert codes(alone.flags) - codes(explain(tmp_path / "better", Rules()).flags)


def codes(flags: Sequence[str]) -> set[str]:
    return {flag.rpartition("(")[2].rstrip(")") for flag in flags}


def test_the_rules_decide(study: Path) -> None:
    assert not any(r.chosen for r in explain(study, Rules(min_slices=1000)).rows)
    assert [r.slices for r in explain(study, Rules(min_coverage_mm=190)).rows if r.chosen] == [40]


def test_each_study_is_decided_by_itself(tmp_path: Path) -> None:
    write(ct_series(), tmp_path / "a")
    write(ct_series(), tmp_path / "b")
    rows = explain(tmp_path, Rules()).rows
    assert len({r.study_uid for r in rows}) == 2
    assert all(r.chosen for r in rows)


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["explain", *map(str, arguments)])
    return result.exit_code, result.output


def test_command(study: Path, tmp_path: Path) -> None:
    status, table = run(study)
    assert status == 0
    for words in ("AcquisitionNumber 1", "localizer: Image Type is LOCALIZER.", "B60f", "159", "unreadable-files"):
        assert words in table
    status, text = run(study, "--json")
    assert status == 0
    assert sum(row["chosen"] for row in json.loads(text)["rows"]) == 1
    assert "SECRET" not in (table + text).upper()

    config = tmp_path / "ae_config.toml"
    config.write_text("[analysis.selection]\nmin_slices = 1000\n")
    assert run(study, "--config", config)[0] == 3


def test_a_folder_of_nothing(tmp_path: Path) -> None:
    status, text = run(tmp_path, "--json")
    assert (status, json.loads(text)["rows"]) == (3, [])
    status, text = run(tmp_path)
    assert (status, text.strip()) == (3, "no readable DICOM image found")
