"""The place of a study in the queue: urgent ones overtake, and nothing waits for ever."""

import heapq

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.config import RoutingTable
from dicomnode.routing.rules import PRIORITIES, Priority
from dicomnode.workflows import queue
from dicomnode.workflows.calls import delivery_id, study_id, study_priority

ROUTING = RoutingTable(routine_yields_s=900, research_yields_s=14_400)
YIELDS = {"stat": 0.0, "routine": 900.0, "research": 14_400.0}
times = st.floats(1.75e9, 3.8e9)


@settings(deadline=None)
@given(times, st.floats(-1e5, 1e5), st.sampled_from(PRIORITIES), st.sampled_from(PRIORITIES))
def test_who_goes_first(at: float, later: float, one: Priority, other: Priority) -> None:
    first, second = study_priority(one, at, ROUTING), study_priority(other, at + later, ROUTING)
    ahead = later + YIELDS[other] - YIELDS[one]
    if abs(ahead) > 1:
        assert (first < second) == (ahead > 0)
    assert 1 <= first < 2**31


@pytest.mark.parametrize("every_s", [60.0, 300.0])
def test_research_gets_its_turn_while_stat_studies_come_faster_than_they_are_done(every_s: float) -> None:
    """An analysis takes ten minutes, a stat study comes more often: the queue only grows."""
    queue = [(study_priority("research", 2e9, ROUTING), 2e9, "research")]
    now, arrived = 2e9, 2e9
    while True:
        while arrived <= now:
            heapq.heappush(queue, (study_priority("stat", arrived, ROUTING), arrived, "stat"))
            arrived += every_s
        _, _, kind = heapq.heappop(queue)
        if kind == "research":
            break
        now += 600
    # Before it: all stat studies of its four hours of patience, and no later one.
    assert now - 2e9 <= (14_400 / every_s + 2) * 600


def test_deliveries_of_results_and_of_originals_are_different_work() -> None:
    assert delivery_id("1.2", 1, 1, "pacs", 1) == f"{study_id('1.2', 1)}/pacs/1"
    assert delivery_id("1.2", 1, 1, "pacs", 1, "originals") == f"{study_id('1.2', 1)}/pacs~originals/1"


@pytest.mark.parametrize(
    ("workflow_id", "study"),
    [
        ("study/1.2/3/4", ("1.2", 3, 4)),
        ("study/1.2/3/4/~waits/2", ("1.2", 3, 4)),
        ("study/../../etc/1/2/route", ("../../etc", 1, 2)),
        ("study//tmp/x\n/1/2", ("/tmp/x\n", 1, 2)),
        ("study/x/y", None),
        ("fetch/1.2/1/1", None),
    ],
)
def test_the_study_of_an_id_is_found_whatever_its_uid(workflow_id: str, study: tuple[str, int, int] | None) -> None:
    assert queue.named_study(workflow_id) == study
