"""Validators on reports whose order comes from the worklist, in another character set than the images'."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicomnode.report import segmentation
from dicomnode.report.context import Context
from dicomnode.report.sr import measurements, refusal, risk
from tests.acceptance.ris import Peer
from tests.acceptance.validators import PixelMed, errors, said
from tests.helpers import report_cases as cases

KINDS = ["segmentation", "measurements", "risk", "refusal"]


def an_order() -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "25045-6", "LN", "CT of the order"
    made = Dataset()
    made.file_meta = cases.synthetic(1)[0].file_meta
    made.SOPClassUID, made.SOPInstanceUID = "1.2.840.10008.5.1.4.31", "1.2"
    made.SpecificCharacterSet = "\\ISO 2022 IR 87"
    made.PatientName, made.PatientID, made.StudyInstanceUID = "Yamada^Tarou=山田^太郎", "PAT-0001", "1.2.3"
    made.AccessionNumber, made.RequestedProcedureID = "RIS1", "RP1"
    made.RequestedProcedureDescription, made.RequestedProcedureCodeSequence = "胸部ＣＴ", [code]
    made.PlacerOrderNumberImagingServiceRequest, made.FillerOrderNumberImagingServiceRequest = "PLACER1", "FILLER1"
    return cases.reread(made)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ordered")
    headers = cases.synthetic()
    for header in headers:
        del header.RequestAttributesSequence
        del header.ProcedureCodeSequence
        header.AccessionNumber = None
    headers = [cases.reread(header) for header in headers]
    context = Context(**{**vars(cases.CONTEXT), "order": an_order()})
    found = cases.findings_of(headers, predicted=cases.risk("research"))
    seg = segmentation.encode(headers, cases.boxes().astype(np.uint8), found, context)
    objects = {
        "segmentation": seg,
        "measurements": measurements.encode(headers, found, seg, context),
        "risk": risk.encode(headers, found, context),
        "refusal": refusal.encode(headers[0], cases.refused(), context),
    }
    for kind, dataset in objects.items():
        (folder / f"{kind}.dcm").write_bytes(cases.to_bytes(dataset))
        assert dataset.AccessionNumber == "RIS1"
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_dciodvfy_finds_no_error_with_an_order(written: Path, kind: str, peer: Peer) -> None:
    assert errors(said([peer("dciodvfy", "dicom3tools"), written / f"{kind}.dcm"])) == []


def test_dsrdump_reads_the_procedure_of_the_order(written: Path, peer: Peer) -> None:
    text = said([peer("dsrdump", "dcmtk"), "+Pl", written / "measurements.dcm"])
    assert errors(text) == []
    assert "CT of the order" in text


@pytest.mark.parametrize("kind", ["measurements", "risk"])
def test_pixelmed_finds_no_error_with_an_order(written: Path, kind: str, pixelmed: PixelMed) -> None:
    assert errors(pixelmed(written / f"{kind}.dcm")) == []
