"""The demo's input is what a scanner would send, and the same each time."""

from pathlib import Path

import pydicom
import pytest

from dicomnode.analysis.series.selection import find_files, group, read_headers, select, studies
from dicomnode.demo import study


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    study.write(folder)
    return folder


def test_the_axial_series_is_chosen_and_the_others_are_not(folder: Path) -> None:
    headers, unreadable = read_headers(find_files(folder))
    assert unreadable == []
    by_patient = {str(s[0].headers[0].dataset.PatientID): s for s in studies(group(headers)).values()}
    assert set(by_patient) == {"DEMO-1", "DEMO-2"}
    selection = select(by_patient["DEMO-1"])
    assert selection.chosen is not None
    assert len(selection.chosen.headers) == 200
    codes = [{r.code for r in s.reasons} for s in selection.rejected]
    assert any("localizer" in c for c in codes)
    assert any("not-axial" in c for c in codes)
    assert "not-chest" in {r.code for s in select(by_patient["DEMO-2"]).rejected for r in s.reasons}


def test_uids_are_unique_and_the_same_each_time(folder: Path) -> None:
    images = [pydicom.dcmread(p, stop_before_pixels=True) for p in find_files(folder)]
    uids = {i.SOPInstanceUID for i in images}
    assert len(uids) == len(images)
    # One image named here, so that a change of the derivation is seen: a PACS would then hold the demo twice.
    localizer = next(i for i in images if "LOCALIZER" in i.ImageType)
    assert localizer.SOPInstanceUID == "2.25.129712514605455622572484501906757382429"
