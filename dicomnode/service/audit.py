"""The audit trail of each process of the node, and its sender in `serve`.

What a process notes goes to the outbox in the catalogue: with the transaction that caused it, at once, or, in a
receiver, by way of a journal. The sender empties the outbox in its order, and tries again while the server is away.
"""

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dicomnode import logs
from dicomnode.audit import messages, trail
from dicomnode.audit.journal import Draining, Journal, Refusals
from dicomnode.audit.messages import AuditMessage, AuditPeer
from dicomnode.audit.syslog import Sink
from dicomnode.config import Config
from dicomnode.errors import DicomnodeError, PeerError
from dicomnode.files import sha256_of, write_whole
from dicomnode.outbound.peers import audit_peer
from dicomnode.reception import audited
from dicomnode.retry import backoff_s
from dicomnode.store import process_names
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.words.numerals import plural

log = logging.getLogger(__name__)

#: Messages in one batch, which is one connection over TLS.
BATCH = 200
#: Before the tries that the node's stop is told by: a server may stumble over a connection that follows another at once
#: (rsyslog 8.2302 does over TLS), and what is left then waits for the node's next start.
_LAST_PAUSES_S = (0.2, 0.5)
_TICK_S, _FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 1.0, 30.0
#: What was delivered so long ago, and not told by its worker, is told by the clock: the worker was killed.
_UNTOLD_S = 300.0
_TIDY_S = 60.0
_ADOPT_EVERY_S = 60.0


def begin(config: Config, catalog: Catalog | None) -> None:
    """Note events of this process in `catalog`; without one only its transactions note any."""
    source = config.audit.source(config.node.ae_title)
    trail.begin(source, None if catalog is None or source is None else catalog.audit)


@contextmanager
def receiving(config: Config) -> Iterator[None]:
    """Note events of a receiver by way of its journal, and take over those of receivers that died."""
    source = config.audit.source(config.node.ae_title)
    if source is None:
        trail.begin(None)
        audited.begin(None)
        yield
        return
    catalog = Catalog.open(config.catalog_url, config.storage.state)
    journal = Journal(config.storage.state / "audit", process_names.current())
    told = Refusals(journal.keep_count)
    adopted = 0.0

    def tell(count: int) -> None:
        peer = AuditPeer("various", "")
        why = f"{plural(count, 'more association')} refused"
        trail.note(messages.refused, time.time(), peer, why, count)

    def adopt() -> None:
        nonlocal adopted
        journal.adopt(process_names.is_alive, catalog.audit_all, tell)
        adopted = time.monotonic()

    def drain() -> None:
        told.tell_others(tell)
        journal.drain(catalog.audit_all)
        if time.monotonic() - adopted > _ADOPT_EVERY_S:
            adopt()

    trail.begin(source, journal.note)
    audited.begin(told)
    adopt()
    draining = Draining(drain)
    try:
        yield
    finally:
        audited.begin(None)
        told.tell_others(tell, at_once=True)
        draining.stop()
        journal.close()
        trail.begin(None)
        catalog.close()


def noted_configuration(config: Config, path: Path) -> None:
    """Note that the configuration is not the one of the last start, if so: a Security Alert."""
    if trail.source() is None:
        return
    digest = sha256_of(path)
    kept = config.storage.state / "audit" / "configuration.sha256"
    before = kept.read_text().strip() if kept.exists() else ""
    if before == digest:
        return
    details = {"sha256": digest, "sha256 before": before or "none", "reported by": messages.os_user()}
    trail.note(messages.alert, time.time(), messages.SECURITY_CONFIGURATION, str(path), details)
    write_whole(kept, digest + "\n")


class Sender:
    """Sends what waits in the outbox, in a thread of its own, from `start` to `stop`."""

    def __init__(self, config: Config, catalog: Catalog) -> None:
        self._config, self._catalog, self._table = config, catalog, config.audit
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failures = 0
        self._tidied = -_TIDY_S

    def start(self) -> None:
        """Begin, where the trail goes anywhere."""
        sink = self._table.sink(socket.gethostname())
        if sink is not None:
            self._thread = threading.Thread(target=self._run, args=(sink,), name="audit", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Send what waits, in three tries at most, and end."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, sink: Sink) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            pause = self._try(sink)
        self._try(sink)
        for pause in _LAST_PAUSES_S:
            if not self._failures:
                break
            time.sleep(pause)
            self._try(sink)

    def _try(self, sink: Sink) -> float:
        """Return the seconds until the next try."""
        try:
            self._look_after()
            while self.send(sink):
                pass
        except PeerError as error:
            self._failures += 1
            log.warning("audit messages wait: %s", error)
            return backoff_s(_FIRST_PAUSE_S, _LONGEST_PAUSE_S, self._failures, str(sink))
        except DicomnodeError as error:
            log.warning("audit messages wait: %s", error)
        except Exception as error:  # noqa: BLE001  (the sender goes on, whatever one batch met)
            logs.log_unexpected(log, error, "audit messages wait")
        else:
            self._failures = 0
        return _TICK_S

    def send(self, sink: Sink) -> int:
        """Send one batch; returns how many messages. Raises PeerError, SpoolError."""
        batch = self._catalog.audit_waiting(BATCH)
        if not batch:
            return 0
        done = sink.send(batch)
        if done:
            self._catalog.audit_sent([m.number for m in batch[:done]], time.time())
        if done < len(batch):
            raise PeerError(f"{sink}: took {done} of {plural(len(batch), 'message')}")
        return done

    def _look_after(self) -> None:
        """Tell what a killed worker has not told; remove what was sent; warn of what waits too long."""
        now, steady = time.time(), time.monotonic()
        if steady - self._tidied < _TIDY_S:
            return
        self._tidied = steady
        for study_uid, generation, destination in self._catalog.sent_untold(now - _UNTOLD_S):
            peer = audit_peer(self._config, destination)
            self._catalog.tell_sent(study_uid, generation, destination, peer, now)
        dropped = self._catalog.tidy_audit(now - self._table.keep_days * 86_400, self._table.most_waiting)
        if dropped:
            log.error("%s dropped: more than audit.most_waiting wait", plural(dropped, "audit message"))
            self._catalog.audit(self._dropped(dropped))
        count, oldest = self._catalog.audit_backlog()
        if oldest is not None and now - oldest > self._table.warn_after_s:
            waiting = plural(count, "audit message waits", "audit messages wait")
            log.error("%s, the oldest for %.0f s: see `dicomnode check`", waiting, now - oldest)

    def _dropped(self, count: int) -> AuditMessage:
        source = self._table.source(self._config.node.ae_title)
        assert source is not None
        details = {"messages dropped": str(count)}
        what = "audit outbox"
        return messages.alert(source, time.time(), messages.RECORDING_STOPPED, what, details, outcome=messages.SERIOUS)
