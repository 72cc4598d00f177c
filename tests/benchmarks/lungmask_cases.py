"""Right and left lung by lungmask's network: `LMInferer.apply` against ours, on a network with a decided output."""

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from dicomnode.analysis.arrays import Volume
from dicomnode.analysis.lungs.lungmask import LungmaskSegmenter
from tests.benchmarks.inputs import KEPT, chest
from tests.benchmarks.measured import Cost
from tests.unit.analysis import decided_network

with warnings.catch_warnings():
    from lungmask import LMInferer

#: lungmask takes a second for each slice: so many of them, spread over the chest, tell the ratio.
_SLICES = 20
NAME = f"lungmask's network, {_SLICES} slices"
STOCK = "lungmask 0.2.22 `LMInferer.apply`, CPU"
_WEIGHTS = KEPT / "decided.pth"


def _part(case: str) -> Volume:
    volume, _ = chest(case)
    chosen = np.linspace(0.15, 0.85, _SLICES) * len(volume.hu)
    return replace(volume, hu=np.ascontiguousarray(volume.hu[chosen.astype(int)]))


def _fit() -> None:
    if not _WEIGHTS.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        decided_network.fitted(_WEIGHTS, steps=10, pixels=128)


def _stock(case: str) -> Callable[[], str]:
    _fit()
    volume = _part(case)
    inferer = LMInferer(modelpath=str(_WEIGHTS), force_cpu=True, tqdm_disable=True)
    return lambda: inferer.apply(volume.hu).tobytes().hex()


def _ours(case: str) -> Callable[[], str]:
    _fit()
    volume = _part(case)
    segmenter = LungmaskSegmenter(_WEIGHTS, hashlib.sha256(_WEIGHTS.read_bytes()).hexdigest())
    return lambda: segmenter(volume).tobytes().hex()


def agreement(stock: Cost, ours: Cost) -> str:
    """Dice of both labels."""
    a, b = (np.frombuffer(bytes.fromhex(cost.found), np.uint8) for cost in (stock, ours))
    dice = [2 * ((a == k) & (b == k)).sum() / ((a == k).sum() + (b == k).sum()) for k in (1, 2)]
    return f"Dice {dice[0]:.5f} and {dice[1]:.5f}"


REPEATS = 3
WORK = {"stock": _stock, "ours": _ours}
