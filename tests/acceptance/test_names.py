"""Patient names in other scripts come back from the PACS byte for byte."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import generate_uid

from tests.helpers.running import Node, Orthanc, storescu_process

FILES = [
    "chrArab", "chrFren", "chrGerm", "chrGreek", "chrH31", "chrH32", "chrHbrw", "chrI2", "chrRuss", "chrX1", "chrX2",
    "chrJapMulti", "chrJapMultiExplicitIR6", "chrKoreanMulti",
]  # fmt: skip
NAME = Tag(tag_for_keyword("PatientName") or 0)


def raw(dataset: pydicom.Dataset, tag: Tag) -> bytes:
    element = dataset.get_item(tag)
    assert isinstance(element, RawDataElement)
    return element.value or b""


def renamed(source: Path, named: pydicom.Dataset, folder: Path) -> tuple[str, bytes]:
    """The series in `source` with another patient's name and character set, as bytes; its study UID and the name."""
    folder.mkdir()
    name = raw(named, NAME)
    study, series = generate_uid(), generate_uid()
    for i, path in enumerate(sorted(source.glob("*.dcm"))):
        ds = pydicom.dcmread(path)
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = study, series, generate_uid()
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.SpecificCharacterSet = named.SpecificCharacterSet
        # pydicom would encode a name anew: it writes a placeholder of the same length, which gives way to the bytes.
        ds.PatientName = "Q" * len(name)
        written = io.BytesIO()
        ds.save_as(written)
        assert written.getvalue().count(b"Q" * len(name)) == 1
        (folder / f"{i:03d}.dcm").write_bytes(written.getvalue().replace(b"Q" * len(name), name))
    return study, name


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, orthanc: Orthanc) -> Iterator[Node]:
    """Radiomics and risks change nothing about names, and take most of an analysis."""
    running = Node(tmp_path_factory.mktemp("names-node"), orthanc.destination(), "radiomics = false", bundle="").start()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def sent(
    data: Path, node: Node, tmp_path_factory: pytest.TempPathFactory, peer: Callable[[str, str], str]
) -> dict[str, tuple[str, bytes]]:
    """All studies, sent one after the other: study UID and the name's bytes by file."""
    studies = {}
    for name in FILES:
        named = pydicom.dcmread(data / "odd_pydicom" / "charset_files" / f"{name}.dcm", stop_before_pixels=True)
        folder = tmp_path_factory.mktemp("names") / name
        studies[name] = renamed(data / "chest_tiny_cip" / "ct-64Dicom", named, folder)
        done = storescu_process(peer("storescu", "dcmtk"), node.port, folder)
        assert done.returncode == 0, done.stderr
    return studies


@pytest.mark.parametrize("name", FILES)
def test_name_comes_back_byte_for_byte(
    name: str, sent: dict[str, tuple[str, bytes]], node: Node, orthanc: Orthanc, tmp_path: Path
) -> None:
    study_uid, patient = sent[name]
    assert node.ended(study_uid) == "delivered"
    results = orthanc.study(study_uid)
    assert len(results) == 3
    for i, content in enumerate(results):
        path = tmp_path / f"{i}.dcm"
        path.write_bytes(content)
        # DICOM pads a value to an even length with a space (PS3.5 6.2); the name itself is what counts.
        assert raw(pydicom.dcmread(path, stop_before_pixels=True), NAME).rstrip(b" ") == patient.rstrip(b" ")
    assert patient.strip().isascii() or patient.decode("latin-1") not in node.log()
