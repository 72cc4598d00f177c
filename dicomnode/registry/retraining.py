"""A retraining on what the registry holds now: export, run, compare. It ends at the gate; a person promotes.

Each has a folder of its own, named by its time, in `retraining.folder`:

    registry/    the export
    run/         the run, with the settings in run.toml, and gate.json at the end
    training.log what the commands said

Registry, outcomes and run folder are the node's to set: `retraining.settings` need not name them, and other paths in it
are meant from where it lies.
"""

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from apscheduler.triggers.cron import CronTrigger

from dicomnode import files
from dicomnode.config import Config
from dicomnode.errors import ConfigurationError, UsageError
from dicomnode.registry.background import BackgroundCommand
from dicomnode.registry.export import export
from dicomnode.store.catalog.registry import RegistryRows

log = logging.getLogger(__name__)


def trigger(schedule: str, key: str = "retraining.schedule") -> CronTrigger:
    """Return when something is done by the clock.

    Args:
        schedule: as in cron, UTC.
        key: of the configuration, for messages.

    Raises:
        ConfigurationError: it is no such line.
    """
    try:
        return CronTrigger.from_crontab(schedule, timezone="UTC")
    except ValueError as error:
        raise ConfigurationError(
            f"{key} = {schedule!r}: {error}; give cron's five fields, such as '0 2 * * sun'"
        ) from None


@dataclass(frozen=True)
class Retrained:
    """A run that came to its end at the gate; `refused` are the gate's reasons against it, none where it passed."""

    run: Path
    refused: tuple[str, ...]


def retrain(config: Config, rows: RegistryRows, progress: Callable[[int, int], None] | None = None) -> Retrained:
    """Export, run and compare.

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
        files.make_folder(folder)
        of = config.registry
        done = export(rows, folder / "registry", progress, disease=of.disease, site=of.site)
        if not done.outcomes:
            raise UsageError("the registry has no outcomes of its patients: run `dicomnode registry import-outcomes`")
        current = config.analysis.weights / config.analysis.bundle if config.analysis.bundle else None
        _training(["run", str(settings), *_places(folder)], folder, lock)
        gate = ["compare", str(folder / "run"), *([str(current)] if current else [])]
        _training([*gate, "--weights", str(config.analysis.weights)], folder, lock)
    return Retrained(folder / "run", _refused(folder / "run" / "gate.json"))


def _places(folder: Path) -> list[str]:
    """Return the options that say where a retraining's own things lie."""
    registry = folder / "registry"
    return ["--registry", str(registry), "--outcomes", str(registry / "outcomes.csv"), "--out", str(folder / "run")]


def _refused(path: Path) -> tuple[str, ...]:
    """Return the gate's reasons against the run. Raises UsageError where it has given no verdict."""
    try:
        stored = json.loads(path.read_text("utf-8"))
        failed = tuple(f"{check['name']}: {check['text']}" for check in stored["checks"] if not check["passed"])
        return failed or (() if stored["passed"] is True else ("the gate names no reason",))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(f"{path} is not a verdict of the gate ({error!r}): run `training compare` again") from None


def check_settings(config: Config, rows: RegistryRows | None) -> str:
    """Let the training package check `retraining.settings` against what an export will hold; what it says of them.

    What was recorded decides; where nothing was yet, the configuration.

    Args:
        config: of the node.
        rows: the registry; None where it cannot be read.

    Raises:
        UsageError: the settings do not fit, or the training package is not installed.
        SpoolError: the database failed.
    """
    scans = [] if rows is None else [scan for scan in rows.registry_scans() if not scan.doubts]
    known = set() if rows is None else {outcome.patient for outcome in rows.registry_outcomes()}
    patients = {scan.patient for scan in scans}
    names = [name.split(".")[2] for scan in scans for name in scan.features if name.startswith("radiomics.")]
    measured = bool(names) if scans else config.analysis.radiomics
    ibsi = names[0].startswith("ibsi") if names else config.analysis.radiomics_preparation == "ibsi"
    expected = {
        "scans": len(scans),
        "patients": len(patients),
        "outcomes": len(patients & known),
        "volumes": any(scan.volume for scan in scans) if scans else config.registry.volumes,
        "radiomics": ("ibsi" if ibsi else "pyradiomics") if measured else "",
    }
    command = [sys.executable, "-m", "training", "run", str(config.retraining.settings)]
    command += [*_places(config.retraining.folder / "next"), "--check", json.dumps(expected)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode == 0:
        return done.stdout.strip()
    lines = done.stderr.strip().splitlines() or [f"`training run` ended with status {done.returncode}"]
    if done.returncode != UsageError.exit_code:  # no message of ours: the last line of a traceback
        raise UsageError(f"the training package does not start ({lines[-1]}): install dicomnode's extra `training`")
    raise UsageError(" ".join(lines).removeprefix("training: "))


@contextmanager
def _alone(folder: Path) -> Iterator[int]:
    """Hold the lock of the folder, and give its descriptor. Raises UsageError: another retraining holds it."""
    files.make_folder(folder)
    with (folder / ".lock").open("ab") as file:
        if not files.lock(file):
            raise UsageError(f"another retraining is running in {folder}: wait for it to end, or stop it")
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


class Retraining(BackgroundCommand):
    """The scheduled one."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "retrain", "retraining")
