"""What the first page shows: is all well, what is stuck and why, what came today."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dicomnode.config import Config
from dicomnode.monitoring.readiness import Check, folders, ready
from dicomnode.operations.looking import STATES, Pages
from dicomnode.store.catalog.alerts import Alert
from dicomnode.store.catalog.figures import Waiting
from dicomnode.store.catalog.overview import Wanted
from dicomnode.store.records import Worker

#: Whoever asks sooner gets the same answer.
FRESH_S = 2.0
_SOME = 10


@dataclass(frozen=True)
class DiskGlance:
    """A disk of [storage]; sizes in GB."""

    name: str
    free: float
    size: float
    is_low: bool

    @property
    def percent(self) -> float:
        """How much of it is used."""
        return 100 * (1 - self.free / self.size) if self.size else 0.0


@dataclass(frozen=True)
class DestinationGlance:
    """What has not arrived there. `since`: the first object that waits was last touched so many seconds ago."""

    name: str
    pending: int
    retried: int
    lost: int
    since: float


@dataclass(frozen=True)
class Glance:
    """The node now."""

    at: str
    checks: Sequence[Check]
    alerts: Sequence[Alert]
    disks: Sequence[DiskGlance]
    workers: Sequence[tuple[Worker, float]]
    destinations: Sequence[DestinationGlance]
    queue: Sequence[tuple[Waiting, float]]
    counts: dict[str, int]
    today: dict[str, int]
    stuck: Sequence[dict[str, Any]]
    recent: Sequence[dict[str, Any]]

    @property
    def problems(self) -> list[str]:
        """What is not well, in sentences; none where all is."""
        found = [f"{one.what}: {one.text}" for one in self.checks if not one.ok]
        found += [one.text for one in self.alerts]
        for state, words in (("failed", "failed"), ("held", "to be decided on")):
            if count := self.counts.get(state, 0):
                found.append(f"{count} {'study' if count == 1 else 'studies'} {words}")
        found += [f"{one.name}: not delivered: {one.lost}" for one in self.destinations if one.lost]
        found += [f"{one.name}: delivery is being retried" for one in self.destinations if one.retried]
        return found


def glance(config: Config, pages: Pages) -> Glance:
    """Return the node as it is. Raises SpoolError."""
    catalog, at = pages.catalog, time.time()
    midnight = datetime.now().astimezone().replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
    counts = catalog.count_studies()
    today = catalog.count_studies(midnight)
    open_ = catalog.open_deliveries()
    destinations = []
    for name in dict.fromkeys([*(d.name for d in config.destination), *(d.destination for d in open_)]):
        mine = {d.state: d for d in open_ if d.destination == name}
        pending = mine.get("pending")
        lost = sum(d.count for state, d in mine.items() if state != "pending")
        since = 0.0 if pending is None else max(0.0, at - pending.since)
        retried = 0 if pending is None else pending.retried
        destinations.append(DestinationGlance(name, 0 if pending is None else pending.count, retried, lost, since))
    return Glance(
        at=time.strftime("%H:%M:%S", time.localtime(at)),
        checks=ready(config, lambda: catalog),
        alerts=catalog.alerts(),
        disks=_disks(config),
        workers=[(one, max(0.0, at - one.beat_at)) for one in catalog.workers("alive")],
        destinations=destinations,
        queue=[(one, max(0.0, at - one.since)) for one in catalog.queued_by_priority()],
        counts={state: counts.get(state, 0) for state in STATES},
        today={state: today[state] for state in STATES if today.get(state)},
        stuck=pages.rows(Wanted(states=("failed", "held"), limit=_SOME)),
        recent=pages.rows(Wanted(since=midnight, limit=_SOME)),
    )


def _disks(config: Config) -> list[DiskGlance]:
    least, found = config.storage.minimum_free_gb, []
    for name, path in folders(config).items():
        try:
            usage = shutil.disk_usage(path)
        except OSError:
            continue  # the checks say so
        found.append(DiskGlance(name, usage.free / 1e9, usage.total / 1e9, usage.free / 1e9 < least))
    return found
