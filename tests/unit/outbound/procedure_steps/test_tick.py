"""What the ticks of UPS and MPPS have in common, without a server."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from pydicom.dataset import Dataset

from dicomnode.config import Config, MppsTable
from dicomnode.errors import PeerError
from dicomnode.outbound.procedure_steps.progress import StudyProgress
from dicomnode.outbound.procedure_steps.tick import ProcedureStepTick
from dicomnode.store.catalog.procedure_steps import ProcedureStep
from dicomnode.store.records import Instance

SEEN = StudyProgress("in progress")


def step(uid: str = "1.2") -> ProcedureStep:
    return ProcedureStep(uid, "mpps", "9.9", 1, "", "planned", None, None, 100.0)


class Tick(ProcedureStepTick[MppsTable]):
    """Answers as the test says, and keeps what would be saved."""

    what: ClassVar[str] = "step"

    def __init__(self, answers: dict[str, Any], now: float = 100.0) -> None:
        self.saved: list[ProcedureStep] = []
        catalog: Any = SimpleNamespace(instances=lambda _uid: [], save_step=self.saved.append)
        table = MppsTable(ae_title="IT", host="h", port=104, calling_ae_title="ME")
        association: Any = None
        super().__init__(Config(), table, catalog, association, now)
        self.answers = answers

    def advance(self, step: ProcedureStep, _seen: StudyProgress) -> ProcedureStep:
        answer = self.answers[step.step_uid]
        if isinstance(answer, Exception):
            raise answer
        return self._refused(step, "N-CREATE", answer) if answer else self._save(step.now("in progress"))

    def _create(self, step: ProcedureStep, _images: Sequence[Instance], _header: Dataset) -> ProcedureStep:
        raise AssertionError("there are no images")

    def _is_late(self, _step: ProcedureStep) -> bool:
        return self._now > 100.0


def test_one_step_that_cannot_be_told_takes_no_other_away(caplog: pytest.LogCaptureFixture) -> None:
    tick = Tick({"1": ValueError("Secret^Name"), "2": 0, "3": 0x0110})
    assert tick.advance_all([(step(uid), SEEN) for uid in ("1", "2", "3")]) == 1
    assert [(s.step_uid, s.state) for s in tick.saved] == [("2", "in progress")]
    assert "step 1 postponed: ValueError" in caplog.text
    assert "Secret" not in "".join(r.message for r in caplog.records if r.levelname != "DEBUG")


def test_a_server_that_does_not_answer_ends_the_tick() -> None:
    tick = Tick({"1": PeerError("silent"), "2": 0})
    with pytest.raises(PeerError, match="silent"):
        tick.advance_all([(step(uid), SEEN) for uid in ("1", "2")])
    assert tick.saved == []


@pytest.mark.parametrize(
    ("status", "now", "saved", "says"),
    [
        (0x0110, 100.0, [], "it will be retried"),
        (0x0110, 101.0, ["N-CREATE refused with status 0x0110"], "given up"),
        (0x0122, 100.0, ["N-CREATE refused with status 0x0122"], "given up"),
    ],
    ids=["in passing", "in passing, too late", "for good"],
)
def test_what_is_refused(
    status: int, now: float, saved: list[str], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    tick = Tick({"1.2": status}, now)
    assert tick.advance_all([(step(), SEEN)]) == len(saved)
    assert [s.reason for s in tick.saved] == saved
    assert {s.state for s in tick.saved} <= {"dropped"}
    assert f"mpps (IT at h:104) refused step 1.2 (N-CREATE) with status 0x{status:04X}: {says}" in caplog.text


def test_a_step_without_images_is_dropped() -> None:
    tick = Tick({})
    assert tick._begin(step()).reason == "its images were removed before the server could be updated"
    assert [s.state for s in tick.saved] == ["dropped"]
