"""The `training` command: help with examples, and errors as one line with an exit status."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.conftest import ROOT
from training.cli import commands

COMMANDS = (
    "synthetic",
    "import",
    "bundle",
    "demo-bundle",
    "report",
    "cohort",
    "run",
    "compare",
    "promote",
    "rollback",
    "evaluate",
    "recalibrate",
    "export-run",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = CliRunner().invoke(commands.app, [command, "-h"])
    assert result.exit_code == 0
    assert f"Example: training {command}" in result.output
    assert "bool" not in result.output


def test_the_commands_are_these() -> None:
    listed = CliRunner().invoke(commands.app, ["--help"]).output
    assert all(command in listed for command in COMMANDS)
    assert "Example: training synthetic" in listed


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["bundle", "--run", "nowhere", "--out", "b", "--name", "x"], 2, "nowhere is not a finished run"),
        (["run", "nowhere.toml"], 2, "nowhere.toml cannot be read: No such file"),
        (["cohort", "--registry", "r", "--outcomes", "o", "--out", "c"], 2, "r/registry.toml is missing"),
        (
            ["cohort", "--registry", "r", "--outcomes", "o", "--out", "c", "--transplant", "end"],
            2,
            "training cohort: cohort.transplant: 'end': Input should be 'event'",
        ),
        (
            ["cohort", "--dicom", "d", "--registry", "r", "--outcomes", "o", "--out", "c"],
            2,
            "d is no folder: give one with DICOM files",
        ),
        (["cohort", "--outcomes", "o", "--out", "c"], 2, "give --registry FOLDER, or --dicom FOLDER with scans"),
        (["cohort", "--dicom", "d", "--outcomes", "o", "--out", "c"], 2, "d is no folder: give one with DICOM files"),
        (["cohort", "--registry", "r", "--outcomes", "o", "--out", "."], 2, "--out . is a folder: name a file in it"),
        (["synthetic", "--out", "file/r", "--patients", "1"], 2, "file/r/volumes: Not a directory; check the path"),
        (["synthetic", "--out", "r", "--patients", "0"], 2, "--patients is 0: give at least 1"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    arguments: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    monkeypatch.setattr(sys, "argv", ["training", *arguments])
    with pytest.raises(SystemExit) as ended:
        commands.main()
    assert ended.value.code == code
    said = capsys.readouterr().err
    assert f"training: {message}" in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("terminal", "display", "arguments", "opened"),
    [
        (True, "DISPLAY", [], True),
        (True, "WAYLAND_DISPLAY", [], True),
        (True, "DISPLAY", ["--no-open"], False),
        (True, "NONE", [], False),
        (False, "DISPLAY", [], False),
        (False, "NONE", ["--open"], True),
    ],
)
def test_the_report_opens_for_a_person_at_a_desktop(
    terminal: bool, display: str, arguments: list[str], opened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(display, ":0")
    monkeypatch.setattr("typer.launch", shown.append)
    monkeypatch.setattr("training.report.report.write", lambda run: run / "report.html")
    monkeypatch.setattr(sys, "argv", ["training", "report", "run", *arguments])
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    with pytest.raises(SystemExit) as ended:
        commands.main()
    assert not ended.value.code and shown == ["run/report.html"] * opened


def test_help_does_not_import_torch() -> None:
    code = "import sys, training.cli.commands; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_node_without_the_extra_says_how_to_get_it() -> None:
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "sys.argv = ['training', 'run', 'docs/research/training-run.toml']\n"
        "from training.cli.commands import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "pandas is not installed" in done.stderr and "install.sh --upgrade --training" in done.stderr
    assert "Traceback" not in done.stderr
