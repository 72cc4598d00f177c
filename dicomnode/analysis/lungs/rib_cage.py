"""The inner surface of the rib cage, seen from the middle of each half of the chest, and where lung ends before it.

From a vertical axis in the middle of a half of the chest, rays run outwards in each axial slice, to the front, the
flank and the back. A ray leaves the last aerated lung at one radius and meets the inner side of the ribs at another: in
a healthy chest they are a few millimetres apart. From there neither heart nor vertebrae hide the ribs, whatever has
become of the lung.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomnode.analysis.arrays import LEFT, RIGHT, HuArray, Mask
from dicomnode.analysis.lungs.body_air import AIR_BELOW_HU, body_of

BONE_HU = 150
#: Fewer rays that leave lung and meet ribs than this share: no rib cage to measure from (thick slices, no bone).
RIBS_SEEN = 0.4
#: Rib and the gap below it are together about this high, mm.
RIB_STEP_MM = 24.0
#: From lung to what is taken for the inner side of the ribs, mm, at least and at most; and of how large a share of the
#: wall it must be seen, within the first of `TRUSTED_MM`.
LINING_MM, HEALTHY_WALL = (-4.5, 3.0), 0.3
#: The axis is this far from the midline, mm: inside of the ribs at all heights but the apex.
AXIS_MM = 52.0
#: Between lung and the first bone, mm: trusted as a rib, hardly trusted, not trusted.
TRUSTED_MM = (8.0, 20.0, 45.0)
#: From here backwards, degrees, nothing but ribs is bright on a ray, wherever lung ends: each is trusted so far.
BEHIND, TRUST_BEHIND = 10.0, 0.7
#: How far inside and outside of where it is foretold a rib is looked for, mm.
INWARD_MM, OUTWARD_MM = 12.0, 20.0
#: How much a rib of the other side counts, and the trust around that suffices.
OTHER_SIDE, ENOUGH = 0.15, 0.06
#: The body is looked for with voxels up to this wide, mm.
BODY_MM = 4.5
#: How far a ray goes, mm.
REACH_MM = 200.0
#: Rays in all, and to how many degrees from the flank they are sent.
RAYS, WIDEST = 120, 114.0
STEP_MM = 1.5
_NEAR_RAYS = 3

Steps = NDArray[np.int64]


@dataclass(frozen=True)
class Cage:
    """What each ray (z, ray) of one side meets, in steps.

    Attributes:
        ray: of each voxel (y, x); 0 is the foremost.
        step: of each voxel (y, x).
        rows, columns: the voxel of each ray and step.
        in_image: whether that voxel is in the image.
        outermost: where it leaves the last aerated lung of its side; -1: it meets none.
        innermost: where it enters the first; far away: it meets none.
        ribs: the outer surface of lung against the ribs; -1: no bone lies there.
        degrees: (ray,), from the flank: below 0 to the front, above it to the back.
        seen: whether there is a rib cage to measure from.
    """

    ray: Steps
    step: Steps
    rows: Steps
    columns: Steps
    in_image: Mask
    outermost: Steps
    innermost: Steps
    ribs: Steps
    degrees: NDArray[np.float64]
    seen: bool = False

    @property
    def outward(self) -> Mask:
        """The voxels (y, x) that lie on rays."""
        return self.ray < len(self.degrees)

    @property
    def inside(self) -> Mask:
        """The voxels (z, y, x) on rays before the ribs."""
        return np.asarray((self.step <= self._of_voxels(self.ribs)) & self.outward)

    @property
    def gap_mm(self) -> NDArray[np.float64]:
        """Between lung and ribs, mm; 0 where the ray meets no lung or no ribs."""
        both = (self.outermost >= 0) & (self.ribs >= 0)
        return np.where(both, (self.ribs - self.outermost) * STEP_MM, 0.0)

    def along(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return what the rays meet: (z, ray, step) of an array (z, y, x); outside the image 0."""
        return np.where(self.in_image, array[:, self.rows, self.columns], np.zeros((), array.dtype))

    def between(self, first: Steps, rays: Mask) -> Mask:
        """Return the voxels (z, y, x) of the chosen `rays` (z, ray) beyond step `first` and before the ribs."""
        first = np.where(rays, first, 10**6)
        return np.asarray(self.inside & (self.step > self._of_voxels(first)))

    def _of_voxels(self, of_rays: Steps) -> Steps:
        return of_rays[:, np.minimum(self.ray, len(self.degrees) - 1)]


