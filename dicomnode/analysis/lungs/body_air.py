"""The shrunken volume on which the classical segmenter works, and the air in it that the body surrounds."""

import math
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from dicomnode.analysis.arrays import HuArray, Mask, Volume
from dicomnode.analysis.block_means import block_means

#: Between aerated lung and soft tissue, HU.
AIR_BELOW_HU = -400
WORKING_MM = 2.0
#: What `volume` puts where the scanner saw nothing.
OUT_OF_FIELD_HU = -1024
#: The air around the patient is thinner than this, HU: denser air at the edge of the image is lung that the edge cuts.
ROOM_AIR_BELOW_HU = -920
#: Of lung that the field of view cuts, at most this share of its outline in a slice lies at the edge.
CUT_SHARE = 0.45
#: Of what lies beside it on the edge, at least this share is body.
BODY_SHARE = 0.25

IN_PLANE = np.zeros((3, 3, 3), dtype=bool)
IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)


@dataclass(frozen=True)
class BodyGrid:
    """The shrunken volume: int16 HU (z, y, x), its spacing in mm (z, y, x), and by how much each axis was shrunk."""

    hu: HuArray
    spacing_mm: tuple[float, float, float]
    factors: tuple[int, int, int]

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel, millilitres."""
        return math.prod(self.spacing_mm) / 1000.0


def shrink(volume: Volume) -> BodyGrid:
    """Average blocks of about 2 mm: (z, y, x), HU.

    An incomplete last block is left out here and belongs to its neighbour later.
    """
    z, y, x = (
        max(1, min(round(WORKING_MM / mm), size)) for mm, size in zip(volume.spacing_mm, volume.hu.shape, strict=True)
    )
    dz, dy, dx = volume.spacing_mm
    return BodyGrid(block_means(volume.hu, (z, y, x)), (dz * z, dy * y, dx * x), (z, y, x))


def distance(mask: Mask, spacing_mm: tuple[float, float, float]) -> NDArray[np.float32]:
    """Measure the millimetres from each voxel's centre to the nearest voxel of the mask, both (z, y, x).

    0 inside; far away where the mask is empty. `spacing_mm` is (z, y, x).
    """
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing_mm[::-1])
    signed = sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
    outside: NDArray[np.float32] = np.where(mask, np.float32(0), sitk.GetArrayViewFromImage(signed))
    return outside


def air_inside(grid: BodyGrid) -> tuple[Mask, float]:
    """Find the air, (z, y, x), that body surrounds in its axial slice, or body and the edge of the image.

    Returns:
        The mask, of the grid's shape, and the x index of the body's middle.
    """
    # Opened: in thin room air single voxels are as low by noise.
    nothing = np.asarray(ndimage.binary_opening(grid.hu <= OUT_OF_FIELD_HU, IN_PLANE))
    air = (grid.hu < AIR_BELOW_HU) & ~nothing
    # Opening lets go of table, cables and clothes; what is left of the largest piece tells where the body is.
    body = body_of(grid.hu)
    if not body.any():
        return np.zeros_like(air), _middle(body)
    cut, open_air = _at_the_edge(grid, air, nothing, body)
    inside = air & ~open_air & _box_by_slice(body | cut)
    midline = _middle(body)
    return inside & ~_under_open_air(inside, open_air), midline


def body_midline(hu: HuArray) -> float:
    """Return the x index of the body's middle (the image's, without a body): HU (z, y, x) with voxels of 2 to 5 mm."""
    return _middle(body_of(hu))


def _middle(body: Mask) -> float:
    if not body.any():
        return body.shape[2] / 2
    return float(np.average(np.arange(body.shape[2]), weights=body.sum(axis=(0, 1))))


def body_of(hu: HuArray) -> Mask:
    """Return the body in HU (z, y, x) with voxels of 2 to 5 mm: its tissue, without table, cables and clothes."""
    cross = ndimage.generate_binary_structure(3, 1)
    # The body goes on beyond the edge of the image, so the erosion must not eat it from there.
    firm = ndimage.binary_erosion(hu >= AIR_BELOW_HU, cross, iterations=2, border_value=1)
    return largest(ndimage.binary_dilation(firm, cross, iterations=2))


def _at_the_edge(grid: BodyGrid, air: Mask, nothing: Mask, body: Mask) -> tuple[Mask, Mask]:
    """Of the air that reaches the edge of the image, or of a round field of view in it: cut lung, and open air.

    Lung is denser than room air, little of its outline in a slice lies at the edge, and beside it the edge cuts the
    body too: so it is no blanket and no foam in the table.
    """
    edge = ndimage.binary_dilation(nothing, IN_PLANE)
    edge[:, [0, -1], :] = True
    edge[:, :, [0, -1]] = True
    edge &= ~nothing
    planes, n = ndimage.label(air, IN_PLANE)
    at_edge = np.bincount(planes[edge & air], minlength=n + 1)
    at_edge[0] = 0
    outline = np.bincount(planes[air & ~ndimage.binary_erosion(air, IN_PLANE)], minlength=n + 1)
    of_air = planes[air]
    sizes = np.bincount(of_air, minlength=n + 1)
    mean_hu = np.bincount(of_air, weights=grid.hu[air], minlength=n + 1) / np.maximum(sizes, 1)
    like_lung = (at_edge > 0) & (at_edge <= CUT_SHARE * outline) & (mean_hu >= ROOM_AIR_BELOW_HU)
    cut = _walled_by_body(like_lung[planes], edge, edge & ~air, body)
    return cut, (at_edge > 0)[planes] & ~cut


def _walled_by_body(air: Mask, edge: Mask, tissue_at_edge: Mask, body: Mask) -> Mask:
    """Return the components of `air` beside which most of the tissue on the edge is body."""
    components, n = ndimage.label(air)
    if n == 0:
        return air
    beside = ndimage.grey_dilation(np.where(edge, components, 0), footprint=np.ones((1, 7, 7))) * tissue_at_edge
    # The opened body lacks the thin wall between lung and edge.
    near_body = ndimage.binary_dilation(body, IN_PLANE, iterations=16)
    walled, tissue = (np.bincount(found.ravel(), minlength=n + 1) for found in (beside * near_body, beside))
    kept = walled >= BODY_SHARE * np.maximum(tissue, 1)
    kept[0] = False
    return np.asarray(kept[components])


def largest(mask: Mask) -> Mask:
    """Return the largest connected component of a mask (z, y, x)."""
    components, _ = ndimage.label(mask)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    return np.asarray((components == sizes.argmax()) & mask)


def _box_by_slice(body: Mask) -> Mask:
    """Each axial slice's bounding box of the body: gas inside the table lies behind it."""
    rows, columns = np.asarray(body.any(axis=2)), np.asarray(body.any(axis=1))
    return np.asarray(_span(rows)[:, :, None] & _span(columns)[:, None, :])


def _span(lines: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """In each line, everything from the first true to the last."""
    begun = np.logical_or.accumulate(lines, axis=1)
    not_over = np.logical_or.accumulate(lines[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(begun & not_over)


def _under_open_air(inside: Mask, open_air: Mask) -> Mask:
    """Pockets between arm and chest: ringed by body in some slices, open to the room above or below."""
    components, n = ndimage.label(inside)
    touching = np.zeros_like(inside)
    touching[1:] |= open_air[:-1]
    touching[:-1] |= open_air[1:]
    contact = np.bincount(components[touching & inside], minlength=n + 1)
    pocket = contact > 0.03 * np.bincount(components.ravel(), minlength=n + 1)
    pocket[0] = False
    return np.asarray(pocket[components])
