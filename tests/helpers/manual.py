"""Manual pages and shell completion of `dicomnode` and `training`, made from the command line itself.

python -m tests.helpers.manual man FOLDER          one page for each command, section 1
python -m tests.helpers.manual completion FOLDER   a script for bash, zsh and fish
"""

import re
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import typer
from typer.completion import get_completion_script

from dicomnode import __version__
from dicomnode.cli import app as node_app
from tests.helpers.prerequisites import ROOT
from training.cli.commands import app as training_app

PROGRAMS = {"dicomnode": typer.main.get_command(node_app), "training": typer.main.get_command(training_app)}
SHELLS = ("bash", "zsh", "fish")
#: `errors.py`; the README and the administrator's page have the same.
EXIT = (
    ("0", "success"),
    ("1", "anything else"),
    ("2", "usage or configuration error"),
    ("3", "refused: no suitable series, or a bundle has not passed the gate"),
    ("4", "bundle or weights missing, damaged or not allowed"),
    ("5", "spool or database"),
    ("6", "a peer could not be reached or refused"),
)


def commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Yield a program and each command below it that is not hidden, by its whole name."""
    yield name, command
    for inner, found in getattr(command, "commands", {}).items():
        if not found.hidden:
            yield from commands(f"{name} {inner}", found)


def released() -> str:
    """Return the day of the latest release, so that the same code makes the same pages."""
    found = re.search(r"^## \[[\d.]+\].*?(\d{4}-\d\d-\d\d)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    return found[1] if found else ""


def roff(text: str) -> str:
    """Escape a text for troff: backslashes, hyphens that are typed, and a dot or quote that begins a line."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", escaped, flags=re.MULTILINE)


def page(name: str, command: Any) -> str:
    """Return the manual page of a command (man(7))."""
    dashed = name.replace(" ", "-")
    help_text, _, example = (command.help or "").partition("Example: ")
    short, _, rest = help_text.strip().partition("\n\n")
    shown = [p for p in command.params if not getattr(p, "hidden", False)]
    options = [p for p in shown if p.param_type_name == "option"]
    arguments = [p for p in shown if p.param_type_name == "argument"]
    lines = [f'.TH "{dashed.upper()}" "1" "{released()}" "dicomnode {__version__}" "dicomnode"']
    lines += [".SH NAME", f"{roff(dashed)} \\- {roff(_line(short).removesuffix('.'))}", ".SH SYNOPSIS"]
    lines += [f"\\fB{roff(name)}\\fR {' '.join(_usage(p) for p in [*options, *arguments])}".rstrip()]
    if hasattr(command, "commands"):
        lines[-1] += " \\fICOMMAND\\fR …"
    lines += [".SH DESCRIPTION", roff(_line(short))]
    for paragraph in filter(None, rest.split("\n\n")):
        lines += [".PP", roff(_line(paragraph))]
    for heading, parameters in (("ARGUMENTS", arguments), ("OPTIONS", options)):
        lines += [f".SH {heading}"] if parameters else []
        for one in parameters:
            lines += [".TP", _usage(one, whole=True), roff(_line(one.help or ""))]
    if hasattr(command, "commands"):
        lines.append(".SH COMMANDS")
        for inner, found in command.commands.items():
            if not found.hidden:
                first = _line((found.help or "").partition("\n\n")[0])
                lines += [
                    ".TP",
                    f"\\fB{roff(inner)}\\fR",
                    f"{roff(first)} See \\fB{roff(dashed)}\\-{roff(inner)}\\fR(1).",
                ]
    if example:
        lines += [".SH EXAMPLE", ".nf", roff(example.strip()), ".fi"]
    lines.append(".SH EXIT STATUS")
    for status, meaning in EXIT:
        lines += [".TP", f"\\fB{status}\\fR", roff(meaning)]
    if " " in name:
        lines += [".SH SEE ALSO", f"\\fB{roff(dashed.rpartition('-')[0])}\\fR(1)"]
    return "\n".join(lines) + "\n"


def _line(text: str) -> str:
    return " ".join(text.split())


def _usage(parameter: Any, *, whole: bool = False) -> str:
    """Return an option or argument as it is typed; `whole` with all of its names."""
    metavar = parameter.metavar or _values(parameter) or parameter.name.upper()
    if parameter.param_type_name == "argument":
        more = "…" if parameter.nargs == -1 else ""
        return f"\\fI{roff(metavar)}\\fR{more}"
    names = parameter.opts + parameter.secondary_opts
    text = ", ".join(f"\\fB{roff(n)}\\fR" for n in (names if whole else names[:1]))
    if not parameter.is_flag:
        text += f" \\fI{roff(metavar)}\\fR"
    return text if whole or parameter.required else f"[{text}]"


def _values(parameter: Any) -> str:
    """Return the values that an option takes, where these are few words."""
    annotation = parameter.type_descriptor.annotation
    is_choice = isinstance(annotation, type) and issubclass(annotation, Enum)
    return "|".join(str(one.value) for one in annotation) if is_choice else ""


def write_pages(folder: Path) -> list[Path]:
    """Write all manual pages."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for program, root in PROGRAMS.items():
        for name, command in commands(program, root):
            made.append(folder / f"{name.replace(' ', '-')}.1")
            made[-1].write_text(page(name, command), encoding="utf-8")
    return made


def write_completion(folder: Path) -> list[Path]:
    """Write a script for each program and shell, under the name that the shell looks for."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for program in PROGRAMS:
        for shell in SHELLS:
            name = {"bash": f"{program}.bash", "zsh": f"_{program}", "fish": f"{program}.fish"}[shell]
            made.append(folder / name)
            text = get_completion_script(prog_name=program, complete_var=f"_{program.upper()}_COMPLETE", shell=shell)
            made[-1].write_text(text + "\n", encoding="utf-8")
    return made


if __name__ == "__main__":
    what, where = sys.argv[1], Path(sys.argv[2])
    print(f"{len({'man': write_pages, 'completion': write_completion}[what](where))} files in {where}")
