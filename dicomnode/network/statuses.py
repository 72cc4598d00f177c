"""Statuses (PS3.4, PS3.7 annex C): what this node answers and when, and what a peer's answer is taken as.

The tables themselves stand beside the code that acts on them (`STATUSES`, `ANSWERS`); the conformance statement prints
the same ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

#: What a peer's answer leads to: done; done with a remark; more follows; ended by us; another attempt later; no other
#: attempt; the task is no longer ours.
Taken = Literal["success", "warning", "pending", "cancelled", "passing", "permanent", "not ours"]
_HIGHEST = 0xFFFF


@dataclass(frozen=True)
class PeerStatus:
    """A status, or a range of them up to `last`, that a peer may answer with. `source`: where the standard has it."""

    status: int
    meaning: str
    source: str
    taken_as: Taken
    last: int | None = None

    def covers(self, status: int) -> bool:
        """Say whether a status is this one."""
        return self.status <= status <= (self.status if self.last is None else self.last)


@dataclass(frozen=True)
class OwnStatus:
    """A status that this node answers with: when, by which table of the standard, and what follows here."""

    status: int
    when: str
    source: str
    consequence: str = ""


def every_other(taken_as: Taken, meaning: str = "every other status") -> PeerStatus:
    """Return the last row of a table: what the rows before it do not cover."""
    return PeerStatus(0, meaning, "", taken_as, _HIGHEST)


def taken(statuses: Sequence[PeerStatus], status: int) -> Taken:
    """Return what a status is taken as: the first row counts that covers it, and the last one covers all."""
    return next(one.taken_as for one in statuses if one.covers(status))
