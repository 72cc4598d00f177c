"""The RIS's modality worklist, as the clock asks for it and as a person sees it. `order` says which order is whose."""

import logging
import time
from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from pydicom.dataset import Dataset

from dicomnode import logs
from dicomnode.config import Config, WorklistTable
from dicomnode.context import worklist_query
from dicomnode.network import find
from dicomnode.network.matching import text
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.orders import Order
from dicomnode.store.identity import same_patient
from dicomnode.store.patient_key import PatientKey

log = logging.getLogger(__name__)


def refresh(config: Config, catalog: Catalog, now: float) -> int:
    """Ask for the orders of the configured days and remember them; those not seen for long are forgotten.

    Returns how many orders there are.

    Raises:
        PeerError, PeerRejectedError: the RIS did not answer, or refused.
        SpoolError: the catalogue failed.
    """
    table = config.worklist
    if table is None:
        return 0
    day = today(table, now)
    first, last = day - timedelta(days=table.days_before), day + timedelta(days=table.days_after)
    found: list[Order] = []
    for station in table.station_ae_titles or ("",):
        found += ask(table, worklist_query.of_days(first, last, table.modality, station), catalog.patient_key)
    catalog.remember_orders(found)
    catalog.forget_orders(now - table.keep_days * 86_400)
    return len({order.key for order in found})


def ask(table: WorklistTable, question: Dataset, key: PatientKey) -> list[Order]:
    """Return the orders that the RIS answers with.

    Raises:
        PeerError, PeerRejectedError: it did not answer within `worklist.timeout_s`, or refused.
    """
    found = find.find(table.peer, find.MODALITY_WORKLIST, question, within_s=table.timeout_s, most=table.most)
    if not found.is_complete:
        log.warning(
            "the worklist returned more than %d responses to one query: narrow it, or raise worklist.most", table.most
        )
    return list(_orders(found.answers, key, time.time()))


def _orders(answers: Iterable[bytes], key: PatientKey, seen_at: float) -> Iterator[Order]:
    for answer in answers:
        try:
            yield worklist_query.order(answer, key, seen_at)
        except Exception as e:  # noqa: BLE001  (one item that cannot be read takes no other away)
            logs.log_unexpected(log, e, "skipped an unreadable worklist item")


def today(table: WorklistTable, now: float) -> date:
    """Return the RIS's date at `now` (UTC seconds)."""
    return datetime.fromtimestamp(now, _zone(table)).date()


def _zone(table: WorklistTable) -> tzinfo | None:
    return ZoneInfo(table.time_zone) if table.time_zone else None


def overview(catalog: Catalog, day: date) -> Iterator[dict[str, object]]:
    """Yield a day's orders for a person to read, each with what the node holds of its study and of its patient."""
    for order in catalog.orders_between(f"{day:%Y%m%d}", f"{day:%Y%m%d}"):
        item = find.read(order.content)
        held = [
            study for study, whose in catalog.studies_of_patient(order.patient_hash)
            if same_patient(whose, order.patient_hash)
        ]  # fmt: skip
        step = (item.get("ScheduledProcedureStepSequence") or [Dataset()])[0]
        yield {
            "scheduled": order.scheduled,
            "patient_name": text(item, "PatientName"),
            "patient_id": text(item, "PatientID"),
            "issuer_of_patient_id": text(item, "IssuerOfPatientID"),
            "accession_number": order.accession_number,
            "procedure": text(item, "RequestedProcedureDescription"),
            "modality": text(step, "Modality"),
            "station": text(step, "ScheduledStationAETitle"),
            "study_uid": order.study_uid,
            "state": next((study.state for study in held if study.study_uid == order.study_uid), "not received"),
            "others": [
                {"study_uid": study.study_uid, "state": study.state}
                for study in held
                if study.study_uid != order.study_uid
            ],
            "seen_at": time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(order.seen_at)),
        }
