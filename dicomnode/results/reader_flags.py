"""What the node adds to findings from its surroundings: doubts about the order and about earlier scans."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from pydicom import Dataset, dcmread

from dicomnode.analysis.findings import Findings, Flag
from dicomnode.files import write_whole
from dicomnode.report import source

_FLAGS: Final = (
    # The order (dicomnode.context.worklist)
    Flag("order-from-worklist", "info", "The images do not name their order: it was taken from the worklist."),
    Flag("order-not-found", "warning", "No order on the worklist agrees with Patient ID and Study Instance UID."),
    Flag("order-ambiguous", "warning", "Several orders on the worklist agree with this study: none was linked."),
    Flag("order-contradicts", "warning", "The worklist has this study or accession differently: no order was linked."),
    Flag("worklist-unreachable", "warning", "The worklist could not be asked: whether there is an order is not known."),
    # Earlier scans (dicomnode.context.priors)
    Flag("priors-unknown", "warning", "The archive could not be asked for earlier scans: there may be some."),
    Flag("priors-late", "warning", "Earlier scans were not here in time: a new version follows once they have come."),
    Flag("prior-not-retrieved", "warning", "The archive has earlier scans that it has not given so far."),
    Flag("prior-other-patient", "warning", "The archive gave a scan of another Patient ID or issuer: not used."),
)
FLAGS: Final = {flag.code: flag for flag in _FLAGS}


def note(folder: Path, image: Path, codes: Sequence[str], order: Dataset | None) -> None:
    """Write what is known of order and earlier scans into the findings of the generation whose results lie here.

    Args:
        folder: the generation's results.
        image: the path of the image that the reports take patient and study from.
        codes: doubts about order and earlier scans, of `FLAGS`.
        order: the worklist item that was linked, undecoded.
    """
    path = folder / "findings.json"
    found = Findings.from_json(path.read_text("utf-8"))
    taken = b"" if order is None else source.order_bytes(order, dcmread(image, stop_before_pixels=True))
    write_whole(path, noted(found, codes, taken).to_json().encode())


def noted(findings: Findings, codes: Sequence[str], order: bytes = b"") -> Findings:
    """Return the findings with these flags in place of those that an earlier call added.

    Args:
        findings: what the analysis found.
        codes: of `FLAGS`, in any order.
        order: what the reports take from the worklist; b"" for nothing.
    """
    mine = tuple(flag for code, flag in FLAGS.items() if code in codes)
    others = tuple(flag for flag in findings.flags if flag.code not in FLAGS)
    digest = ""
    if mine or order:
        words = json.dumps([asdict(flag) for flag in mine]).encode()
        digest = hashlib.sha256(hashlib.sha256(words).digest() + order).hexdigest()
    return replace(findings, flags=others + mine, surroundings_digest=digest)
