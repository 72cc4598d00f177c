"""A node's state with studies in it, and programs that ask its DICOMweb without a server."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from dbos import run_dbos_database_migrations
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    ComprehensiveSRStorage,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SegmentationStorage,
)

from dicomnode import config
from dicomnode.config import Config
from dicomnode.console.application import application
from dicomnode.console.site import ConsoleSite
from dicomnode.operations import web_tokens
from dicomnode.reception.spooled import read_instance, split
from dicomnode.service.labelling import read_label
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.labels import Unlabelled
from dicomnode.store.results_folder import report_file, results_folder
from dicomnode.store.spool import Spool
from tests.helpers.ct_files import ct_series
from tests.unit.console.conftest import client

_NUMBERS = itertools.count()
WRITTEN = """
[node]
port = 1
[storage]
minimum_free_gb = 0.001
[audit]
to = "file"
[console]
enabled = true
dicomweb = true
"""


@dataclass
class Filled:
    """A node, the data sets that it holds by study, and its console."""

    config: Config
    catalog: Catalog
    spool: Spool
    site: ConsoleSite
    studies: dict[str, list[Dataset]] = field(default_factory=dict)

    def receive(self, datasets: list[Dataset], at: float, folder: Path) -> str:
        """As a receiver does; returns the study."""
        for dataset in datasets:
            path = folder / f"{dataset.SOPInstanceUID}.dcm"
            dataset.save_as(path, enforce_file_format=True)
            meta, content = split(path.read_bytes())
            names = (dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID)
            stored = self.spool.store(*map(str, names), meta, content)
            facts = vars(read_instance(stored.path)) | {"received_at": at}
            facts["patient_hash"] = self.catalog.patient_key.keyed(facts["patient_hash"])
            assert self.catalog.record(type(read_instance(stored.path))(**facts)) == "new"
        study_uid = str(datasets[0].StudyInstanceUID)
        self.studies[study_uid] = datasets
        return study_uid

    def settle(self, study_uid: str, at: float, held: str | None = None) -> None:
        generation = self.catalog.settle(study_uid, at, held).generation
        path = self.catalog.sample(study_uid)
        assert path is not None
        self.catalog.note_label(Unlabelled(study_uid, generation, at, path), read_label(Path(path)))

    def add_results(self, study_uid: str, at: float) -> list[Dataset]:
        """Lay a segmentation, a report and a document beside a study, as an analysis does."""
        folder = results_folder(self.config.storage.results, study_uid, 1)
        folder.mkdir(parents=True)
        made = [segmentation(study_uid), report(study_uid), document(study_uid)]
        for name, dataset in zip(("seg", "measurements", "pdf"), made, strict=True):
            dataset.save_as(report_file(folder, name), enforce_file_format=True)
        self.catalog.set_state(study_uid, 1, "analysed", None, now=at)
        return made


def base(study_uid: str, sop_class: str, modality: str, number: int) -> Dataset:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = sop_class, f"1.2.826.9.{number}"
    made.StudyInstanceUID, made.SeriesInstanceUID = study_uid, f"1.2.826.8.{number}"
    made.Modality, made.PatientID, made.PatientName, made.SeriesNumber = modality, "P-1", "Ärmel^Änne", 90 + number
    made.InstanceNumber = 1
    return made


def segmentation(study_uid: str) -> Dataset:
    made = base(study_uid, SegmentationStorage, "SEG", 1)
    made.Rows, made.Columns, made.NumberOfFrames, made.SamplesPerPixel = 4, 6, 3, 1
    made.BitsAllocated = made.BitsStored = 1
    made.HighBit = made.PixelRepresentation = 0
    made.PhotometricInterpretation = "MONOCHROME2"
    made.PixelData = np.packbits(bits().ravel(), bitorder="little").tobytes() + b"\0"
    made["PixelData"].VR = "OB"
    return made


def bits() -> Any:
    return (np.arange(3 * 24).reshape(3, 4, 6) % 5 == 0).astype(np.uint8)


def report(study_uid: str) -> Dataset:
    made = base(study_uid, ComprehensiveSRStorage, "SR", 2)
    made.ConceptNameCodeSequence = [code("Imaging <Report>")]
    number, container = Dataset(), Dataset()
    number.RelationshipType, number.ValueType, number.ConceptNameCodeSequence = "CONTAINS", "NUM", [code("Volume")]
    value = Dataset()
    value.NumericValue, value.MeasurementUnitsCodeSequence = "4711", [code("millilitre", "ml")]
    number.MeasuredValueSequence = [value]
    container.ValueType, container.ConceptNameCodeSequence, container.ContentSequence = (
        "CONTAINER",
        [code("Lungs")],
        [number],
    )
    made.ValueType, made.ContentSequence = "CONTAINER", [container]
    return made


def code(meaning: str, value: str = "1") -> Dataset:
    made = Dataset()
    made.CodeValue, made.CodingSchemeDesignator, made.CodeMeaning = value, "99T", meaning
    return made


def document(study_uid: str) -> Dataset:
    made = base(study_uid, EncapsulatedPDFStorage, "DOC", 3)
    made.MIMETypeOfEncapsulatedDocument, made.EncapsulatedDocument = "application/pdf", b"%PDF-1.7 " + b"x" * 2001
    return made


def chest(patient: str, name: str, date: str, accession: str, slices: int = 3) -> list[Dataset]:
    frames = np.random.default_rng(len(name)).integers(0, 2048, (slices, 8, 6)).astype(np.int16)
    given: dict[str, object] = {
        "SpecificCharacterSet": "ISO_IR 192", "PatientID": patient, "PatientName": name, "StudyDate": date,
        "StudyTime": "101500", "AccessionNumber": accession, "StudyDescription": "CT Thorax", "SeriesNumber": 2,
        "SeriesDescription": "Lung", "StudyID": "S1",
    }  # fmt: skip
    return ct_series(frames, **given)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """Two studies, the older with results; one that is held; one that is still arriving."""
    folder = tmp_path_factory.mktemp("dicomweb")
    (folder / "ae_config.toml").write_text(WRITTEN)
    made = config.load(folder / "ae_config.toml")
    made.storage.state.mkdir(parents=True)
    made.storage.results.mkdir(parents=True)
    catalog = Catalog.open(made.catalog_url, made.storage.state)
    run_dbos_database_migrations(made.queue_url)
    node = Filled(made, catalog, Spool(made.storage.spool), ConsoleSite(made))
    first = node.receive(chest("P-1", "Ärmel^Änne", "20260102", "A-1"), 100.0, folder)
    node.settle(first, 110.0)
    node.add_results(first, 120.0)
    implicit = chest("P-2", "Bolt^Ben", "20260203", "A-2", slices=2)
    for dataset in implicit:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    node.settle(node.receive(implicit, 200.0, folder), 210.0)
    node.settle(node.receive(chest("P-3", "Doubt^Dora", "20260204", "A-3"), 300.0, folder), 310.0, held="two patients")
    node.receive(chest("P-1", "Ärmel^Änne", "20260305", "A-4", slices=1), 400.0, folder)
    yield node
    node.site.close()
    catalog.close()


@pytest.fixture(scope="module")
def app(filled: Filled) -> Any:
    return application(filled.site)


@pytest.fixture
def program(filled: Filled, app: Any) -> Iterator[Callable[..., httpx.Client]]:
    """A program with a token of its own."""
    opened: list[httpx.Client] = []
    names: list[str] = []

    def make(role: str = "reader", store_as: str = "") -> httpx.Client:
        names.append(f"program-{next(_NUMBERS)}")
        token = web_tokens.add(filled.config, names[-1], role, store_as, 1.0)
        opened.append(client(app))
        opened[-1].headers["Authorization"] = f"Bearer {token}"
        return opened[-1]

    yield make
    for one in opened:
        one.close()
    for name in names:
        filled.catalog.remove_console_token(name)


@pytest.fixture
def web(program: Callable[..., httpx.Client]) -> httpx.Client:
    return program()


@pytest.fixture
def study(filled: Filled) -> str:
    """The one with results."""
    return next(iter(filled.studies))


def parts(answer: httpx.Response) -> list[tuple[str, bytes]]:
    """(Content-Type, content) of each part."""
    boundary = answer.headers["content-type"].rpartition("boundary=")[2].strip('"').encode()
    pieces = (b"\r\n" + answer.content).split(b"\r\n--" + boundary)
    assert pieces[0] == b"" and pieces[-1].strip() == b"--"
    found = []
    for piece in pieces[1:-1]:
        head, _, content = piece.partition(b"\r\n\r\n")
        found.append((head.decode().strip().removeprefix("Content-Type: "), content))
    return found


def read(content: bytes) -> Dataset:
    from io import BytesIO

    return dcmread(BytesIO(content))
