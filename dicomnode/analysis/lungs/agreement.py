"""A second segmenter's opinion: where two methods disagree, a reader must look at the outlines."""

import numpy as np

from dicomnode.analysis.arrays import LEFT, RIGHT, Labels, Volume
from dicomnode.analysis.findings import Flag
from dicomnode.analysis.lungs import plausible
from dicomnode.analysis.lungs.segmenter import Segmenter, volumes
from dicomnode.errors import RefusedError
from dicomnode.words.numerals import apart

#: Two good segmenters of one lung without dense disease agree better than this.
_LEAST_DICE = 0.95


def check(volume: Volume, labels: Labels, second: Segmenter) -> tuple[Flag, ...]:
    """Return a flag where the second segmenter finds another lung than the first, none where both agree.

    Args:
        volume: the volume that was segmented.
        labels: by the first segmenter and in the chest, (z, y, x), 0 background, 1 right, 2 left.
        second: the other segmenter.
    """
    made_by = f"The second segmenter, {second.name},"
    try:
        other = plausible.in_chest(volume, second(volume))
    except RefusedError as e:
        return (Flag("segmenters-disagree", "warning", f"{made_by} refused the scan: {e}"),)
    said = []
    ours, theirs = volumes(volume, labels), volumes(volume, other)
    for side, name in ((RIGHT, "right"), (LEFT, "left")):
        dice = _dice(labels, other, side)
        if dice < _LEAST_DICE:
            said.append(
                f"{name} {getattr(theirs, name):.0f} ml instead of {getattr(ours, name):.0f} (Dice "
                f"{apart(dice, _LEAST_DICE, 2)})"
            )
    if not said:
        return ()
    return (
        Flag(
            "segmenters-disagree",
            "warning",
            f"{made_by} finds another lung (Dice under {_LEAST_DICE}): {', '.join(said)}. Review the outlines.",
        ),
    )


def _dice(one: Labels, other: Labels, side: int) -> float:
    """Dice's coefficient of one side; 1 where neither has it."""
    a, b = one == side, other == side
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2 * int(np.count_nonzero(a & b)) / total if total else 1.0
