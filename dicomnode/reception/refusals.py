"""How many associations this receiver has refused, and why: counted in memory, and now and then in the catalogue.

Whoever is refused a thousand times a second makes one row of it every few minutes.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from dicomnode.audit.journal import Draining
from dicomnode.store.catalog.alerts import RefusalCount

_FLUSH_S = 2.0
_MOST_REASONS = 30


class RefusalCounts:
    """The counts of one process. Safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, tuple[str, int]] = {}
        self._reasons: set[str] = set()

    def count(self, calling_ae: str, address: str, why: str) -> None:
        """Count one; `calling_ae` is "" where TLS has failed before it was said."""
        caller = f"{calling_ae} at {address}" if calling_ae else address
        with self._lock:
            # A reason may quote a peer's certificate: whoever makes up new ones makes no more rows.
            if why not in self._reasons and len(self._reasons) >= _MOST_REASONS:
                why = "other reasons"
            self._reasons.add(why)
            _, before = self._counts.get(why, ("", 0))
            self._counts[why] = (caller, before + 1)

    def flush(self, keep: Callable[[Sequence[RefusalCount], float], None]) -> None:
        """Hand over what was counted; what `keep` does not take is kept for the next time. Raises what it raises."""
        with self._lock:
            counted, self._counts = self._counts, {}
        if not counted:
            return
        try:
            keep([RefusalCount(why, caller, n) for why, (caller, n) in counted.items()], time.time())
        except BaseException:
            with self._lock:
                for why, (caller, n) in counted.items():
                    last, more = self._counts.get(why, (caller, 0))
                    self._counts[why] = (last, more + n)
            raise


#: Of this process.
counts = RefusalCounts()


def flushing(keep: Callable[[Sequence[RefusalCount], float], None]) -> Draining:
    """Flush the counts every few seconds from now on, until `stop`."""
    return Draining(lambda: counts.flush(keep), _FLUSH_S, "refused associations", logging.DEBUG)
