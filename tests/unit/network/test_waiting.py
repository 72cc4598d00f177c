"""What is sent to a peer that reads slowly: few fragments wait, and so does who makes them."""

import threading
from collections.abc import Callable

import pytest
from pynetdicom.pdu_primitives import A_ABORT, P_DATA

from dicomnode.network.waiting import SendQueue
from tests.helpers.waiting import until

MOST = 16


def answering(queue: SendQueue, count: int) -> tuple[threading.Thread, list[Exception]]:
    """A thread that sends so many fragments, and what ended it early."""
    ended: list[Exception] = []

    def answer() -> None:
        try:
            for _ in range(count):
                queue.put(P_DATA())
        except ConnectionError as error:
            ended.append(error)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    return thread, ended


@pytest.fixture
def woken() -> list[None]:
    return []


@pytest.fixture
def made(woken: list[None]) -> Callable[[Callable[[], bool]], SendQueue]:
    return lambda is_sending: SendQueue(lambda: woken.append(None), is_sending)


def test_who_answers_faster_than_the_peer_reads_waits(
    made: Callable[[Callable[[], bool]], SendQueue], woken: list[None]
) -> None:
    queue = made(lambda: True)
    thread, _ = answering(queue, 200)
    for taken in range(200):
        until("as much as may wait", lambda done=taken: queue.qsize() >= min(MOST, 200 - done), 10)  # type: ignore[misc]
        assert queue.qsize() <= MOST
        queue.get()
    thread.join(10)
    assert len(woken) == 200


def test_an_abort_passes_what_waits(made: Callable[[Callable[[], bool]], SendQueue]) -> None:
    queue = made(lambda: True)
    for _ in range(MOST):
        queue.put(P_DATA())
    queue.put(A_ABORT())  # does not wait: this test would
    assert queue.qsize() == MOST + 1


def test_nobody_waits_for_a_peer_that_has_gone(made: Callable[[Callable[[], bool]], SendQueue]) -> None:
    sending = threading.Event()
    sending.set()
    queue = made(sending.is_set)
    thread, ended = answering(queue, MOST + 1)
    until("full", lambda: queue.qsize() == MOST, 10)
    assert thread.is_alive()
    sending.clear()
    thread.join(10)
    assert [type(error) for error in ended] == [ConnectionError]
    assert queue.qsize() == MOST
