"""Targets on the receiver's way in: PDUs, commands, data sets, queries."""

import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.dsutils import decode
from pynetdicom.transport import AddressInformation

from dicomnode.network import commands, matching, transport, upper_layer
from dicomnode.network.commands import StoreAnswer
from dicomnode.network.file_meta import encode
from dicomnode.reception import query_model
from dicomnode.reception.header import HeaderError, parse
from dicomnode.reception.holdings import QueryHoldings
from dicomnode.reception.query_model import IdentifierError
from dicomnode.reception.receiver import Receiver, ReceiverSettings
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.spool import Spool
from tests.fuzz import mutate
from tests.fuzz.target import Run, Target, plain

_MOST_TURNS = 10_000
_OFFERED = ("1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.20.1")


class Swallowed:
    """A reception that keeps nothing but looks at the header, as the true one does before it answers."""

    def __init__(self, syntax: UID) -> None:
        self._syntax, self._bytes = syntax, bytearray()

    def write(self, data: memoryview) -> None:
        self._bytes += data

    def abandon(self) -> None:
        pass

    def finish(self) -> StoreAnswer:
        try:
            parse(bytes(self._bytes), self._syntax)
        except HeaderError:
            return StoreAnswer(0xC000, "unreadable-header")
        return StoreAnswer(0x0000)


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A receiver of the product's own, on this machine, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="dicomnode-fuzz-") as name:
        folder = Path(name)
        catalog = Catalog.open(f"sqlite:///{folder / 'catalog.sqlite'}")
        spool = Spool(folder / "spool")
        made = Receiver(ReceiverSettings("DICOMNODE", "127.0.0.1", 0, minimum_free_bytes=0), spool, catalog)
        made.start()
        try:
            yield made
        finally:
            made.stop(0)
            catalog.close()


@contextmanager
def association() -> Iterator[Run]:
    """The upper layer and pynetdicom's negotiation over a pair of sockets, in one thread: what it raises is seen.

    On a running node its two threads would take turns; here this function does.
    """
    with receiver() as made:
        server = made._servers[0]
        # Each association gets a copy of all contexts, which takes longer than all the rest: a few will do.
        server.contexts = [c for c in server.contexts if c.abstract_syntax in _OFFERED]
        yield lambda case: _converse(server, case)


class _Handled(transport._Handler):
    """Knows both ends without asking the resolver, twice for each association."""

    local = remote = AddressInformation("127.0.0.1", 1)  # type: ignore[assignment]


def _converse(server: transport.DicomServer, case: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        # A peer that does not read and a node that does not stop to answer would wait for each other.
        for one in (ours, theirs):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 21)
        theirs.sendall(case)
        theirs.shutdown(socket.SHUT_WR)
        handler = _Handled.__new__(_Handled)
        handler.server, handler.request, handler.client_address = server, ours, ("127.0.0.1", 1)
        made = handler._create_association()
        made.kill = lambda: setattr(made, "_kill", True)  # the true one waits for a thread that never began
        made.abort = lambda: made.acse.send_abort(0x00)  # the true one waits for the other thread
        provider = upper_layer.UpperLayer(made, ours, _begin, open_s=5, pdu_s=5)
        try:
            _turn(made, provider)
        finally:
            provider.close()
            server.ended(made)
            server.lobby.leave(ours)


def _begin(made: Any, request: Any) -> Swallowed:
    return Swallowed(UID(made._accepted_cx[request.context_id].transfer_syntax[0]))


def _turn(made: Any, provider: Any) -> None:
    machine = provider.state_machine
    machine.do_action(provider.event_queue.get_nowait())  # the connection is there
    for _ in range(_MOST_TURNS):
        is_closed = provider.socket.socket is None
        if not provider._process_recv_primitive() and (is_closed or not provider._is_transport_event()):
            return
        while not provider.event_queue.empty():
            machine.do_action(provider.event_queue.get_nowait())
        if machine.current_state == "Sta1":
            return
        if machine.current_state == "Sta3" and not made._kill:
            _negotiate(made, provider)
        while not made.dimse.msg_queue.empty():
            context_id, message = made.dimse.get_msg(block=False)
            if message is not None and made.is_established:
                made._serve_request(message, context_id)
        if made.is_established and made.acse.is_release_requested():
            made.acse.send_release(is_response=True)
            made.is_established = False
    raise AssertionError(f"the association did not end after {_MOST_TURNS} turns")


def _negotiate(made: Any, provider: Any) -> None:
    """As pynetdicom's association thread does."""
    primitive = provider.to_user_queue.get_nowait()
    if primitive is None or made.requestor.primitive is not None:
        return
    made.requestor.primitive = primitive
    from pynetdicom import evt

    evt.trigger(made, evt.EVT_REQUESTED, {})
    if not made._kill:
        made.acse.negotiate_association()


def _header_case(rng: Random) -> bytes:
    """The number of a transfer syntax, and a data set in it."""
    number = rng.randrange(len(mutate.SYNTAXES))
    syntax = mutate.SYNTAXES[number]
    implicit, big = syntax.endswith("1.2") and syntax == mutate.SYNTAXES[0], syntax == mutate.SYNTAXES[2]
    data = mutate.instance(rng, implicit=implicit, big=big)
    if number == 3:
        import zlib

        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data = packer.compress(data * rng.choice((1, 1, 1, 50))) + packer.flush()
    return bytes((number,)) + (mutate.mutated(rng, data) if rng.random() < 0.6 else data)


def _header(case: bytes) -> None:
    if case:
        parse(case[1:], UID(mutate.SYNTAXES[case[0] % len(mutate.SYNTAXES)]))


