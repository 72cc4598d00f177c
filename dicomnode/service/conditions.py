"""What can be wrong with the node itself, looked at once: `alerts` says who is told of it, and when it is over."""

import hashlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from dicomnode.config import Config
from dicomnode.network.certificates import inspect
from dicomnode.registry.latest_look import latest
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.words.numerals import plural
from dicomnode.workflows.queue import WORKFLOW_VERSION

#: A disk whose free space has passed the mark by this factor is well again.
_WELL = 1.1
#: So many failed starts in a row are no accident.
_FAILURES = 3
#: How the keys of certificates begin.
CERTIFICATE = "certificate-"


@dataclass(frozen=True)
class HealthCondition:
    """One thing that may be wrong.

    Attributes:
        key: tells it from the others.
        is_bad: None: neither clearly bad nor clearly well, so whatever was told stands.
        text: what is wrong and what to do; no patient data.
        for_s: it has to be bad for so long before anybody is told.
    """

    key: str
    is_bad: bool | None
    text: str
    for_s: float = 0.0


class Supervised(Protocol):
    """A process that `serve` starts.

    Attributes:
        name: "worker-0".
        failures: how often it ended in a row, 0 once it has run for a while.
        needs_a_person: it has ended with a status that no new start mends.
        last_words: what it said as it ended.
    """

    name: str
    failures: int
    needs_a_person: bool
    last_words: str

    @property
    def is_steady(self) -> bool:
        """Whether it has run for a while."""


def find(
    config: Config,
    catalog: Catalog,
    children: Sequence[Supervised],
    peers: Mapping[str, str | None],
    now: float,
    host: str,
) -> list[HealthCondition]:
    """Return all that is looked at.

    Args:
        config: the node's.
        catalog: the node's.
        children: the supervised processes.
        peers: what each peer answered last: the trouble, or None for none; those not asked yet are missing.
        now: UTC seconds.
        host: this machine's name; what is seen from it only is its own.

    Raises:
        SpoolError: the catalogue failed.
    """
    return [
        *_disks(config, host),
        *_children(children, host),
        *_workers(config, catalog),
        *_peers(config, peers, host),
        *_refused(config, catalog, now),
        *_silent(config, catalog, now),
        *_dead_letters(config, catalog),
        *_audit(config, catalog, now),
        *_certificates(config, now, host),
        *_drift(config),
    ]


def _disks(config: Config, host: str) -> Iterator[HealthCondition]:
    mark = config.alerts.disk_free_gb
    seen: set[int] = set()
    for key in ("spool", "results", "state") if mark else ():
        folder: Path = getattr(config.storage, key)
        try:
            device, free = folder.stat().st_dev, shutil.disk_usage(folder).free / 1e9
        except OSError as error:
            yield HealthCondition(
                f"disk-{key}@{host}", True, f"storage.{key} on {host} cannot be read: {error.strerror}"
            )
            continue
        if device in seen:
            continue
        seen.add(device)
        text = f"{free:.1f} GB free for storage.{key} on {host}, less than alerts.disk_free_gb = {mark:g}: free some"
        yield HealthCondition(
            f"disk-{key}@{host}", True if free < mark else False if free >= mark * _WELL else None, text
        )


def _children(children: Sequence[Supervised], host: str) -> Iterator[HealthCondition]:
    for child in children:
        does_not = child.failures >= _FAILURES or (child.failures > 0 and child.needs_a_person)
        said = child.last_words or "see its log"
        text = f"{child.name} on {host} does not start: {said}"
        yield HealthCondition(f"{child.name}@{host}", True if does_not else False if child.is_steady else None, text)


def _workers(config: Config, catalog: Catalog) -> Iterator[HealthCondition]:
    minutes = config.alerts.away_minutes
    if not minutes:
        return
    lives = any(worker.version == WORKFLOW_VERSION for worker in catalog.workers("alive"))
    text = f"no worker has shown itself for {plural(minutes, 'minute')}: nothing is analysed or delivered"
    yield HealthCondition("no-worker", not lives, text, max(minutes * 60, config.worker.dead_after_s))


