"""What an evaluation warns of: figures that few deaths carry, that are too good, or that show nothing learnt."""

from collections.abc import Sequence

from training.data.outcomes import Outcomes
from training.evaluation import metrics
from training.evaluation.records import ArmResult, AtYears, Oracle

# Patients who died, not scans; a validation should have 100 events (Collins et al. 2016, doi:10.1002/sim.6787).
_FEW_DEATHS, _TOO_GOOD, _SMALLEST_G, _SLOPES = 100, 0.98, 0.1, (0.85, 1.15)


def warnings_of(
    outcomes: Outcomes, horizons: Sequence[AtYears], oracles: Sequence[Oracle], arms: Sequence[ArmResult]
) -> tuple[str, ...]:
    """Return what a reader must know before the figures: few deaths, long weights, nothing learnt, too good, off."""
    found = []
    for at in horizons:
        if at.patients_died < _FEW_DEATHS:
            counted = f"{at.deaths} scans of {at.patients_died} patients with a death"
            found.append(f"{at.years} y: {counted}; below {_FEW_DEATHS} patients who died, figures are unsteady")
        followed = metrics.at_horizon(outcomes, at.years).weights.max(initial=0.0)
        if followed > 1 / _SMALLEST_G:
            found.append(f"{at.years} y: a single scan stands for {followed:.0f}: few were followed so long")
    best = {o.years: o for o in oracles}
    for arm in arms:
        if all(h.auc.lower is not None and h.auc.lower <= 0.5 for h in arm.horizons):
            cure = "give it more scans, more epochs or pre-trained weights, or leave it out"
            found.append(f"{arm.arm}: AUC's interval reaches 0.5 at each horizon: it may have learnt nothing; {cure}")
        for h in arm.horizons:
            auc = h.auc.value
            if auc is not None and auc > _TOO_GOOD:
                found.append(f"{arm.arm}, {h.years} y: AUC {auc:.3f} is too good to be true: look for leakage")
            if auc is not None and h.minus_oracle and h.minus_oracle.lower is not None and h.minus_oracle.lower > 0:
                text = f"AUC {auc:.3f} is above the oracle's {best[h.years].auc.value:.3f}: look for leakage"
                found.append(f"{arm.arm}, {h.years} y: {text}")
        slopes = [(h.years, h.calibration_slope.value) for h in arm.horizons]
        off = [
            f"{s:.2f} at {y} y{_beside(best.get(y))}"
            for y, s in slopes
            if s is not None and not _SLOPES[0] <= s <= _SLOPES[1]
        ]
        if off:
            found.append(f"{arm.arm}: calibration slope {', '.join(off)}, outside {_SLOPES[0]:g} to {_SLOPES[1]:g}")
    return tuple(found)


def _beside(oracle: Oracle | None) -> str:
    if oracle is None or oracle.calibration_slope.value is None:
        return ""
    return f" (the true risk's own: {oracle.calibration_slope.value:.2f})"
