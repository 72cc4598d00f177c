"""Who has to go when too many connections wait."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from dicomnode.network.lobby import Lobby


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    with ExitStack() as stack:
        made = [socket.socketpair() for _ in range(8)]
        for pair in made:
            for one in pair:
                stack.enter_context(one)
        yield made


def is_closed(pair: tuple[socket.socket, socket.socket]) -> bool:
    pair[1].setblocking(False)
    try:
        return pair[1].recv(1) == b""
    except BlockingIOError:
        return False


Pairs = list[tuple[socket.socket, socket.socket]]


def test_the_oldest_of_a_crowded_address_goes(pairs: Pairs) -> None:
    lobby = Lobby(2, 100)
    assert [lobby.enter(ours, "a") for ours, _ in pairs[:3]] == [None, None, "a"]
    assert [is_closed(pair) for pair in pairs[:3]] == [True, False, False]
    lobby.leave(pairs[1][0])
    assert lobby.enter(pairs[3][0], "a") is None
    assert len(lobby) == 2


def test_the_busiest_address_makes_room_for_all(pairs: Pairs) -> None:
    lobby = Lobby(10, 4)
    for ours, _ in pairs[:3]:
        lobby.enter(ours, "busy")
    assert lobby.enter(pairs[3][0], "b") is None
    assert lobby.enter(pairs[4][0], "c") == "busy"
    assert [is_closed(pair) for pair in pairs[:5]] == [True, False, False, False, False]


def test_a_connection_goes_on_as_another(pairs: Pairs) -> None:
    lobby = Lobby(1, 10)
    lobby.enter(pairs[0][0], "a")
    lobby.renew(pairs[0][0], pairs[1][0])
    assert lobby.enter(pairs[2][0], "a") == "a"
    assert (is_closed(pairs[0]), is_closed(pairs[1])) == (False, True)
    for ours, _ in pairs:
        lobby.leave(ours)
    assert len(lobby) == 0
