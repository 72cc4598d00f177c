"""Query/Retrieve by DCMTK's findscu, movescu and getscu, on a receiving process as `serve` starts it."""

import subprocess
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian

from dicomnode.store.results_folder import results_folder
from tests.helpers.ct_files import ct_series, write
from tests.helpers.ports import free_port
from tests.helpers.receiving import Receiving
from tests.helpers.waiting import until

Peer = Callable[[str, str], str]
ANNA, BERTA = "Änne^Müller", "Yamada^Tarou=山田^太郎=やまだ^たろう"


@dataclass(frozen=True)
class Archive:
    """A receiving process with two patients' studies; the first has a result."""

    node: Receiving
    images: dict[str, list[Dataset]]
    result: Path
    move_port: int

    @property
    def address(self) -> list[str]:
        return ["-aec", "NODE", "127.0.0.1", str(self.node.port)]

    def study(self, name: str) -> str:
        return str(self.images[name][0].StudyInstanceUID)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, peer: Peer) -> Iterator[Archive]:
    folder, move_port = tmp_path_factory.mktemp("archive"), free_port()
    callers = "".join(
        f'[[node.callers]]\nae_title = "{name}"\naddress = "127.0.0.1"\n{more}\n'
        for name, more in (
            ("READER", f'query = true\nmove_to = "127.0.0.1:{move_port}"'),
            ("NOWHERE", "query = true"),
            ("STORESCU", ""),
        )
    )
    node = Receiving(folder / "node", node=callers)
    try:
        yield filled(node, folder, move_port, peer("storescu", "dcmtk"))
    finally:
        node.stop()


