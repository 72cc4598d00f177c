"""What the networks of an arm look at, out of fold: how their heat lies in the lungs, and pictures of some scans."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dicomnode.analysis.risk.grad_cam import Heat, grad_cam
from dicomnode.analysis.risk.preprocess import Spec, prepare
from dicomnode.registry_format.volumes import read_volume
from training.models.arm import Data, Rows
from training.models.deep.fit import load_network
from training.models.deep.job import FitJob

_SHOWN_SLICES = 3
#: How strongly the heat is laid over the slice.
_OPACITY = 0.5


@dataclass(frozen=True)
class Picture:
    """A scan's slices of most heat side by side, each plain above and with its heat below: a PNG in base64."""

    scan: str
    risk: float
    png: str


@dataclass(frozen=True)
class NetworkExplanation:
    """Where an arm's networks look; means over the explained scans.

    Attributes:
        scans: how many.
        in_lungs: share of the heat that lies in lung, 0 to 1; NaN-free: scans without any heat are left out.
        lungs: share of the slices that is lung: heat spread evenly would have this.
        thirds: shares of the heat by height: lower, middle, upper third of the slices.
        pictures: of the scans of highest risk.
    """

    scans: int
    in_lungs: float
    lungs: float
    thirds: tuple[float, float, float]
    pictures: tuple[Picture, ...]


def explain_arm(
    folder: Path, data: Data, chosen: Sequence[Rows], interval: int, pictures: int
) -> NetworkExplanation | None:
    """Explain the fold networks of an arm, each on scans that it has not seen.

    Args:
        folder: of the arm in a run.
        data: all scans.
        chosen: of each fold, the rows to explain.
        interval: at whose end the risk is, from 0.
        pictures: how many scans are shown.

    Returns:
        None where no scan has any heat.

    Raises:
        UsageError: a volume cannot be read.
        RefusedError: it has no lungs.
    """
    shares, shown = [], []
    for number, rows in enumerate(chosen):
        if not len(rows):
            continue
        job = FitJob.load(folder / f"fold-{number}")
        net = load_network(folder / f"fold-{number}", job)
        spec = job.settings.spec
        for row in rows:
            volume = data.volume(int(row))
            assert volume is not None, "the arm was fitted on it"
            slices = prepare(*read_volume(volume), spec)
            heat = grad_cam(net, slices, interval)
            if heat.map.any():
                shares.append(_shares(heat, slices, spec))
                shown.append((heat, slices, str(data.cohort["scan"].iloc[row])))
            shown = sorted(shown, key=lambda one: -one[0].risk)[:pictures]
    if not shares:
        return None
    mean = np.mean(shares, axis=0)
    return NetworkExplanation(
        scans=len(shares),
        in_lungs=round(float(mean[0]), 4),
        lungs=round(float(mean[1]), 4),
        thirds=(round(float(mean[2]), 4), round(float(mean[3]), 4), round(float(mean[4]), 4)),
        pictures=tuple(Picture(scan, round(heat.risk, 4), _picture(heat, slices)) for heat, slices, scan in shown),
    )


def _shares(heat: Heat, slices: NDArray[np.float32], spec: Spec) -> list[float]:
    """Heat in lung, lung, and heat of the lower, middle and upper third of the slices."""
    low, high = spec.window_hu
    lung = np.abs(slices - (spec.outside_hu - low) / (high - low)) > 1e-6
    total = float(heat.map.sum())
    thirds = [float(part.sum()) / total for part in np.array_split(heat.map, 3)]
    return [float(heat.map[lung].sum()) / total, float(lung.mean()), *thirds]


def _picture(heat: Heat, slices: NDArray[np.float32]) -> str:
    most = np.sort(np.argsort(-heat.map.sum(axis=(1, 2)), kind="stable")[:_SHOWN_SLICES])
    grey = np.repeat(slices[most][..., None], 3, axis=-1)
    warm = np.stack([heat.map[most], heat.map[most] ** 2 * 0.8, np.zeros_like(heat.map[most])], axis=-1)
    share = (_OPACITY * heat.map[most])[..., None]
    rows = [np.concatenate(list(part), axis=1) for part in (grey, grey * (1 - share) + warm * share)]
    image = Image.fromarray((np.concatenate(rows) * 255).round().clip(0, 255).astype(np.uint8))
    packed = io.BytesIO()
    image.save(packed, format="PNG", optimize=True)
    return base64.b64encode(packed.getvalue()).decode("ascii")
