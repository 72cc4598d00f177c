"""A real PACS lists more images than have come: the job and every report say how many, until they are here."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pypdf
import pytest
from pydicom.dataset import Dataset

from dicomnode.analysis.findings import Findings
from dicomnode.network import association
from dicomnode.operations import corrections, jobs
from dicomnode.service import pacs_count
from dicomnode.store.results_folder import FINDINGS, results_folder
from tests.faults.station import Station, running
from tests.faults.studies import make_study, study_uid
from tests.helpers.corrections import said
from tests.helpers.running import Orthanc

UID = study_uid("a")
LACKING = 4
PATIENCE = 240.0  # on a busy machine
WORDS = "The PACS lists 40 images, 36 arrived: 4 missing."


@pytest.fixture
def orthanc(tmp_path_factory: pytest.TempPathFactory, peer: Callable[[str, str], str]) -> Iterator[Orthanc]:
    made = Orthanc(tmp_path_factory.mktemp("orthanc"), peer("Orthanc", "orthanc"))
    yield made
    made.stop()


@pytest.fixture
def station(tmp_path: Path, orthanc: Orthanc) -> Iterator[Station]:
    table = orthanc.destination('objects = ["seg", "measurements", "summary", "pdf"]\n')
    made = Station(tmp_path / "node", table, quiet_s=3600, settle='count_at = "pacs"\ncount_wait_s = 1')
    with running(made):
        yield made


def test_missing_images_are_told_everywhere_and_until_they_come(
    data: Path, tmp_path: Path, orthanc: Orthanc, station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacs_count, "WITHIN_S", 2.0)  # so long it waits for an answer at least
    files = make_study(data / "chest_tiny_cip" / "ct-64Dicom", tmp_path / "study", "a", every=2)
    association.send(association.Peer("pacs", orthanc.ae_title, "127.0.0.1", orthanc.port, "SCANNER"), files)
    station.start_worker()

    def told(generation: int) -> tuple[str | None, list[str]]:
        """The reason of the job once it has ended, and the findings' words on missing images."""
        station.ended(UID, generation, "delivered", seconds=PATIENCE)
        job = station.catalog.job(UID, generation)
        assert job is not None
        folder = results_folder(station.config.storage.results, UID, generation)
        found = Findings.from_json((folder / FINDINGS).read_text("utf-8"))
        return job.reason, [flag.text for flag in found.flags if flag.code == "images-missing"]

    station.send(files[:-LACKING])  # a contiguous part: no position tells that there is more
    assert station.settle(UID) == 1
    assert told(1) == (WORDS, [WORDS])
    held = [pydicom.dcmread(io.BytesIO(one)) for one in orthanc.study(UID)]
    (report,) = [one for one in held if one.Modality == "SR"]
    assert WORDS in said(report)
    (pdf,) = [one for one in held if "EncapsulatedDocument" in one]
    assert "4 missing" in " ".join(_text(pdf).split())

    jobs.retry(station.config, UID, None)  # the same images once more
    assert told(2) == (WORDS, [WORDS])

    station.send(files[-LACKING:])
    assert station.settle(UID) == 3
    assert told(3) == (None, [])

    # What was taken out here is not missing, although the PACS lists it for good.
    uid = str(pydicom.dcmread(files[0]).SOPInstanceUID)
    corrections.drop(station.config, UID, uid, "quality", dry_run=False)
    assert station.settle(UID) == 4
    assert told(4) == (None, [])


def _text(pdf: Dataset) -> str:
    reader = pypdf.PdfReader(io.BytesIO(pdf.EncapsulatedDocument))
    return "\n".join(page.extract_text() for page in reader.pages)
