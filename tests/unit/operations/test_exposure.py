"""What is left open is told: at the start, in `check`, in its JSON."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from dicomnode import config
from dicomnode.cli import app
from dicomnode.operations import checks, exposure

DESTINATION = '[[destination]]\nname = "pacs"\nae_title = "PACS"\nhost = "h"\nport = 104\n'
CALLER = '[[node.callers]]\nae_title = "CT1"\naddress = "10.1.2.3"\n'


def found(tmp_path: Path, text: str, mode: int = 0o600) -> list[exposure.Exposure]:
    path = tmp_path / "ae_config.toml"
    path.write_text(text)
    path.chmod(mode)
    return exposure.find(config.load(path), path)


def whats(tmp_path: Path, text: str) -> list[str]:
    return [one.what for one in found(tmp_path, text)]


@pytest.mark.parametrize(
    ("host", "is_open"),
    [
        ("127.0.0.1", False),
        ("127.9.9.9", False),
        ("::1", False),
        ("localhost", False),
        ("0.0.0.0", True),
        ("", True),
        ("::", True),
        ("192.0.2.7", True),
        ("no.such.name.invalid", True),
    ],
)
def test_a_listener_beyond_this_machine_without_callers_and_tls(tmp_path: Path, host: str, is_open: bool) -> None:
    text = f'[node]\nhost = "{host}"\n{DESTINATION}'
    assert whats(tmp_path, text) == (["callers", "encryption"] if is_open else [])
    assert whats(tmp_path, f'[node]\nhost = "{host}"\n{CALLER}{DESTINATION}') == (["encryption"] if is_open else [])


@pytest.mark.parametrize("address", ["0.0.0.0/0", "::/0"])
def test_a_caller_that_is_everybody_is_no_caller(tmp_path: Path, address: str) -> None:
    everybody = f'[[node.callers]]\nae_title = "*"\naddress = "{address}"\n'
    assert whats(tmp_path, f'[node]\nhost = "0.0.0.0"\n{CALLER}{everybody}{DESTINATION}') == ["callers", "encryption"]


@pytest.mark.parametrize(("host", "is_open"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_a_console_that_others_than_its_proxy_may_reach(tmp_path: Path, host: str, is_open: bool) -> None:
    text = f'[console]\nenabled = true\nhost = "{host}"\nbehind_proxy = true\n{DESTINATION}'
    assert whats(tmp_path, text) == (["console"] if is_open else [])


def test_no_destination(tmp_path: Path) -> None:
    assert whats(tmp_path, "") == ["destination"]


STOW = '[[destination]]\nname = "a"\nkind = "stow"\nurl = "https://a"\ntoken = "file:the.token"\n'
WEBHOOK = '[[notify]]\nname = "ris"\nkind = "webhook"\nurl = "https://ris"\nsecret_file = "the.key"\n'


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (STOW, "the.token"),
        (WEBHOOK + DESTINATION, "the.key"),
        ('[registry]\nfolder = "r"\n' + DESTINATION, "r/pseudonyms.key"),
        ('[storage]\nstate = "s"\n' + DESTINATION, "s/identity.key"),
    ],
    ids=["token", "signing key", "pseudonyms", "state"],
)
@pytest.mark.parametrize(("mode", "who"), [(0o600, ""), (0o400, ""), (0o604, "every user"), (0o640, "the group ")])
def test_secrets_that_others_can_read(tmp_path: Path, text: str, secret: str, mode: int, who: str) -> None:
    path = tmp_path / secret
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")
    path.chmod(mode)
    told = [one.text for one in found(tmp_path, text)]
    assert len(told) == bool(who)
    assert not who or (who in told[0] and f"chmod 600 {path}" in told[0])


@pytest.mark.parametrize(
    "text",
    ['[storage]\ndatabase_url = "postgresql://user:pw@h/d"\n', WEBHOOK.replace("https://ris", "https://ris?token=1")],
    ids=["database", "webhook"],
)
def test_a_configuration_with_a_password(tmp_path: Path, text: str) -> None:
    assert [one.what for one in found(tmp_path, text + DESTINATION, 0o644)] == ["secrets"]
    assert not found(tmp_path, text + DESTINATION, 0o600)


def test_a_configuration_without_a_password_may_be_read(tmp_path: Path) -> None:
    text = '[storage]\ndatabase_url = "postgresql://user@h/d"\n'
    assert not found(tmp_path, text + DESTINATION, 0o644)


def test_what_root_hands_to_the_service_is_no_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """0640 root:dicomnode is how a service is given what it may not change."""
    monkeypatch.setattr(Path, "stat", lambda _self: SimpleNamespace(st_uid=0, st_gid=4712, st_mode=0o100640))
    monkeypatch.setattr(exposure.os, "geteuid", lambda: 4711)
    monkeypatch.setattr(exposure.os, "getegid", lambda: 4712)
    assert exposure.readable_by(Path("the.key")) is None
    monkeypatch.setattr(exposure.os, "getegid", lambda: 4713)
    assert exposure.readable_by(Path("the.key"))


@pytest.fixture
def open_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(checks, "_segmenter", lambda _config: checks.CheckResult("segmenter", True, ""))
    path = tmp_path / "ae_config.toml"
    path.write_text('[node]\nhost = "0.0.0.0"\nport = 11199\n')
    return path


def test_check_says_so_in_words_in_json_and_in_its_status(open_node: Path) -> None:
    check = ["check", "--config", str(open_node)]
    plain = CliRunner().invoke(app, check)
    assert plain.exit_code == 0, plain.output
    assert plain.stdout.count("WARNING") == 3
    told = json.loads(CliRunner().invoke(app, [*check, "--json"]).stdout)
    assert [one["what"] for one in told if one["warning"]] == ["callers", "encryption", "destination"]
    assert CliRunner().invoke(app, [*check, "--strict"]).exit_code == 1


def test_serve_says_so_before_it_runs(
    open_node: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from dicomnode.service import child, signals, supervisor

    told: list[str] = []
    monkeypatch.setattr(supervisor, "serve", lambda *_: told.extend(r.getMessage() for r in caplog.records))
    for name in ("stopper", "reloader", "leave"):
        monkeypatch.setattr(signals, name, lambda **_: None)
    for name in ("start", "listen", "tells_before"):
        monkeypatch.setattr(child.Child, name, lambda *_, **_k: None)
    monkeypatch.setattr("dicomnode.logs.configure", lambda *_: None)
    monkeypatch.setattr("dicomnode.network.early.open_ports", lambda _: [])
    with caplog.at_level(logging.WARNING):
        CliRunner().invoke(app, ["serve", "--config", str(open_node)])
    assert [text.partition(":")[0] for text in told] == [
        f"NOT SAFE ({w})" for w in ("callers", "encryption", "destination")
    ]
