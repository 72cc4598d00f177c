"""The quarantine has an end; what may have been acknowledged outlives it."""

import os
from pathlib import Path

from dicomnode.reception.quarantine import Quarantine
from dicomnode.store.spool import Spool


def refuse(spool: Spool, quarantine: Quarantine, content: bytes, at: float) -> Path | None:
    incoming = spool.receive(b"")
    incoming.write(content)
    path = quarantine.set_aside(incoming, "unreadable-header", "rubbish", at)
    if path is not None:
        os.utime(path, (at, at))
    return path


def test_the_oldest_refused_go_and_what_was_not_refused_stays(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    kept = spool.quarantine(b"", b"k" * 20_000, "uid-taken", "found by reconcile", 1.0)
    os.utime(kept, (1.0, 1.0))
    quarantine = Quarantine(spool, 150_000)
    paths = [refuse(spool, quarantine, bytes([n]) * 20_000, 10.0 + n) for n in range(8)]
    assert None not in paths
    assert kept.exists()
    assert [path.exists() for path in paths if path] == [False] * 4 + [True] * 4
    assert sum(path.stat().st_size for path in (tmp_path / "quarantine").glob("*.dcm")) <= 150_000
    assert len(list((tmp_path / "quarantine").glob("*.json"))) == 5


def test_one_that_would_fill_it_is_not_kept(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    assert refuse(spool, Quarantine(spool, 100_000), b"x" * 50_000, 1.0) is None
    assert refuse(spool, Quarantine(spool, 0), b"x", 1.0) is None
    assert not list((tmp_path / "quarantine").iterdir())
    assert not list((tmp_path / "incoming").iterdir())
