"""`dicomnode tls`: a CA, its certificates, and what they show."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicomnode.cli import app
from dicomnode.errors import ConfigurationError, UsageError
from dicomnode.network.tls import ReloadingContext, TlsFiles


def run(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, ["tls", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_a_trial_from_ca_to_certificate(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "new" / "tls"
    before = os.umask(0)
    try:
        run("ca", folder, "--key", kind)
        told = run("issue", folder, "node", "--host", "node.example", "--host", "::1", "--key", kind)
    finally:
        os.umask(before)
    (shown,) = json.loads(run("show", folder / "node.crt", "--json"))
    assert shown["identities"][0] in told
    assert shown["identities"][1:] == ["DNS:node.example", "IP:::1", "CN:node"]
    assert shown["issuer"] == "CN=dicomnode trial CA" and not shown["ca"]
    assert "CN:node" in run("show", folder / "node.crt")
    assert {(folder / f"{name}.key").stat().st_mode & 0o777 for name in ("ca", "node")} == {0o600}
    files = TlsFiles(folder / "node.crt", folder / "node.key", folder / "ca.crt")
    ReloadingContext(files, server=True).current()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ca", "."), "is there already"),
        (("issue", ".", "ca"), "other than 'ca'"),
        (("issue", ".", "../x"), "give a name of letters"),
        (("issue", "elsewhere", "x"), "run `dicomnode tls ca elsewhere` first"),
    ],
)
def test_nothing_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run("ca", ".", "--key", "ec")
    with pytest.raises(UsageError, match=words):
        run(*arguments)


def test_no_certificate_is_a_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        run("show", tmp_path / "none.crt")
