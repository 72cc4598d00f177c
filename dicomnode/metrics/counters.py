"""What the processes count for Prometheus. As with logging, there is one place for a process, set when it starts.

Each process counts into files of its own that are mapped into its memory (prometheus_client's multiprocess mode), and
`monitoring` adds them up when it is asked: no process waits for another, and one that is killed loses nothing. While
`begin` has not been called nothing is counted.

Labels take few values, all of them ours or the configuration's: nothing that a peer may choose, and no patient's data.
What may happen stands there with 0 from the beginning: Prometheus sees no increase in a figure that comes with it.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from dicomnode import processes

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge

Role = Literal["receiver", "worker", "clock"]
#: Why an association was refused.
Refusal = Literal["caller", "called title", "rate", "limit or disk", "against PS3.8", "TLS"]
Ending = Literal["released", "aborted"]
_STORED = "stored"
_OUTCOMES = ("delivered", "again", "rejected", "failed")
#: Of the library: where the files lie. It looks when it is imported first.
_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


class _Counts:
    """The counters of this process."""

    def __init__(self) -> None:
        from prometheus_client import Counter, Gauge  # noqa: PLC0415  (it has to find the folder set)

        def counter(name: str, text: str, *labels: str) -> "Counter":
            return Counter(f"dicomnode_{name}", text, labels, registry=None)

        def gauge(name: str, text: str, *labels: str, mode: Literal["livesum", "max"]) -> "Gauge":
            return Gauge(f"dicomnode_{name}", text, labels, registry=None, multiprocess_mode=mode)

        self.accepted = counter("associations_accepted", "Associations accepted.")
        self.refused = counter("associations_refused", "Associations refused.", "reason")
        self.ended = counter("associations_ended", "Associations ended.", "how")
        self.open = gauge("associations_open", "Associations open now.", mode="livesum")
        self.objects = counter("objects_received", "Objects received by C-STORE.", "result")
        self.bytes = counter("received_bytes", "Bytes of the objects that were stored.")
        self.attempts = counter("delivery_attempts", "Attempts to deliver an object.", "destination", "outcome")
        self.processes = gauge("processes", "Processes that run.", "role", mode="livesum")
        self.tick = gauge("clock_last_tick_timestamp_seconds", "When the clock ticked last.", mode="max")

    def begin(self, role: Role, destinations: Sequence[str]) -> None:
        """Say what this process is, and with 0 what may happen to it."""
        self.processes.labels(role).set(1)
        if role == "receiver":
            for reason in get_args(Refusal):
                self.refused.labels(reason)
            for how in get_args(Ending):
                self.ended.labels(how)
            self.objects.labels(_STORED)
        if role == "worker":
            for name in destinations:
                for outcome in _OUTCOMES:
                    self.attempts.labels(name, outcome)


_counts: _Counts | None = None


def begin(folder: Path, role: Role, destinations: Sequence[str] = ()) -> None:
    """Count from now on; a second call changes nothing but what may happen.

    Args:
        folder: where this process makes its files; it exists.
        role: what this process is.
        destinations: those of the configuration, by name.
    """
    global _counts  # noqa: PLW0603
    if _counts is None:
        os.environ[_VARIABLE] = str(folder)
        _counts = _Counts()
    _counts.begin(role, destinations)


def stay_apart() -> None:
    """Let this process' own figures be no part of those that are added up: before prometheus_client is imported.

    A process that was started by one which counts has its folder in the environment.
    """
    os.environ.pop(_VARIABLE, None)


def association_accepted() -> None:
    """Count an association that was let in."""
    if _counts is not None:
        _counts.accepted.inc()
        _counts.open.inc()


def association_refused(reason: Refusal) -> None:
    """Count one that was not."""
    if _counts is not None:
        _counts.refused.labels(reason).inc()


def association_ended(how: Ending) -> None:
    """Count the end of one that was let in."""
    if _counts is not None:
        _counts.ended.labels(how).inc()
        _counts.open.dec()


def object_received(result: str, size: int = 0) -> None:
    """Count an object of `size` bytes; `result`: "stored", or the status it was refused with."""
    if _counts is not None:
        _counts.objects.labels(result).inc()
        _counts.bytes.inc(size)


def delivery_attempted(destination: str, outcome: str) -> None:
    """Count an attempt to bring an object to a destination of the configuration."""
    if _counts is not None:
        _counts.attempts.labels(destination, outcome).inc()


def ticked(at: float) -> None:
    """Note that the clock goes; `at`: UTC seconds."""
    if _counts is not None:
        _counts.tick.set(at)


def forget_dead(folder: Path, *, counted: bool = False) -> None:
    """Remove what ended processes say of themselves (that they run, what is open); `counted`: what they counted too."""
    for path in folder.glob("*.db" if counted else "gauge_live*.db"):
        number = path.stem.rpartition("_")[2]
        if number.isdigit() and processes.started(int(number)) is None:
            path.unlink(missing_ok=True)
