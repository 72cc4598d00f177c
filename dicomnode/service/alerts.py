"""Alerts about the node itself: looked for by the clock, told once, and once more when they are over.

What is raised stands in the catalogue, so that a restart tells nothing twice. The messages are sent from here and not
by a worker: a worker may be what is missing.
"""

import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence

from dicomnode import logs
from dicomnode.config import Config, NotifyTable
from dicomnode.errors import DatabaseError, DicomnodeError
from dicomnode.outbound.destinations import Destination
from dicomnode.outbound.notify.sending import send
from dicomnode.outbound.peers import known
from dicomnode.retry import backoff_s
from dicomnode.service import conditions
from dicomnode.service.conditions import HealthCondition, Supervised
from dicomnode.service.database_away import DatabaseAway
from dicomnode.store.catalog.alerts import PERIOD_S, Alert, AlertMessage
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Event

log = logging.getLogger(__name__)

#: A message that is being sent is nobody else's for so long; then whoever sent it has died.
_CLAIMED_S = 300.0
#: An alert that nobody has looked at for so long is a machine's that is gone, and ends.
_UNSEEN_S = 86_400.0
#: Messages that nobody has sent for so long are forgotten.
_FORGET_S = 30 * 86_400.0
#: How often messages that are due are looked for.
_SEND_S = 1.0
#: A message that is being sent when the node stops is waited for so long; else it is sent at the next start.
_LAST_MESSAGE_S = 2.0


class Alerts:
    """The looks of one node. `look_at_node`, `ask_peers` and `look_at_database` are ticks of its clock."""

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        children: Sequence[Supervised] = (),
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._catalog, self._children = config, catalog, children
        self._clock, self._steady = clock, steady
        self._host = socket.gethostname()
        self._well_s = config.alerts.away_minutes * 60
        self._bad_since: dict[str, float] = {}
        self._well_since: dict[str, float] = {}
        self._peers: dict[str, str | None] = {}
        self._being_asked: set[str] = set()
        self._database = DatabaseAway(config, clock)

    def look_at_node(self) -> list[str]:
        """Raise what has been bad for long enough, end what is over. Returns the keys of what changed."""
        now = self._clock()
        self._catalog.forget_refusals(now - self._config.alerts.refused_minutes * 60 - 2 * PERIOD_S, now)
        longest_s = max((to.retry_for_s for to in self._config.notify), default=0.0)
        self._catalog.forget_alert_messages(now - _FORGET_S - longest_s)
        found = conditions.find(self._config, self._catalog, self._children, dict(self._peers), now, self._host)
        raised = {alert.key: alert for alert in self._catalog.alerts()}
        changed = [one.key for one in found if self._judge(one, raised.get(one.key), now)]
        looked_at = {one.key for one in found} | self._unknown()
        for alert in raised.values():
            if alert.key not in looked_at and alert.host == self._host:
                self._end(alert, f"over, as it is no longer looked at: {alert.text}", now)
                changed.append(alert.key)
        if looked_at & raised.keys():
            self._catalog.see_alerts(looked_at & raised.keys(), now)
        for alert in self._catalog.unseen_alerts(now - _UNSEEN_S):
            self._end(alert, f"over, as {alert.host} has not looked for a day: {alert.text}", now)
            changed.append(alert.key)
        return changed

    def _unknown(self) -> set[str]:
        """Return the keys of what will be known later: the peers that have not been asked since the start."""
        return {f"{name}@{self._host}" for name in self._asked().keys() - self._peers.keys()}

    def _judge(self, one: HealthCondition, raised: Alert | None, now: float) -> bool:
        if one.is_bad is not False or raised is None:
            self._well_since.pop(one.key, None)
        if one.is_bad:
            since = self._bad_since.setdefault(one.key, self._steady())
            if raised is not None or self._steady() - since < one.for_s:
                return False
            return self._raise(Alert(one.key, self._host, one.text, now))
        if one.is_bad is False:
            self._bad_since.pop(one.key, None)
            # What comes and goes is one alert: it is over once all has been well for a while.
            if raised is not None and self._steady() - self._well_since.setdefault(one.key, self._steady()) >= (
                self._well_s
            ):
                return self._end(raised, f"over: {raised.text}", now)
        return False

    def _raise(self, alert: Alert) -> bool:
        # Who asks for "certificate" is told of these by that event, step by step.
        receivers = [
            to.name
            for to in self._config.notify
            if "alert" in to.events and not (_is_certificate(alert) and "certificate" in to.events)
        ]
        if not self._catalog.raise_alert(alert, receivers):
            return False
        log.error("ALERT: %s", alert.text)
        return True

    def _end(self, alert: Alert, text: str, now: float) -> bool:
        receivers = [
            to.name
            for to in self._config.notify
            if "alert" in to.events or (_is_certificate(alert) and "certificate" in to.events)
        ]
        if not self._catalog.end_alert(alert, text, receivers, now):
            return False
        self._well_since.pop(alert.key, None)
        log.warning("ALERT %s", text)
        return True

    def look_at_database(self) -> None:
        """Note whether the database answers; what is told of that needs no catalogue."""
        try:
            self._catalog.answers()
        except DatabaseError:
            self._database.is_away()
        else:
            self._database.answers(self._catalog)

    def ask_peers(self) -> list[threading.Thread]:
        """Ask every peer for a sign of life, each in a thread of its own: nothing waits for a peer that is away."""
        threads = []
        for name, peer in self._asked().items():
            if name not in self._being_asked:
                self._being_asked.add(name)
                thread = threading.Thread(target=self._ask, args=(name, peer), name=f"echo-{name}", daemon=True)
                thread.start()
                threads.append(thread)
        return threads

    def _ask(self, name: str, peer: Destination) -> None:
        try:
            self._peers[name] = _trouble(peer)
        finally:
            self._being_asked.discard(name)

    def _asked(self) -> dict[str, Destination]:
        if not (self._config.alerts.ask_peers and self._config.alerts.away_minutes):
            return {}
        return {one.what: one.reached for one in known(self._config)}


