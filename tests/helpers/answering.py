"""A query provider in this process that answers C-FIND, C-MOVE as the test says."""

import ssl
from collections.abc import Callable, Iterator

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.presentation import build_context

from dicomnode.network import find
from dicomnode.network.association import Peer

Answers = Iterator[tuple[int, Dataset | None]]


class Answering:
    """`find` and `move` get the event; `asked` keeps the identifiers."""

    def __init__(self, *, implicit: bool = False, tls: ssl.SSLContext | None = None) -> None:
        self.find: Callable[[evt.Event], Answers] = lambda _event: iter(())
        self.move: Callable[[evt.Event], Iterator[object]] = lambda _event: iter(())
        self.asked: list[Dataset] = []
        self._entity = ApplicationEntity("ARCHIVE")
        syntaxes = [ImplicitVRLittleEndian] if implicit else [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
        models = (find.MODALITY_WORKLIST, find.STUDY_ROOT_FIND, find.STUDY_ROOT_MOVE)
        server = self._entity.start_server(
            ("127.0.0.1", 0),
            block=False,
            ssl_context=tls,
            contexts=[build_context(model, syntaxes) for model in models],
            evt_handlers=[(evt.EVT_C_FIND, self._find), (evt.EVT_C_MOVE, self._move)],
        )
        assert server is not None
        self.port = int(server.server_address[1])
        self.destination = Peer("archive", "ARCHIVE", "127.0.0.1", self.port, "NODE", 2.0, 3.0, 3.0, 3.0)

    def _find(self, event: evt.Event) -> Answers:
        self.asked.append(event.identifier)
        yield from self.find(event)

    def _move(self, event: evt.Event) -> Iterator[object]:
        self.asked.append(event.identifier)
        yield from self.move(event)

    def close(self) -> None:
        self._entity.shutdown()
