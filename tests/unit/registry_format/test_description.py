"""registry.toml: what is written is read again, older forms are read or refused with the cure."""

import tomllib
from pathlib import Path

import pytest

from dicomnode.errors import UsageError
from dicomnode.registry_format.description import holds_lungs_alone, read_description, write_description

#: As the writers of format 1 wrote it.
OLD_NODE = """format = 1
made_by = "node"
created = "2026-03-01T10:11:12+00:00"
software_version = "0.1.0"
algorithm_digest = ["aa", "bb"]
notes = "dates are shifted by patient; ages above 89 are 90; voxels outside the lungs are not kept"
"""
OLD_SYNTHETIC = """format = 1
made_by = "synthetic"
created = 2026-03-01T10:11:12+00:00
software_version = "0.1.0"
algorithm_digest = "aa"
radiomics_spacing_mm = 4
notes = "Phantoms"
request = {patients = 2, seed = 5, radiomics = true, volumes = true}
"""
OLD_CLINIC = """format = 1
made_by = "training"
created = "2026-03-01T10:11:12+00:00"
software_version = "0.1.0"
algorithm_digest = "aa"
notes = "analysed by `training cohort --dicom`; pseudonyms and shifted dates by the key beside this folder"
"""


@pytest.mark.parametrize("made_by", ["node", "training", "synthetic"])
def test_what_is_written_is_read_again(tmp_path: Path, made_by: str) -> None:
    more = {"radiomics_spacing_mm": 4.0, "request": {"patients": 2, "radiomics": True, "name": 'Œ "x"'}}
    write_description(tmp_path, made_by, ["bb", "aa", "bb"], "a\nnote", more)
    about = read_description(tmp_path)
    assert about == tomllib.loads((tmp_path / "registry.toml").read_text())
    assert (about["format"], about["made_by"], about["algorithm_digest"]) == (2, made_by, ["aa", "bb"])
    assert isinstance(about["created"], str)
    assert about["request"] == more["request"]
    assert about["notes"] == "a\nnote"
    assert holds_lungs_alone(about)


@pytest.mark.parametrize(("text", "cut"), [(OLD_NODE, True), (OLD_SYNTHETIC, False)])
def test_an_older_registry_is_read(tmp_path: Path, text: str, cut: bool) -> None:
    (tmp_path / "registry.toml").write_text(text)
    about = read_description(tmp_path)
    assert about["created"] == "2026-03-01T10:11:12+00:00"
    assert holds_lungs_alone(about) == cut


def test_an_older_registry_of_whole_bodies_is_refused_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "registry.toml").write_text(OLD_CLINIC)
    with pytest.raises(UsageError, match="make it anew from the images with `training cohort --dicom`"):
        read_description(tmp_path)