def _is_certificate(alert: Alert) -> bool:
    return alert.key.startswith(conditions.CERTIFICATE)


def _trouble(peer: Destination) -> str | None:
    try:
        peer.echo()
    except DicomnodeError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  (whatever an answer provokes: the peer is of no use)
        logs.log_unexpected(log, error, "%s could not be asked", peer)
        return type(error).__name__
    return None


class AlertSender:
    """Sends messages about alerts, from `start` to `stop`: a thread for each receiver, so none waits for others."""

    def __init__(self, config: Config, catalog: Catalog, clock: Callable[[], float] = time.time) -> None:
        self._config, self._catalog, self._clock = config, catalog, clock
        self._stop = threading.Event()
        # All of them, since what was raised while one asked for alerts is still on its way.
        self._threads = [
            threading.Thread(target=self._run, args=(to,), name=f"alerts-{to.name}", daemon=True)
            for to in config.notify
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; a message that is being sent is waited for, for a moment."""
        self._stop.set()
        deadline = time.monotonic() + _LAST_MESSAGE_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self, to: NotifyTable) -> None:
        while not self._stop.wait(_SEND_S):
            try:
                self.send_due(to)
            except DatabaseError:
                pass  # the clock says so
            except DicomnodeError as error:
                log.warning("messages about alerts wait: %s", error)
            except Exception as error:  # noqa: BLE001  (the sender goes on, whatever one message met)
                logs.log_unexpected(log, error, "messages about alerts wait")

    def send_due(self, to: NotifyTable) -> int:
        """Send what is due to one receiver; returns how many messages it has taken. Raises SpoolError."""
        taken = 0
        longest_s = max(to.retry_first_s, to.retry_longest_s)
        for message in self._catalog.due_alert_messages(to.name, self._clock(), _CLAIMED_S, longest_s):
            taken += self._send(to, message)
        return taken

    def _send(self, to: NotifyTable, message: AlertMessage) -> bool:
        event = Event(message.event_id, "", 0, message.state, message.text, message.at)
        try:
            send(self._config, to, event, None)
        except DicomnodeError as error:
            waited = self._clock() - message.at
            if waited >= to.retry_for_s:
                log.error("%s: gave up after %.0f s, event %s not sent", error, waited, message.event_id)
                self._catalog.forget_alert_message(message)
                return False
            log.warning("notification failed, will retry: %s", error)
            seed = f"{to.name} {message.event_id}"
            pause = backoff_s(to.retry_first_s, to.retry_longest_s, message.attempts + 1, seed=seed)
            self._catalog.put_off_alert_message(message, self._clock() + pause)
            return False
        self._catalog.forget_alert_message(message)
        log.info("notified %s: the node: %s", to.name, message.state)
        return True
