"""`dicomnode console user`: the password from standard input, roles, and what is refused."""

from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicomnode import config
from dicomnode.cli import app
from dicomnode.errors import UsageError
from dicomnode.operations import passwords
from dicomnode.store.catalog.catalog import Catalog


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(passwords, "_hasher", passwords.PasswordHasher(1, 64, 1))
    (tmp_path / "ae_config.toml").write_text("")
    return tmp_path / "ae_config.toml"


def run(path: Path, *arguments: str, password: str = "") -> str:
    done = CliRunner().invoke(app, ["console", "user", *arguments, "--config", str(path)], input=password + "\n")
    if done.exception is not None:
        raise done.exception
    return done.output


def test_a_user_is_made_listed_changed_and_removed(path: Path) -> None:
    assert "anna may log in as operator" in run(path, "add", "anna", "--role", "operator", password="a long password")
    listed = run(path, "list")
    assert "anna" in listed and "operator" in listed and "argon2" not in listed
    assert "another password" in run(path, "password", "anna", password="one more password")
    assert "may not log in" in run(path, "remove", "anna")
    assert "anna" not in run(path, "list")


@pytest.mark.parametrize(
    ("arguments", "password", "why"),
    [
        (("add", "anna", "--role", "reader"), "short", "give 12 to 256"),
        (("add", "an na", "--role", "reader"), "a long password", "no name of a user"),
        (("add", "<script>", "--role", "reader"), "a long password", "no name of a user"),
        (("password", "nobody"), "a long password", "there is no user"),
        (("remove", "nobody"), "", "there is no user"),
    ],
)
def test_what_is_wrong_is_said(path: Path, arguments: tuple[str, ...], password: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        run(path, *arguments, password=password)


def test_a_name_is_given_once(path: Path) -> None:
    run(path, "add", "anna", "--role", "reader", password="a long password")
    with pytest.raises(UsageError, match="already"):
        run(path, "add", "anna", "--role", "operator", password="a long password")


def test_what_is_refused_is_not_noted_as_done(path: Path) -> None:
    path.write_text('[audit]\nto = "file"\n')
    run(path, "add", "anna", "--role", "reader", password="a long password")
    for refused in (("add", "anna", "--role", "operator"), ("password", "nobody"), ("remove", "nobody")):
        with pytest.raises(UsageError):
            run(path, *refused, password="a long password")
    settings = config.load(path)
    with closing(Catalog.open(settings.catalog_url, settings.storage.state)) as catalog:
        (noted,) = catalog.audit_waiting(10)
    assert "console user add" in noted.xml


def test_there_are_four_roles(path: Path) -> None:
    with pytest.raises(SystemExit):
        run(path, "add", "anna", "--role", "root", password="a long password")
