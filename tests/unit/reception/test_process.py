"""A receiving process in a thread of this one."""

import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode.reception import process
from dicomnode.reception.receiver import ReceiverSettings
from dicomnode.store import process_names
from dicomnode.store.catalog.catalog import Catalog
from tests.helpers.ports import free_port
from tests.helpers.waiting import until


def test_a_receiver_killed_while_this_one_runs_leaves_no_open_association(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a restart the one before may end, or be killed, after this one has looked for dead ones."""
    monkeypatch.setattr(process, "_RECOVER_EVERY_S", 0.05)
    url = f"sqlite:///{tmp_path}/catalog.db"
    settings = replace(ReceiverSettings("NODE"), host="127.0.0.1", port=free_port(), minimum_free_bytes=0)
    stop, listening = threading.Event(), threading.Event()
    arguments = (settings, tmp_path / "spool", tmp_path, url, 0.0, stop, listening.set)
    running = threading.Thread(target=process.run_receiver, args=arguments)
    running.start()
    try:
        until("listening", listening.is_set)
        catalog = Catalog.open(url)
        living = catalog.begin_association(process_names.current(), "CT", "NODE", "127.0.0.1", time.time())
        catalog.begin_association(f"{socket.gethostname()},{2**22 + 1},1", "CT", "NODE", "127.0.0.1", time.time())
        until("the dead one's closed", lambda: not catalog.dead_receivers(process_names.is_alive))
        assert catalog.dead_receivers(lambda _: False) == [process_names.current()]
        catalog.end_association(living, "released", time.time())
        catalog.close()
    finally:
        stop.set()
        running.join()
