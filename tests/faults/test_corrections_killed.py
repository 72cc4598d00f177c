"""A person's decision is killed between two of its steps: nothing is lost, nothing doubled, and it can be repeated."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pydicom
import pytest

from dicomnode.errors import PeerRejectedError
from dicomnode.operations import corrections, jobs
from dicomnode.reception.reconcile import reconcile
from dicomnode.reception.spooled import read_instance
from dicomnode.store.spool import Spool
from tests.faults.station import Station, running
from tests.faults.studies import make_study, study_uid
from tests.helpers.corrections import corrected

UID = study_uid("a")
#: Kills the process at the named call: before it ("-") or after it ("+").
KILLED = """
import os, signal, sys
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
    os.kill(os.getpid(), signal.SIGKILL)

setattr(owner, what, killed)
loaded = config.load(Path(path))
if what == "take_out" or where.endswith("d"):
    corrections.drop(loaded, study, None, "quality", dry_run=False)
else:
    corrections.accept(loaded, study, corrections.held(loaded, study, None), 60)
"""


def kill(station: Station, where: str, what: str) -> None:
    command = [sys.executable, "-c", KILLED, where, what, str(station.path), UID]
    assert subprocess.run(command, timeout=60, check=False).returncode == -signal.SIGKILL


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
        station.send(files)
        station.settle(UID)
        for one in corrected(files, tmp_path / "again", PatientID="RIGHT"):
            with pytest.raises(PeerRejectedError, match="0xC001"):
                station.send([one])
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


def time_of_restart(station: Station) -> None:
    """A file counts as left behind once it is some seconds old."""
    back = time.time() - 60
    for path in station.config.storage.spool.rglob("*.dcm"):
        os.utime(path, (back, back))
