"""Calls of workflows: they fit the functions that they call, and what stands in old databases."""

import inspect
from dataclasses import asdict
from typing import Any, get_type_hints

import pytest
from pydantic import TypeAdapter

from dicomnode.store.records import Event
from dicomnode.workflows import calls, runtime
from dicomnode.workflows.calls import Call

EVENT = Event("ab12", "1.2.3", 2, "delivered", None, 1.75e9)
CALLS = (
    calls.study_call("1.2.3", 2, 1),
    calls.study_call("1.2.3", 2, 1, priority=7),
    calls.study_later_call("1.2.3", 2, 1, attempt=2, waited=1.0, pause=1.5, priority=None),
    calls.study_later_call("1.2.3", 2, 1, attempt=3, waited=2.5, pause=2.0, priority=7),
    calls.route_call("1.2.3", 2, 1),
    calls.deliver_call("1.2.3", 2, 1, "pacs"),
    calls.deliver_call("1.2.3", 2, 1, "pacs", "originals", attempt=2, waited=0.0, pause=9.5),
    calls.prefetch_call("ef34", "20260102"),
    calls.fetch_call("1.2.9", "study/1.2.3/2/1"),
    calls.fetch_call("1.2.9", "prefetch/ef34/20260102", attempt=3, waited=30.0, pause=40.0),
    calls.notify_call("ris", asdict(EVENT)),
    calls.notify_call("ris", asdict(EVENT), attempt=2, waited=0.0, pause=10.0),
)
#: As version 0.1.0 spelt them. Rows of this form lie in databases: queue, workflow, ID, arguments, pause, priority.
SPELT = (
    ("studies", "study", "study/1.2.3/2/1", ("1.2.3", 2, 1), 0.0, None),
    ("studies", "study", "study/1.2.3/2/1", ("1.2.3", 2, 1), 0.0, 7),
    ("studies", "study", "study/1.2.3/2/1/~waits/2", ("1.2.3", 2, 1, 2, 2.5), 1.5, None),
    ("studies", "study", "study/1.2.3/2/1/~waits/3", ("1.2.3", 2, 1, 3, 4.5), 2.0, 7),
    ("routes", "route", "study/1.2.3/2/1/route", ("1.2.3", 2, 1), 0.0, None),
    ("deliver-pacs", "deliver", "study/1.2.3/2/1/pacs/1", ("1.2.3", 2, 1, "pacs", 1, 0.0, "results"), 0.0, 1),
    (
        "deliver-pacs",
        "deliver",
        "study/1.2.3/2/1/pacs~originals/2",
        ("1.2.3", 2, 1, "pacs", 2, 9.5, "originals"),
        9.5,
        2,
    ),
    ("prefetches", "prefetch", "prefetch/ef34/20260102", ("ef34", "prefetch/ef34/20260102"), 0.0, None),
    ("fetches", "fetch", "fetch/1.2.9/study/1.2.3/2/1/1", ("1.2.9", "study/1.2.3/2/1", 1, 0.0), 0.0, None),
    (
        "fetches",
        "fetch",
        "fetch/1.2.9/prefetch/ef34/20260102/3",
        ("1.2.9", "prefetch/ef34/20260102", 3, 70.0),
        40.0,
        None,
    ),
    ("notify-ris", "notify", "notify/ris/ab12/1", ("ris", asdict(EVENT), 1, 0.0), 0.0, None),
    ("notify-ris", "notify", "notify/ris/ab12/2", ("ris", asdict(EVENT), 2, 10.0), 10.0, None),
)
WORKFLOWS = {workflow.dbos_function_name: workflow for workflow in runtime.WORKFLOWS}  # type: ignore[attr-defined]


@pytest.mark.parametrize(("call", "spelt"), list(zip(CALLS, SPELT, strict=True)), ids=lambda x: getattr(x, "id", ""))
def test_names_ids_and_the_order_of_arguments_stay(call: Call, spelt: tuple[Any, ...]) -> None:
    assert (call.queue, call.workflow, call.id, call.args, call.delay_s, call.priority) == spelt


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.id)
def test_a_call_fits_the_function_that_is_registered_under_its_name(call: Call) -> None:
    workflow = WORKFLOWS[call.workflow]
    bound = inspect.signature(workflow).bind(*call.args)
    hints = get_type_hints(inspect.unwrap(workflow))
    for name, value in bound.arguments.items():
        TypeAdapter(hints[name]).validate_python(value, strict=True)


def test_every_workflow_has_a_builder() -> None:
    assert {call.workflow for call in CALLS} == set(WORKFLOWS)
    builders = [name for name in vars(calls) if name.endswith("_call")]
    assert len(builders) == 7, "a new builder belongs into CALLS"


def test_what_is_not_said_is_not_in_the_options() -> None:
    assert calls.route_call("1.2", 1, 1).options == {
        "queue_name": "routes",
        "workflow_name": "route",
        "workflow_id": "study/1.2/1/1/route",
    }
    later = calls.study_later_call("1.2", 1, 1, attempt=2, waited=0.0, pause=3.0, priority=5).options
    assert (later["delay_seconds"], later["priority"]) == (3.0, 5)
