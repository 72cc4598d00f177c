"""Bundles with something changed in them."""

import re
from pathlib import Path


def change(bundle: Path, old: str, new: str) -> None:
    """Another text in place of what the expression `old` finds first in model.toml."""
    manifest = bundle / "model.toml"
    text, count = re.subn(old, lambda _: new, manifest.read_text(encoding="utf-8"), count=1, flags=re.MULTILINE)
    assert count == 1, f"{old} is not in {manifest}"
    manifest.write_text(text, encoding="utf-8")
