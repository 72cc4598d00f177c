"""`dicomnode demo`, as a newcomer runs it."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pydicom

from tests.conftest import ROOT
from tests.helpers.running import Orthanc, dicomnode


def test_the_whole_way_on_a_synthetic_study(tmp_path: Path) -> None:
    out = tmp_path / "demo-out"
    done = dicomnode("demo", "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    held = [pydicom.dcmread(p, stop_before_pixels=True) for p in (out / "pacs").glob("*.dcm")]
    assert Counter(o.Modality for o in held) == {"SEG": 1, "SR": 2, "OT": 1}
    assert {str(o.PatientID) for o in held} == {"DEMO-1"}
    found = json.loads((out / "findings.json").read_text("utf-8"))
    assert found["status"] == "analysed"
    assert found["series"]["slices"] == 200
    assert found["risk"]["intended_use"] == "synthetic-demo"
    assert {r["reasons"][0]["code"] for r in found["rejected"]} >= {"localizer"}
    assert (out / "overlay.png").read_bytes().startswith(b"\x89PNG")
    for part in (
        "chosen",
        "localizer",
        "not-chest",
        "volume, ml",
        "5 years",
        "SYNTHETIC DEMO",
        "all expected objects",
    ):
        assert part in done.stdout, part


def test_given_input_goes_to_a_real_pacs_under_the_system_call_filter_of_the_unit(
    data: Path, orthanc: Orthanc, peer: Callable[[str, str], str], tmp_path: Path
) -> None:
    peer("systemd-analyze", "systemd")
    pacs = f"{orthanc.ae_title}@127.0.0.1:{orthanc.port}"
    source = data / "chest_tiny_cip" / "ct-64Dicom"
    unit = ROOT / "deploy" / "dicomnode.service"
    done = dicomnode("demo", "--out", tmp_path / "out", "--input", source, "--pacs", pacs, under=unit)
    assert done.returncode == 0, done.stdout + done.stderr
    study_uid = pydicom.dcmread(next(source.glob("*.dcm")), stop_before_pixels=True).StudyInstanceUID
    assert len(orthanc.study(study_uid)) == 4
    assert not list((tmp_path / "out" / "pacs").iterdir())


def test_nothing_to_analyse_is_exit_status_3(data: Path, tmp_path: Path) -> None:
    done = dicomnode("demo", "--out", tmp_path / "out", "--input", data / "seg_sr_examples" / "ct-3slice")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "too-few-slices" in done.stdout


def test_a_wrong_peer_is_wrong_use(tmp_path: Path) -> None:
    done = dicomnode("demo", "--out", tmp_path, "--pacs", "nowhere")
    assert done.returncode == 2
    assert "AET@HOST:PORT" in done.stderr


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    """It may be a node's own, with its configuration and its spool."""
    (tmp_path / "var" / "spool").mkdir(parents=True)
    (tmp_path / "ae_config.toml").write_text("[node]\n")
    done = dicomnode("demo", "--out", tmp_path)
    assert done.returncode == 2
    assert "not empty and not from a demo" in done.stderr
    assert (tmp_path / "var" / "spool").is_dir()
    assert (tmp_path / "ae_config.toml").read_text() == "[node]\n"


def test_input_that_would_be_cleared_is_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "demo-out" / "study").mkdir(parents=True)
    done = dicomnode("demo", "--out", tmp_path / "demo-out", "--input", tmp_path / "demo-out" / "study")
    assert done.returncode == 2
    assert "give another folder for --out" in done.stderr
    assert (tmp_path / "demo-out" / "study").is_dir()


def test_input_without_any_file_is_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = dicomnode("demo", "--out", tmp_path / "out", "--input", tmp_path / "empty")
    assert done.returncode == 2
    assert "no DICOM files to send" in done.stderr
