"""A retraining on what the registry holds now: export, run, compare. It ends at the gate; a person promotes.

Each has a folder of its own, named by its time, in `retraining.folder`:

    registry/    the export
    run.toml     a copy of `retraining.settings`, whose paths are meant from here: registry = "registry",
                 outcomes = "registry/outcomes.csv", out = "run"
    run/         the run, with gate.json at the end
    training.log what the commands said
"""

import fcntl
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from apscheduler.triggers.cron import CronTrigger

from dicomnode.config import Config
from dicomnode.errors import ConfigurationError, UsageError
from dicomnode.files import make_folder
from dicomnode.registry.export import export
from dicomnode.store.catalog.registry import RegistryRows

log = logging.getLogger(__name__)

#: What a retraining that is told to end needs to end its own processes; then it is killed.
_PATIENCE_S = 10.0


def trigger(schedule: str) -> CronTrigger:
    """When to retrain; `schedule` as in cron, UTC.

    Raises:
        ConfigurationError: it is no such line.
    """
    try:
        return CronTrigger.from_crontab(schedule, timezone="UTC")
    except ValueError as error:
        raise ConfigurationError(
            f"retraining.schedule = {schedule!r}: {error}; give cron's five fields, such as '0 2 * * sun'"
        ) from None


def retrain(config: Config, rows: RegistryRows, progress: Callable[[int, int], None] | None = None) -> Path:
    """Export, run and compare; returns the run's folder, where `gate.json` says whether it may be promoted.

    Raises:
        UsageError: there are no settings, nothing to export, another retraining is at work, or a command failed; its
            log is named.
        SpoolError: the database failed.
    """
    settings = config.retraining.settings
    if not settings.is_file():
        raise UsageError(
            f"{settings} does not exist: write the settings of a run (docs/research/training.md), or change "
            "retraining.settings"
        )
    with _alone(config.retraining.folder) as lock:
        folder = config.retraining.folder / datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        make_folder(folder)
        of = config.registry
        done = export(rows, folder / "registry", progress, disease=of.disease, site=of.site)
        if not done.outcomes:
            raise UsageError("the registry has no outcomes of its patients: run `dicomnode registry import-outcomes`")
        shutil.copyfile(settings, folder / "run.toml")
        current = config.analysis.weights / config.analysis.bundle if config.analysis.bundle else None
        _training(["run", str(folder / "run.toml")], folder, lock)
        _training(["compare", str(folder / "run"), *([str(current)] if current else [])], folder, lock)
    return folder / "run"


@contextmanager
def _alone(folder: Path) -> Iterator[int]:
    """Hold the lock of the folder, and give its descriptor. Raises UsageError: another retraining holds it."""
    make_folder(folder)
    with (folder / ".lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another retraining is running in {folder}: wait for it to end, or stop it") from None
        yield file.fileno()


def _training(arguments: Sequence[str], folder: Path, lock: int) -> None:
    """Run a command of the training package, which the node never imports. Status 3: compared, and not good enough."""
    command = [sys.executable, "-m", "training", *arguments]
    # It holds the lock too: where only this process is killed, no other begins beside what goes on.
    with (
        (folder / "training.log").open("ab") as log_file,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log_file, stderr=log_file, pass_fds=(lock,)
        ) as process,
    ):
        try:
            status = process.wait()
        except BaseException:
            process.terminate()  # and leaving `with` waits for its end
            raise
    if status not in (0, 3):
        raise UsageError(f"`training {arguments[0]}` ended with status {status}: see {folder / 'training.log'}")


class Retraining:
    """The scheduled one: a process of its own, never two at a time."""

    def __init__(self, path: Path) -> None:
        self._command = [sys.executable, "-m", "dicomnode", "registry", "retrain", "--config", str(path)]
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> bool:
        """Start one, unless the last is still at work."""
        if self._process is not None and self._process.poll() is None:
            log.warning("the previous retraining is still running: skipping this one")
            return False
        # A session of its own, so that `stop` reaches whatever it starts.
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, start_new_session=True)
        log.info("retraining started as process %d", self._process.pid)
        return True

    def stop(self) -> None:
        """End it and all that it has started; its folder stays, and nothing of it is served."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE_S)
        with suppress(ProcessLookupError):  # nobody is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
