"""The phantom's drawing tools: distances to shapes, soft edges, smooth noise, branching tubes. Lengths in mm.

A distance is negative inside a shape. An edge is drawn one voxel wide from it (partial volume), so that one phantom at
two resolutions differs by no more than the resolutions do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Floats = NDArray[np.float32]


def single(values: object) -> Floats:
    """Return the numbers in their shape as single precision: NumPy's own rules of types would widen them."""
    return np.asarray(values, np.float32)


def ellipse(x: Floats, y: Floats, a: Floats | float, b: Floats | float) -> Floats:
    """Approximate the distance to an ellipse with half axes `a`, `b` around the origin; exact to first order on it.

    All in mm, of shapes that broadcast together; the result has the joint shape, negative inside.
    """
    u, v = x / a, y / b
    k = np.sqrt(u * u + v * v) + 1e-6
    gradient = np.sqrt((u / a) ** 2 + (v / b) ** 2) + 1e-6
    return single(k * (k - 1) / gradient)


def cover(distance: NDArray[np.floating], voxel: float) -> Floats:
    """Return the part (0 to 1) of a voxel of edge `voxel` that lies inside the shape."""
    return single(np.clip(0.5 - distance / voxel, 0.0, 1.0))


def mix(image: Floats, part: Floats, hu: Floats | float) -> Floats:
    """Return `image`, HU, of any shape, with `part` (0 to 1, the same shape) of each voxel filled by `hu`."""
    return image + part * (hu - image)


def smooth_max(a: Floats, b: Floats, radius: float) -> Floats:
    """Return the intersection of two bodies, by distances in mm of one shape, its edge rounded by about `radius`.

    It is the polynomial smooth maximum.
    """
    h = np.clip(radius - np.abs(a - b), 0.0, None)
    return single(np.maximum(a, b) + h * h / (4 * radius))


def rise(t: Floats) -> Floats:
    """Return, in the shape of `t`, 0 below 0, 1 above 1, smooth between (smoothstep)."""
    t = np.clip(t, 0.0, 1.0)
    return single(t * t * (3 - 2 * t))


def _spline_weights(positions: Floats, cell: float, first: float, count: int) -> csr_array:
    """Cubic B-spline weights (positions, count) of lattice knots at `first + cell * i`: four a position, so sparse."""
    d = np.abs(positions[:, None] - (first + cell * np.arange(count, dtype=np.float32))) / cell
    near = 2 / 3 - d * d + d**3 / 2
    far = np.clip(2 - d, 0, None) ** 3 / 6
    return csr_array(np.where(d < 1, near, far).astype(np.float32))


class SmoothNoise:
    """A smooth random field in space, mean 0, SD about 1, whose grain is about `cell` mm, sampled slice by slice."""

    def __init__(self, rng: np.random.Generator, cell: float, axes: Sequence[Floats], reach: float) -> None:
        """`reach`: the lattice spans -reach to reach on each axis: the seed alone makes the field, not the grid."""
        count = int(2 * reach / cell) + 4
        first = -reach - cell
        self._lattice = rng.standard_normal((count, count, count), dtype=np.float32) * 3.02  # 1 / 0.479^1.5
        self._z, self._y, self._x = (_spline_weights(axis, cell, first, count) for axis in axes)

    def plane(self, index: int) -> Floats:
        """Return the field on slice `index` of the grid, (y, x)."""
        first, last = self._z.indptr[index : index + 2]
        plane = np.zeros(self._lattice.shape[1:], np.float32)
        for weight, knot in zip(self._z.data[first:last], self._z.indices[first:last], strict=True):
            plane += weight * self._lattice[knot]
        return np.ascontiguousarray((self._x @ (self._y @ plane).T).T)


@dataclass(frozen=True)
class Tubes:
    """Straight tubes: `start` and `end` (n, 3) in mm as (z, y, x), `radius` (n,) in mm."""

    start: Floats
    end: Floats
    radius: Floats


def grow_tree(root: Floats, leaves: Floats, leaf_radius: float, step: float = 9.0) -> Tubes:
    """Grow a tree from `root` (3,) to the points `leaves` (n, 3): each joins the nearest point grown so far.

    A parent's radius follows Murray's law with exponent 2.7 (Murray 1926; 2.7 to 3 is found in lungs).
    """
    points, parents = [root], [-1]
    grown = np.empty((len(leaves) * 40, 3), np.float32)
    grown[0] = root
    for leaf in leaves[np.argsort(np.linalg.norm(leaves - root, axis=1))]:
        nearest = int(np.argmin(((grown[: len(points)] - leaf) ** 2).sum(axis=1)))
        steps = max(1, round(float(np.linalg.norm(leaf - points[nearest])) / step))
        for part in range(1, min(steps, 39) + 1):
            parents.append(nearest if part == 1 else len(points) - 1)
            grown[len(points)] = points[nearest] + (leaf - points[nearest]) * (part / min(steps, 39))
            points.append(grown[len(points)])
    flow = np.zeros(len(points))
    ends = np.ones(len(points), bool)
    ends[parents[1:]] = False
    flow[ends] = 1.0
    for child in range(len(points) - 1, 0, -1):
        flow[parents[child]] += flow[child]
    where = np.array(points, np.float32)
    radius = (leaf_radius * flow[1:] ** (1 / 2.7)).astype(np.float32)
    return Tubes(where[parents[1:]], where[1:], radius)


def draw_tubes(into: Floats, tubes: Tubes, z: Floats, y: Floats, x: Floats) -> None:
    """Draw tubes into `into` (z, y, x), the part of each voxel that is tube; z, y, x are the grid's positions in mm."""
    steps = np.array([z[1] - z[0], y[1] - y[0], x[1] - x[0]])
    voxel = float(np.prod(steps) ** (1 / 3))
    first = np.array([z[0], y[0], x[0]])
    for start, end, radius in zip(tubes.start, tubes.end, tubes.radius, strict=True):
        if radius < 0.2 * voxel:  # would fill less than about a tenth of any voxel
            continue
        low = np.ceil((np.minimum(start, end) - radius - voxel - first) / steps).astype(int).clip(0)
        high = np.floor((np.maximum(start, end) + radius + voxel - first) / steps).astype(int) + 1
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        part = into[box]
        if part.size == 0:
            continue
        axis = end - start
        dz, dy, dx = (g - s for g, s in zip((z[box[0]], y[box[1]], x[box[2]]), start, strict=True))
        dz, dy = dz[:, None, None], dy[None, :, None]
        t = np.clip((dz * axis[0] + dy * axis[1] + dx * axis[2]) / max(float(axis @ axis), 1e-6), 0, 1)
        distance = np.sqrt((dz - t * axis[0]) ** 2 + (dy - t * axis[1]) ** 2 + (dx - t * axis[2]) ** 2)
        filled = cover(distance - radius, voxel) * min(1.0, (2 * radius / voxel) ** 2)
        np.maximum(part, filled, out=part)
