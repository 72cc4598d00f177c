"""The processes in which a worker analyses: they keep the models warm, and are ended where a study breaks a limit.

    worker ──┬── analyst    one study at a time; as many of them as `worker.concurrency`
             └── …          the next study finds it as it was, with its models

The worker asks over a socket, a line of JSON for each study, and watches memory and time meanwhile (`limits`). An
analyst that is ended costs the study that did it, and nobody else anything: another one is started at once. It ends by
itself when the worker does, however that ends.
"""

import base64
import json
import logging
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dicomnode import logs
from dicomnode.analysis.volume.size import died, too_large
from dicomnode.audit import messages, trail
from dicomnode.config import Config
from dicomnode.errors import DicomnodeError, SpoolError
from dicomnode.limits import LOOK_S, Limits, Watch, confine, one_heap, resident_bytes
from dicomnode.processes import imports
from dicomnode.routing.rules import DEFAULT_PROFILE
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Lease
from dicomnode.store.results_folder import results_folder
from dicomnode.workflows.attempt import TRIES, Attempt
from dicomnode.workflows.serializer import JsonSerializer
from dicomnode.workflows.worker import LOST_LEASE_STATUS, Work, exit_without_lease

if TYPE_CHECKING:
    from dicomnode.models.serving import Models
    from dicomnode.workflows.ahead import Ahead

log = logging.getLogger(__name__)

#: Of an analyst that has not said yet that its models are loaded.
_START_S = 600.0
#: An analyst that keeps more than this part of the limit between two studies is replaced: the next has less room.
_KEPT = 3
_PIECE = 1 << 16


class _DiedError(Exception):
    """An analyst ended without an answer."""


class _BrokenError(Exception):
    """An analyst broke a limit and was ended."""


