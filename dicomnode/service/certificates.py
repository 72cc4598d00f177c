"""Who is told in time that a certificate, a CA or a key of TLS needs a person."""

import hashlib
from datetime import UTC, datetime

from dicomnode.config import Config
from dicomnode.network.certificates import TlsFinding, inspect
from dicomnode.store.records import Event

#: Told once at each of these numbers of days before the end, and what has no end once a week.
_STEPS = (30, 14, 7, 3, 1, 0)


def events(config: Config, now: float) -> list[Event]:
    """Return what is to be told now; the same ID as before where it was told before."""
    at = datetime.fromtimestamp(now, UTC)
    found: dict[str, Event] = {}
    for files in config.all_tls_files:
        for one in inspect(files, at):
            if not one.ok:
                event_id = hashlib.sha256(f"{one.path} {_step(one, at)}".encode()).hexdigest()[:32]
                found[event_id] = Event(event_id, "", 0, "certificate", one.text, now)
    return list(found.values())


def _step(finding: TlsFinding, at: datetime) -> str:
    if finding.until is None:
        return f"{finding.text} {at:%G-%V}"
    left = (finding.until - at).total_seconds() / 86_400
    return f"{finding.until.isoformat()} {min((step for step in _STEPS if left <= step), default=_STEPS[0])}"
