"""Procedure steps in the catalogue: noted once, ended once."""

from pathlib import Path

import pytest

from dicomnode.intake.catalog import Catalog
from dicomnode.intake.steps import Step, StepState


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog.open(f"sqlite:///{tmp_path / 'catalog.sqlite'}")


def step(uid: str = "1.9", state: StepState = "scheduled", seen_at: float = 1.0) -> Step:
    return Step(uid, "found", "1.2.3", None, "1.5", state, None, None, seen_at)


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
