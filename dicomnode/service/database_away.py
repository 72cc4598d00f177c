"""The alert that the database is away: it stands in a file, since the catalogue is what is missing.

The file lies in `storage.state`: a node that is started again and again while its database is away tells it once.
"""

import json
import logging
import socket
import time
from collections.abc import Callable

from dicomnode.config import Config, NotifyTable
from dicomnode.errors import DicomnodeError
from dicomnode.files import make_folder, write_whole
from dicomnode.outbound.notify.sending import send
from dicomnode.store.catalog.alerts import Alert, event_id
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Event
from dicomnode.words.numerals import plural

log = logging.getLogger(__name__)

FILE = "database-away.json"


class DatabaseAway:
    """Notes since when the database is away, and tells those who ask for alerts."""

    def __init__(self, config: Config, clock: Callable[[], float] = time.time) -> None:
        self._config, self._clock = config, clock
        self._path = config.storage.state / FILE
        self._away_s = config.alerts.away_minutes * 60
        self._logged = False

    def is_away(self) -> None:
        """Note that the database does not answer; a message that is not taken is sent again at the next call."""
        since, told = self._read()
        if since is None:
            self._write(self._clock(), set())
        elif self._away_s and self._clock() - since >= self._away_s:
            minutes = (self._clock() - since) / 60
            text = (
                f"the database has not answered for {plural(round(minutes), 'minute')}: "
                f"nothing is received or delivered"
            )
            if not self._logged:
                log.error("ALERT: %s", text)
                self._logged = True
            left = [to for to in self._receivers() if to.name not in told]
            if left:
                self._write(since, told | self._tell(self._alert(text, since), left))

    def answers(self, catalog: Catalog) -> None:
        """Note that the database answers; that it does again is told as of any alert. Raises SpoolError."""
        since, told = self._read()
        if since is None:
            return
        text = f"over: the database answers again, after {plural(round((self._clock() - since) / 60), 'minute')}"
        if self._logged or told:
            log.warning("ALERT %s", text)
        self._logged = False
        receivers = [to.name for to in self._receivers() if to.name in told]
        catalog.tell_over(self._alert(text, since), text, receivers, self._clock())
        self._path.unlink(missing_ok=True)

    def _receivers(self) -> list[NotifyTable]:
        return [to for to in self._config.notify if "alert" in to.events]

    def _alert(self, text: str, since: float) -> Alert:
        host = socket.gethostname()
        return Alert(f"database@{host}", host, text, since)

    def _tell(self, alert: Alert, receivers: list[NotifyTable]) -> set[str]:
        """Tell them; returns the names of those who have taken it."""
        told = set()
        for to in receivers:
            try:
                send(self._config, to, Event(event_id(alert, "alert"), "", 0, "alert", alert.text, self._clock()), None)
            except DicomnodeError as error:
                log.warning("notification failed, will retry: %s", error)
            else:
                told.add(to.name)
        return told

    def _read(self) -> tuple[float | None, set[str]]:
        """Since when it is away, and who was told."""
        try:
            found = json.loads(self._path.read_text("utf-8"))
            return min(float(found["since"]), self._clock()), set(map(str, found["told"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None, set()

    def _write(self, since: float, told: set[str]) -> None:
        try:
            make_folder(self._path.parent)
            write_whole(self._path, json.dumps({"since": since, "told": sorted(told)}))
        except (OSError, DicomnodeError) as error:
            log.warning("%s cannot be written: %s", self._path, error)
