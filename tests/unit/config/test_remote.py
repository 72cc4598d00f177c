"""The peers that a configuration names: address, our AE title, time-outs."""

from pathlib import Path

import pytest

from dicomnode import config
from dicomnode.network.association import Peer

TABLES = ["worklist", "priors", "ups", "mpps", "[destination]"]
NODE = '[node]\nae_title = "ME"\n'


def load(tmp_path: Path, text: str) -> config.Config:
    path = tmp_path / "ae_config.toml"
    path.write_text(text, encoding="utf-8")
    return config.load(path)


def peer_of(tmp_path: Path, table: str, more: str) -> Peer:
    name = 'name = "pacs"\n' if table == "[destination]" else ""
    text = f'[{table}]\n{name}ae_title = "IT"\nhost = "h"\nport = 104\n{more}'
    loaded = load(tmp_path, NODE + text)
    (found,) = [*loaded.remotes, *loaded.destination]
    assert found.peer is not None
    return found.peer


@pytest.mark.parametrize("table", TABLES)
def test_a_peer_has_its_own_time_outs_and_is_called_as_the_node(tmp_path: Path, table: str) -> None:
    peer = peer_of(tmp_path, table, "timeout_s = 7\n")
    assert (peer.name, peer.ae_title, peer.host, peer.port) == (table.replace("[destination]", "pacs"), "IT", "h", 104)
    assert peer.calling_ae == "ME"
    assert {peer.connect_timeout_s, peer.acse_timeout_s, peer.dimse_timeout_s, peer.network_timeout_s} == {7}


@pytest.mark.parametrize("table", TABLES)
def test_a_peer_may_know_us_by_another_title(tmp_path: Path, table: str) -> None:
    assert peer_of(tmp_path, table, 'calling_ae_title = "ALIAS"\n').calling_ae == "ALIAS"


@pytest.mark.parametrize("table", TABLES)
def test_a_slow_peer_is_still_connected_to_quickly(tmp_path: Path, table: str) -> None:
    peer = peer_of(tmp_path, table, "timeout_s = 90\n")
    assert (peer.connect_timeout_s, peer.dimse_timeout_s) == (10, 90)


def test_the_receiver_gets_peers_to_report_to_and_to_move_to(tmp_path: Path) -> None:
    callers = (
        '[[node.callers]]\nae_title = "CT"\nreport_to = "ct:104"\n'
        '[[node.callers]]\nae_title = "READER"\nmove_to = "[::1]:105"\n'
    )
    destinations = (
        '[[destination]]\nname = "pacs"\nae_title = "PACS"\nhost = "h"\nport = 106\ncalling_ae_title = "ALIAS"\n'
        '[[destination]]\nname = "web"\nkind = "stow"\nurl = "https://h"\n'
    )
    loaded = load(tmp_path, NODE + "network_timeout_s = 50\n" + callers + destinations)
    assert loaded.node.report_to(None) == (Peer("caller CT", "CT", "ct", 104, "ME", 10, 10, 10, 50),)
    pacs, reader = loaded.move_to
    assert reader == Peer("caller READER", "READER", "::1", 105, "ME", 10, 30, 30, 50)
    assert (pacs.name, pacs.port, pacs.calling_ae) == ("pacs", 106, "ALIAS")
