"""What a destination gets that takes no DICOM objects: the result, read back from the reports in its folder.

A delivery to such a destination names the measurements, or the refusal; the rest lies beside it.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

import pydicom
from pydicom.dataset import Dataset

from dicomnode import logs
from dicomnode.analysis.findings import Findings
from dicomnode.config import PartName
from dicomnode.errors import PeerError, PeerRejectedError
from dicomnode.network.association import Sent
from dicomnode.report import uids
from dicomnode.report.context import MEASUREMENTS, REFUSAL, RISK, Kind
from dicomnode.report.outward.identity import UnaddressedError
from dicomnode.report.outward.message import ReportMessage, compose
from dicomnode.store.results_folder import FINDINGS, generation_of, report_file

log = logging.getLogger(__name__)

#: Numbers of a result, by the part that holds them.
_NUMBERS: Final[dict[PartName, Kind]] = {"measurements": MEASUREMENTS, "risk": RISK}
_PDF: Final[PartName] = "pdf"
_FIRST: Final = {"measurements": MEASUREMENTS, "refusal": REFUSAL}
#: The PDF that was made with each.
_PDFS: Final = {"measurements": "pdf", "refusal": "refusal-pdf"}


def message_of(path: Path, parts: Collection[PartName]) -> ReportMessage:
    """Return the result whose measurements, or refusal, is the file at `path`, with these parts.

    Raises:
        PeerError: its files do not belong together: they are being written.
        PeerRejectedError: there is no such result there, or it cannot be told whose it is.
    """
    kind = _FIRST.get(path.stem)
    if kind is None:
        raise PeerRejectedError(f"cannot send {path.name}: this destination takes reports of results, no objects")
    try:
        return _composed(path, kind, parts)
    except PeerError:
        raise
    except UnaddressedError as error:
        raise PeerRejectedError(f"cannot send {path.name}: {error}") from None
    except Exception as error:  # noqa: BLE001  (whatever a damaged file provokes: its text may quote the file)
        logs.log_unexpected(log, error, "%s cannot be read back", path.name)
        text = f"cannot send {path.name}: not readable ({type(error).__name__}): retry the study"
        raise PeerRejectedError(text) from None


def send_each(
    to: object,
    paths: Sequence[Path],
    parts: Collection[PartName],
    send: Callable[[ReportMessage], None],
    on_result: Callable[[Path, Sent], None] | None,
) -> list[Sent]:
    """Send the results whose measurements, or refusals, these files are, one by one, as `Destination.send` does.

    Args:
        to: the destination, as messages name it.
        paths: of the files.
        parts: which the destination takes.
        send: sends one.
        on_result: is told of each.

    Raises:
        PeerError: a failure in passing.
        PeerRejectedError: a refusal for good, or no result.
    """
    sent = []
    for path in paths:
        message = message_of(path, parts)
        try:
            send(message)
        except UnaddressedError as error:
            raise PeerRejectedError(f"{to}: {error}") from None
        sent.append(Sent(message.document_uid, 0, "stored"))
        if on_result is not None:
            on_result(path, sent[-1])
    return sent


def _composed(path: Path, kind: Kind, parts: Collection[PartName]) -> ReportMessage:
    first = _read(path)
    findings = Findings.from_json((path.parent / FINDINGS).read_text("utf-8"))
    if not _is_of(first, kind, findings):
        raise PeerError(f"{path.name} does not belong to {FINDINGS} beside it: it is being written anew")
    pdf = _pdf(report_file(path.parent, _PDFS[path.stem]), first) if _PDF in parts else None
    return compose(findings, first, _numbers(path.parent, findings, parts), list(_earlier(path.parent, parts)), pdf)


def _numbers(folder: Path, findings: Findings, parts: Collection[PartName]) -> list[Dataset]:
    """Return the reports of these parts; one that an earlier run has left there, of another result, is none of it."""
    found = []
    for part, kind in _NUMBERS.items():
        path = report_file(folder, part)
        if part in parts and findings.status != "refused" and path.is_file():
            report = _read(path)
            found += [report] if _is_of(report, kind, findings) else []
    return found


def _earlier(folder: Path, parts: Collection[PartName]) -> Iterator[Dataset]:
    """Yield the reports of earlier generations of the study, as far as they are still there."""
    mine = generation_of(folder)
    for other in folder.parent.iterdir() if mine is not None else ():
        number = generation_of(other)
        if number is None or mine is None or number >= mine:
            continue
        for part in _NUMBERS:
            path = report_file(other, part)
            if part in parts and path.is_file():
                yield _read(path)


def _pdf(path: Path, first: Dataset) -> bytes | None:
    """Return the encapsulated document that was made with the reports (PS3.3 A.45.1); None where there is none."""
    if not path.is_file():
        return None
    held = pydicom.dcmread(path)
    if held.StudyInstanceUID != first.StudyInstanceUID or held.ContentDate != first.ContentDate:
        return None
    document = bytes(held.EncapsulatedDocument)
    length = held.get("EncapsulatedDocumentLength")
    return document[: int(length)] if length else document


def _read(path: Path) -> Dataset:
    return pydicom.dcmread(path)


def _is_of(report: Dataset, kind: Kind, findings: Findings) -> bool:
    return str(report.SOPInstanceUID) == uids.sop_instance(kind, str(report.StudyInstanceUID), findings)
