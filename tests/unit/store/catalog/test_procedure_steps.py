"""Procedure steps in the catalogue, on both databases: noted once, ended once."""

from dataclasses import replace

import pytest

from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.procedure_steps import ProcedureStep, StepKind, StepState
from dicomnode.store.records import Instance


def step(uid: str = "1.9", state: StepState = "scheduled", seen_at: float = 1.0) -> ProcedureStep:
    return ProcedureStep(uid, "found", "1.2.3", None, "1.5", state, None, None, seen_at)


def test_a_task_that_is_found_again_stays_as_it_is(catalog: Catalog) -> None:
    assert catalog.note_step(step())
    claimed = step(state="in progress")
    catalog.save_step(claimed)
    assert not catalog.note_step(step(seen_at=9.0))
    assert catalog.open_steps(("found",)) == [claimed]
    assert catalog.open_steps(("own", "mpps")) == []


@pytest.mark.parametrize("end", ["completed", "canceled", "dropped"])
def test_what_has_ended_stays_ended(catalog: Catalog, end: StepState) -> None:
    catalog.note_step(step())
    ended = step().now(end, reason="so")
    catalog.save_step(ended)
    catalog.save_step(step(state="in progress"))
    assert catalog.steps_of("1.2.3") == [ended]
    assert catalog.open_steps(("found",)) == []


def test_the_oldest_step_goes_first(catalog: Catalog) -> None:
    for uid, seen_at in (("1.7", 3.0), ("1.8", 1.0), ("1.9", 2.0)):
        catalog.note_step(step(uid, seen_at=seen_at))
    assert [s.step_uid for s in catalog.open_steps(("found",))] == ["1.8", "1.9", "1.7"]


def test_a_job_is_told_once_by_each_service(catalog: Catalog) -> None:
    association = catalog.begin_association("run", "CT", "NODE", "192.0.2.1", 100.0)
    catalog.record(
        Instance(
            "1.2.3.1",
            "1.2.840.10008.5.1.4.1.1.2",
            "1.2.3",
            "1.2.3.0",
            "/1.dcm",
            "0" * 64,
            1,
            100.0,
            association,
            "a" * 64,
        )
    )
    catalog.settle("1.2.3", 200.0, None)

    def untold(kind: StepKind, since: float = 0.0) -> list[int]:
        return [job.generation for job in catalog.jobs_without_step((kind,), ("queued",), since)]

    assert (untold("own"), untold("own", 201.0)) == ([1], [])
    catalog.note_step(replace(step("1.7"), kind="mpps", generation=1))
    catalog.note_step(replace(step("1.8"), kind="own", generation=2))
    assert (untold("mpps"), untold("own"), untold("found")) == ([], [1], [1])
    catalog.note_step(step("1.9"))  # a task that was found is for whatever generation there is
    assert untold("found") == []
