"""Which order a study answers: what its images say, else the RIS's modality worklist.

The images are trusted first: one that names its order keeps it. Else exactly one order must agree with the study in
Patient ID (and issuer, where both have it) and in Study Instance UID, and must not contradict its Accession Number. In
every other case no order is linked, and a flag says so. A RIS that is down or slow costs `worklist.timeout_s` at most.

What was decided is kept beside the generation's results: a step that runs again decides the same.
"""

import base64
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydicom.dataset import Dataset

from dicomnode.analysis.series import repeatable, values
from dicomnode.analysis.series.headers import read_source
from dicomnode.config import Config, WorklistTable
from dicomnode.context import worklist, worklist_query
from dicomnode.errors import PeerError, PeerRejectedError
from dicomnode.files import write_whole
from dicomnode.network import find
from dicomnode.network.matching import text
from dicomnode.report import source
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.orders import Order
from dicomnode.store.identity import same_patient
from dicomnode.store.results_folder import ORDER

log = logging.getLogger(__name__)

Outcome = Literal["named", "linked", "not-found", "ambiguous", "contradicts", "unreachable"]
_FLAG: dict[Outcome, str] = {
    "linked": "order-from-worklist",
    "not-found": "order-not-found",
    "ambiguous": "order-ambiguous",
    "contradicts": "order-contradicts",
    "unreachable": "worklist-unreachable",
}

#: Outcomes that an order which appears later may change.
_LACKING: tuple[Outcome, ...] = ("not-found", "ambiguous", "unreachable")


@dataclass(frozen=True)
class Identity:
    """What an order is compared with: `accession_number` is "" where the images have none."""

    patient_hash: str
    study_uid: str
    accession_number: str


@dataclass(frozen=True)
class Linkage:
    """What was decided. `content`: the worklist item as a DICOM file where it is «linked».

    `accession_number` tells whether the images have one of their own, which the reports then refer to.
    """

    outcome: Outcome
    content: bytes = b""
    has_accession_number: bool = False

    @property
    def order(self) -> Dataset | None:
        """The worklist item, undecoded."""
        return _read(self.content) if self.content else None

    @property
    def flags(self) -> tuple[str, ...]:
        """Codes of `surroundings.FLAGS`."""
        if self.outcome == "not-found" and self.has_accession_number:
            return ()  # RISs drop orders that are done, and the reports name this one by its number
        return (_FLAG[self.outcome],) if self.outcome in _FLAG else ()


def _read(content: bytes) -> Dataset:
    """Return a worklist item without the values that no valid report can repeat: a RIS sends odd ones too."""
    item = find.read(content)
    values.settle(item)
    for keyword in repeatable.keep(item):
        log.warning("%s of a worklist item breaks its VR: the reports do not repeat it", keyword)
        item.pop(keyword, None)
    return item


def match(study: Identity, orders: Sequence[Order]) -> Linkage:
    """Return the order that the study answers, if there is exactly one.

    An order of the study's UID, or of its Accession Number, that does not agree with the rest is a contradiction: the
    RIS or the scanner is wrong about somebody, and nobody here can tell which.
    """
    agreeing, contradicting = {}, 0
    for order in orders:
        same_study = order.study_uid == study.study_uid
        numbers = {order.accession_number, study.accession_number} - {""}
        same_number = len(numbers) == 1 and order.accession_number == study.accession_number
        if same_study and len(numbers) <= 1 and same_patient(order.patient_hash, study.patient_hash):
            agreeing[order.key] = order
        elif same_study or same_number:
            contradicting += 1
    has_number = bool(study.accession_number)
    if len(agreeing) == 1:
        return Linkage("linked", next(iter(agreeing.values())).content, has_number)
    if agreeing:
        return Linkage("ambiguous", has_accession_number=has_number)
    return Linkage("contradicts" if contradicting else "not-found", has_accession_number=has_number)


def decide(config: Config, catalog: Catalog, image: Path, folder: Path) -> Linkage | None:
    """Return the order of the study that `image` (its path) is from; None where no worklist is configured.

    Args:
        config: the node's.
        catalog: the node's.
        image: path of an image of the study.
        folder: the generation's results, where the decision is kept.

    Raises:
        SpoolError: the catalogue failed.
    """
    if config.worklist is None:
        return None
    before = _kept(folder)
    if before is not None:
        return before
    linkage = _look_up(config.worklist, catalog, read_source(image))
    kept = {**vars(linkage), "content": base64.b64encode(linkage.content).decode("ascii")}
    write_whole(folder / ORDER, json.dumps(kept).encode())
    return linkage


def appeared(catalog: Catalog, image: Path, folder: Path) -> Order | None:
    """Return the one order that the study answers, where its results (in `folder`) went out without any.

    Args:
        catalog: the node's, with the orders that the RIS lists now.
        image: path of an image of the study.
        folder: the generation's results.
    """
    before = _kept(folder)
    if before is None or before.outcome not in _LACKING:
        return None
    study = _identity(catalog, read_source(image))
    known = catalog.orders_like(study.patient_hash, study.study_uid, study.accession_number)
    linkage = match(study, known)
    return next((one for one in known if linkage.content and one.content == linkage.content), None)


def decided(folder: Path) -> Dataset | None:
    """Return the worklist's item that `decide` linked for the generation whose results lie in `folder`, undecoded."""
    kept = _kept(folder)
    return None if kept is None else kept.order


def outcome(folder: Path) -> str:
    """Return in a word how a generation's order was found (`Linkage.outcome`); "" where none was looked for."""
    kept = _kept(folder)
    return "" if kept is None else kept.outcome


def _kept(folder: Path) -> Linkage | None:
    path = folder / ORDER
    if not path.is_file():
        return None
    kept = json.loads(path.read_text("utf-8"))
    return Linkage(kept["outcome"], base64.b64decode(kept["content"]), kept["has_accession_number"])


def _identity(catalog: Catalog, image: Dataset) -> Identity:
    number = text(image, "AccessionNumber")
    return Identity(catalog.patient_key.whose(image), str(image.StudyInstanceUID), number)


def _look_up(table: WorklistTable, catalog: Catalog, image: Dataset) -> Linkage:
    if source.names_its_order(image):
        return Linkage("named")
    study = _identity(catalog, image)
    known = catalog.orders_like(study.patient_hash, study.study_uid, study.accession_number)
    linkage = match(study, known)
    question = worklist_query.of_study(image)
    if linkage.outcome == "linked" or not table.on_receipt or question is None:
        return linkage
    try:
        fresh = worklist.ask(table, question, catalog.patient_key)
    except (PeerError, PeerRejectedError) as e:
        log.warning("the order of study %s could not be queried: %s", study.study_uid, e)
        unreachable = Linkage("unreachable", has_accession_number=linkage.has_accession_number)
        return unreachable if linkage.outcome == "not-found" else linkage
    catalog.remember_orders(fresh)
    return match(study, [*known, *fresh])
