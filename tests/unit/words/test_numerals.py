"""Numbers with their nouns, and beside the limits that they miss."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dicomnode
from dicomnode.words.numerals import apart, plural

ROOT = Path(dicomnode.__file__).parent


@pytest.mark.parametrize(
    ("count", "words", "said"),
    [
        (0, ("image",), "0 images"),
        (1, ("image",), "1 image"),
        (2, ("image",), "2 images"),
        (1.0, ("day",), "1 day"),
        (1.5, ("day",), "1.5 days"),
        (1, ("study", "studies"), "1 study"),
        (1_234_567, ("image was", "images were"), "1234567 images were"),
        (1_234_567.0, ("byte",), "1234567 bytes"),
        (np.int64(1_234_567), ("voxel",), "1234567 voxels"),
        (0.1 + 0.2, ("day",), "0.3 days"),
        (1 - 1e-16, ("day",), "1 day"),
    ],
)
def test_one_is_singular(count: float, words: tuple[str, ...], said: str) -> None:
    assert plural(count, *words) == said


@pytest.mark.parametrize(
    ("value", "limit", "decimals", "said"),
    [
        (10.3, 10, 0, "10.3"),
        (10.03, 10, 0, "10.03"),
        (12.3, 10, 0, "12"),
        (0.9499, 0.95, 2, "0.9499"),
        (-500.4, -500, 0, "-500.4"),
        (10.0, 10, 0, "10"),
    ],
)
def test_a_number_beyond_a_limit_does_not_read_as_the_limit(
    value: float, limit: float, decimals: int, said: str
) -> None:
    assert apart(value, limit, decimals) == said


@given(st.integers(-2000, 2000), st.floats(0.001, 50), st.sampled_from([-1, 1]))
def test_whatever_differs_is_written_so(limit: int, by: float, sign: int) -> None:
    value = limit + sign * by
    assert (float(apart(value, limit)) > limit) == (sign > 0)


#: What people count, and there may be one of.
COUNTED = (
    "images|slices|studies|patients|scans|objects|files|days|hours|minutes|rows|deliveries|jobs|orders|matches(?! /)"
    "|workflows|outcomes|deaths|features|versions|associations|bytes of"
)
LOGGED = rf"(?<!than )(?<!after )%d (?:[a-z]+ )?(?:{COUNTED})\b"
#: Never one, or told only of more than one.
SEVERAL = {
    "len(suitable)",
    "len(studies(series))",
    "len(fitting)",
    "len(findings.trend) + 1",
    "of.patients",
    "self._most",
}


def _bare(path: Path) -> Iterator[str]:
    """Yield what a text counts without `plural`: "{n} images" in an f-string, "%d images" for a logger."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            for before, number, after in zip([None, *node.values], node.values, node.values[1:], strict=False):
                if not isinstance(number, ast.FormattedValue) or not isinstance(after, ast.Constant):
                    continue
                expression = ast.unparse(number.value)
                is_limit = isinstance(before, ast.Constant) and str(before.value).endswith("more than ")
                is_name = "!r" in ast.unparse(node) and number.conversion != -1
                if is_limit or is_name or expression in SEVERAL or expression.rpartition(".")[2].isupper():
                    continue
                if re.match(rf" (?:[a-z-]+ )?(?:{COUNTED})\b", str(after.value)) and not _is_no_number(expression):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}: {{{expression}}}{after.value}"
        elif isinstance(node, ast.Constant) and re.search(LOGGED, str(node.value)):
            yield f"{path.relative_to(ROOT)}:{node.lineno}: {node.value}"


def _is_no_number(expression: str) -> bool:
    """Whether it stands for words: "{name} takes no images", a number with its noun already."""
    return expression.startswith(("plural(", "'all' if")) or expression.rpartition(".")[2] in {"name", "path", "what"}


def _own_plurals(path: Path) -> Iterator[str]:
    """Yield where a noun gets its s by itself: {'s' if …}, {'s' * …}."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        parts = [node.body, node.orelse] if isinstance(node, ast.IfExp) else []
        parts = [node.left, node.right] if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) else parts
        if any(isinstance(part, ast.Constant) and part.value == "s" for part in parts):
            yield f"{path}:{node.lineno}"


def test_plurals_come_from_one_place() -> None:
    folders = (ROOT, ROOT.parent / "training")
    assert [found for folder in folders for path in sorted(folder.rglob("*.py")) for found in _own_plurals(path)] == []


def test_nothing_counts_1_images() -> None:
    assert [found for path in sorted(ROOT.rglob("*.py")) for found in _bare(path)] == []
