"""Bundles with something changed in them, and made whole again, as a forger would."""

import hashlib
import re
import tomllib
from pathlib import Path

from dicomnode.analysis.risk.manifest import seal_of

_LIST = re.compile(r"(?<= = )\[\n((?:    .*,\n)*)\]")


def change(bundle: Path, old: str, new: str) -> None:
    """Another text in place of what the expression `old` finds first in model.toml, and a seal that fits."""
    edit(bundle, old, new)
    seal(bundle)


def edit(bundle: Path, old: str, new: str) -> None:
    """Another text in place of what the expression `old` finds first in model.toml. The seal stays as it was.

    A list is one line to the expression, as it is to a person: its writer gives each entry a line of its own.
    """
    manifest = bundle / "model.toml"
    found = _LIST.sub(_on_one_line, manifest.read_text(encoding="utf-8"))
    text, count = re.subn(old, lambda _: new, found, count=1, flags=re.MULTILINE)
    assert count == 1, f"{old} is not in {manifest}"
    manifest.write_text(text, encoding="utf-8")


def _on_one_line(found: re.Match[str]) -> str:
    return "[" + ", ".join(line.strip().removesuffix(",") for line in found[1].splitlines()) + "]"


def seal(bundle: Path) -> None:
    """The seal that fits model.toml as it is, in place of the one there, if there is one that can be read."""
    try:
        stored = tomllib.loads((bundle / "model.toml").read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return
    if "seal" in stored:
        edit(bundle, "^seal = .*$", f'seal = "{seal_of(stored)}"')


def list_again(bundle: Path, name: str) -> None:
    """The digest that a changed file has now, in model.toml, and a seal that fits."""
    digest = hashlib.sha256((bundle / name).read_bytes()).hexdigest()
    change(bundle, rf'^"{re.escape(name)}" = .*$', f'"{name}" = "{digest}"')
