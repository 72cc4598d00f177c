"""One receiving process from its start to its end: what it finds, the port that it may share, how it ends."""

import fcntl
import logging
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dicomnode import files, logs
from dicomnode.errors import DicomnodeError, SpoolError
from dicomnode.reception import refusals
from dicomnode.reception.receiver import Receiver, ReceiverSettings
from dicomnode.reception.reconcile import restore
from dicomnode.reception.spooled import read_instance
from dicomnode.store import process_names
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.spool import Spool
from dicomnode.words.numerals import plural

log = logging.getLogger(__name__)

_RECOVER_EVERY_S = 60.0


def run_receiver(
    settings: ReceiverSettings,
    spool_root: Path,
    state: Path,
    catalog_url: str,
    drain_s: float,
    stop: threading.Event,
    listening: Callable[[], None] = lambda: None,
    hurry: Callable[[], bool] = lambda: True,
    opened: Mapping[int, socket.socket] | None = None,
) -> None:
    """Sweep what dead receivers left, listen until `stop` is set, then end within `drain_s` and a little of `hurry`.

    Others may die later: what they leave is swept every minute.

    Args:
        settings: the receiver's.
        spool_root: the spool's folder.
        state: the node's folder on this machine: the patients' key, the locks of a shared port.
        catalog_url: the catalogue's database.
        drain_s: so long open associations may go on once there is hurry.
        stop: closes the port.
        listening: called once it is open.
        hurry: whether the end is urgent; until then open associations go on for as long as they last.
        opened: sockets of the ports that listen already (`network.early`).

    Raises:
        SpoolError: spool, catalogue or address are not usable.
    """
    _allow_descriptors()
    spool = Spool(spool_root)
    catalog = Catalog.open(catalog_url, state)
    try:
        recover(spool, catalog)
        receiver = Receiver(settings, spool, catalog)
        with ExitStack() as held:
            held.callback(refusals.flushing(catalog.note_refusals).stop)
            if settings.share_port:
                held.enter_context(shared_port(receiver, settings, state, opened or {}))
            else:
                receiver.start(opened)
            listening()
            while not stop.wait(_RECOVER_EVERY_S):
                _recover_again(spool, catalog)
            receiver.stop(drain_s, hurry)
    finally:
        catalog.close()


def _allow_descriptors() -> None:
    """Raise the limit of open files: the usual 1,024 is less than a port scan or a busy morning may open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def recover(spool: Spool, catalog: Catalog) -> None:
    """Put right what a receiver that died has left, or a power cut has taken.

    Rows that a power cut can take were brought by an association that the catalogue still holds open: its end would
    have been committed behind them, and that commit waits for the disk. They are restored before anybody can send other
    content under the same SOP Instance UIDs, and before their associations count as ended.
    """
    swept = spool.sweep()
    dead = catalog.dead_receivers(process_names.is_alive)
    restored, _ = restore(spool, catalog, read_instance) if dead else (0, 0)
    lost = catalog.lose_associations(dead, time.time())
    if swept or lost:
        log.warning(
            "a receiver had crashed: %s removed, %s lost, %s recorded again",
            plural(swept, "unfinished file"),
            plural(lost, "association"),
            plural(restored, "image"),
        )


def _recover_again(spool: Spool, catalog: Catalog) -> None:
    """Look for receivers that still went on when this one started, and were killed since."""
    try:
        recover(spool, catalog)
    except DicomnodeError as error:
        log.warning("whether a receiver has crashed cannot be told now: %s", error)
    except Exception as error:  # noqa: BLE001  (whatever is found there, this receiver goes on)
        logs.log_unexpected(log, error, "what a crashed receiver left could not be swept")


@contextmanager
def shared_port(
    receiver: Receiver, settings: ReceiverSettings, state: Path, opened: Mapping[int, socket.socket]
) -> Iterator[None]:
    """Start a receiver whose ports other receivers of this node listen on, and no other node.

    The kernel lets every process of this user join such a port (SO_REUSEPORT), another node's too, and would deal the
    connections out between both. Each receiver of a node holds a lock in the node's folder; one that finds nobody
    holding it is the first, and the port has to be free.

    Raises:
        SpoolError: another program listens on the port.
    """
    with ExitStack() as held:
        ours = {port: held.enter_context((state / f"port-{port}.lock").open("ab")) for port in settings.ports}
        with ExitStack() as starting:
            for port in sorted(ours):  # in one order, so that no two wait for each other
                turn = starting.enter_context((state / f"port-{port}.starting").open("ab"))
                fcntl.flock(turn, fcntl.LOCK_EX)
                if port not in opened and files.lock(ours[port]):
                    _refuse_if_taken(settings.host, port)
            receiver.start(opened)
            for lock in ours.values():
                fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def _refuse_if_taken(host: str, port: int) -> None:
    with socket.socket() as probe:
        # Connections of an earlier run that have not quite ended are no listener.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SpoolError(
                f"cannot listen on {host or '*'}:{port}: {error.strerror}, and not by this node. Two nodes "
                "on one port would each get some of the connections: change [node] port, or stop the other program"
            ) from error
