"""What attenuation measures depend on: kernel, thickness, noise and the scanner's air; a flag where they do not fit.

%LAA-950 counts the tail of a distribution, and noise is what makes tails: smoothing empties it, sharpening fills it
(Gallardo-Estrella et al. 2016, doi:10.1007/s00330-015-3824-y: 7.7 points between two kernels of one scan; den Harder
et al. 2018, doi:10.1186/s41747-018-0064-3: too high at low dose, too low after iterative reconstruction). Noise is
measured where the object is known to be uniform and as thin as emphysema: in the air of trachea and main bronchi.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomnode.analysis.arrays import HuArray, Labels, Mask, Volume
from dicomnode.analysis.findings import ChosenSeries, Conditions, Flag
from dicomnode.analysis.lungs.body_air import IN_PLANE
from dicomnode.words.numerals import apart

#: The wall of the airway, and what the point spread mixes with it, stay out of the sample.
_WALL_MM = 2.0
_AIR_BELOW_HU = -850
#: Of an airway in an axial slice, mm²: a main bronchus to a wide trachea.
_AIRWAY_MM2 = (60.0, 900.0)
#: So many slices tell as much as all.
_SLICES = 32
_ABOVE_LUNGS_MM = 20.0
_FEWEST_VOXELS = 50
#: Up to this Slice Thickness, and with kernels that enhance no edges, %LAA-950 was compared with pathology (1 mm:
#: Gevenois et al. 1996, Am J Respir Crit Care Med 154:187) and measured in large cohorts (0.625 to 0.9 mm: Regan et al.
#: 2010, doi:10.3109/15412550903499522). %HAA comes from cardiac CT of at most 3 mm (Podolanczuk et al. 2016, PMID
#: 26744025).
_LAA_THICKNESS_MM, _HAA_THICKNESS_MM = 1.25, 3.0
#: Noise, HU, beyond which %LAA-950 says more about the images than about the lung: see docs/evidence/attenuation.md.
_NOISE_HU = (13.0, 30.0)
_AIR_HU = (-1020.0, -960.0)


def measure(volume: Volume, labels: Labels) -> Conditions | None:
    """Measure noise and air in the large airways; None where too little of them is in the scan.

    Args:
        volume: in HU.
        labels: (z, y, x), 0 background, 1 right, 2 left.
    """
    air = airway_air(volume, labels)
    if air.size < _FEWEST_VOXELS:
        return None
    # Half of what lies between one standard deviation at each side: mucus and partial volume spoil the tails only.
    low, middle, high = np.percentile(air, (15.87, 50.0, 84.13))
    return Conditions(noise_hu=round(float(high - low) / 2, 1), air_hu=round(float(middle), 1))


def airway_air(volume: Volume, labels: Labels) -> HuArray:
    """Return the values, shape (n,), of air that is clear of its walls in trachea and main bronchi.

    Of up to 32 slices; `labels` is (z, y, x).

    That is air outside the lungs, in the upper half of their height and a little above, in the middle half between
    their sides, and ringed by tissue in its axial slice. Air in the oesophagus is as good, and counts.
    """
    lungs = labels > 0
    levels, rows, columns = (np.flatnonzero(lungs.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
    if levels.size == 0:
        return np.empty(0, np.int16)
    z_mm, y_mm, x_mm = volume.spacing_mm
    middle, above = (levels[0] + levels[-1]) // 2, levels[-1] + 1 + int(_ABOVE_LUNGS_MM / z_mm)
    count = min(above, len(volume.hu)) - middle
    quarter = (columns[-1] - columns[0]) // 4
    box = (
        slice(middle, middle + count, max(1, count // _SLICES)),
        slice(rows[0], rows[-1] + 1),
        slice(columns[0] + quarter, columns[-1] + 1 - quarter),
    )
    hu = volume.hu[box]
    # Smoothed: found by its own values, noise would be cut to the limit.
    smooth = ndimage.uniform_filter(hu, (1, max(1, round(2 / y_mm)), max(1, round(2 / x_mm))))
    airway = _ringed((smooth < _AIR_BELOW_HU) & ~lungs[box], y_mm * x_mm)
    steps = round(_WALL_MM / max(y_mm, x_mm))
    if not steps:
        return np.empty(0, np.int16)  # pixels so large mix air and wall all over
    found: HuArray = hu[ndimage.binary_erosion(airway, IN_PLANE, iterations=steps)]
    return found


def _ringed(air: Mask, pixel_mm2: float) -> Mask:
    """Return the pieces of air, slice by slice, that do not touch the sides of the box and have an airway's area."""
    planes, n = ndimage.label(air, IN_PLANE)
    area = np.bincount(planes.ravel(), minlength=n + 1) * pixel_mm2
    kept: NDArray[np.bool_] = (area >= _AIRWAY_MM2[0]) & (area <= _AIRWAY_MM2[1])
    kept[0] = False
    kept[np.concatenate([planes[:, [0, -1]].ravel(), planes[:, :, [0, -1]].ravel()])] = False
    return np.asarray(kept[planes])


def doubts(found: Conditions | None, series: ChosenSeries) -> Iterator[Flag]:
    """Yield what speaks against comparing this scan's attenuation with published figures or other scans."""
    if found is not None:
        yield from _noise(found.noise_hu)
        yield from _offset(found.air_hu)
    if outside := list(_unpublished(series)):
        yield Flag("attenuation-range", "info", f"Outside the range of published figures: {'; '.join(outside)}.")


def _noise(noise_hu: float) -> Iterator[Flag]:
    least, most = _NOISE_HU
    if noise_hu > most:
        yield Flag(
            "image-noise",
            "warning",
            f"Noise in the airways is {apart(noise_hu, most)} HU (over {most:.0f} HU): low dose or a sharp "
            f"kernel. %LAA-950 is "
            "too high: normal lung counts as emphysema.",
        )
    elif noise_hu < least:
        yield Flag(
            "image-noise",
            "warning",
            f"Noise in the airways is {apart(noise_hu, least)} HU (under {least:.0f} HU): thick, smoothed or "
            f"iteratively "
            "reconstructed images. %LAA-950 is too low: emphysema may be missed.",
        )


def _offset(air_hu: float) -> Iterator[Flag]:
    least, most = _AIR_HU
    if not least <= air_hu <= most:
        yield Flag(
            "air-offset",
            "warning",
            f"Air in the airways measures {apart(air_hu, least if air_hu < least else most)} HU, outside "
            f"{least:.0f} to {most:.0f} HU: all attenuation may "
            "be shifted. 10 HU change %LAA-950 by a third or more.",
        )


def _unpublished(series: ChosenSeries) -> Iterator[str]:
    thickness = series.slice_thickness_mm or series.spacing_mm[0]
    laa = (
        [f"{apart(thickness, _LAA_THICKNESS_MM, 1)} mm thick (up to {_LAA_THICKNESS_MM:g} mm)"]
        if thickness > _LAA_THICKNESS_MM
        else []
    )
    if series.kernel_family == "lung":
        laa.append("a sharp kernel")
    if laa:
        yield f"%LAA-950, {' and '.join(laa)}"
    if thickness > _HAA_THICKNESS_MM:
        yield f"%HAA, {apart(thickness, _HAA_THICKNESS_MM, 1)} mm thick (up to {_HAA_THICKNESS_MM:g} mm)"
