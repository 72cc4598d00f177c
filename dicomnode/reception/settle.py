"""When is a study complete? A pure rule: what came, and the time, in; a decision out.

DICOM has no «last image» message. A study is taken as complete `release_s` after its last association was closed by an
A-RELEASE, if the positions of its main CT series leave no gap. Everything unclear waits until nothing has come for
`quiet_s`. A wrong guess loses nothing: a late instance opens the next generation.

Clocks: a time in the future (the clock was set back) counts as «just now», so nothing settles on it at once and nothing
waits longer than `quiet_s` from now; the catalogue pulls such stored times back to the present, so the wait does end. A
clock set forward looks like a silence and may settle a study early, which opens one generation more.
"""

from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from dicomnode.store.records import Bringer, SeriesIntake, StudyIntake

_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
_LEGACY_CONVERTED_ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.2"
_ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
_MULTI_FRAME = frozenset({_ENHANCED_CT, _LEGACY_CONVERTED_ENHANCED_CT})
#: Fewer slices have no step to compare: two slices may be the ends of anything.
_FEWEST_SLICES = 3
_LARGEST_STEP = 1.5  # times the median step: one missing slice makes a step of 2
_SAME_POSITION_MM = 0.01
_WAITS = "released and complete, waiting for more"


@dataclass(frozen=True)
class SettleRule:
    """`release_s`: wait after the last release of a complete study. `quiet_s`: silence that ends every other wait."""

    release_s: float
    quiet_s: float


@dataclass(frozen=True)
class SettleDecision:
    """`due`: when to ask again at the latest if nothing more comes; None once settled."""

    settled: bool
    reason: str
    due: float | None

    @property
    def waits_for_more(self) -> bool:
        """Whether nothing is unclear: it settles unless something more comes."""
        return self.reason == _WAITS


def decide(study: StudyIntake, now: float, rule: SettleRule) -> SettleDecision:
    """Whether the study is to be analysed now."""
    quiet_at = min(study.last_seen, now) + rule.quiet_s
    if now >= quiet_at:
        return SettleDecision(True, "quiet", None)
    unclear = _unclear(study)
    if unclear is not None:
        return SettleDecision(False, unclear, quiet_at)
    released_at = max(min(_closed_at(bringer), now) for bringer in study.bringers)
    due = min(max(released_at, min(study.last_seen, now)) + rule.release_s, quiet_at)
    if now >= due:
        return SettleDecision(True, "released and complete", None)
    return SettleDecision(False, _WAITS, due)


def is_broken_off(study: StudyIntake) -> bool:
    """Whether the association that came last was aborted or lost: more may have followed."""
    last = max(study.bringers, key=lambda one: one.last_seen, default=None)
    return last is not None and last.closed in ("aborted", "lost")


def _closed_at(bringer: Bringer) -> float:
    return bringer.last_seen if bringer.closed_at is None else bringer.closed_at


def _unclear(study: StudyIntake) -> str | None:
    """Why nobody can say that the study is complete, in words; None if it looks complete."""
    if not study.bringers:
        return "no association known"
    for closed, reason in (
        (None, "association open"),
        ("aborted", "association aborted"),
        ("lost", "association lost"),
    ):
        if any(bringer.closed == closed for bringer in study.bringers):
            return reason
    main = _main_series(study.series)
    if main is None:
        return "no CT series"
    if main.sop_class_uids <= _MULTI_FRAME:
        return None  # each instance carries all its slices
    return _gap(main)


def _main_series(series: tuple[SeriesIntake, ...]) -> SeriesIntake | None:
    """Return the CT series with the most slices; a multi-frame instance is as good as a whole series of slices."""
    ct = [one for one in series if one.sop_class_uids & (_MULTI_FRAME | {_CT_IMAGE})]
    return max(ct, key=lambda one: (bool(one.sop_class_uids & _MULTI_FRAME), one.instances), default=None)


def _gap(series: SeriesIntake) -> str | None:
    if len(series.positions) < max(series.instances, _FEWEST_SLICES):
        return "too few slice positions"
    if len(series.orientations) != 1:
        return "several orientations"
    positions = sorted(series.positions)
    steps = [after - before for before, after in pairwise(positions)]
    if min(steps) < _SAME_POSITION_MM:
        return "repeated slice position"
    if max(steps) > _LARGEST_STEP * median(steps):
        return "gap between slices"
    return None
