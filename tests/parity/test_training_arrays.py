"""Node and training see the same: arrays, features and model input of a DICOM study, by either way."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from dicomnode.analysis import pipeline
from dicomnode.analysis.lungs.classical import ClassicalSegmenter
from dicomnode.analysis.measures.change import latest_before
from dicomnode.analysis.phantom.phantom import Disease, chest
from dicomnode.analysis.radiomics.extract import DEFAULT_SETTINGS
from dicomnode.analysis.risk import predict, tabular
from dicomnode.analysis.risk.preprocess import Spec, prepare
from dicomnode.registry_format.volumes import read_volume
from tests.helpers.ct_files import ct_series
from tests.helpers.ct_files import write as write_files
from training.cli import commands
from training.data import cohort, registry_folder
from training.features import compute
from training.features.settings import FeatureSettings

STEP_MM, PIXEL_MM = 4.0, 4.0
DATES = ("20150310", "20160401")


def study(folder: Path, number: int, **attributes: object) -> list[Path]:
    """A phantom chest as a scanner would send it, sicker at each visit."""
    volume = chest(
        5, shape=(70, 70, 84), spacing_mm=(STEP_MM, PIXEL_MM, PIXEL_MM), disease=Disease.of_severity(0.2 + 0.3 * number)
    ).volume
    stated = {
        "PatientID": "SECRET-7", "PatientName": "Secret^Name", "PatientBirthDate": "19600310", "PatientSex": "F",
        "StudyDate": DATES[number], "StudyTime": "101500", "PixelSpacing": [str(PIXEL_MM)] * 2,
        "SeriesDescription": "Thorax lung", "BodyPartExamined": "CHEST", "Manufacturer": "SIEMENS",
    }  # fmt: skip
    frames = np.clip(volume.hu.astype(np.int32) + 1024, 0, 4095).astype(np.int16)
    return write_files(ct_series(frames, step_mm=STEP_MM, **{**stated, **attributes}), folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two studies of a patient and one that is no chest, through `training cohort --dicom`."""
    folder = tmp_path_factory.mktemp("clinic")
    for number in range(2):
        study(folder / "dicom" / str(number), number)
    write_files(ct_series(PatientID="SECRET-8", StudyDate="20150101"), folder / "dicom" / "head")
    (folder / "outcomes.csv").write_text(
        "patient,death_date,last_contact_date,transplant_date\nSECRET-7,2018-04-01,,\nSECRET-9,,2018-04-01,\n"
    )
    (folder / "lung.csv").write_text("patient,date,name,value,unit\nSECRET-7,2016-01-01,fvc,81,percent_predicted\n")
    arguments = ["--dicom", "dicom", "--registry", "reg", "--outcomes", "outcomes.csv", "--covariates", "lung.csv"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = CliRunner().invoke(commands.app, ["cohort", *arguments, "--out", "run/cohort.parquet"])
    assert result.exit_code == 0, result.output
    assert "excluded from the registry: study" in result.output and "no suitable chest CT" in result.output
    assert "2 scans in the cohort" in result.output
    return folder


@pytest.fixture(scope="module")
def analyses(made: Path) -> list[pipeline.Analysis]:
    """The node's own analyses of the two studies, the second with its change since the first."""
    method = pipeline.Method(ClassicalSegmenter(), DEFAULT_SETTINGS, None)
    first = pipeline.analyse(sorted((made / "dicom" / "0").iterdir()), method)
    second = pipeline.analyse(sorted((made / "dicom" / "1").iterdir()), method, priors=[first.findings])
    assert latest_before(second.findings, [first.findings]) is not None
    return [first, second]


def test_the_arrays_are_the_nodes(made: Path, analyses: list[pipeline.Analysis]) -> None:
    frame = cohort.load(made / "run" / "cohort.parquet")
    spec = Spec(spacing_mm=4.0, canvas=(64, 80), slices=8)
    for analysis, stored in zip(analyses, frame["volume"], strict=True):
        volume, labels = read_volume(made / "reg" / stored)
        assert analysis.volume is not None and analysis.labels is not None
        inside = labels > 0
        np.testing.assert_array_equal(volume.hu[inside], analysis.volume.hu[analysis.labels > 0])
        np.testing.assert_array_equal(labels[inside], analysis.labels[analysis.labels > 0])
        assert (volume.hu[~inside] == -1024).all()
        np.testing.assert_allclose(volume.spacing_mm, analysis.volume.spacing_mm, rtol=1e-12)
        node = prepare(analysis.volume, analysis.labels, spec)
        np.testing.assert_array_equal(prepare(volume, labels, spec), node)


def test_the_features_are_the_nodes(made: Path, analyses: list[pipeline.Analysis], tmp_path: Path) -> None:
    """From the registry, and measured anew from whole volumes, by the names and to the digits of the findings."""
    read, frame = registry_folder.read(made / "reg"), cohort.load(made / "run" / "cohort.parquet")
    for source, registry in (("registry", read), ("volumes", with_whole_volumes(read, analyses, frame, tmp_path))):
        settings = FeatureSettings(source=source, workers=1)
        found = compute.compute(frame, registry, settings, tmp_path, lambda *_: None).set_index("scan")
        for scan, analysis in zip(frame["scan"], analyses, strict=True):
            node = tabular.features_of(analysis.findings)
            mine = found.loc[scan].drop([c for c in found if c.startswith("covariates.")]).dropna()
            assert set(mine.index) == set(node)
            # The registry has dates, not times of day: here both scans were made at the same time.
            np.testing.assert_allclose([mine[k] for k in node], list(node.values()), rtol=1e-9, atol=1e-12)


def with_whole_volumes(
    read: registry_folder.Registry, analyses: list[pipeline.Analysis], frame: pd.DataFrame, folder: Path
) -> registry_folder.Registry:
    """The registry as an older version would have written it of phantoms: measured anew where the settings say so."""
    (folder / "volumes").mkdir()
    for analysis, stored in zip(analyses, frame["volume"], strict=True):
        assert analysis.volume is not None
        kept = {"hu": analysis.volume.hu, "labels": analysis.labels}
        np.savez(folder / stored, **kept, spacing_mm=analysis.volume.spacing_mm, origin_mm=analysis.volume.origin_mm)
    return replace(read, folder=folder, about={**read.about, "format": 1, "made_by": "synthetic"})


def test_the_ages_are_the_nodes(made: Path, analyses: list[pipeline.Analysis]) -> None:
    node = [predict.age_years(a.findings, a.headers[0]) for a in analyses]
    assert cohort.load(made / "run" / "cohort.parquet")["age_years"].to_list() == node == [55.0, 56.1]


def test_nothing_names_the_patient_and_intervals_stay(made: Path) -> None:
    frame = cohort.load(made / "run" / "cohort.parquet")
    for path in (made / "reg").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not any(word in content for word in (b"SECRET", b"Secret", b"2015-03-10", b"20150310", b"19600310"))
    days = [date.fromisoformat(d) for d in frame["date"]]
    assert (days[1] - days[0]).days == 388 and days[0] < date(2015, 3, 10)
    assert frame["time_years"][0] == (date(2018, 4, 1) - date(2015, 3, 10)).days / 365.25
    assert frame["sex"][0] == "F"
    assert frame["fvc_percent_predicted"].fillna(-1).to_list() == [-1, 81]
    assert (made / "reg.key").stat().st_mode & 0o777 == 0o600


def test_a_second_call_analyses_nothing_again(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.data import from_dicom

    monkeypatch.setattr(from_dicom, "analyse", None)
    before = (made / "reg" / "scans.csv").read_text()
    from_dicom.make_registry(made / "dicom", made / "reg", made / "outcomes.csv", None, lambda *_: None)
    assert (made / "reg" / "scans.csv").read_text() == before
