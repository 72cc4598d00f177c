"""The command line itself: its help, and that no person sees a traceback for a path that does not work."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from dicomnode import config
from dicomnode.cli import app
from dicomnode.operations.bulk import BulkOutcome
from dicomnode.operations.explain import Explanation
from dicomnode.routing.rules import Action, RoutingDecision
from dicomnode.store.catalog.catalog import Catalog


def _commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    waiting: list[tuple[tuple[str, ...], Any]] = [((), typer.main.get_command(app))]
    while waiting:
        path, command = waiting.pop()
        if hasattr(command, "commands"):
            waiting += [((*path, name), inner) for name, inner in command.commands.items()]
        elif not command.hidden:
            yield path, command


COMMANDS = dict(_commands())


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_has_an_example_and_loses_no_word(path: tuple[str, ...]) -> None:
    """[words] in brackets were taken for mark-up once, and flags shown with a type, as <bool>."""
    shown = " ".join(CliRunner().invoke(app, [*path, "-h"]).stdout.split())
    assert f"Example: dicomnode {' '.join(path)}" in shown
    lines = CliRunner().invoke(app, [*path, "-h"]).stdout.splitlines()
    assert sum(line.startswith("  Example: ") for line in lines) == shown.count("Example: "), "each begins a line"
    for parameter in COMMANDS[path].params:
        if not getattr(parameter, "hidden", False):
            assert (getattr(parameter, "help", None) or "") in shown
    assert "bool" not in shown


def test_the_tables_that_a_help_text_names_are_in_it() -> None:
    assert "[analysis]" in CliRunner().invoke(app, ["analyze", "--help"]).stdout
    assert "[[notify]]" in CliRunner().invoke(app, ["notify", "test", "--help"]).stdout


def test_a_folder_that_cannot_be_made_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "ae_config.toml").write_text('[storage]\nstate = "file"\n')
    command = [sys.executable, "-m", "dicomnode", "work", "--config", str(tmp_path / "ae_config.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert done.stderr.splitlines() == [
        f"dicomnode: storage.state = {tmp_path / 'file'}: cannot create this folder (File exists); change the path, "
        "or the permissions of its parent folder"
    ]


def test_a_worklist_without_orders_is_told_in_words(tmp_path: Path) -> None:
    path = tmp_path / "ae_config.toml"
    path.write_text('[storage]\nstate = "s"\n[worklist]\nae_title = "RIS"\nhost = "10.0.0.1"\nport = 104\n')
    settings = config.load(path)
    settings.storage.state.mkdir()
    Catalog.open(settings.catalog_url, settings.storage.state).close()
    done = CliRunner().invoke(app, ["worklist", "--config", str(path), "--date", "2026-12-31"])
    assert done.exit_code == 0, done.output
    assert "no orders for 2026-12-31" in done.output


@pytest.mark.parametrize("command", ["explain", "routes test", "jobs retry --state failed"])
def test_what_files_and_peers_call_themselves_writes_nothing_else_on_the_terminal(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = "1.2\x1b[2J"
    monkeypatch.setattr("dicomnode.operations.explain.explain", lambda *_: Explanation((), (bad,)))
    decided = {bad: RoutingDecision((), Action(), ())}
    monkeypatch.setattr("dicomnode.routing.trial.decide_folder", lambda *_: decided)
    monkeypatch.setattr("dicomnode.operations.bulk.run", lambda *_, **__: BulkOutcome((bad,), ((bad, bad),)))
    (tmp_path / "ae_config.toml").write_text("")
    source = [] if command.startswith("jobs") else [str(tmp_path)]
    shown = CliRunner().invoke(app, [*command.split(), *source, "--config", str(tmp_path / "ae_config.toml")]).output
    assert "1.2\\x1b[2J" in shown and "\x1b" not in shown
