"""Prior scans of the patients on the worklist, fetched before they come: what the clock decides."""

from datetime import datetime, timedelta

from dicomnode.config import Config, PriorsTable
from dicomnode.context import worklist
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.orders import Order


def is_quiet(table: PriorsTable, now: float) -> bool:
    """Whether prefetching is allowed at `now` (UTC seconds; the hours are of this machine's time zone)."""
    if not table.quiet_hours:
        return True
    first, last = table.quiet_hours.split("-")
    moment = datetime.fromtimestamp(now).astimezone().strftime("%H:%M")
    return first <= moment < last if first <= last else moment >= first or moment < last


def due(config: Config, catalog: Catalog, now: float) -> list[Order]:
    """One order of each patient who is expected today or in the days that the worklist is asked for."""
    if config.worklist is None or config.priors is None or not config.priors.prefetch:
        return []
    if not is_quiet(config.priors, now):
        return []
    first = worklist.today(config.worklist, now)
    last = first + timedelta(days=config.worklist.days_after)
    expected = catalog.orders_between(f"{first:%Y%m%d}", f"{last:%Y%m%d}")
    return list({order.patient_hash: order for order in expected}.values())
