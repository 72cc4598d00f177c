"""A region made ready as IBSI's reference manual asks (chapter 2), where PyRadiomics does otherwise.

| step | here (IBSI) | PyRadiomics 3.0.1 |
|---|---|---|
| new grid | has the old one's centre | starts at the old one's corner |
| intensities | rounded to whole HU | cut to whole HU |
| mask | interpolated linearly, 0.5 and above is inside | nearest voxel |
| bins of a fixed width | begin at the range's lower bound | begin at the bin of the lowest intensity |
| outliers | beyond 3 standard deviations, after the range | either range or outliers |
| shape | the mask as it is | the mask within the box of the intensities in range |
| planes | textures within planes, merged over all (2.5D), with `force2D` | the same |

Held against the consensus of the CT phantom, configurations A to E, by `tests/parity/test_ibsi_ct.py`. Zwanenburg et
al., Radiology 2020;295:328, and the reference manual, arXiv:1612.07003.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from dicomnode.analysis.compiled import compiled
from dicomnode.analysis.radiomics.itk_grid import Floats, ItkGrid, Solid, Values
from dicomnode.analysis.radiomics.region import Counts, Region, bounding_box, fixed
from dicomnode.analysis.radiomics.texture_matrices import Levels
from dicomnode.words.numerals import plural

#: What `settings["preparation"]` may say, and the outliers' bound that it means, standard deviations.
PREPARATIONS: Final[Mapping[str, float | None]] = {"ibsi": None, "ibsi-3sigma": 3.0}
_LINEAR = "sitkLinear"
#: A spline's value hangs on all voxels, but on those beyond this distance by less than 1e-6 of their difference.
_SPLINE_REACH = 12


def prepare(values: Values, inside: Solid, grid: ItkGrid, setting: Mapping[str, Any], sigma: float | None) -> Region:
    """Return the region where a mask is 1.

    Args:
        values: (z, y, x), HU, whole numbers of 16 bits.
        inside: (z, y, x), 0 or 1.
        grid: where both lie.
        setting: PyRadiomics' settings, with all defaults filled in. `resampledPixelSpacing` (0 keeps a spacing),
            `interpolator` ("sitkLinear", "sitkBSpline"), `resegmentRange`, and `binWidth` or `binCount` count.
        sigma: intensities farther than so many standard deviations from the mean are left out; None: none are.

    Raises:
        ValueError: the mask is empty, or too little of it is left.
    """
    values, inside = fixed(values), fixed(inside)
    first, size = bounding_box(inside)
    spacing = np.array(grid.spacing)
    if setting["resampledPixelSpacing"] is not None and setting["interpolator"] is not None:
        new = np.where(np.array(setting["resampledPixelSpacing"]) == 0, spacing, setting["resampledPixelSpacing"])
        if not np.allclose(new, spacing):
            values, inside = _resampled(values, inside, spacing, new, first, size, setting["interpolator"])
            spacing = new
    chosen = inside.astype(bool)
    kept = chosen & _in_range(values, setting["resegmentRange"])
    if sigma is not None and kept.any():
        mean, deviation = float(values[kept].mean()), float(values[kept].std())
        kept &= np.abs(values - mean) <= sigma * deviation
    _check(kept, setting)
    levels = _levels(values, kept, setting)
    around = _box(chosen)
    present, counts = np.unique(values[kept], return_counts=True)
    bins = np.bincount(levels[kept])
    x, y, z = spacing.tolist()
    return Region(
        levels=_bordered(levels[around]),
        level_count=int(levels.max()),
        solid=np.pad(inside[around], 1),
        spacing_mm=(z, y, x),
        values=present.astype(np.int64),
        counts=counts.astype(np.int64),
        bins=bins[bins > 0].astype(np.int64),
    )


def _resampled(
    values: Values, inside: Solid, old: Floats, new: Floats, first: Counts, size: Counts, interpolator: str
) -> tuple[Values, Solid]:
    """Resample to the centred grid, of which only the mask's surroundings are computed. All triples are (x, y, z)."""
    lines: list[Floats] = []
    for axis in range(3):
        length = values.shape[2 - axis]
        ratio = float(new[axis] / old[axis])
        count = int(np.ceil(length / ratio - 1e-9))
        # Both grids have one centre; positions are in voxels of the old one.
        at = (length - 1) / 2 + (np.arange(count) - (count - 1) / 2) * ratio
        low, high = first[axis] - 1, first[axis] + size[axis]
        lines.append(at[(at > low) & (at < high)])
    x, y, z = lines
    if min(len(x), len(y), len(z)) == 0:
        raise ValueError("the region lies between two voxels of the new grid")
    sampled, weight = _trilinear(values, inside, z, y, x)
    if interpolator != _LINEAR:
        sampled = _spline(values, z, y, x, interpolator)
    return np.floor(sampled + 0.5).astype(np.int16), (weight >= 0.5 - 1e-9).astype(np.uint8)


