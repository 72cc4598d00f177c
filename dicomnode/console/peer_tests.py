"""Tests of the peers by this console: one at a time of each, and the last of each is remembered."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from dicomnode.errors import UsageError
from dicomnode.operations import peer_tests
from dicomnode.operations.peer_tests import CheckResult
from dicomnode.outbound.peers import KnownPeer


@dataclass(frozen=True)
class PeerTest:
    """The last test of a peer; `at`: in UTC, as ISO 8601 writes it."""

    at: str
    found: CheckResult


class PeerTests:
    """The peers of a configuration, and their last tests by this console. For several threads.

    A peer that does not answer holds a thread until its timeout: it is asked by one person at a time.
    """

    def __init__(self, known: Sequence[KnownPeer]) -> None:
        self.known = known
        self._asked = [threading.Lock() for _ in known]
        self._last: dict[int, PeerTest] = {}

    def last(self, number: int) -> PeerTest | None:
        """Return the last test of the peer with this number."""
        return self._last.get(number)

    def ask(self, number: int) -> CheckResult:
        """Ask a peer. Raises UsageError: it is being asked."""
        if not self._asked[number].acquire(blocking=False):
            raise UsageError(f"{self.known[number].what} is being tested: wait for the answer.")
        try:
            found = peer_tests.ask(self.known[number])
            self._last[number] = PeerTest(datetime.now(UTC).isoformat(), found)
        finally:
            self._asked[number].release()
        return found
