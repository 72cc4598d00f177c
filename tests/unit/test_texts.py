"""The words of the node's messages: those of DICOM and radiology, not a translation of them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import dicomnode

ROOT = Path(dicomnode.__file__).parent
#: What is not said, and what is.
WORDS = {
    r"earlier (scan|stud)": "prior scan",
    r"sign of life": "heartbeat",
    r"for good\b": "permanently",
    r"tr(y|ied) again: ": "will retry",
    r"\b(is|are) (not )?told\b": "notified, reported",
    r"\bby hand\b": "manually",
    r"step(s)? between slices|mm step\b": "slice spacing",
    r"\bis no [A-Z]": "is not a",
}


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    """Place and text of every string that is not a docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    first = (node.body[0] for node in ast.walk(tree) if isinstance(node, documented) and node.body)
    docstrings = {id(statement.value) for statement in first if isinstance(statement, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value


@pytest.fixture(scope="module")
def texts() -> list[tuple[str, str]]:
    return [text for path in sorted(ROOT.rglob("*.py")) for text in _texts(path)]


@pytest.mark.parametrize("pattern", WORDS)
def test_messages_use_the_words_of_the_field(pattern: str, texts: list[tuple[str, str]]) -> None:
    found = [f"{place}: {text!r} (say: {WORDS[pattern]})" for place, text in texts if re.search(pattern, text)]
    assert not found
