"""A person's decision is killed between two of its steps: nothing is lost, nothing doubled, and it can be repeated."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pydicom
import pytest

from dicomnode.errors import PeerRejectedError, UsageError
from dicomnode.operations import corrections, jobs, one_decision
from dicomnode.reception.reconcile import reconcile
from dicomnode.reception.spooled import read_instance
from dicomnode.store.spool import Spool
from tests.faults.station import Station, running
from tests.faults.studies import make_study, study_uid
from tests.helpers.corrections import corrected

UID = study_uid("a")
#: Ends the process's work at the named call, before it ("-") or after it ("+"): it says so, and waits to be killed.
KILLED = """
import signal, sys
from pathlib import Path
from dicomnode import config
from dicomnode.operations import corrections
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.replaced import Replaced

where, what, path, study = sys.argv[1:]
owner = {"replace_instances": Catalog, "take_out": Catalog}.get(what, Replaced)
real = getattr(owner, what)

def killed(*args, **kwargs):
    if where.startswith("+"):
        real(*args, **kwargs)
    print("there", flush=True)
    signal.pause()

setattr(owner, what, killed)
loaded = config.load(Path(path))
if what == "take_out" or where.endswith("d"):
    corrections.drop(loaded, study, None, "quality", dry_run=False)
else:
    corrections.accept(loaded, study, corrections.held(loaded, study, None), 60)
"""


@contextmanager
def stopped_at(station: Station, where: str, what: str) -> Iterator[None]:
    """A decision that has come so far, and is killed at the end."""
    command = [sys.executable, "-c", KILLED, where, what, str(station.path), UID]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], 60)[0] and process.stdout.readline() == b"there\n"
            yield
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL


def kill(station: Station, where: str, what: str) -> None:
    with stopped_at(station, where, what):
        pass


def settled_and_corrected(station: Station, files: list[Path], folder: Path) -> None:
    """A study has settled, and comes again for another patient: each object lies in quarantine."""
    station.send(files)
    station.settle(UID)
    for one in corrected(files, folder, PatientID="RIGHT"):
        with pytest.raises(PeerRejectedError, match="0xC001"):
            station.send([one])


def contents(station: Station) -> dict[str, list[str]]:
    """Patient IDs by folder of the spool."""
    root = station.config.storage.spool
    found = {}
    for folder in ("studies", "quarantine", "replaced"):
        found[folder] = sorted(str(pydicom.dcmread(p).PatientID) for p in (root / folder).rglob("*.dcm"))
    return found


@pytest.fixture
def files(data: Path, tmp_path: Path) -> list[Path]:
    return make_study(data / "chest_tiny_cip" / "ct-64Dicom", tmp_path / "study", "a", every=30)


@pytest.mark.parametrize(
    ("where", "what"),
    [("-", "bring_in"), ("+", "bring_in"), ("+", "replace_instances"), ("+", "put"), ("+", "forget")],
)
def test_accept_is_killed(files: list[Path], tmp_path: Path, where: str, what: str) -> None:
    station = Station(tmp_path / "node", "")
    with running(station):
        settled_and_corrected(station, files, tmp_path / "again")
        kill(station, where, what)
        time_of_restart(station)
        reconcile(Spool(station.config.storage.spool), station.catalog, read_instance)
        decided = bool(station.catalog.corrections(UID))
        assert decided == (what in ("replace_instances", "put", "forget"))
        if not decided:
            assert len(station.catalog.conflicts(UID)) == len(files)
            corrections.accept(station.config, UID, corrections.held(station.config, UID, None), 0)
        assert station.catalog.conflicts(UID) == []
        kept = contents(station)
        assert kept["studies"] == ["RIGHT"] * len(files)
        assert kept["replaced"] == ["TEST-a"] * len(files)
        assert {c.action for c in station.catalog.corrections(UID)} == {"accepted"}
        assert len(station.catalog.corrections(UID)) == len(files)
        assert {Path(i.path).is_file() for i in station.catalog.instances(UID)} == {True}
        assert station.settle(UID) == 2
        assert jobs.details(station.config, UID, None)["state"] == "queued"


@pytest.mark.parametrize(("where", "what"), [("+", "take_out"), ("-d", "put"), ("+d", "put")])
def test_drop_is_killed(files: list[Path], tmp_path: Path, where: str, what: str) -> None:
    """The files that were left in the study's folder are not taken for images that came and were not recorded."""
    station = Station(tmp_path / "node", "")
    with running(station):
        station.send(files)
        station.settle(UID)
        kill(station, where, what)
        time_of_restart(station)
        reconcile(Spool(station.config.storage.spool), station.catalog, read_instance)
        assert station.catalog.instances(UID) == []
        assert contents(station) == {"studies": [], "quarantine": [], "replaced": ["TEST-a"] * len(files)}
        assert station.settle(UID) == 2
        station.send(files)  # what comes again is here again
        reconcile(Spool(station.config.storage.spool), station.catalog, read_instance)
        assert len(station.catalog.instances(UID)) == len(files)
        assert contents(station)["studies"] == ["TEST-a"] * len(files)


