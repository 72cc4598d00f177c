"""The one back-off: within its bounds, growing, and spread."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.retry import backoff_s

SECONDS = st.floats(0.01, 1e5)
ATTEMPTS = st.integers(1, 10_000)
GROWTH = st.floats(1.0, 4.0)


@given(SECONDS, SECONDS, ATTEMPTS, st.text(st.characters()), GROWTH)
def test_a_pause_is_half_to_all_of_what_the_attempt_is_due(
    first: float, longest: float, attempt: int, seed: str, growth: float
) -> None:
    pause = backoff_s(first, longest, attempt, seed, growth)
    full = min(first * growth ** min(attempt - 1, 64), longest)
    assert 0.5 * full < pause <= full
    assert pause == backoff_s(first, longest, attempt, seed, growth)


@given(SECONDS, st.floats(1.0, 10.0), st.integers(1, 60), st.text())
def test_pauses_do_not_shrink_until_they_have_reached_the_longest(
    first: float, more: float, attempt: int, seed: str
) -> None:
    longest = first * 2.0**attempt * more
    # The next one is at least half of twice: no less than this one.
    assert backoff_s(first, longest, attempt + 1, seed) >= backoff_s(first, longest, attempt, seed)


@given(SECONDS, SECONDS, st.text())
def test_a_thousand_attempts_end_at_the_longest_pause_and_overflow_nothing(
    first: float, longest: float, seed: str
) -> None:
    assert 0.5 * longest < backoff_s(first, longest, 10**9, seed) <= longest


@given(st.integers(1, 100))
def test_those_that_failed_together_do_not_come_back_together(attempt: int) -> None:
    pauses = sorted(backoff_s(10.0, 1800.0, attempt, f"study {n}") for n in range(400))
    full = min(10.0 * 2.0 ** (attempt - 1), 1800.0)
    assert pauses[0] < 0.53 * full
    assert pauses[-1] > 0.97 * full
    assert max(b - a for a, b in pairwise(pauses)) < 0.03 * full


def test_the_pauses_of_deliveries_that_are_under_way_stay_as_they_are() -> None:
    # As version 0.1.0 had them: what a workflow has noted before an upgrade, it finds after it.
    assert backoff_s(10.0, 1800.0, 1, "1.2.3 1 pacs") == pytest.approx(9.156263204058632, abs=1e-9)
    assert backoff_s(10.0, 1800.0, 5, "1.2.3 1 pacs") == pytest.approx(84.48250964283943, abs=1e-9)
