"""`dicomnode analyze` on real chest CT, as a script uses it."""

import json
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from dicomnode.conformance import findings_schema
from dicomnode.report.wording import plain
from tests.conftest import ROOT
from tests.helpers.running import dicomnode

FILES = {"findings.json", "seg.dcm", "measurements.dcm", "risk.dcm", "summary.dcm", "pdf.dcm", "overlay.png"}


@pytest.fixture(scope="module")
def tiny(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tiny")
    done = dicomnode("analyze", data / "chest_tiny_cip", "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def test_writes_what_it_promises(tiny: Path) -> None:
    assert {p.name for p in tiny.iterdir()} == FILES
    found = json.loads((tiny / "findings.json").read_text("utf-8"))
    jsonschema.validate(found, findings_schema.build())
    assert found["status"] == "analysed"
    assert found["series"]["slices"] == 79
    assert found["series"]["spacing_mm"] == pytest.approx([3.98734, 4.171872, 4.171872], rel=1e-4)
    assert set(found["quantities"]) >= {"lungs", "left", "right"}
    assert len(found["radiomics"]["features"]["lungs"]) == 107
    assert set(found["timings_s"]) == {"load", "segment", "quantify", "radiomics", "risk", "encode"}
    risk = found["risk"]
    assert risk["intended_use"] == "synthetic-demo"
    assert [h["years"] for h in risk["horizons"]] == [1, 3, 5]
    probabilities = [h["probability"] for h in risk["horizons"]]
    assert probabilities == sorted(probabilities)
    for h in risk["horizons"]:
        assert 0 <= h["lower"] <= h["probability"] <= h["upper"] <= 1


def test_lungs_agree_with_the_reference(tiny: Path, data: Path) -> None:
    found = json.loads((tiny / "findings.json").read_text("utf-8"))
    assert found["lungs"]["volume_ml"]["total"] == pytest.approx(4554, rel=0.05)
    reference = sitk.GetArrayFromImage(sitk.ReadImage(str(data / "chest_tiny_cip" / "wholeLung-64.nrrd"))) > 0
    seg = pydicom.dcmread(tiny / "seg.dcm")
    ours = np.zeros_like(reference)
    frames = seg.pixel_array
    for frame, groups in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        z = float(groups.PlanePositionSequence[0].ImagePositionPatient[2])
        ours[slice_at(data, z)] |= frame > 0
    dice = 2 * (ours & reference).sum() / (ours.sum() + reference.sum())
    assert dice >= 0.95


def slice_at(data: Path, z: float) -> int:
    image = sitk.ReadImage(str(data / "chest_tiny_cip" / "wholeLung-64.nrrd"))
    return int(image.TransformPhysicalPointToIndex((*image.GetOrigin()[:2], z))[2])


def test_every_object_says_that_the_model_is_a_demonstration(tiny: Path) -> None:
    for name in ("seg", "measurements", "risk", "summary", "pdf"):
        text = (tiny / f"{name}.dcm").read_bytes().decode("latin-1").upper()
        assert "SYNTHETIC DEMO" in text, name
        assert "RESEARCH USE ONLY" in text, name


def test_the_same_input_gives_the_same_objects(tiny: Path, data: Path, tmp_path: Path) -> None:
    itself = tiny / "findings.json"
    done = dicomnode("analyze", data / "chest_tiny_cip", "--out", tmp_path, "--prior", itself)
    assert done.returncode == 0, done.stderr
    assert "no change reported: none of the --prior files" in " ".join(done.stdout.split())
    for name in ("seg", "measurements", "risk", "summary", "pdf"):
        a, b = (pydicom.dcmread(f / f"{name}.dcm", stop_before_pixels=True) for f in (tiny, tmp_path))
        assert a.SOPInstanceUID == b.SOPInstanceUID
        assert a.SeriesInstanceUID == b.SeriesInstanceUID


def test_feet_first_lungs_are_on_their_sides(data: Path, tmp_path: Path) -> None:
    """LIDC-IDRI-0314 lies feet first and has a raised right hemidiaphragm: the right lung is the shorter one."""
    done = dicomnode("analyze", data / "chest_lidc0314_every4th", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "findings.json").read_text("utf-8"))
    volume = found["lungs"]["volume_ml"]
    assert volume["right"] > 800
    assert volume["left"] > 800
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    middles = {1: [], 2: []}
    for frame, groups in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        x = float(groups.PlanePositionSequence[0].ImagePositionPatient[0])
        columns = np.nonzero(frame)[1]
        spacing = float(seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing[1])
        middles[groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber].append(x + spacing * columns.mean())
    # LPS: x grows towards the patient's left.
    assert np.mean(middles[1]) < np.mean(middles[2]) - 80
    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["Right lung", "Left lung"]


@pytest.mark.parametrize(("kept", "code"), [(slice(28, None), "cut-off-base"), (slice(None, -25), "cut-off-apex")])
def test_lungs_that_are_cut_off_get_no_risk(kept: slice, code: str, data: Path, tmp_path: Path) -> None:
    """The same chest, scanned too short: measured, and so flagged that nobody takes the numbers for whole lungs'."""
    images = [pydicom.dcmread(path) for path in (data / "chest_tiny_cip" / "ct-64Dicom").glob("*.dcm")]
    images.sort(key=lambda d: float(d.ImagePositionPatient[2]))
    (tmp_path / "scan").mkdir()
    for image in images[kept]:
        image.save_as(tmp_path / "scan" / f"{image.SOPInstanceUID}.dcm")
    done = dicomnode("analyze", tmp_path / "scan", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "out").iterdir()} == FILES - {"risk.dcm"}
    found = json.loads((tmp_path / "out" / "findings.json").read_text("utf-8"))
    assert found["risk"] is None
    errors = {f["code"]: f["text"] for f in found["flags"] if f["severity"] == "error"}
    assert set(errors) == {code, "risk-withheld"}
    assert code in errors["risk-withheld"]
    report = pydicom.dcmread(tmp_path / "out" / "measurements.dcm")
    *_, qualities = report.ContentSequence
    items = {i.ConceptNameCodeSequence[0].CodeValue: i for i in qualities.ContentSequence}
    assert items["111065"].ConceptCodeSequence[0].CodeMeaning == "Partially Succeeded"
    assert any(plain(errors[code]) in str(i.get("TextValue", "")) for i in qualities.ContentSequence)


