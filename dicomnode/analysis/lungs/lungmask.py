"""Lungs and lobes by lungmask's networks (Hofmanninger et al., Eur Radiol Exp 2020;4:50), from weights at hand.

torch and lungmask are imported when a segmenter is made, not before: without weights nobody needs them here.
"""

from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dicomnode.analysis.arrays import Labels, Volume
from dicomnode.analysis.findings import SegmenterFamily
from dicomnode.analysis.lungs import steps
from dicomnode.errors import RefusedError, WeightsError
from dicomnode.files import sha256_of

if TYPE_CHECKING:
    from dicomnode.analysis.lungs.lungmask_network import LungmaskNetwork

_LUNG_CLASSES, _LOBE_CLASSES = 3, 6


@dataclass(frozen=True)
class WeightsFile:
    """A weights file and its expected SHA-256, 64 hexadecimal digits."""

    path: Path
    sha256: str


class LungmaskSegmenter:
    """Right and left lung by lungmask, and the lobes where their weights are given; nothing is downloaded.

    In the mask: the lungs with their vessels, nodules and dense disease, as the network learnt them. Not in the mask:
    trachea and main bronchi.

    Args:
        weights: a state dict of lungmask's network with three classes (R231, R231CovidWeb).
        sha256: the expected digest of that file, 64 hexadecimal digits.
        model: the model's name; it becomes part of `name`.
        device: "cpu", "cuda" or "cuda:1".
        lobe_weights: a state dict with six classes (LTRCLobes).
        step_mm: the networks look at slices up to so many millimetres apart, and those between are interpolated (it
            stands in `version`); 0: at each.

    Raises:
        WeightsError: a file is missing, is not the expected one, or is no such network.
        ConfigurationError: there is no such device.
    """

    family: SegmenterFamily = "network"

    def __init__(
        self,
        weights: Path,
        sha256: str,
        model: str = "R231",
        device: str = "cpu",
        lobe_weights: WeightsFile | None = None,
        step_mm: float = 0.0,
    ) -> None:
        digest = _check_digest(weights, sha256)
        self.name = f"lungmask-{model}"
        self.version = f"{version_of('lungmask')}+{digest[:12]}"
        if lobe_weights is not None:
            self.version += f"+{_check_digest(lobe_weights.path, lobe_weights.sha256)[:12]}"
        if step_mm:
            self.version += f"+step{step_mm:g}mm"
        from dicomnode.analysis.lungs.lungmask_network import LungmaskNetwork  # noqa: PLC0415

        self._step_mm = step_mm
        self._lungs = LungmaskNetwork(weights, _LUNG_CLASSES, device)
        self._lobes = None if lobe_weights is None else LungmaskNetwork(lobe_weights.path, _LOBE_CLASSES, device)

    def __call__(self, volume: Volume) -> Labels:
        """Labels (z, y, x) of the volume's shape: 0 background, 1 right lung, 2 left lung.

        Raises:
            RefusedError: `no-lungs`, the network found none.
        """
        # lungmask takes an array's slices as they are, and learnt on rows from anterior to posterior, columns from
        # right to left, slices from the feet: our axes.
        labels = self._by_steps(self._lungs, volume)
        if not labels.any():
            raise RefusedError(
                "no-lungs", f"no lungs found by {self.name}. Check that the series shows the chest in HU."
            )
        return labels

    def lobes(self, volume: Volume, lungs: Labels) -> NDArray[np.uint8] | None:
        """Return the lobes (z, y, x) by LTRCLobes, numbered as `arrays.LOBES`, 0 outside; None without its weights.

        The lobe network misses dense disease: what `lungs` has and it has not goes to the neighbouring lobe, and
        outside of `lungs` there is none (lungmask's fill model, «LTRCLobes_R231»).

        Args:
            volume: the volume.
            lungs: the labels that this segmenter gave for the volume.
        """
        if self._lobes is None:
            return None
        from dicomnode.analysis.lungs.lungmask_network import filled  # noqa: PLC0415

        return filled(self._by_steps(self._lobes, volume), lungs)

    def _by_steps(self, network: "LungmaskNetwork", volume: Volume) -> NDArray[np.uint8]:
        slices = len(volume.hu)
        at = steps.chosen(slices, volume.spacing_mm[0], self._step_mm)
        return steps.between(network(volume.hu if len(at) == slices else volume.hu[at]), at, slices)


def _check_digest(weights: Path, expected: str) -> str:
    try:
        found = sha256_of(weights)
    except OSError as error:
        raise WeightsError(
            f"cannot read the lungmask weights {weights}: {error.strerror}. Install them (`dicomnode weights fetch`), "
            "or choose the classical segmenter."
        ) from error
    if found != expected.lower():
        raise WeightsError(
            f"the lungmask weights {weights} have sha256 {found}, expected {expected.lower()}: the file is damaged or "
            "belongs to another model. Install it again, or configure the digest of the intended file."
        )
    return found
