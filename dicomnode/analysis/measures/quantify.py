"""Quantitative CT of a region: attenuation statistics and the density masks that a chest radiologist expects.

Computed from the histogram of whole HU values, which is exact for int16 and fast for a whole lung at full resolution.
"""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dicomnode.analysis.arrays import LEFT, LOBES, RIGHT, HuArray, Labels, Volume
from dicomnode.analysis.findings import Quantities
from dicomnode.analysis.lungs import regions

#: High-attenuation area, both ends included, HU, as the MESA Lung Study defined it.
HAA_HU = (-600, -250)
#: Dense lung: above this, HU, where %HAA ends: it falls when fibrosis gets denser, and this share rises.
DENSE_ABOVE_HU = -250
#: Low-attenuation area: below this, HU.
LAA_BELOW_HU = -950

_LOWEST = -32768


def quantify(hu: HuArray) -> Quantities:
    """Attenuation of a region's voxels.

    Airways and vessels count where the region's mask holds them (inside the lungs they do, trachea and main bronchi
    don't), in the whole lungs and in every part of them alike. SD is the population's (divided by n). Skewness is
    m3 / m2^1.5 and kurtosis Pearson's m4 / m2^2 (3 for a normal distribution: PyRadiomics' convention, IBSI's plus 3);
    of a region with a single value both are 0, as in PyRadiomics. Percentiles are interpolated linearly between order
    statistics (numpy's `linear`, Hyndman and Fan's type 7). %HAA is the share from -600 to -250 HU inclusive
    (Podolanczuk et al. 2016, PMID 26744025), %LAA-950 the share below -950 HU, the
    dense share that above -250 HU: consolidation, dense fibrosis, vessels and large airways' walls, as far as the mask
    holds them.

    Args:
        hu: the region's values, int16, any shape.

    Raises:
        ValueError: the region is empty.
    """
    return _quantities(_histogram(hu))


def by_region(volume: Volume, labels: Labels, lobes: NDArray[np.uint8] | None = None) -> dict[str, Quantities]:
    """`quantify` of the lungs and of their regions (see `regions`); a region without voxels is left out.

    "lungs" (both together), "left", "right"; of both lungs "upper_third", "middle_third", "lower_third", "rim", "core"
    and "lower_third_rim", where interstitial disease of systemic sclerosis begins; with `lobes` each lobe by the names
    of `arrays.LOBES`. All come from the same voxels: volumes of left and right, of the thirds, and of rim and core,
    each add up to that of the lungs.

    Args:
        volume: in HU.
        labels: (z, y, x), 0 background, 1 right, 2 left.
        lobes: (z, y, x), numbers as in `arrays.LOBES`; lobe voxels outside `labels` count too.

    Raises:
        ValueError: both lungs are empty.
    """
    counts = _counts(volume, labels)
    parts = {
        "lungs": counts.sum(axis=(0, 1, 2)),
        "left": counts[LEFT].sum(axis=(0, 1)),
        "right": counts[RIGHT].sum(axis=(0, 1)),
        "upper_third": counts[:, regions.UPPER].sum(axis=(0, 1)),
        "middle_third": counts[:, regions.MIDDLE].sum(axis=(0, 1)),
        "lower_third": counts[:, regions.LOWER].sum(axis=(0, 1)),
        "rim": counts[:, :, 1].sum(axis=(0, 1)),
        "core": counts[:, :, 0].sum(axis=(0, 1)),
        "lower_third_rim": counts[:, regions.LOWER, 1].sum(axis=0),
    }
    if lobes is not None:
        parts |= {name: _histogram(volume.hu[lobes == number]) for name, number in LOBES.items()}
    return {
        name: replace(_quantities(part), volume_ml=int(part.sum()) * volume.voxel_ml)
        for name, part in parts.items()
        if name == "lungs" or part.any()
    }


def _counts(volume: Volume, labels: Labels) -> NDArray[np.int64]:
    """Histograms by side (index 0 stays empty), third, and core (0) or rim (1): shape (3, 3, 2, 65536)."""
    third_of = regions.thirds(labels)
    counts = np.zeros((3, 3, 2, 65536), np.int64)
    for z, rim in enumerate(regions.rim(volume, labels)):
        inside = labels[z] > 0
        if not inside.any():
            continue
        kind = 2 * labels[z][inside].astype(np.int64) + rim[inside]
        values = volume.hu[z][inside].astype(np.int64) - _LOWEST
        by_kind = np.bincount(kind * 65536 + values, minlength=6 * 65536).reshape(3, 2, 65536)
        for side in (RIGHT, LEFT):
            counts[side, third_of[z, side]] += by_kind[side]
    return counts


def _histogram(hu: HuArray) -> NDArray[np.int64]:
    """Count each of the 65,536 values of int16; index 0 is -32768."""
    if hu.dtype != np.int16:
        raise TypeError(f"HU must be int16, not {hu.dtype}")
    # Two's complement seen as unsigned: a view, where an offset would copy a whole lung to a wider type.
    counts = np.bincount(np.ascontiguousarray(hu).view(np.uint16).ravel(), minlength=65536)
    return np.roll(counts, 32768)


def _quantities(counts: NDArray[np.int64]) -> Quantities:
    present = np.flatnonzero(counts)
    if present.size == 0:
        raise ValueError("the region is empty: there is nothing to measure")
    values, weights = present + _LOWEST, counts[present]
    n = int(weights.sum())
    mean = int((values * weights).sum()) / n
    second, third, fourth = (float((weights * (values - mean) ** power).sum()) / n for power in (2, 3, 4))
    flat = present.size == 1
    p05, p15, p50, p85, p95 = _percentiles(values, weights, (5, 15, 50, 85, 95))
    return Quantities(
        mean_hu=mean,
        sd_hu=math.sqrt(second),
        skewness=0.0 if flat else third / second**1.5,
        kurtosis=0.0 if flat else fourth / second**2,
        p05_hu=p05,
        p15_hu=p15,
        p50_hu=p50,
        p85_hu=p85,
        p95_hu=p95,
        haa_percent=100.0 * int(weights[(values >= HAA_HU[0]) & (values <= HAA_HU[1])].sum()) / n,
        laa950_percent=100.0 * int(weights[values < LAA_BELOW_HU].sum()) / n,
        dense_percent=100.0 * int(weights[values > DENSE_ABOVE_HU].sum()) / n,
    )


def _percentiles(values: NDArray[np.int64], weights: NDArray[np.int64], percents: tuple[int, ...]) -> list[float]:
    """Linear interpolation between the order statistics at either side of rank (n - 1) * percent / 100."""
    cumulated = np.cumsum(weights)
    last = int(cumulated[-1]) - 1
    found = []
    for percent in percents:
        below, hundredths = divmod(last * percent, 100)
        low = int(values[np.searchsorted(cumulated, below, side="right")])
        high = int(values[np.searchsorted(cumulated, min(below + 1, last), side="right")])
        found.append(low + (high - low) * hundredths / 100)
    return found