DECISIONS: dict[str, Callable[[Station, Sequence[corrections.HeldVersion]], str]] = {
    "accept": lambda station, found: corrections.accept(station.config, UID, found, 0),
    "reject": lambda station, _: corrections.reject(station.config, UID, None),
    "drop": lambda station, _: corrections.drop(station.config, UID, None, "quality", dry_run=False),
}


@pytest.mark.parametrize(
    ("where", "what"), [("-", "bring_in"), ("+", "bring_in"), ("-", "replace_instances"), ("+", "put")]
)
@pytest.mark.parametrize("other", DECISIONS)
def test_one_of_two_decisions_is_killed(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str, where: str, what: str
) -> None:
    """The other one waits for it, and decides about what is left: as if the killed one had done its step, or none."""
    station = Station(tmp_path / "node", "")
    with running(station):
        settled_and_corrected(station, files, tmp_path / "again")
        found = corrections.held(station.config, UID, None)
        waits, lock = threading.Event(), one_decision.files.lock

        def tried(file: IO[bytes]) -> bool:
            has = lock(file)
            if not has:
                waits.set()
            return has

        monkeypatch.setattr(one_decision.files, "lock", tried)
        with ThreadPoolExecutor(1) as pool:
            with stopped_at(station, where, what):
                second = pool.submit(DECISIONS[other], station, found)
                assert waits.wait(60)
            late = what == "put"
            if late and other != "drop":
                with pytest.raises(
                    UsageError, match="decided about these objects meanwhile|no object of this study waits"
                ):
                    second.result(60)
            else:
                second.result(60)
        time_of_restart(station)
        reconcile(Spool(station.config.storage.spool), station.catalog, read_instance)
        count, kept = len(files), contents(station)
        taken = late or other == "accept"
        stands, gone = ("RIGHT", "TEST-a") if taken else ("TEST-a", "RIGHT")
        dropped = ["TEST-a"] if not late else ["RIGHT", "TEST-a"]
        assert kept["studies"] == [stands] * (0 if other == "drop" else count)
        assert kept["replaced"] == sorted((dropped if other == "drop" else [gone]) * count)
        if not late:  # else what the killed one had decided about lies there until room is needed
            assert kept["quarantine"] == ["RIGHT"] * (count if other == "drop" else 0)
        assert all(Path(i.path).is_file() for i in station.catalog.instances(UID))
        assert len(station.catalog.instances(UID)) == len(kept["studies"])
        actions = {"accepted"} if taken else set()
        actions |= {"rejected"} if other == "reject" and not late else set()
        actions |= {"dropped"} if other == "drop" else set()
        assert Counter(c.action for c in station.catalog.corrections(UID)) == dict.fromkeys(actions, count)


def time_of_restart(station: Station) -> None:
    """A file counts as left behind once it is some seconds old."""
    back = time.time() - 60
    for path in station.config.storage.spool.rglob("*.dcm"):
        os.utime(path, (back, back))