class _Process:
    """One analyst, as the worker sees it."""

    def __init__(self, config: Config) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "dicomnode.workflows.analyst", str(theirs.fileno())]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=one_heap()
            )
        self._said = b""
        self._is_ready = False
        # As multiprocessing hands objects to its children: over a socket that nobody else has. JSON would be read anew
        # by the validators, which know what stands in a file, not what became of it.
        handed = base64.b64encode(pickle.dumps(config)).decode()
        self._say({"config": handed})

    def ask(self, study_uid: str, generation: int, lease: Lease, limits: Limits) -> dict[str, Any]:
        """Return the answer. Raises _DiedError, _BrokenError; DicomnodeError: it could not begin its work."""
        self.begin(limits)
        held = {"name": lease.name, "epoch": lease.epoch}
        self._say({"study_uid": study_uid, "generation": generation, "lease": held})
        return self._heard(limits)

    def look_ahead(self, study_uid: str, lease: Lease, limits: Limits) -> dict[str, Any]:
        """Have a study measured that has not settled. Returns the answer; raises as `ask`."""
        self.begin(limits)
        self._say({"ahead": study_uid, "lease": {"name": lease.name, "epoch": lease.epoch}})
        return self._heard(limits)

    def begin(self, limits: Limits) -> None:
        """Wait until its models are loaded. Raises as `ask`."""
        if self._is_ready:
            return
        started = self._heard(Limits(limits.memory_bytes, _START_S))
        if "error" in started:
            self.end()
            raise _error(started)
        self._is_ready = True

    def method(self, limits: Limits) -> dict[str, Any]:
        """Return the digests of the methods that it would use now, and the bundle's name. Raises as `ask`."""
        self.begin(limits)
        self._say({})
        return self._heard(limits)

    def _say(self, message: dict[str, Any]) -> None:
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return  # it has died: `_heard` sees that

    def _heard(self, limits: Limits) -> dict[str, Any]:
        watch, waiting = Watch(self._process.pid, limits), select.poll()
        waiting.register(self._socket, select.POLLIN)
        while b"\n" not in self._said:
            if waiting.poll(LOOK_S * 1000):
                try:
                    piece = self._socket.recv(_PIECE)
                except OSError:
                    piece = b""
                if not piece:
                    raise _DiedError(self.end())
                self._said += piece
                continue
            broken = watch.breach()
            if broken is not None:
                self.end()
                raise _BrokenError(broken)
        line, _, self._said = self._said.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def end(self) -> str:
        """End it; say how it ended, if that was before."""
        try:
            status = self._process.wait(LOOK_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._socket.close()
        if status == LOST_LEASE_STATUS:
            exit_without_lease()
        return f"signal {-status}" if status < 0 else f"exit status {status}"

    def leave(self) -> None:
        """Let it end by itself, as it does when nobody talks to it any more."""
        self._socket.close()
        self._process.wait()


class Analyst:
    """A worker's analysts; safe to share between threads."""

    def __init__(self, config: Config) -> None:
        self._config, self._limits = config, config.worker.limits
        self._lease: Lease | None = None
        self._lock = threading.Lock()
        self._is_ahead, self._is_back = False, threading.Condition(self._lock)
        self._digests: dict[str, str] = {}
        self._bundle: dict[str, str] | None = None
        self._idle = [self._start()]

    def begin(self) -> None:
        """Wait until the models are loaded: a worker that cannot analyse takes no work.

        Raises:
            DicomnodeError: they cannot be, as `Models`; or the analyst ended, or broke a limit, before they were.
        """
        self._look()

    def hold(self, lease: Lease) -> None:
        """Analyse under this lease from now on."""
        self._lease = lease

    @property
    def digest(self) -> str:
        """Of the default profile's method, as `digest_of`."""
        return self.digest_of(None)

    def digest_of(self, profile: str | None) -> str:
        """Of the method by which a profile's next study will be analysed: of the bundle that lies in its folder now.

        While all analysts are busy, and where the one that is asked ends or fails, it is the last one that was told;
        "" where no analyst has loaded such a profile.
        """
        with suppress(DicomnodeError):
            self._look()
        return self._digests.get(profile or DEFAULT_PROFILE, "")

    def _look(self) -> None:
        # Whoever wants an analyst meanwhile waits for this one, and starts no other.
        with self._lock:
            if not self._idle:
                return
            process = self._idle.pop()
            try:
                self._note(process.method(self._limits))
            except (_BrokenError, _DiedError) as error:
                raise SpoolError(f"an analyst ended as it began ({error}): see the worker's log") from None
            else:
                self._idle.append(process)
            finally:
                if not self._idle:
                    self._idle.append(self._start())

    def _note(self, method: dict[str, Any]) -> None:
        bundle = method["bundle"]
        if self._digests and bundle is not None and bundle != self._bundle:
            details = {"version": bundle["version"], "sha256": bundle["sha256"]}
            trail.note(
                messages.alert, time.time(), messages.SOFTWARE_CONFIGURATION, f"bundle {bundle['name']}", details
            )
        self._digests, self._bundle = method["digests"], bundle

    def analyse(self, study_uid: str, generation: int) -> str:
        """Have a study analysed; it waits for nobody. Returns "analysed" or "refused".

        Raises:
            RefusedError: the study broke a limit ("too-large"), or its analysis died each time ("analysis-died").
            DicomnodeError: as `analysing.analyse_study`.
        """
        assert self._lease is not None, "nothing is analysed without a lease"
        attempt = Attempt(results_folder(self._config.storage.results, study_uid, generation))
        attempt.begin()
        how = ""
        for _ in range(TRIES):
            process = self._take()
            try:
                answer = process.ask(study_uid, generation, self._lease, self._limits)
            except _BrokenError as error:
                self._replace()
                attempt.end()
                raise too_large(str(error)) from None
            except _DiedError as error:
                how = str(error)
                log.error("the analysis of study %s died (%s)", study_uid, how)
                self._replace()
                continue
            if answer["leaves"]:
                process.leave()
                self._replace()
            else:
                self._give_back(process)
            attempt.end()
            if "error" in answer:
                raise _error(answer)
            return str(answer["status"])
        attempt.end()
        raise died(TRIES, how)

    @property
    def is_idle(self) -> bool:
        """Whether an analyst has nothing to do, and nothing is measured ahead."""
        with self._lock:
            return bool(self._idle) and not self._is_ahead

    def look_ahead(self, study_uid: str) -> None:
        """Have a study measured that has not settled, if an analyst has nothing to do; waits for it (`ahead`).

        Whoever is to be analysed meanwhile waits too, unless another analyst is idle: each may use the memory of one
        analysis. A study that breaks a limit does so again when it is analysed, and is refused then.
        """
        assert self._lease is not None, "nothing is measured without a lease"
        with self._lock:
            if self._is_ahead or not self._idle:
                return
            process, self._is_ahead = self._idle.pop(), True
        try:
            answer = process.look_ahead(study_uid, self._lease, self._limits)
            if "error" in answer:
                log.info("study %s is measured once it has settled", study_uid)
        except (_BrokenError, _DiedError) as error:
            log.warning("study %s was not measured before it settled: %s", study_uid, error)
            process = self._start()
        except DicomnodeError:
            process = self._start()
            raise
        finally:
            with self._lock:
                self._idle.append(process)
                self._is_ahead = False
                self._is_back.notify_all()

    def close(self) -> None:
        """Let those end that have nothing to do; the others end with this process."""
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.leave()

    def _start(self) -> _Process:
        return _Process(self._config)

    def _take(self) -> _Process:
        with self._lock:
            while not self._idle and self._is_ahead:
                self._is_back.wait()
            if self._idle:
                return self._idle.pop()
        return self._start()

    def _give_back(self, process: _Process) -> None:
        with self._lock:
            self._idle.append(process)

    def _replace(self) -> None:
        """Begin another one, so that it has its models by the time that a study comes."""
        self._give_back(self._start())


def _error(answer: dict[str, Any]) -> DicomnodeError:
    error = JsonSerializer().deserialize(answer["error"])
    if isinstance(error, DicomnodeError):
        return error
    return SpoolError(f"the analysis failed ({type(error).__name__}): see the worker's log")


# The other side


def main() -> None:
    """Analyse what the worker asks for, until it ends."""
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, signal.SIG_IGN)  # a service manager tells all processes; the worker decides what is ended
    os.umask(0o077)
    asked = socket.socket(fileno=int(sys.argv[1]))
    with asked.makefile("rb") as lines:
        first = json.loads(lines.readline() or b"null")
        threading.Thread(target=_end_with_worker, args=(asked,), daemon=True).start()
        if first is not None:
            config = pickle.loads(base64.b64decode(first["config"]))  # noqa: S301  (our own parent's, see `_Process`)
            _serve(asked, lines, config)


