"""What an evaluation warns of: few deaths, implausibly good results, nothing learnt, poor calibration."""

from collections.abc import Sequence

from dicomnode.words.numerals import plural
from training.data.outcomes import Outcomes
from training.evaluation import metrics
from training.evaluation.records import ArmResult, AtYears, HorizonResult, Oracle

# Patients who died, not scans; a validation should have 100 events (Collins et al. 2016, doi:10.1002/sim.6787).
_FEW_DEATHS, _TOO_GOOD, _SMALLEST_G, _SLOPES = 100, 0.98, 0.1, (0.85, 1.15)
#: Patients who died: with fewer, a ratio's interval by bootstrap is narrower than what is known.
_FEWEST_FOR_LEVEL = 10


def warnings_of(
    outcomes: Outcomes,
    horizons: Sequence[AtYears],
    oracles: Sequence[Oracle],
    arms: Sequence[ArmResult],
    *,
    external: bool = False,
) -> tuple[str, ...]:
    """Return what a reader must know before the figures: few deaths, long weights, nothing learnt, too good, off.

    Args:
        outcomes: of the scans.
        horizons: with what was observed there.
        oracles: of a synthetic registry.
        arms: those that are judged.
        external: whether they are finished bundles on another site's patients.
    """
    found = []
    for at in horizons:
        if at.patients_died < _FEW_DEATHS:
            counted = f"only {plural(at.patients_died, 'patient')} died ({plural(at.deaths, 'scan')})"
            found.append(f"{at.years} y: {counted}; with fewer than {_FEW_DEATHS} deaths, estimates are unstable")
        if at.observed_risk.value is None:
            found.append(f"{at.years} y: nobody was followed this long: the risk at {at.years} y cannot be judged here")
        followed = metrics.at_horizon(outcomes, at.years).weights.max(initial=0.0)
        if followed > 1 / _SMALLEST_G:
            found.append(
                f"{at.years} y: the largest censoring weight is {followed:.0f}: few scans were followed this long"
            )
    best = {o.years: o for o in oracles}
    for arm in arms:
        if all(h.auc.lower is not None and h.auc.lower <= 0.5 for h in arm.horizons):
            cure = "so it may have learnt nothing; add scans, epochs or pre-trained weights, or drop the arm"
            here = "so it may rank these patients no better than chance; no recalibration mends that"
            found.append(f"{arm.arm}: the AUC's interval includes 0.5 at every horizon, {here if external else cure}")
        for h in arm.horizons:
            auc = h.auc.value
            if auc is not None and auc > _TOO_GOOD:
                found.append(f"{arm.arm}, {h.years} y: AUC {auc:.3f} is implausibly high: check for leakage")
            if auc is not None and h.minus_oracle and h.minus_oracle.lower is not None and h.minus_oracle.lower > 0:
                text = f"AUC {auc:.3f} exceeds the oracle's {best[h.years].auc.value:.3f}: check for leakage"
                found.append(f"{arm.arm}, {h.years} y: {text}")
        slopes = [(h.years, h.calibration_slope.value) for h in arm.horizons]
        off = [
            f"{s:.2f} at {y} y{_oracle_slope(best.get(y))}"
            for y, s in slopes
            if s is not None and not _SLOPES[0] <= s <= _SLOPES[1]
        ]
        if off:
            found.append(f"{arm.arm}: calibration slope {', '.join(off)}, outside {_SLOPES[0]:g} to {_SLOPES[1]:g}")
        told = {at.years for at in horizons if at.patients_died >= _FEWEST_FOR_LEVEL}
        if external and (levels := [text for h in arm.horizons if h.years in told and (text := _level(h))]):
            found.append(f"{arm.arm}: the level of risk is wrong here: {'; '.join(levels)} (`training recalibrate`)")
    return tuple(found)


def _level(at: HorizonResult) -> str:
    """Return the ratio of observed to expected where its interval does not hold 1, in words; "" where it does."""
    ratio = at.observed_to_expected
    if ratio.value is None or ratio.lower is None or ratio.upper is None or ratio.lower <= 1 <= ratio.upper:
        return ""
    return f"{ratio.value:.2f} times the predicted deaths at {at.years} y ({ratio.lower:.2f} to {ratio.upper:.2f})"


def _oracle_slope(oracle: Oracle | None) -> str:
    if oracle is None or oracle.calibration_slope.value is None:
        return ""
    return f" (oracle: {oracle.calibration_slope.value:.2f})"
