"""Results on disk as the node leaves them: findings.json, measurements and risk, and a PDF where a test wants one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage

from dicomnode.analysis.findings import Findings
from dicomnode.report import segmentation
from dicomnode.report.context import Context
from dicomnode.report.sr import measurements, refusal, risk
from tests.helpers import report_cases as cases

EVERYTHING = ("measurements", "risk", "pdf")
PDF = b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\ntrailer\n<< /Root 1 0 R >>\n%%EOF\n"


def write_result(
    folder: Path,
    *,
    change: Callable[[Dataset], None] = lambda _header: None,
    findings: Callable[[Findings], Findings] = lambda found: found,
    predicted: bool = True,
    pdf: bytes | None = None,
    context: Context = cases.CONTEXT,
) -> Path:
    """Write a result of the synthetic series and return the file of its measurements.

    `change` is applied to each source header, `findings` to the findings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    headers = cases.synthetic()
    for header in headers:
        change(header)
    headers = [cases.reread(header) for header in headers]
    found = findings(cases.findings_of(headers, predicted=cases.risk() if predicted else None))
    seg = segmentation.encode(headers, cases.boxes(), found, context)
    (folder / "findings.json").write_text(found.to_json())
    (folder / "measurements.dcm").write_bytes(cases.to_bytes(measurements.encode(headers, found, seg, context)))
    if found.risk is not None:
        (folder / "risk.dcm").write_bytes(cases.to_bytes(risk.encode(headers, found, context)))
    if pdf is not None:
        (folder / "pdf.dcm").write_bytes(cases.to_bytes(_encapsulated(pdf)))
    return folder / "measurements.dcm"


def write_refusal(folder: Path, pdf: bytes | None = None) -> Path:
    """Write a refusal of the synthetic series and return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    found = replace(cases.refused(), flags=())
    (folder / "findings.json").write_text(found.to_json())
    report = refusal.encode(cases.synthetic()[0], found, cases.CONTEXT)
    (folder / "refusal.dcm").write_bytes(cases.to_bytes(report))
    if pdf is not None:
        (folder / "refusal-pdf.dcm").write_bytes(cases.to_bytes(_encapsulated(pdf)))
    return folder / "refusal.dcm"


def _encapsulated(pdf: bytes) -> Dataset:
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = EncapsulatedPDFStorage, "1.2.3.99"
    made.StudyInstanceUID, made.SeriesInstanceUID, made.ContentDate = "1.2.3", "1.2.3.98", "20260102"
    made.MIMETypeOfEncapsulatedDocument = "application/pdf"
    made.EncapsulatedDocument = pdf + bytes(len(pdf) % 2)
    made.EncapsulatedDocumentLength = len(pdf)
    return made


def numbers(report: Dataset) -> list[float]:
    """Every number of a structured report, in its order."""
    below = [n for item in report.get("ContentSequence", ()) for n in numbers(item)]
    own = [float(report.MeasuredValueSequence[0].NumericValue)] if report.get("ValueType") == "NUM" else []
    return own + below
