"""Associations against a running node over TCP: it answers an echo all the while, and holds what it held before."""

import re
import socket
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from random import Random

from pynetdicom import AE

from tests.fuzz import mutate, watch
from tests.fuzz.watch import LONGEST_S
from tests.helpers.receiving import Receiving

#: An echo has to come back within this, in seconds; one is asked for after so many associations.
ECHO_S, ECHO_EVERY = 5.0, 200
_MORE_MB, _MORE_THREADS, _MORE_DESCRIPTORS, _SETTLING_S = 50.0, 2, 2, 60.0
_WARM = 200


def attack(count: int, seed: str, out: Path, until: float) -> int:
    """Open `count` associations, one after the other, each with a conversation of its own.

    Args:
        count: how many.
        seed: of the conversations.
        out: folder for what is found.
        until: end when the monotonic clock shows this.

    Returns:
        Exit status: 1 if something was found.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dicomnode-fuzz-", dir=watch.memory_folder()) as name:
        outside = _listing(Path(name))
        node = Receiving(Path(name) / "node", node="check_called_ae = false\nmax_associations = 200")
        try:
            return _attack(node, count, seed, until, outside, Path(name))
        finally:
            node.stop()


def _attack(node: Receiving, count: int, seed: str, until: float, outside: set[str], folder: Path) -> int:
    found: list[str] = []
    before: tuple[float, int, int] | None = None
    started, done, slowest = time.monotonic(), 0, 0.0
    for number in range(count):
        case = mutate.conversation(Random(f"{seed}:node:{number}"))
        took = talk(node.port, case, f"127.0.0.{2 + number % 200}")
        if took > LONGEST_S:
            found.append(f"association {number} (seed {seed}:node:{number}) took {took:.1f} s")
        done += 1
        if number == min(_WARM, count // 2):
            before = _settled(node)
        if number % ECHO_EVERY == 0:
            slowest = max(slowest, seconds := echo(node.port))
            if seconds > ECHO_S:
                found.append(f"an echo took {seconds:.1f} s after association {number}")
        if len(found) > 20 or time.monotonic() > until:
            break
    took = time.monotonic() - started
    assert before is not None
    found += _grown(node, before)
    found += [f"{path} was written outside the node's folders" for path in sorted(_listing(folder) - outside)]
    found += [f"in the log: {text}" for text in tracebacks(node.log())]
    print(f"{done} associations in {took:.0f} s, {done / took:.0f} a second; slowest echo {slowest:.2f} s; seed {seed}")
    for text in found:
        print(f"FOUND: {text}")
    return 1 if found else 0


def talk(port: int, case: bytes, address: str) -> float:
    """Send a case on a connection of its own, and read until the node closes; seconds it took.

    It comes from many addresses of this machine, since a node limits what each may have.
    """
    started = time.monotonic()
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 2 * LONGEST_S, (address, 0)) as peer:
        with suppress(OSError):
            peer.sendall(case)
            peer.shutdown(socket.SHUT_WR)
        while peer.recv(1 << 16):
            pass
    return time.monotonic() - started


def echo(port: int) -> float:
    """Seconds until the node has answered a C-ECHO; a minute if it does not."""
    started = time.monotonic()
    entity = AE("ECHO")
    entity.add_requested_context("1.2.840.10008.1.1")
    made = entity.associate("127.0.0.1", port, ae_title="DICOMNODE")
    if not made.is_established or made.send_c_echo().get("Status") != 0:
        return 60.0
    made.release()
    return time.monotonic() - started


def tracebacks(log: str) -> list[str]:
    """How each traceback in a log ends: its last place and the exception, each once."""
    found: dict[str, None] = {}
    place, is_open = "", False
    for line in log.splitlines():
        if line.startswith("Traceback"):
            is_open = True
        elif is_open and line.startswith("  File "):
            place = " ".join(line.split()[1:4])
        elif is_open and re.match(r"[A-Za-z_][\w.]*(: |$)", line):  # other threads' lines may stand between
            is_open = False
            found[f"{line[:200]} ({place})"] = None
    return list(found)


def _settled(node: Receiving) -> tuple[float, int, int]:
    time.sleep(1)
    return node.memory() / 1e6, node.threads(), node.descriptors()


def _grown(node: Receiving, before: tuple[float, int, int]) -> list[str]:
    """What is not back to where it was, after some time."""
    deadline = time.monotonic() + _SETTLING_S
    limits = (_MORE_MB, _MORE_THREADS, _MORE_DESCRIPTORS)
    names = ("memory (MB)", "threads", "descriptors")
    while True:
        after = _settled(node)
        grown = [
            f"{name} went from {old:.0f} to {new:.0f}"
            for name, old, new, most in zip(names, before, after, limits, strict=True)
            if new > old + most
        ]
        if not grown or time.monotonic() > deadline:
            print(
                f"memory {before[0]:.0f} -> {after[0]:.0f} MB, threads {before[1]} -> {after[1]}, descriptors "
                f"{before[2]} -> {after[2]}"
            )
            return grown


def _listing(folder: Path) -> set[str]:
    """What lies beside the node's own folder."""
    return {str(path) for path in folder.iterdir() if path.name != "node"}