def _command_case(rng: Random) -> bytes:
    made = mutate.command(rng)
    return mutate.mutated(rng, made) if rng.random() < 0.5 else made


def _command(case: bytes) -> None:
    # One of the two: the second reads every command set by hand.
    read: Callable[[bytes, int], object] = getattr(commands, "read_command", None) or commands.store_request
    request = read(case, 1)
    if isinstance(request, commands.StoreRequest):
        commands.store_response(request, StoreAnswer(0xC000, "comment"), 128)


def _protocol_error() -> tuple[type[BaseException], ...]:
    return (upper_layer.ProtocolError,)


def _wildcard_case(rng: Random) -> bytes:
    parts = [
        rng.choice(("*", "*", "?", "a", "b", "^", "=", "\\", "A", "\n", "é")) for _ in range(rng.choice((3, 30, 64)))
    ]
    value = "".join(rng.choice("ab^= A") for _ in range(rng.choice((0, 5, 64))))
    return f"{rng.choice(('LO', 'PN', 'UI', 'DA', 'TM', 'IS'))}\n{''.join(parts)}\0{value}".encode()


def _wildcard(case: bytes) -> None:
    vr, _, rest = case.decode("utf-8", "replace").partition("\n")
    wanted, _, value = rest.partition("\0")
    tag = {"LO": 0x00100020, "PN": 0x00100010, "UI": 0x0020000D, "DA": 0x00080020, "TM": 0x00080030}.get(vr, 0x00200013)
    held = Dataset()
    held[tag] = _element(tag, vr, value)
    matching.matches([_element(tag, vr, wanted)], held)


def _element(tag: int, vr: str, value: str) -> DataElement:
    """As it is decoded from the network: without a look at the value."""
    return DataElement(tag, "LO" if vr not in ("PN", "UI", "DA", "TM") else vr, value, already_converted=True)


@dataclass
class Shelf:
    """Stands in for the catalogue: one study of two images."""

    paths: list[Path]

    def held_studies(self, uids: Any) -> list[Any]:
        return [SimpleNamespace(study_uid="1.2.3")] if not uids or "1.2.3" in uids else []

    def sample(self, _uid: str) -> str:
        return str(self.paths[0])

    def instances(self, study_uid: str) -> list[Any]:
        return [
            SimpleNamespace(
                study_uid=study_uid, series_uid="1.2.4", sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
                sop_instance_uid=f"1.2.5.{n}", modality="CT", path=str(path), size=path.stat().st_size,
            )
            for n, path in enumerate(self.paths)
        ]  # fmt: skip


def _query_case(rng: Random) -> bytes:
    """An identifier and a stored data set, behind each other with the length of the first."""
    level = rng.choice((b"PATIENT ", b"STUDY ", b"SERIES", b"IMAGE ", b"", b"X "))
    keys = b"".join(
        mutate._element(tag, b"", rng.choice(mutate._VALUES) if rng.random() < 0.5 else b"", implicit=True)
        for tag in sorted(
            rng.sample(
                (
                    0x00080020,
                    0x00080050,
                    0x00080060,
                    0x00080061,
                    0x00100010,
                    0x00100020,
                    0x0020000D,
                    0x0020000E,
                    0x00200013,
                ),
                4,
            )
        )
    )
    identifier = mutate._element(0x00080052, b"", level, implicit=True)
    if rng.random() < 0.8:
        identifier += mutate._element(0x0020000D, b"", b"1.2.3", implicit=True)
    identifier += keys if rng.random() < 0.7 else mutate.data_set(rng, implicit=True)
    if rng.random() < 0.3:
        identifier = mutate.mutated(rng, identifier, most=2)
    stored = mutate.instance(rng)
    if rng.random() < 0.3:
        stored = mutate.mutated(rng, stored, most=2)
    return len(identifier).to_bytes(4, "big") + identifier + stored


@contextmanager
def query() -> Iterator[Run]:
    """C-FIND and C-MOVE: an identifier against a holding of which one file is odd."""
    with tempfile.TemporaryDirectory(prefix="dicomnode-fuzz-") as name:
        yield lambda case: _query(case, Path(name))


def _query(case: bytes, folder: Path) -> None:
    cut = 4 + int.from_bytes(case[:4], "big")
    stored = case[cut:]
    path = folder / "odd.dcm"
    syntax = UID(mutate.SYNTAXES[1])
    path.write_bytes(encode("1.2.840.10008.5.1.4.1.1.2", "1.2.5.0", syntax) + stored)
    with suppress(HeaderError):
        parse(stored, syntax)  # what cannot be parsed is never held
        try:
            identifier = decode(BytesIO(case[4:cut]), True, True)
            for element in identifier:
                str(element.value)
        except Exception:  # noqa: BLE001  (what pydicom cannot decode is answered as such: `query_retrieve_scp`)
            return
        holdings = QueryHoldings(Shelf([path, path]), None)  # type: ignore[arg-type]
        with suppress(IdentifierError):
            list(query_model.find(identifier, "study", holdings, "DICOMNODE"))
        query_model.retrieve(identifier, "patient", holdings)


def _conversation(rng: Random) -> bytes:
    return mutate.conversation(rng)


TARGETS = (
    Target("association", _conversation, association, share=8),
    Target("header", _header_case, plain(_header), (HeaderError,), share=57),
    Target("command", _command_case, plain(_command), _protocol_error(), share=22),
    Target("wildcard", _wildcard_case, plain(_wildcard), share=3),
    Target("query", _query_case, query, (IdentifierError,), share=1),
)
