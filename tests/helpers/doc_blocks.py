"""What the documentation asks a reader to type: blocks of commands and of configuration, commands in the text."""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.prerequisites import ROOT

#: Languages that a block may have. «text» is for everything that is neither typed nor read by our programs.
LANGUAGES = {"sh", "toml", "json", "lua", "nginx", "text"}
#: Of another block in this form a comment of the page tells, on the line before: `<!-- file: gate.toml -->`.
FILE = re.compile(r"<!-- (\w+): (.+?) -->\s*\Z")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: its path, relative to the repository.
        line: of its fence.
        language: the word behind the fence.
        text: what stands in it.
        notes: what comments on the lines before it say, by their first word: {"file": "gate.toml"}.
    """

    page: str
    line: int
    language: str
    text: str
    notes: dict[str, str]

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """All pages that tell somebody what to do; not what a program has written."""
    about = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
    return [*about, *sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(path: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    text = path.read_text("utf-8")
    for found in re.finditer(r"^([ ]*)```(\w*)\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL):
        notes, before = {}, text[: found.start()]
        while note := FILE.search(before):
            notes[note[1]], before = note[2], before[: note.start()]
        inner = re.sub(rf"^{found[1]}", "", found[3], flags=re.MULTILINE)
        yield Block(str(path.relative_to(ROOT)), text[: found.start()].count("\n") + 1, found[2], inner, notes)


def inline_of(path: Path) -> list[str]:
    """Return what stands between backticks in the text of a page."""
    prose = re.sub(r"^[ ]*```.*?^[ ]*```$", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose)


def lines_of(text: str) -> list[str]:
    """Return the command lines of a block: continued ones joined, without comments and empty lines."""
    joined = re.sub(r"\\\n\s*", "", text)
    plain = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in joined.splitlines())
    return [line for line in plain if line]


def calls_in(line: str) -> Iterator[list[str]]:
    """Yield the words of each call of `dicomnode` or `training` in a line of a shell."""
    for part in re.split(r"&&|\|\||;|\|", line):
        words = shlex.split(re.sub(r"(\d?>+|<)\s*\S+", "", part).replace("…", "X").removesuffix("&"))
        if words and Path(words[0]).name in ("dicomnode", "training"):
            yield [Path(words[0]).name, *words[1:]]


def parse(root: Any, words: Sequence[str], *, whole: bool = True) -> None:
    """Parse a call as the command line does: every word a command, an option or an argument that is there.

    Args:
        root: the group of commands (`typer.main.get_command`).
        words: the call, with the program's name.
        whole: nothing that is required may be missing.

    Raises:
        ValueError: with what is wrong.
    """
    command, context, rest = root, None, list(words[1:])
    context = command.make_context(words[0], [], resilient_parsing=True)
    while hasattr(command, "commands"):
        if not rest or rest[0].startswith("-"):
            break
        if rest[0] not in command.commands:
            raise ValueError(f"{' '.join(words)}: there is no command {rest[0]}")
        command = command.commands[rest.pop(0)]
        context = command.make_context(command.name, [], parent=context, resilient_parsing=True)
    if hasattr(command, "commands"):
        if rest in (["--version"], ["--help"]) or not whole:
            return
        raise ValueError(f"{' '.join(words)}: names no command")
    if rest == ["--help"]:
        return
    context.resilient_parsing = False  # it would pass over unknown options
    try:
        given, left, _ = command.make_parser(context).parse_args(args=list(rest))
    except Exception as error:  # noqa: BLE001  (typer keeps its own copy of click, and its exceptions to itself)
        if not whole and "requires an argument" in str(getattr(error, "message", "")):
            return  # «`backup --keys`» names an option
        raise ValueError(f"{' '.join(words)}: {getattr(error, 'message', error)}") from None
    missing = [p.opts[0] for p in command.params if p.required and given.get(p.name) in (None, ())]
    if left or (missing and whole):
        raise ValueError(f"{' '.join(words)}: too much {left}, missing {missing}")
