"""Manual pages and shell completion: of every command, and as the programs that read them want them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import absent
from tests.helpers import manual
from tests.helpers.prerequisites import ROOT

NAMES = {name for program, root in manual.PROGRAMS.items() for name, _ in manual.commands(program, root)}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {path.stem: path for path in manual.write_pages(tmp_path_factory.mktemp("man"))}


def test_every_command_has_its_page(pages: dict[str, Path]) -> None:
    assert pages.keys() == {name.replace(" ", "-") for name in NAMES}
    assert len(pages) > 60


def test_a_page_says_what_the_help_says(pages: dict[str, Path]) -> None:
    text = pages["dicomnode-console-user-add"].read_text("utf-8").replace("\\-", "-")
    for part in (
        ".TH ",
        ".SH SYNOPSIS",
        "--role",
        "reader|operator",
        "\\fINAME\\fR",
        "dicomnode console user add anna",
        "(1)",
    ):
        assert part in text
    assert "dicomnode-console-user-remove" in pages["dicomnode-console-user"].read_text("utf-8").replace("\\-", "-")


def test_the_exit_statuses_are_those_of_the_readme() -> None:
    """Which a test holds against the code."""
    text = (ROOT / "README.md").read_text("utf-8").partition("Exit statuses:")[2].partition("\n\n")[0]
    assert [status for status, _ in manual.EXIT] == sorted(re.findall(r"\b(\d) ", text))


def test_no_line_of_a_text_becomes_a_command_of_troff() -> None:
    assert manual.roff(".so /etc/passwd\n'br\nA\\fB-x") == "\\&.so /etc/passwd\n\\&'br\nA\\efB\\-x"


def test_mandoc_finds_no_error(pages: dict[str, Path]) -> None:
    if (program := shutil.which("mandoc")) is None:
        absent("mandoc is not installed: apt-get install mandoc")
    done = subprocess.run(
        [program, "-T", "lint", "-W", "error", *pages.values()], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


# Completion


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completion")
    manual.write_completion(folder)
    return folder


def completed(scripts: Path, words: list[str]) -> list[str]:
    """What bash offers for the last of these words."""
    program = words[0]
    script = (
        f"source {scripts}/{program}.bash; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
        f"_{program}_completion {program}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["dicomnode", "jobs", "re"], ["reanalyse", "reject", "release", "retry"]),
        (["training", "pro"], ["promote"]),
        (["dicomnode", "jobs", "list", "--st"], ["--state"]),
    ],
)
def test_bash_completes_commands_and_options(scripts: Path, words: list[str], offered: list[str]) -> None:
    assert sorted(completed(scripts, words)) == offered


@pytest.mark.parametrize(
    ("shell", "file"), [("bash", "dicomnode.bash"), ("zsh", "_dicomnode"), ("fish", "dicomnode.fish")]
)
def test_the_scripts_parse(scripts: Path, shell: str, file: str) -> None:
    if shutil.which(shell) is None:
        absent(f"{shell} is not installed: apt-get install {shell}")
    done = subprocess.run([shell, "-n", scripts / file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