def look(
    hu: HuArray, spacing_mm: tuple[float, float, float], lungs: NDArray[np.uint8], midline: float
) -> dict[int, Cage]:
    """Send the rays of both sides, and return what they meet by side.

    Args:
        hu: (z, y, x), HU.
        spacing_mm: (z, y, x).
        lungs: (z, y, x), aerated lung, 1 right, 2 left; not empty.
        midline: x index of the body's middle.
    """
    middle = (float(np.median(np.nonzero(lungs)[1])), midline)
    cages = {side: _rays(hu.shape, spacing_mm, lungs == side, middle, side) for side in (RIGHT, LEFT)}
    bone = (hu > BONE_HU) & _body(hu, spacing_mm)
    bones = {side: _Bones(hu, bone, spacing_mm[0], cage) for side, cage in cages.items()}
    right, left = bones[RIGHT], bones[LEFT]
    if not (right.trust.any() or left.trust.any()):
        return cages
    return {
        side: replace(cages[side], ribs=own.ribs(_foretold(own, other, spacing_mm[0])), seen=own.seen)
        for side, own, other in ((RIGHT, right, left), (LEFT, left, right))
    }


def _body(hu: HuArray, spacing_mm: tuple[float, float, float]) -> Mask:
    """Return the body without table, cables and clothes, seen on a grid of up to 4.5 mm."""
    dy, dx = (max(1, int(BODY_MM / mm)) for mm in spacing_mm[1:])
    body = body_of(hu[:, ::dy, ::dx])
    return body.repeat(dy, axis=1)[:, : hu.shape[1]].repeat(dx, axis=2)[:, :, : hu.shape[2]]


def _rays(
    shape: tuple[int, ...], spacing_mm: tuple[float, float, float], lung: Mask, middle: tuple[float, float], side: int
) -> Cage:
    """Send the rays of one side, and find the lung that they meet; no ribs yet."""
    _, dy, dx = spacing_mm
    height, width = shape[1:]
    outward = -1 if side == RIGHT else 1
    y = (np.arange(height)[:, None] - middle[0]) * dy
    x = (np.arange(width)[None, :] - middle[1]) * dx * outward - AXIS_MM
    wide = 360.0 / RAYS
    count = int(2 * WIDEST / wide)
    ray = np.floor((np.degrees(np.arctan2(y, x)) + WIDEST) / wide).astype(np.int64)
    ray = np.where((ray < 0) | (ray >= count), count, ray)
    step = np.rint(np.hypot(y, x) / STEP_MM).astype(np.int64)
    degrees = np.asarray((np.arange(count) + 0.5) * wide - WIDEST, np.float64)
    radii = np.arange(min(int(step.max()), round(REACH_MM / STEP_MM)) + 1) * STEP_MM
    rows = np.rint(middle[0] + np.outer(np.sin(np.radians(degrees)), radii) / dy).astype(np.int64)
    across = np.outer(np.cos(np.radians(degrees)), radii) + AXIS_MM
    columns = np.rint(middle[1] + outward * across / dx).astype(np.int64)
    in_image = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    none = np.full((shape[0], count), -1)
    rays = Cage(ray, step, rows.clip(0, height - 1), columns.clip(0, width - 1), in_image, none, none, none, degrees)
    met = np.asarray(rays.along(lung))
    last = met.shape[2] - 1 - met[:, :, ::-1].argmax(axis=2)
    any_lung = met.any(axis=2)
    innermost = np.where(any_lung, met.argmax(axis=2), met.shape[2])
    return replace(rays, outermost=np.where(any_lung, last, -1), innermost=innermost)


