"""Earlier scans of the patients on the worklist, fetched before they come: what the clock decides."""

from datetime import datetime, timedelta

from dicomnode.config import Config, Priors
from dicomnode.context import worklist
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.orders import Order


def is_quiet(table: Priors, now: float) -> bool:
    """Whether prefetching is allowed at `now` (UTC seconds; the hours are of this machine's time zone)."""
    if not table.quiet_hours:
        return True
    first, last = table.quiet_hours.split("-")
    moment = datetime.fromtimestamp(now).astimezone().strftime("%H:%M")
    return first <= moment < last if first <= last else moment >= first or moment < last


def due(settings: Config, catalog: Catalog, now: float) -> list[Order]:
    """One order of each patient who is expected today or in the days that the worklist is asked for."""
    if settings.worklist is None or settings.priors is None or not settings.priors.prefetch:
        return []
    if not is_quiet(settings.priors, now):
        return []
    first = worklist.today(settings.worklist, now)
    last = first + timedelta(days=settings.worklist.days_after)
    expected = catalog.orders_between(f"{first:%Y%m%d}", f"{last:%Y%m%d}")
    return list({order.patient_hash: order for order in expected}.values())
