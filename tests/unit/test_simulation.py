"""The simulation of many sites: its queues, and that its page is what it makes."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks import simulate_sites, soak
from tests.benchmarks.simulate_sites import Site, StageTimes, arrivals, measured, simulate, through
from tests.conftest import ROOT

TIMES = StageTimes(receive_slice_s=0.003, analysis_s=12.0, lungmask_slice_s=0.3, deliver_s=1.0)


def test_a_queue_with_one_server_and_with_two() -> None:
    ready, needs = [0.0, 1.0, 2.0], [10.0, 10.0, 10.0]
    assert through(ready, needs, 1) == [10, 20, 30]
    assert through(ready, needs, 2) == [10, 11, 20]
    assert through(ready, needs, 3) == [10, 11, 12]


@given(st.lists(st.tuples(st.floats(0, 1e4), st.floats(0.1, 100)), min_size=1, max_size=50), st.integers(1, 5))
def test_nobody_leaves_before_his_time_and_no_server_serves_two(
    studies: list[tuple[float, float]], servers: int
) -> None:
    ready, needs = [a for a, _ in studies], [b for _, b in studies]
    left = through(ready, needs, servers)
    assert all(end >= at + need - 1e-6 for end, at, need in zip(left, ready, needs, strict=True))
    begun = sorted(end - need for end, need in zip(left, needs, strict=True))
    for moment in begun:
        busy = sum(end - need <= moment + 1e-9 < end for end, need in zip(left, needs, strict=True))
        assert busy <= servers


def test_so_many_studies_come_as_are_asked_for_and_at_the_hours_of_a_department() -> None:
    came = list(arrivals(500, 20, random.Random(1)))
    assert len(came) == pytest.approx(10_000, rel=0.04)
    at_night = sum((at // 3600) % 24 < 6 for at in came)
    assert at_night / len(came) == pytest.approx(sum(simulate_sites.HOURS[:6]) / sum(simulate_sites.HOURS), abs=0.01)


def test_more_workers_wait_less_and_an_idle_site_takes_what_the_stages_take() -> None:
    one, four = (simulate(Site(n, "lungmask"), 500, 2, TIMES, 1) for n in (1, 4))
    assert one.at(95) > 10 * four.at(95)
    assert one.busy == pytest.approx(4 * four.busy)
    alone = simulate(Site(1), 5, 20, TIMES, 1)
    assert 5 + 1 < alone.at(50) < 30


def test_the_page_is_what_the_simulation_makes() -> None:
    made = simulate_sites.page(100, 500, 5, 1)
    assert made == (ROOT / "docs" / "evidence" / "hundred-sites.md").read_text("utf-8")


def test_times_are_read_from_the_pages_of_measurements() -> None:
    times = measured()
    assert times.analysis_s > 1 and times.lungmask_slice_s < times.analysis_s and times.receive_slice_s < 0.1


# What the soak makes of what it saw


def test_growth_is_that_of_the_last_third() -> None:
    at = [float(n) for n in range(0, 300, 10)]
    flat = soak.Looks(at, [100.0] * 10 + [200.0] * 20, [5] * 30)
    assert soak.growth(flat, flat.mb) == 0
    leak = soak.Looks(at, [100.0 + n for n in range(30)], [5] * 30)
    grown = soak.growth(leak, leak.mb)
    assert grown is not None and grown == pytest.approx(10, abs=1)
    assert soak.growth(soak.Looks([0.0], [1.0], [1]), [1.0]) is None


def test_stages_are_seconds_between_two_times() -> None:
    row = {
        "last_seen": "2026-11-29 18:30:00Z", "settled_at": "2026-11-29 18:30:05Z", "started_at": "2026-11-29 18:30:06Z",
        "analysed_at": "2026-11-29 18:30:20Z", "delivered_at": "",
    }  # fmt: skip
    found = soak.stages([row])
    assert found["last image to settled"] == [5] and found["analysis"] == [14]
    assert found["turnaround: last image to delivered"] == []