def _serve(asked: socket.socket, lines: Any, config: Config) -> None:
    logs.configure(config.logging.level, "analysis", config.logging.format, config.kept_lines)
    limits = config.worker.limits
    tables = [config.analysis, *(config.analysis_of(profile.name) for profile in config.profile)]
    confine(limits, reserves=any(table.device != "cpu" for table in tables))
    try:
        # What analyses is slow to import, and nothing for a process that only watches.
        with imports():
            from dicomnode.models.serving import Models  # noqa: PLC0415
            from dicomnode.workflows import analysing  # noqa: F401, PLC0415  (so that the first study need not wait)
            from dicomnode.workflows.ahead import Ahead  # noqa: PLC0415

        ahead = Ahead()
        models = Models(config)
        catalog = Catalog.open(config.catalog_url, config.storage.state)
    except Exception as error:  # noqa: BLE001  (whatever it is, the worker has to know)
        _answer(asked, {"error": JsonSerializer().serialize(error)})
        return
    _answer(asked, {"ready": True})
    for line in lines:
        asked_for = json.loads(line)
        if not asked_for:
            _answer(asked, _method(models))
            continue
        lease = Lease(asked_for["lease"]["name"], asked_for["lease"]["epoch"])
        work = Work(config, catalog.leased(lease, _exit_without_lease), models)
        if "ahead" in asked_for:
            _answer(asked, _measured_ahead(work, ahead, asked_for["ahead"]))
            continue
        answer = _analysed(work, asked_for["study_uid"], asked_for["generation"], ahead)
        ahead.forget()
        leaves = "too-large" in answer.get("error", "") or resident_bytes(os.getpid()) > limits.memory_bytes / _KEPT
        _answer(asked, {**answer, "leaves": leaves})


def _method(models: "Models") -> dict[str, Any]:
    method = models.method()
    bundle = method.bundle
    named = None if bundle is None else {"name": bundle.name, "version": bundle.version, "sha256": bundle.sha256}
    return {"digests": {name: models.method(name).digest for name in models.profiles}, "bundle": named}


def _measured_ahead(work: Work, ahead: "Ahead", study_uid: str) -> dict[str, Any]:
    try:
        return {"measured": ahead.measure(work, study_uid)}
    except Exception as error:  # noqa: BLE001  (whatever it is, the study's own analysis meets it again, and tells)
        ahead.forget()
        return {"error": type(error).__name__}


def _analysed(work: Work, study_uid: str, generation: int, ahead: "Ahead") -> dict[str, Any]:
    from dicomnode.workflows.analysing import analyse_study  # noqa: PLC0415  (as above)

    try:
        return {"status": analyse_study(work, study_uid, generation, ahead)}
    except DicomnodeError as error:
        return {"error": JsonSerializer().serialize(error)}
    except Exception as error:  # noqa: BLE001  (this study fails visibly, the worker goes on)
        logs.log_unexpected(log, error, "study %s generation %d: its analysis failed", study_uid, generation)
        return {"error": JsonSerializer().serialize(error)}


def _answer(asked: socket.socket, message: dict[str, Any]) -> None:
    asked.sendall(json.dumps(message).encode() + b"\n")


def _end_with_worker(asked: socket.socket) -> None:
    ended = select.poll()
    ended.register(asked, select.POLLRDHUP)
    ended.poll()
    os._exit(0)


def _exit_without_lease() -> Any:
    os._exit(LOST_LEASE_STATUS)


if __name__ == "__main__":
    main()
