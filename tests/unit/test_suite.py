"""Rules that the suite itself keeps: its marks, and what may be tried again."""

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
