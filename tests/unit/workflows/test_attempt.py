"""A study that takes the worker down for want of memory is refused after two tries; other deaths say nothing of it."""

from pathlib import Path

import pytest

from dicomnode.errors import RefusedError
from dicomnode.workflows import attempt
from dicomnode.workflows.attempt import Attempt


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counted = [5]
    monkeypatch.setattr(attempt, "oom_kills", lambda: counted[0])
    monkeypatch.setattr(attempt, "boot_id", lambda: "boot")
    return counted


def test_two_ends_for_want_of_memory_are_enough(tmp_path: Path, kills: list[int]) -> None:
    for _ in range(2):
        Attempt(tmp_path).begin()
        kills[0] += 1
    with pytest.raises(RefusedError, match="ended the worker 2 times") as refusal:
        Attempt(tmp_path).begin()
    assert refusal.value.code == "too-large"
    Attempt(tmp_path).begin()  # `jobs retry` begins anew


def test_a_worker_that_was_killed_otherwise_says_nothing(tmp_path: Path, kills: list[int]) -> None:
    for _ in range(10):
        Attempt(tmp_path).begin()
    kills[0] += 1
    Attempt(tmp_path).begin()
    kills[0] = 0  # the machine was started again
    for _ in range(5):
        Attempt(tmp_path).begin()


def test_an_end_is_forgotten(tmp_path: Path, kills: list[int]) -> None:
    for _ in range(5):
        attempt = Attempt(tmp_path)
        attempt.begin()
        kills[0] += 1
        attempt.end()
    (tmp_path / "attempt.json").write_text("damaged")
    Attempt(tmp_path).begin()
