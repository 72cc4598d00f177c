"""Paired differences between arms, and whether any arm is better than the simplest.

Two AUCs on the same patients are correlated, so that their own intervals say little about their difference. Here both
are taken from each draw of the bootstrap, and the interval is of the difference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from training.evaluation import metrics
from training.evaluation.censoring import Floats
from training.evaluation.records import Estimate, PairedDifference


@dataclass(frozen=True)
class Drawn:
    """A metric of one arm: its value, and in each draw of the bootstrap, (draws,)."""

    value: float
    draws: Floats

    @property
    def estimate(self) -> Estimate:
        """The value with its interval."""
        return estimate(self.value, self.draws)

    def less(self, other: "Drawn") -> Estimate:
        """Return the paired difference from another arm's, in the same draws."""
        return estimate(self.value - other.value, self.draws - other.draws)


def estimate(value: float, draws: Floats) -> Estimate:
    """Return a value with the interval of its draws, (draws,); what is not a number becomes None."""
    known = [v if np.isfinite(v) else None for v in (value, *metrics.interval(draws))]
    return Estimate(known[0], known[1], known[2]) if known[0] is not None else Estimate(None, None, None)


def differences(
    aucs: Mapping[str, Sequence[Drawn]],
    uno_c: Mapping[str, Drawn],
    primary: str,
    baselines: Sequence[str],
    brier: Mapping[str, Sequence[Drawn]] | None = None,
    ici: Mapping[str, Sequence[Drawn]] | None = None,
) -> tuple[PairedDifference, ...]:
    """Return each pair's difference: the primary arm's first, baselines last and never against one another.

    Args:
        aucs: by arm, at each horizon.
        uno_c: by arm.
        primary: the arm that decides.
        baselines: arms that are only there to be compared with.
        brier: by arm, at each horizon.
        ici: by arm, at each horizon.
    """

    def paired(found: Mapping[str, Sequence[Drawn]] | None, a: str, b: str) -> tuple[Estimate, ...]:
        return () if found is None else tuple(x.less(y) for x, y in zip(found[a], found[b], strict=True))

    order = sorted(aucs, key=lambda arm: (arm != primary, arm in baselines))
    return tuple(
        PairedDifference(
            arm=a,
            against=b,
            auc=paired(aucs, a, b),
            uno_c=uno_c[a].less(uno_c[b]),
            brier=paired(brier, a, b),
            ici=paired(ici, a, b),
        )
        for a, b in combinations(order, 2)
        if a not in baselines
    )


def not_better(found: Sequence[PairedDifference], baselines: Sequence[str]) -> tuple[str, ...]:
    """Warn of each baseline that no arm is shown to beat by Uno's C: what was fitted may add nothing to it.

    Shown is a difference whose interval lies above 0; without a bootstrap, one above 0.
    """
    warnings = []
    for baseline in baselines:
        against = [d for d in found if d.against == baseline and d.uno_c.value is not None]
        if not against or any(_is_above(d.uno_c) for d in against):
            continue
        best = max(against, key=lambda d: d.uno_c.value or 0.0)
        value, lower, upper = best.uno_c.value, best.uno_c.lower, best.uno_c.upper
        interval = "" if lower is None or upper is None else f" (95 % interval {lower:+.3f} to {upper:+.3f})"
        warnings.append(
            f"no arm is shown to discriminate better than the baseline {baseline} alone: the best, {best.arm}, differs "
            f"from it by {value:+.3f} in Uno's C{interval}; a simpler model may do as well"
        )
    return tuple(warnings)


def _is_above(difference: Estimate) -> bool:
    bound = difference.value if difference.lower is None else difference.lower
    return bound is not None and bound > 0
