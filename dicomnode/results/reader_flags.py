"""What the node adds to findings for the reader: doubts about the worklist order and about priors."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from pydicom import Dataset

from dicomnode.analysis.findings import Findings, Flag
from dicomnode.analysis.series.headers import read_source
from dicomnode.analysis.series.selection import WITHOUT_PATIENT_ID
from dicomnode.files import write_whole
from dicomnode.report import source
from dicomnode.store.results_folder import FINDINGS, RECEPTION
from dicomnode.words.numerals import plural

_FLAGS: Final = (
    # The order (dicomnode.context.worklist)
    Flag("order-from-worklist", "info", "The images name no order: it was taken from the worklist."),
    Flag("order-not-found", "warning", "No worklist order matches this Patient ID and Study Instance UID."),
    Flag("order-ambiguous", "warning", "Several worklist orders match this study; none was linked."),
    Flag(
        "order-contradicts",
        "warning",
        "The worklist entry for this study or accession number contradicts the images; no order was linked.",
    ),
    Flag("worklist-unreachable", "warning", "The worklist could not be queried; there may be an order."),
    # The study's objects
    WITHOUT_PATIENT_ID,
    # Priors (dicomnode.context.priors)
    Flag("priors-unknown", "warning", "The archive could not be queried for prior scans; there may be some."),
    Flag(
        "priors-late",
        "warning",
        "Prior scans did not arrive in time; an updated report will follow when they do.",
    ),
    Flag("prior-not-retrieved", "warning", "The archive lists prior scans but has not delivered them."),
    Flag(
        "prior-other-patient",
        "warning",
        "A scan returned by the archive has a different Patient ID or issuer and was not used.",
    ),
)
FLAGS: Final = {flag.code: flag for flag in _FLAGS}


#: How the images came (`service.clock`).
_RECEPTION_CODES: Final = ("images-missing", "transfer-broken-off")


def of_reception(folder: Path) -> tuple[Flag, ...]:
    """Return what was noted when the study settled whose results lie in `folder`: images may be missing."""
    noted, flags = _noted(folder), []
    if "listed" in noted:
        listed, arrived = int(noted["listed"]), int(noted["arrived"])
        text = f"The PACS lists {plural(listed, 'image')}, {arrived} arrived: {listed - arrived} missing."
        flags.append(Flag("images-missing", "warning", text))
    if noted.get("broken_off"):
        text = "The transfer of the images was broken off; some may be missing."
        flags.append(Flag("transfer-broken-off", "warning", text))
    return tuple(flags)


def _noted(folder: Path) -> dict[str, Any]:
    path = folder / RECEPTION
    noted: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return noted


def counted_before(folder: Path, images: int) -> tuple[int, int] | None:
    """Return how many images the PACS listed and how many had come of the generation whose results lie in `folder`.

    None where it lacked none, or where the study has another number of `images` now.
    """
    noted = _noted(folder)
    return (int(noted["listed"]), int(noted["arrived"])) if noted.get("images") == images else None


def carry_reception(before: Path, after: Path) -> None:
    """Copy what was noted of how the images came to the next generation's folder, whose images are the same.

    Raises:
        OSError: no space, no permission.
    """
    if (before / RECEPTION).is_file():
        write_whole(after / RECEPTION, (before / RECEPTION).read_bytes())


def note(folder: Path, image: Path, codes: Sequence[str], order: Dataset | None) -> None:
    """Write what is known of order and priors into the findings of the generation whose results are in `folder`.

    Args:
        folder: the generation's results.
        image: the path of the image that the reports take patient and study from.
        codes: doubts about order and priors, from `FLAGS`.
        order: the worklist item that was linked, undecoded.
    """
    path = folder / FINDINGS
    found = Findings.from_json(path.read_text("utf-8"))
    taken = b"" if order is None else source.order_bytes(order, read_source(image))
    write_whole(path, noted(found, codes, taken, of_reception(folder)).to_json().encode())


def noted(findings: Findings, codes: Sequence[str], order: bytes = b"", reception: Sequence[Flag] = ()) -> Findings:
    """Return the findings with these flags in place of those of an earlier call.

    Args:
        findings: what the analysis found.
        codes: of `FLAGS`, in any order.
        order: what the reports take from the worklist; b"" for nothing.
        reception: of `of_reception`.
    """
    mine = (*reception, *(flag for code, flag in FLAGS.items() if code in codes))
    others = tuple(flag for flag in findings.flags if flag.code not in FLAGS and flag.code not in _RECEPTION_CODES)
    digest = ""
    if mine or order:
        words = json.dumps([asdict(flag) for flag in mine]).encode()
        digest = hashlib.sha256(hashlib.sha256(words).digest() + order).hexdigest()
    return replace(findings, flags=others + mine, surroundings_digest=digest)
