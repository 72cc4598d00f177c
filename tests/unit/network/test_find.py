"""C-FIND and C-MOVE as SCU, against a peer that is endless, slow, silent, or says no."""

import threading
import time
from collections.abc import Iterator

import pytest
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pynetdicom import evt, service_class
from pynetdicom.dsutils import encode

from dicomnode.errors import PeerError, PeerRejectedError
from dicomnode.network import find, move
from dicomnode.network.association import Peer
from tests.helpers.answering import Answering, Answers
from tests.helpers.ports import free_port


@pytest.fixture
def peer() -> Iterator[Answering]:
    made = Answering()
    yield made
    made.close()


def item(name: str, charset: str = "ISO_IR 192") -> Dataset:
    answer = Dataset()
    answer.SpecificCharacterSet = charset
    answer.PatientName = name
    answer.StudyInstanceUID = "1.2.3"
    return answer


def ask(peer: Answering, within_s: float = 5.0, most: int = 100) -> find.Found:
    question = Dataset()
    question.QueryRetrieveLevel, question.PatientID = "STUDY", "P1"
    return find.find(peer.destination, find.STUDY_ROOT_FIND, question, within_s=within_s, most=most)


@pytest.mark.parametrize("implicit", [True, False])
def test_answers_keep_their_bytes(implicit: bool) -> None:
    peer = Answering(implicit=implicit)
    try:
        name = "Yamada^Tarou=山田^太郎=やまだ^たろう"
        peer.find = lambda _event: iter([(0xFF00, item(name, "\\ISO 2022 IR 87"))])
        (answer,) = ask(peer).answers
    finally:
        peer.close()
    element = find.read(answer).get_item(Tag("PatientName"))
    assert element is not None
    assert bytes(element.value).rstrip() == name.encode("iso2022_jp").rstrip()
    assert str(find.read(answer).PatientName) == name


def test_an_endless_answer_is_cancelled_after_so_many(peer: Answering) -> None:
    cancelled = threading.Event()

    def endless(event: evt.Event) -> Answers:
        while not event.is_cancelled:
            time.sleep(0.001)  # pynetdicom sends before it reads: without a pause it might never see the cancel
            yield 0xFF00, item("A")
        cancelled.set()
        yield 0xFE00, None

    peer.find = endless
    found = ask(peer, most=3, within_s=30)
    assert (len(found.answers), found.is_complete) == (3, False)
    assert cancelled.wait(60)


def test_a_peer_that_never_ends_costs_no_more_than_was_allowed(peer: Answering) -> None:
    def dripping(event: evt.Event) -> Answers:
        for _ in range(300):
            time.sleep(0.2)  # the peer's own slowness
            yield 0xFF00, item("A")

    peer.find = dripping
    began = time.monotonic()
    with pytest.raises(PeerError):
        ask(peer, within_s=1.0)
    assert time.monotonic() - began < 30.0  # one second, and what a busy machine adds; the peer takes sixty


def test_no_connection_is_a_failure_in_passing() -> None:
    nobody = Peer("archive", "X", "127.0.0.1", free_port())
    with pytest.raises(PeerError, match="no connection"):
        find.find(nobody, find.MODALITY_WORKLIST, Dataset(), within_s=2.0, most=1)


@pytest.mark.parametrize(
    ("status", "error"), [(0xA900, PeerRejectedError), (0x0122, PeerRejectedError), (0xA700, PeerError)]
)
def test_what_a_query_failed_with_decides_whether_to_try_again(
    peer: Answering, status: int, error: type[Exception]
) -> None:
    peer.find = lambda _event: iter([(status, None)])
    with pytest.raises(error, match=f"0x{status:04X}"):
        ask(peer)


@pytest.mark.parametrize(
    "broken",
    [
        b"\x08\x00\x05\x00ZZ\x02\x00ab",  # a character set in a VR that is none
        b"\x08\x00\x15\x11SQ\x00\x00\xff\xff\xff\xff\x01\x02\x03",  # a sequence that ends in mid-tag
    ],
)
@pytest.mark.timeout(60)
def test_what_cannot_be_read_is_left_out(peer: Answering, broken: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def sent(identifier: Dataset, *syntax: bool) -> bytes | None:
        return broken if identifier.PatientName == "BROKEN" else encode(identifier, *syntax)

    monkeypatch.setattr(service_class, "encode", sent)
    peer.find = lambda _event: iter([(0xFF00, item("A")), (0xFF00, item("BROKEN")), (0xFF00, item("B"))])
    assert [str(find.read(one).PatientName) for one in ask(peer).answers] == ["A", "B"]


def test_a_destination_that_the_peer_does_not_know_is_refused_for_good(peer: Answering) -> None:
    peer.move = lambda _event: iter([(None, None)])  # pynetdicom answers 0xA801
    with pytest.raises(PeerRejectedError, match="does not know NODE as a move destination"):
        move.move(peer.destination, move.series("1.2", ["1.2.3", "1.2.4"]), "NODE")
    assert list(peer.asked[0].SeriesInstanceUID) == ["1.2.3", "1.2.4"]


def test_nothing_to_move_is_no_failure(peer: Answering) -> None:
    peer.move = lambda _event: iter([("127.0.0.1", free_port()), 0])
    assert move.move(peer.destination, move.series("1.2", ["1.2.3"]), "NODE") == move.Retrieved(0, 0)


def test_a_peer_that_breaks_down_is_a_failure_in_passing(peer: Answering) -> None:
    def broken(_event: evt.Event) -> Iterator[object]:
        raise RuntimeError("its database is away")
        yield

    peer.move = broken
    with pytest.raises(PeerError, match="C-MOVE with status 0xC5"):
        move.move(peer.destination, move.series("1.2", ["1.2.3"]), "NODE")
