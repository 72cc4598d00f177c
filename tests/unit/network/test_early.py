"""Ports that are open before anybody answers there."""

import os
import socket
from pathlib import Path

import pytest

from dicomnode.network import early
from tests.helpers.ports import free_port


def written(folder: Path, text: str) -> Path:
    path = folder / "ae_config.toml"
    path.write_text(text, "utf-8")
    return path


def test_who_calls_waits_for_the_one_that_takes_the_port_over(tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    path = written(tmp_path, f"\ufeff[node]\nport = {ports[0]}\ntls_port = {ports[1]}\n")
    opened = early.open_ports(path)
    with socket.create_connection(("127.0.0.1", ports[1])) as caller:
        caller.sendall(b"hello")
        taken = early.taken_over(",".join(str(os.dup(one.fileno())) for one in opened))
        for one in opened:
            one.close()
        assert sorted(taken) == sorted(ports)
        connection, _ = taken[ports[1]].accept()
        with connection:
            assert connection.recv(5) == b"hello"
        for one in taken.values():
            one.close()


def test_the_port_of_another_program_is_left_to_it(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        mine, taken = free_port(), other.getsockname()[1]
        assert early.open_ports(written(tmp_path, f"[node]\nport = {mine}\ntls_port = {taken}\n")) == []
    with socket.socket() as again:
        again.bind(("127.0.0.1", mine))  # what was opened before is closed again


@pytest.mark.parametrize(
    "text",
    [
        "[node",
        "node = 3",
        "[node]\nport = 70000",
        "[node]\nport = '11112'",
        "[node]\nhost = 7",
        "[node]\nhost = 'nowhere.invalid'\nport = 11112",
        "[node]\nplain = false",
        "x = " + "[" * 2000,
    ],
)
def test_what_is_wrong_is_left_to_those_who_read_it_in_earnest(tmp_path: Path, text: str) -> None:
    assert early.open_ports(written(tmp_path, text)) == []


def test_a_file_that_is_not_there_opens_nothing(tmp_path: Path) -> None:
    assert early.open_ports(tmp_path / "nowhere.toml") == []
    assert early.taken_over("") == {}
