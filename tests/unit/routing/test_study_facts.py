"""A study as rules see it, read from files: values of all images, character sets, multi-frame, damage."""

import json
from pathlib import Path

import pytest
from pydicom import Dataset
from typer.testing import CliRunner

from dicomnode.cli import app
from dicomnode.routing.rules import ANALYSE, Condition, Rule, RuleSet
from dicomnode.routing.study_facts import facts, keywords
from tests.helpers.ct_files import ct_series, enhanced, write

WANTED = ("Modality", "ImageType", "StudyDescription", "SliceThickness", "PatientAge", "Rows", "StationName")


def test_values_of_all_images_of_each_series(tmp_path: Path) -> None:
    thin = ct_series(StudyInstanceUID="1.2.3", SliceThickness="1.25", StationName="CT3")[:3]
    thin[1].StationName = "CT4"
    thick = ct_series(StudyInstanceUID="1.2.3", SliceThickness="5")[:2]
    found = facts("1.2.3", write([*thin, *thick], tmp_path), [("A", "N"), ("A", "N")], WANTED)
    assert found.callers == (("A", "N"),)
    by_thickness = {s.values["SliceThickness"]: s for s in found.series}
    assert set(by_thickness) == {("1.25",), ("5",)}
    series = by_thickness["1.25",]
    assert (series.series_uid, series.images) == (thin[0].SeriesInstanceUID, 3)
    assert series.values["StationName"] == ("CT3", "CT4")
    assert series.values["ImageType"] == ("ORIGINAL", "PRIMARY", "AXIAL")
    assert series.values["Rows"] == ("4",)
    assert series.values["PatientAge"] == ()


def test_text_in_its_character_set(tmp_path: Path) -> None:
    (image,) = ct_series()[:1]
    image.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    image.StudyDescription = "胸部CT"
    found = facts("1", write([image], tmp_path), [], WANTED)
    assert found.series[0].values["StudyDescription"] == ("胸部CT",)


def test_an_enhanced_image_shows_what_its_frames_have(tmp_path: Path) -> None:
    image = enhanced(ct_series()[:5])
    found = facts("1", write([image], tmp_path), [], WANTED)
    assert found.series[0].values["SliceThickness"] == ("5.0",)
    assert found.series[0].values["Modality"] == ("CT",)


@pytest.mark.parametrize(("written", "read"), [(b"x.0 ", ()), (b"5,0 ", ("5.0",))])
def test_damaged_values_and_files_stop_nothing(written: bytes, read: tuple[str, ...], tmp_path: Path) -> None:
    (image,) = ct_series()[:1]
    paths = write([image], tmp_path)
    content = paths[0].read_bytes()
    paths[0].write_bytes(content.replace(b"DS\x04\x005.0 ", b"DS\x04\x00" + written))
    (tmp_path / "note.txt").write_text("no image")
    found = facts("1", [*paths, tmp_path / "note.txt", tmp_path / "gone.dcm"], [], WANTED)
    assert [s.images for s in found.series] == [1]
    assert found.series[0].values["SliceThickness"] == read


def test_no_file_is_opened_for_rules_on_ae_titles(tmp_path: Path) -> None:
    assert facts("1", [tmp_path / "gone.dcm"], [("A", "N")], ()).series == ()


def test_only_what_rules_ask_for_is_read() -> None:
    conditions = (Condition("Modality", one_of=("CT",)), Condition("PatientAge", at_least=18))
    assert keywords(RuleSet((Rule("a", ANALYSE, conditions=conditions),))) == {"Modality", "PatientAge"}


CONFIG = """
[node]
ae_title = "NODE"
[routing]
ae_titles = ["ILD"]
[[destination]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = 9
[[route]]
name = "thin chest CT"
called_ae = ["ILD"]
when = [{ keyword = "Modality", equals = "CT" }, { keyword = "SliceThickness", at_most = 1.5, series = "any" }]
analyse = "default"
results_to = ["pacs"]
priority = "stat"
[[route]]
name = "others"
forward_to = ["pacs"]
"""


@pytest.fixture
def site(tmp_path: Path) -> tuple[Path, Path, list[Dataset]]:
    (tmp_path / "ae_config.toml").write_text(CONFIG)
    images = ct_series(SliceThickness="1.25")[:3]
    write(images, tmp_path / "study")
    return tmp_path / "study", tmp_path / "ae_config.toml", images


def test_routes_test_says_which_rule_and_why(site: tuple[Path, Path, list[Dataset]]) -> None:
    folder, config, images = site
    done = CliRunner().invoke(app, ["routes", "test", str(folder), "-c", str(config), "--called", "ILD"])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert str(images[0].StudyInstanceUID) in said
    assert "matched by thin chest CT: analysed with 'default' (stat), results to pacs" in said
    assert "yes: in one series: SliceThickness is at most 1.5 (found: 1.25)" in said
    assert "matches, but an earlier rule applies" in said


def test_routes_test_for_scripts(site: tuple[Path, Path, list[Dataset]]) -> None:
    folder, config, _ = site
    done = CliRunner().invoke(app, ["routes", "test", str(folder), "-c", str(config), "--json"])
    (row,) = json.loads(done.output)
    assert row["taken_by"] == ["others"]
    assert row["action"]["forward_to"] == ["pacs"]
    first, second = row["verdicts"]
    assert first["checks"][0] == {"text": "called AE is ILD", "held": False, "seen": ["NODE"]}
    assert (second["matched"], second["checks"]) == (True, [])


def test_routes_test_under_a_title_that_is_not_ours(site: tuple[Path, Path, list[Dataset]]) -> None:
    done = CliRunner().invoke(app, ["routes", "test", str(site[0]), "-c", str(site[1]), "--called", "NOBODY"])
    assert "--called NOBODY" in str(done.exception)
    assert "ILD" in str(done.exception)


def test_routes_test_of_nothing(site: tuple[Path, Path, list[Dataset]], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = CliRunner().invoke(app, ["routes", "test", str(tmp_path / "empty"), "-c", str(site[1])])
    assert "no readable DICOM file" in str(done.exception)