def filled(node: Receiving, folder: Path, move_port: int, storescu: str) -> Archive:
    images = {
        "anna": series(ANNA, "ID-1", "20240110", "A1"),
        "berta": series(BERTA, "ID-2", "20250301", "A2"),
    }
    for name, one in images.items():
        write(one, folder / name)
        command = [storescu, "+sd", "-aec", "NODE", "127.0.0.1", str(node.port), folder / name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
    study_uid = str(images["anna"][0].StudyInstanceUID)
    result = results_folder(node.config.storage.results, study_uid, 1) / "measurements.dcm"
    write([report(images["anna"][0])], result.parent)[0].rename(result)
    catalog = node.catalog()
    catalog.settle(study_uid, 1.0, None)
    catalog.set_state(study_uid, 1, "delivered", now=2.0)
    catalog.close()
    return Archive(node, images, result, move_port)


def series(name: str, patient_id: str, date: str, accession: str) -> list[Dataset]:
    return ct_series(
        SpecificCharacterSet="ISO_IR 192",
        PatientName=name,
        PatientID=patient_id,
        StudyDate=date,
        StudyTime="101500",
        AccessionNumber=accession,
        StudyID="1",
        SeriesNumber=2,
    )[:5]


def report(image: Dataset) -> Dataset:
    """A result of the image's study."""
    made = Dataset()
    for element in image:
        if element.tag.group in (8, 0x10, 0x20):
            made[element.tag] = deepcopy(element)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = Comprehensive3DSRStorage, "1.2.826.0.1.1"
    made.SeriesInstanceUID, made.Modality, made.SeriesNumber = "1.2.826.0.1", "SR", 9002
    return made


def find(archive: Archive, peer: Peer, folder: Path, root: str, *keys: str) -> list[Dataset]:
    """What findscu writes as its answers."""
    options = [x for key in keys for x in ("-k", key)]
    command = [peer("findscu", "dcmtk"), f"-{root}", "-aet", "READER", "-X", "-od", folder, *options, *archive.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return [pydicom.dcmread(path, force=True) for path in sorted(folder.glob("rsp*.dcm"))]


@pytest.mark.parametrize(
    ("root", "keys", "names"),
    [
        ("S", ["PatientName"], {"anna", "berta"}),
        ("S", ["PatientName=yamada*"], {"berta"}),
        ("S", ["PatientID=ID-1"], {"anna"}),
        ("S", ["PatientID=ID-?"], {"anna", "berta"}),
        ("S", ["PatientID=id-1"], set()),
        ("S", ["StudyDate=20240101-20241231"], {"anna"}),
        ("S", ["StudyDate=20250301-"], {"berta"}),
        ("S", ["StudyDate=-20250301"], {"anna", "berta"}),
        ("S", ["StudyTime=1000-1030"], {"anna", "berta"}),
        ("S", ["AccessionNumber=A2"], {"berta"}),
        ("S", ["ModalitiesInStudy=SR"], {"anna"}),
        ("P", ["PatientID=ID-2", "StudyDate"], {"berta"}),
    ],
)
def test_findscu_finds_studies(
    archive: Archive, peer: Peer, tmp_path: Path, root: str, keys: list[str], names: set[str]
) -> None:
    found = find(archive, peer, tmp_path, root, "QueryRetrieveLevel=STUDY", "StudyInstanceUID", *keys)
    assert {str(one.StudyInstanceUID) for one in found} == {archive.study(name) for name in names}


def test_findscu_gets_the_values_in_their_characters(archive: Archive, peer: Peer, tmp_path: Path) -> None:
    keys = ["PatientName", "PatientBirthDate", "NumberOfStudyRelatedInstances", "ModalitiesInStudy", "AccessionNumber"]
    (only,) = find(
        archive, peer, tmp_path, "S", "QueryRetrieveLevel=STUDY", f"StudyInstanceUID={archive.study('anna')}", *keys
    )
    assert str(only.PatientName) == ANNA
    assert (only.NumberOfStudyRelatedInstances, list(only.ModalitiesInStudy)) == (6, ["CT", "SR"])
    assert (only.PatientBirthDate, only.AccessionNumber, only.RetrieveAETitle) == ("", "A1", "NODE")


def test_findscu_finds_patients_series_and_images(archive: Archive, peer: Peer, tmp_path: Path) -> None:
    study = f"StudyInstanceUID={archive.study('anna')}"
    for folder in ("patients", "series", "images"):
        (tmp_path / folder).mkdir()
    patients = find(archive, peer, tmp_path / "patients", "P", "QueryRetrieveLevel=PATIENT", "PatientID", "PatientName")
    assert {(one.PatientID, str(one.PatientName)) for one in patients} == {("ID-1", ANNA), ("ID-2", BERTA)}
    keys = ["SeriesInstanceUID", "Modality", "NumberOfSeriesRelatedInstances"]
    found = find(archive, peer, tmp_path / "series", "S", "QueryRetrieveLevel=SERIES", study, *keys)
    assert {(one.Modality, one.NumberOfSeriesRelatedInstances) for one in found} == {("CT", 5), ("SR", 1)}
    series_uid = f"SeriesInstanceUID={archive.images['anna'][0].SeriesInstanceUID}"
    keys = [series_uid, "SOPInstanceUID", "InstanceNumber"]
    images = find(archive, peer, tmp_path / "images", "S", "QueryRetrieveLevel=IMAGE", study, *keys)
    assert {(one.SOPInstanceUID, one.InstanceNumber) for one in images} == {
        (one.SOPInstanceUID, one.InstanceNumber) for one in archive.images["anna"]
    }


@pytest.mark.parametrize(
    ("root", "keys"),
    [
        ("S", ["QueryRetrieveLevel=SERIES", "SeriesInstanceUID"]),
        ("S", ["QueryRetrieveLevel=PATIENT", "PatientID"]),
        ("P", ["QueryRetrieveLevel=STUDY", "StudyInstanceUID"]),
        ("S", ["StudyInstanceUID"]),
    ],
)
def test_an_identifier_that_does_not_fit_is_refused(archive: Archive, peer: Peer, root: str, keys: list[str]) -> None:
    options = [x for key in keys for x in ("-k", key)]
    command = [peer("findscu", "dcmtk"), "-v", f"-{root}", "-aet", "READER", *options, *archive.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert "DataSetDoesNotMatchSOPClass" in done.stderr, done.stderr  # 0xA900


def test_getscu_gets_images_and_results_as_they_are(archive: Archive, peer: Peer, tmp_path: Path) -> None:
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={archive.study('anna')}"]
    # getscu proposes the common storage classes; SR among them, and accepts what comes.
    command = [peer("getscu", "dcmtk"), "-S", "-aet", "READER", "-od", tmp_path, *keys, *archive.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    got = {one.SOPInstanceUID: one for one in (pydicom.dcmread(path) for path in tmp_path.iterdir())}
    expected = [*archive.images["anna"], pydicom.dcmread(archive.result)]
    assert set(got) == {one.SOPInstanceUID for one in expected}
    for one in expected:
        assert got[one.SOPInstanceUID] == one


def test_getscu_gets_one_image(archive: Archive, peer: Peer, tmp_path: Path) -> None:
    image = archive.images["berta"][3]
    keys = {
        "QueryRetrieveLevel": "IMAGE",
        "PatientID": "ID-2",
        "StudyInstanceUID": image.StudyInstanceUID,
        "SeriesInstanceUID": image.SeriesInstanceUID,
        "SOPInstanceUID": image.SOPInstanceUID,
    }
    options = [x for key, value in keys.items() for x in ("-k", f"{key}={value}")]
    command = [peer("getscu", "dcmtk"), "-P", "-aet", "READER", "-od", tmp_path, *options, *archive.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.iterdir()
    assert pydicom.dcmread(path) == image


def test_movescu_has_a_study_sent_to_a_configured_address(archive: Archive, peer: Peer, tmp_path: Path) -> None:
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={archive.study('anna')}"]
    command = [
        *(peer("movescu", "dcmtk"), "-S", "-aet", "READER", "-aem", "READER", "--port", str(archive.move_port)),
        *("-od", tmp_path, *keys, *archive.address),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    got = [pydicom.dcmread(path) for path in tmp_path.iterdir()]
    expected = {one.SOPInstanceUID for one in archive.images["anna"]} | {"1.2.826.0.1.1"}
    assert {one.SOPInstanceUID for one in got} == expected
    assert "C-MOVE, 6 objects" in until("the log", archive.node.log)


@pytest.mark.parametrize("destination", ["STRANGER", "NOWHERE"])
def test_movescu_to_an_unknown_address_is_refused(
    archive: Archive, peer: Peer, tmp_path: Path, destination: str
) -> None:
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={archive.study('anna')}"]
    command = [peer("movescu", "dcmtk"), "-v", "-S", "-aet", "READER", "-aem", destination, *keys, *archive.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode != 0
    assert "MoveDestinationUnknown" in done.stderr, done.stderr


@pytest.mark.parametrize("program", ["findscu", "movescu", "getscu"])
@pytest.mark.parametrize("calling", ["STORESCU", "STRANGER"])
def test_a_foreign_caller_is_refused(archive: Archive, peer: Peer, tmp_path: Path, program: str, calling: str) -> None:
    """One that may send and not query, and one that is not known at all."""
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={archive.study('anna')}"]
    command = [peer(program, "dcmtk"), "-S", "-aet", calling, *keys, *archive.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, cwd=tmp_path)
    assert done.returncode != 0
    # What each of the programs says of a rejected association, and of contexts that were not accepted.
    known = ("No Acceptable Presentation Contexts", "No adequate Presentation Contexts")
    unknown = ("Calling AE Title Not Recognized", "DUL Association Rejected")
    assert any(words in done.stderr for words in (known if calling == "STORESCU" else unknown)), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_held_study_and_one_without_files_are_not_found(archive: Archive, peer: Peer, tmp_path: Path) -> None:
    catalog = archive.node.catalog()
    catalog.settle(archive.study("berta"), 5.0, "two-patients")
    try:
        found = find(archive, peer, tmp_path, "S", "QueryRetrieveLevel=STUDY", "StudyInstanceUID")
        assert [str(one.StudyInstanceUID) for one in found] == [archive.study("anna")]
    finally:
        catalog.set_state(archive.study("berta"), 1, "refused", now=6.0)
        catalog.close()


def test_no_patient_data_in_the_log(archive: Archive) -> None:
    log = archive.node.log()
    assert "C-FIND" in log
    assert not any(secret in log for secret in ("Änne", "Müller", "Yamada", "ID-1", "ID-2"))