class _Bones:
    """The bones on one side's rays: the first beyond the lung of each ray, how far it can be trusted, and the ribs.

    Ribs are oblique, and a slice shows only parts of them: those of the height of a rib and its gap are looked at
    together, and the inner quarter of what neighbouring rays see is taken, so that a shoulder blade does not count.
    The first bone beyond lung that ends close before it is a rib. Elsewhere it may be none of the cage, or enhanced
    blood: there the cage goes on as trusted ribs foretell.
    """

    def __init__(self, hu: HuArray, is_bone: Mask, dz: float, rays: Cage) -> None:
        bone = np.asarray(rays.along(is_bone)).view(np.uint8)
        bone = ndimage.maximum_filter1d(bone, 2 * round(RIB_STEP_MM / 2 / dz) + 1, axis=0).view(bool)
        self._steps = np.arange(bone.shape[2])
        beyond = self._steps > rays.outermost[:, :, None]
        self._bone = bone & beyond
        skin = np.asarray(rays.along(hu < AIR_BELOW_HU)) & beyond
        self._outermost = rays.outermost
        lung = rays.outermost >= 0
        # Beyond the skin lie the table and the arms. Where the ray meets no lung, the air may be bowel's.
        self._skin = np.where(skin.any(axis=2) & lung, skin.argmax(axis=2), bone.shape[2])
        self._around = (2 * round(6 / dz) + 1, 2 * _NEAR_RAYS + 1)
        far = np.full(lung.shape, bone.shape[2])
        self.first = self._inner(self._bone, far)
        gap_mm = (self.first - rays.outermost) * STEP_MM
        by_gap = np.where(lung, np.interp(gap_mm, TRUSTED_MM, (1.0, 0.1, 0.0)), 0.0)
        least = np.where(rays.degrees > BEHIND, TRUST_BEHIND, 0.0)
        self.seen = bool(lung.any() and np.mean(self.first[lung] < bone.shape[2]) >= RIBS_SEEN)
        self.trust = np.where(self.first < far, np.maximum(by_gap, least), 0.0)

    def _inner(self, candidates: Mask, otherwise: Steps) -> Steps:
        first = np.where(candidates.any(axis=2), candidates.argmax(axis=2), candidates.shape[2])
        met = np.where(first < self._skin, first, otherwise).astype(np.int16)
        return np.asarray(ndimage.percentile_filter(met, 25, size=self._around).astype(np.int64))

    def ribs(self, foretold: NDArray[np.float64]) -> Steps:
        """Return the step at which each ray (z, ray) meets the ribs, their lining taken off."""
        off_mm = (self._steps - foretold[:, :, None]) * STEP_MM
        near = self._bone & (off_mm > -INWARD_MM) & (off_mm < OUTWARD_MM)
        found = self._inner(near, np.rint(foretold).astype(np.int64))
        # What lies between lung and ribs, and what the inner quarter is too far inside, is the patient's own.
        off = (found - self._outermost)[self._outermost >= 0] * STEP_MM
        healthy = off[np.abs(off) < TRUSTED_MM[0]]
        enough = healthy.size >= HEALTHY_WALL * off.size
        lining_mm = float(np.clip(np.median(healthy), *LINING_MM)) if enough and healthy.size else 0.0
        return np.asarray(found - round(lining_mm / STEP_MM))


def _foretold(own: _Bones, other: _Bones, dz: float) -> NDArray[np.float64]:
    """Return the ribs (z, ray) as the trusted ones around foretell them; from farther away where there are none near.

    The cage changes slowly from height to height, faster from ray to ray; the other side's is much the same.
    """
    trust = own.trust + OTHER_SIDE * other.trust
    values = own.first * own.trust + OTHER_SIDE * other.first * other.trust
    found = np.zeros(trust.shape)
    for mm, rays in ((300.0, 40.0), (120.0, 4.0), (60.0, 2.5), (25.0, 2.0), (8.0, 1.5)):
        near, total = (ndimage.gaussian_filter(a, (mm / dz, rays), mode="nearest") for a in (trust, values))
        share = np.clip(near / ENOUGH, 0.0, 1.0)
        here = total / np.maximum(near, 1e-9)
        found = here if not found.any() else share * here + (1 - share) * found
    return found