def _peers(config: Config, peers: Mapping[str, str | None], host: str) -> Iterator[HealthCondition]:
    minutes = config.alerts.away_minutes
    for name, trouble in sorted(peers.items()):
        text = f"{name} has not answered {host} for {plural(minutes, 'minute')}: {trouble}"
        yield HealthCondition(f"{name}@{host}", trouble is not None, text, minutes * 60)


def _refused(config: Config, catalog: Catalog, now: float) -> Iterator[HealthCondition]:
    table = config.alerts
    if not table.refused:
        return
    found = catalog.refusals_between(now - table.refused_minutes * 60, now)
    count = sum(one.count for one in found)
    why = "; ".join(f"{plural(one.count, 'time')} «{one.why}» ({one.caller})" for one in found[:3])
    text = f"{plural(count, 'association')} refused in the last {plural(table.refused_minutes, 'minute')}: {why}"
    # The mark is in the key: nodes on one database that have different ones do not end each other's alerts.
    key = f"refused-{table.refused}-in-{table.refused_minutes:g}"
    yield HealthCondition(key, True if count >= table.refused else None if count else False, text)


def _silent(config: Config, catalog: Catalog, now: float) -> Iterator[HealthCondition]:
    hours = config.alerts.silent_hours
    if not hours:
        return
    last = catalog.last_received(now)
    since = "" if last is None else time.strftime(" (the last image came %Y-%m-%d %H:%M UTC)", time.gmtime(last))
    text = f"nothing has been received for {plural(hours, 'hour')}{since}: see whether the senders reach the node"
    # A node that has never received anything is still being set up.
    yield HealthCondition(f"silent-{hours:g}", last is not None and now - last >= hours * 3600, text)


def _dead_letters(config: Config, catalog: Catalog) -> Iterator[HealthCondition]:
    if not config.alerts.dead_letters:
        return
    lost = catalog.dead_letters()
    for name in sorted({*lost, *(d.name for d in config.destination)}):
        text = (
            f"{plural(lost.get(name, 0), 'object')} not delivered to {name} and not to be retried: see `dicomnode jobs "
            "list --state failed`"
        )
        yield HealthCondition(f"dead-letters-{name}", name in lost, text)


def _audit(config: Config, catalog: Catalog, now: float) -> Iterator[HealthCondition]:
    table = config.audit
    if table.to == "off":
        return
    count, oldest = catalog.audit_backlog()
    waits_s = 0.0 if oldest is None else now - oldest
    waiting = plural(count, "audit message waits", "audit messages wait")
    text = f"{waiting}, the oldest for {waits_s:.0f} s: see why the syslog server does not take them"
    key = f"audit-{table.warn_after_s:g}-{table.most_waiting}"
    yield HealthCondition(key, waits_s > table.warn_after_s or count > table.most_waiting / 2, text)


def _certificates(config: Config, now: float, host: str) -> Iterator[HealthCondition]:
    troubles: dict[Path, list[str]] = {}
    for files in config.all_tls_files:
        for one in inspect(files, datetime.fromtimestamp(now, UTC)):
            troubles.setdefault(one.path, []).extend([] if one.ok else [one.text])
    for path, texts in troubles.items():
        key = f"{CERTIFICATE}{hashlib.sha256(str(path).encode()).hexdigest()[:16]}@{host}"
        yield HealthCondition(key, bool(texts), "; ".join(dict.fromkeys(texts)) or str(path))


def _drift(config: Config) -> Iterator[HealthCondition]:
    """Yield one condition for each input of the model, over all scanners: whether it has changed, by the last look."""
    found = latest(config) if config.registry.record and config.registry.monitor else None
    if found is None:
        return
    changed: dict[tuple[str, str], list[str]] = {}
    for row in found["drift"]:
        where = changed.setdefault((row["name"], row["title"]), [])
        if row["raised"]:
            where.append(f"{row['scanner'] or 'all scanners'} since {row['since']}")
    for (name, title), places in changed.items():
        text = (
            f"what the model is fed, or says, has changed: {title} ({'; '.join(places)}): see "
            "`dicomnode registry monitor`"
        )
        yield HealthCondition(f"drift-{name}", bool(places), text)