@compiled
def _trilinear(values: Values, inside: Solid, z: Floats, y: Floats, x: Floats) -> tuple[Floats, Floats]:
    """Values and the mask's share at the crossings of planes, rows and columns; beyond the border its voxels go on."""
    depth, height, width = values.shape
    sampled, weight = np.zeros((len(z), len(y), len(x))), np.zeros((len(z), len(y), len(x)))
    for k in range(len(z)):
        pz = min(max(z[k], 0.0), depth - 1.0)
        z0 = int(pz)
        z1, dz = min(z0 + 1, depth - 1), pz - z0
        for j in range(len(y)):
            py = min(max(y[j], 0.0), height - 1.0)
            y0 = int(py)
            y1, dy = min(y0 + 1, height - 1), py - y0
            for i in range(len(x)):
                px = min(max(x[i], 0.0), width - 1.0)
                x0 = int(px)
                x1, dx = min(x0 + 1, width - 1), px - x0
                for a, wz in ((z0, 1.0 - dz), (z1, dz)):
                    for b, wy in ((y0, 1.0 - dy), (y1, dy)):
                        for c, wx in ((x0, 1.0 - dx), (x1, dx)):
                            share = wz * wy * wx
                            sampled[k, j, i] += share * values[a, b, c]
                            weight[k, j, i] += share * inside[a, b, c]
    return sampled, weight


def _spline(values: Values, z: Floats, y: Floats, x: Floats, interpolator: str) -> Floats:
    """Return what ITK's interpolator gives there, computed on the surroundings; beyond the border it is mirrored."""
    starts = [max(int(line[0]) - _SPLINE_REACH, 0) for line in (z, y, x)]
    ends = [int(np.ceil(line[-1])) + _SPLINE_REACH + 1 for line in (z, y, x)]
    image = sitk.GetImageFromArray(values[tuple(slice(a, b) for a, b in zip(starts, ends, strict=True))])
    step = [float(line[1] - line[0]) if len(line) > 1 else 1.0 for line in (x, y, z)]
    origin = [float(line[0]) - start for line, start in zip((x, y, z), starts[::-1], strict=True)]
    limits = [length - 1 for length in image.GetSize()]
    out = sitk.Resample(
        sitk.Cast(image, sitk.sitkFloat64), (len(x), len(y), len(z)), sitk.Transform(), getattr(sitk, interpolator),
        origin, step, image.GetDirection(), float("nan"), sitk.sitkFloat64,
    )  # fmt: skip
    sampled: Floats = sitk.GetArrayFromImage(out)
    if np.isnan(sampled).any():
        # Half a voxel beyond the border: ITK has no value there.
        nearest = [
            np.clip(np.rint(o + s * np.arange(n)), 0, limit).astype(int)
            for o, s, n, limit in zip(origin, step, out.GetSize(), limits, strict=True)
        ]
        border = sitk.GetArrayViewFromImage(image)[np.ix_(*nearest[::-1])]
        sampled = np.where(np.isnan(sampled), border, sampled)
    return np.clip(sampled, np.iinfo(np.int16).min, np.iinfo(np.int16).max)


def _in_range(values: Values, limits: list[float] | None) -> NDArray[np.bool_]:
    if limits is None:
        return np.ones(values.shape, np.bool_)
    high = max(limits) if len(limits) == 2 else np.inf
    return (values >= min(limits)) & (values <= high)


def _check(kept: NDArray[np.bool_], setting: Mapping[str, Any]) -> None:
    voxels = int(kept.sum())
    if voxels <= 1:
        raise ValueError(f"{plural(voxels, 'voxel remains', 'voxels remain')} in the range {setting['resegmentRange']}")
    dimensions = sum(part.stop - part.start > 1 for part in _box(kept))
    if dimensions < setting["minimumROIDimensions"]:
        raise ValueError(
            f"the region has {plural(dimensions, 'dimension')}, {setting['minimumROIDimensions']} are needed"
        )
    if setting["minimumROISize"] is not None and voxels <= setting["minimumROISize"]:
        raise ValueError(f"the region has {plural(voxels, 'voxel')}, more than {setting['minimumROISize']} are needed")


def _box(kept: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    first, size = bounding_box(kept.view(np.uint8), may_be_all=True)
    x, y, z = (slice(int(a), int(a + b)) for a, b in zip(first, size, strict=True))
    return z, y, x


def _bordered(levels: Levels) -> Levels:
    bordered = np.zeros(tuple(n + 2 for n in levels.shape), levels.dtype)
    bordered[1:-1, 1:-1, 1:-1] = levels
    return bordered


def _levels(values: Values, kept: NDArray[np.bool_], setting: Mapping[str, Any]) -> Levels:
    """Bin of each voxel, from 1; 0 where it is not kept (IBSI 2.7)."""
    inside = values[kept].astype(np.float64)
    lowest, highest = float(inside.min()), float(inside.max())
    count = setting.get("binCount")
    if count is not None:
        span = max(highest - lowest, 1e-9)
        bins = np.minimum(np.floor(count * (inside - lowest) / span), count - 1)
    else:
        limits, width = setting["resegmentRange"], float(setting.get("binWidth", 25))
        start = lowest if limits is None else float(min(limits))
        bins = np.floor((inside - start) / width)
    levels = np.zeros(values.shape, np.uint8 if bins.max() < 255 else np.uint16)
    levels[kept] = bins + 1
    return levels
