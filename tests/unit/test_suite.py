"""Rules that the suite itself keeps: its marks, what may be tried again, and for which secrets it may search."""

import ast
import re
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from tests.conftest import FOLDER_MARKS, ROOT, flaky_without_reason


def item(*marks: pytest.MarkDecorator) -> SimpleNamespace:
    return SimpleNamespace(
        nodeid="tests/test_x.py::test_x", iter_markers=lambda name: [m.mark for m in marks if m.name == name]
    )


@pytest.mark.parametrize(
    "mark",
    [
        lambda: pytest.mark.flaky,
        lambda: pytest.mark.flaky(reruns=1),
        lambda: pytest.mark.flaky(reruns=1, reason=""),
        lambda: pytest.mark.flaky(reruns=3, reason="it depends on when the kernel hands over the port"),
        lambda: pytest.mark.flaky(2, reason="it depends on when the kernel hands over the port"),
    ],
)
def test_a_test_that_may_try_again_says_why(mark: Callable[[], pytest.MarkDecorator]) -> None:
    (fault,) = flaky_without_reason([item(mark())])  # type: ignore[list-item]
    assert fault.startswith("tests/test_x.py::test_x: write @pytest.mark.flaky")


def test_a_reason_is_enough() -> None:
    mark = pytest.mark.flaky(reruns=1, reason="it depends on when the kernel hands over the port")
    assert flaky_without_reason([item(mark), item(pytest.mark.slow)]) == []  # type: ignore[list-item]


def test_every_folder_of_tests_has_its_mark(request: pytest.FixtureRequest) -> None:
    folders = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("test_*.py")}
    assert folders == {name for name in FOLDER_MARKS if "/" not in name}
    names = {mark.name for mark in request.node.iter_markers()}
    assert "unit" in names and not names & {"training", "peers", "kills", "parity"}


def _absent(test: ast.expr) -> list[ast.expr]:
    """What an assertion says is not in a text: one word, or each of a list."""
    words: list[ast.expr] = []
    of_a_list = "not any(" in ast.unparse(test) or "] == []" in ast.unparse(test)
    for node in ast.walk(test):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.NotIn):
            words.append(node.left)
        elif of_a_list and isinstance(node, ast.comprehension) and isinstance(node.iter, ast.Tuple | ast.List):
            words.extend(node.iter.elts)
    return words


def told_by_chance(source: str) -> list[str]:
    """Find what a test says must not be told, and what a number, a time, a digest or a token may hold by chance."""
    found = []
    for statement in ast.walk(ast.parse(source)):
        for word in _absent(statement.test) if isinstance(statement, ast.Assert) else ():
            if isinstance(word, ast.Constant) and isinstance(word.value, str | bytes):
                text = word.value if isinstance(word.value, str) else word.value.decode("latin-1")
                if re.fullmatch("[0-9a-fA-F]{2,5}|[0-9a-zA-Z]{1,2}", text):
                    found.append(text)
    return found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('assert "4711" not in page', ["4711"]),
        ('assert done and b"beef" not in page', ["beef"]),
        ('assert [w for w in ("KOELN", "4711") if w in page] == []', ["4711"]),
        ('assert not any(w in page for w in (b"P1", b"KOELN"))', ["P1"]),
        ('assert "PATIENT-4711" not in page and "KOELN" not in page', []),
        ('assert "4711" in page', []),
    ],
)
def test_words_that_chance_may_tell_are_found(source: str, found: list[str]) -> None:
    assert told_by_chance(source) == found


def test_no_test_looks_for_a_secret_that_chance_may_tell() -> None:
    """A free disk of 18471123 bytes is no patient of the number 4711."""
    found = [
        f"{path.relative_to(ROOT)}: {word}: give the secret letters beyond F"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for word in told_by_chance(path.read_text("utf-8"))
    ]
    assert found == []


def test_no_client_keeps_a_connection_that_its_server_may_close() -> None:
    """See `tests.helpers.web.http_client`; a client in the process itself has no connection."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: use tests.helpers.web.http_client"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("httpx.Client", "httpx.AsyncClient")
        and not {"transport", "limits"} & {keyword.arg for keyword in node.keywords}
    ]
    assert found == []