def test_a_refused_run_leaves_nothing_of_an_older_one(tiny: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "out")
    assert dicomnode("analyze", data / "lungmask_2slices", "--out", tmp_path / "out").returncode == 3
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"findings.json"}


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("analyze", "/nowhere/at/all", "--out", "x"), 2, "no such file or folder"),
        (("analyze",), 2, "INPUT"),
        (("serve", "--config", "/nowhere.toml"), 2, "no such file"),
        (("echo", "not-a-peer", "--config", "ae_config.toml"), 2, "AET@HOST:PORT"),
        (("echo", "X@127.0.0.1:1"), 6, "127.0.0.1:1"),
        (("jobs", "list", "--config", "/nowhere.toml"), 2, "no such file"),
    ],
)
def test_wrong_use_gets_a_clear_answer(arguments: tuple[str, ...], status: int, says: str, tmp_path: Path) -> None:
    done = dicomnode(*arguments)
    assert done.returncode == status, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_made_is_wrong_use(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = dicomnode("analyze", data / "lungmask_2slices", "--out", tmp_path / "file")
    assert done.returncode == 2
    assert "cannot create this folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_model_explains_itself_where_it_is_asked_to(data: Path, tmp_path: Path) -> None:
    """On page and PDF and in the findings, not in the structured reports."""
    config = tmp_path / "node.toml"
    config.write_text(
        f'[node]\nae_title = "LUNGNODE"\n[analysis]\nweights = "{ROOT / "weights"}"\nbundle = "demo-synthetic"\n'
        "allow_demo_bundles = true\nradiomics = false\nexplanation = true\n"
    )
    done = dicomnode("analyze", data / "chest_tiny_cip", "--out", tmp_path / "out", "--config", config)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "findings.json").read_text("utf-8"))
    jsonschema.validate(found, findings_schema.build())
    explained = found["risk"]["explanation"]
    assert explained["years"] == 5
    numbers, network = explained["arms"]
    assert numbers["arm"] == "radiomics" and network["arm"] == "resnet18"
    assert numbers["weight"] + network["weight"] == pytest.approx(1, abs=1e-5)
    told = sum(one["added"] for one in numbers["contributions"]) + numbers["others_sum"]
    assert numbers["linear_predictor"] == pytest.approx(told, abs=1e-9)
    for one in numbers["contributions"]:
        _, region, name = one["name"].split(".")
        assert one["value"] == found["quantities"][region][name]
    heights = [one["z_mm"] for one in found["risk"]["slice_relevance"]]
    assert network["heat"]["z_mm"] == heights[network["heat"]["level"] - 1]
    for name in ("measurements", "risk"):
        assert b"weighs" not in (tmp_path / "out" / f"{name}.dcm").read_bytes()
    assert {p.name for p in (tmp_path / "out").iterdir()} == FILES
