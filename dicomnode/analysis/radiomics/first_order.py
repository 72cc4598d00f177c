"""PyRadiomics' first-order features from the histogram of a region of whole-numbered intensities.

Definitions: https://pyradiomics.readthedocs.io/en/v3.0.1/features.html#module-radiomics.firstorder. A CT region has
millions of voxels and a few thousand different values: sums over values weighted with their counts are the same sums.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def compute(
    values: NDArray[np.int64], counts: NDArray[np.int64], bins: NDArray[np.int64], voxel_mm3: float, shift: float
) -> dict[str, float]:
    """Compute all 18 first-order features.

    Args:
        values: (intensities,), the different ones, ascending, HU.
        counts: (intensities,), how many voxels have each.
        bins: (bins,), how many voxels lie in each bin that is not empty.
        voxel_mm3: volume of a voxel.
        shift: added to the intensities for Energy, Total Energy and RMS (`voxelArrayShift`).
    """
    n = int(counts.sum())
    x = values.astype(np.float64)

    def mean(of: Floats) -> float:
        return float((of * counts).sum() / n)

    average = mean(x)
    m2, m3, m4 = (mean((x - average) ** k) for k in (2, 3, 4))
    p10, p25, p50, p75, p90 = (_percentile(values, counts, q) for q in (10, 25, 50, 75, 90))
    middle = (x >= p10) & (x <= p90)
    middle_mean = np.average(x[middle], weights=counts[middle]) if middle.any() else np.nan
    energy = float((((x + shift) ** 2) * counts).sum())
    share = bins / n
    flat = m2 == 0
    return {
        "10Percentile": p10,
        "90Percentile": p90,
        "Energy": energy,
        "Entropy": float(-(share * np.log2(share + np.spacing(1))).sum()),
        "InterquartileRange": p75 - p25,
        # PyRadiomics divides a flat region's moments (0) by 1.
        "Kurtosis": 0.0 if flat else m4 / m2**2,
        "Maximum": float(x[-1]),
        "Mean": average,
        "MeanAbsoluteDeviation": mean(np.abs(x - average)),
        "Median": p50,
        "Minimum": float(x[0]),
        "Range": float(x[-1] - x[0]),
        "RobustMeanAbsoluteDeviation": float(np.average(np.abs(x[middle] - middle_mean), weights=counts[middle]))
        if middle.any()
        else np.nan,
        "RootMeanSquared": float(np.sqrt(energy / n)),
        "Skewness": 0.0 if flat else m3 / m2**1.5,
        "TotalEnergy": energy * voxel_mm3,
        "Uniformity": float((share**2).sum()),
        "Variance": m2,
    }


def _percentile(values: NDArray[np.int64], counts: NDArray[np.int64], percent: float) -> float:
    """Linear between the two neighbours in rank, as numpy's default."""
    position = percent / 100 * (int(counts.sum()) - 1)
    ends = counts.cumsum()
    below, above = (
        int(values[np.searchsorted(ends, rank, side="right")]) for rank in (np.floor(position), np.ceil(position))
    )
    return below + (above - below) * float(position - np.floor(position))
