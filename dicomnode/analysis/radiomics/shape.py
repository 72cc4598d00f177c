"""PyRadiomics' 14 shape features of a mask, in time that grows with the volume, not with the surface squared.

The surface is PyRadiomics' marching-cubes mesh with its vertices halfway between neighbouring voxels, of which one lies
in the mask. Two observations make it fast and keep it equal:

- A cube of 2x2x2 voxels has 256 states, and a state's triangles have a fixed area; their signed volume
  det(p+a, p+b, p+c) is linear in the cube's position p. So it suffices to count the cubes of each state and to add up
  their positions. What a state contributes is asked of PyRadiomics itself, on arrays of one and two cubes.
- Of a set of points, two that are farthest apart are vertices of its convex hull. PyRadiomics compares all pairs; its
  2D diameters are the largest distance between vertices with the same z, y or x coordinate, so the hull of each such
  plane suffices; and vertices of the whole hull are among the vertices of the planes' hulls.

Definitions: https://pyradiomics.readthedocs.io/en/v3.0.1/features.html#module-radiomics.shape
"""

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from radiomics import cShape
from radiomics.shape import RadiomicsShape
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from dicomnode.analysis.compiled import compiled

Solid = NDArray[np.uint8]
Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
Spacing = tuple[float, float, float]


class _Measured(RadiomicsShape):
    """PyRadiomics' formulas, on measures that are already there."""

    def __init__(
        self, voxels: int, spacing: Spacing, area: float, volume: float, diameters: Floats, axes: Floats
    ) -> None:
        self.logger = logging.getLogger("radiomics")
        self.voxelBased = False
        self.enabledFeatures: dict[str, bool] = {}
        self.featureValues: dict[str, Floats] = {}
        self.featureNames = self.getFeatureNames()
        self.pixelSpacing = np.array(spacing)
        self.labelledVoxelCoordinates = (range(voxels),)  # only their number is asked for
        self.SurfaceArea, self.Volume, self.diameters, self.eigenValues = area, volume, diameters, axes

    def _initCalculation(self, voxelCoordinates: None = None) -> None:  # noqa: N802, N803
        pass


def compute(solid: Solid, spacing: Spacing, features: Sequence[str]) -> dict[str, float]:
    """Shape features by PyRadiomics' names; none named: all but deprecated ones.

    Args:
        solid: (z, y, x), 1 inside and 0 outside, with a border of zeros one voxel wide.
        spacing: (z, y, x), mm.
        features: the names wanted.
    """
    states, positions, moments, lowest_x, highest_x, lowest_y, highest_y = _scan(solid)
    area, volume = _mesh(states, positions, spacing)
    diameters = _diameters((lowest_x, highest_x), (lowest_y, highest_y), spacing)
    formulas = _Measured(int(moments[0]), spacing, area, volume, diameters, _principal(moments, spacing))
    for feature in features:
        formulas.enableFeatureByName(feature)
    return {feature: float(value) for feature, value in formulas.execute().items()}


@compiled
def _scan(solid: Solid) -> tuple[Counts, Counts, Counts, Counts, Counts, Counts, Counts]:
    """One pass over all cubes.

    Returns:
        the number of cubes in each state (256,); their summed positions (256, 3);
        the mask's moments: n, then the sums of z, y, x, zz, yy, xx, zy, zx, yx;
        the lowest and highest x of the mesh's vertices on each line along x, by (z, y), and the lowest and highest y
        on each line along y, by (z, x); in half voxels; a line without vertices has lowest > highest.
    """
    depth, height, width = solid.shape
    states, positions, moments = np.zeros(256, np.int64), np.zeros((256, 3), np.int64), np.zeros(10, np.int64)
    far = 2 * max(solid.shape)
    lowest_x = np.full((2 * depth, 2 * height), far)
    highest_x = np.full((2 * depth, 2 * height), -1)
    lowest_y = np.full((2 * depth, 2 * width), far)
    highest_y = np.full((2 * depth, 2 * width), -1)
    for z in range(depth - 1):
        for y in range(height - 1):
            right = np.int64(0)
            row = row_x = row_xx = np.int64(0)
            for x in range(width - 1):
                # A state's bits are the corners 4 z + 2 y + x. Those at x were those at x + 1 of the cube before.
                left = right
                right = 2 * np.int64(solid[z, y, x + 1]) + 8 * np.int64(solid[z, y + 1, x + 1])
                right += 32 * np.int64(solid[z + 1, y, x + 1]) + 128 * np.int64(solid[z + 1, y + 1, x + 1])
                state = left >> 1 | right
                if state in (0, 255):
                    if state == 0:
                        continue
                else:
                    states[state] += 1
                    positions[state, 0] += z
                    positions[state, 1] += y
                    positions[state, 2] += x
                here = state & 1
                row += here
                row_x += here * x
                row_xx += here * x * x
                if state == 255:
                    continue
                for k, (dz, dy, dx) in enumerate(((1, 0, 0), (0, 1, 0), (0, 0, 1))):
                    if (state >> (4, 2, 1)[k] & 1) != here:
                        vz, vy, vx = 2 * z + dz, 2 * y + dy, 2 * x + dx
                        lowest_x[vz, vy] = min(lowest_x[vz, vy], vx)
                        highest_x[vz, vy] = max(highest_x[vz, vy], vx)
                        lowest_y[vz, vx] = min(lowest_y[vz, vx], vy)
                        highest_y[vz, vx] = max(highest_y[vz, vx], vy)
            moments += np.array(
                [row, z * row, y * row, row_x, z * z * row, y * y * row, row_xx, z * y * row, z * row_x, y * row_x]
            )
    return states, positions, moments, lowest_x, highest_x, lowest_y, highest_y


def _mesh(states: Counts, positions: Counts, spacing: Spacing) -> tuple[float, float]:
    """Area and volume of the mesh, mm2 and mm3."""
    area = volume = 0.0
    for state in np.flatnonzero(states):
        cube = np.array([state >> bit & 1 for bit in range(8)], bool).reshape(2, 2, 2)
        own_area, own_volume = _asked(cube, spacing)
        area += states[state] * own_area
        volume += states[state] * own_volume
        for axis in range(3):
            # The same cube one voxel further along the axis, behind a cube that shares its near face.
            before = np.stack([np.zeros((2, 2), bool), cube.take(0, axis)], axis)
            both = np.concatenate([before, cube.take([1], axis)], axis)
            step = _asked(both, spacing)[1] - _asked(before, spacing)[1] - own_volume
            volume += positions[state, axis] * step
    return area, volume


def _asked(mask: NDArray[np.bool_], spacing: Spacing) -> tuple[float, float]:
    area, volume, _ = cShape.calculate_coefficients(np.ascontiguousarray(mask), np.array(spacing))
    return area, volume


def _principal(moments: Counts, spacing: Spacing) -> Floats:
    """Eigenvalues of the covariance of the voxels' centres, mm2, ascending. Whole numbers up to the last division."""
    n, z, y, x, zz, yy, xx, zy, zx, yx = (int(m) for m in moments)
    scaled = np.array(
        [
            [n * zz - z * z, n * zy - z * y, n * zx - z * x],
            [n * zy - z * y, n * yy - y * y, n * yx - y * x],
            [n * zx - z * x, n * yx - y * x, n * xx - x * x],
        ],
        dtype=np.float64,
    )
    return np.linalg.eigvalsh(scaled / n**2 * np.outer(spacing, spacing)).clip(min=0)


def _diameters(along_x: tuple[Counts, Counts], along_y: tuple[Counts, Counts], spacing: Spacing) -> Floats:
    """Maximum 2D diameters in planes of equal z, y and x, and the maximum 3D diameter, mm."""
    dz, dy, dx = (s / 2 for s in spacing)
    in_z, corners = _widest(*along_x, dy, dx)
    in_y, _ = _widest(np.ascontiguousarray(along_x[0].T), np.ascontiguousarray(along_x[1].T), dz, dx)
    in_x, _ = _widest(np.ascontiguousarray(along_y[0].T), np.ascontiguousarray(along_y[1].T), dz, dy)
    points = corners * (dz, dy, dx)
    return np.array([in_z, in_y, in_x, pdist(points[ConvexHull(points).vertices]).max()])


@compiled
def _widest(lowest: Counts, highest: Counts, row_mm: float, column_mm: float) -> tuple[float, Counts]:
    """Return the largest distance in any plane, and the vertices (plane, row, column) of the planes' convex hulls.

    Args:
        lowest: (plane, row), the first column of each row.
        highest: (plane, row), the last one; empty rows have lowest > highest.
        row_mm: distance between rows.
        column_mm: distance between columns.
    """
    planes, rows = lowest.shape
    corners = np.empty((2 * planes * rows, 3), np.int64)
    found = 0
    largest = 0.0
    chain = np.empty((rows, 2), np.int64)
    for plane in range(planes):
        start = found
        for side in (-1, 1):
            length = 0
            for row in range(rows):
                if lowest[plane, row] > highest[plane, row]:
                    continue
                column = lowest[plane, row] if side < 0 else highest[plane, row]
                while length > 1:
                    a, b = chain[length - 2], chain[length - 1]
                    if side * ((b[0] - a[0]) * (column - a[1]) - (b[1] - a[1]) * (row - a[0])) < 0:
                        break  # b lies outside of the line from a to here: it is a corner
                    length -= 1
                chain[length, 0], chain[length, 1] = row, column
                length += 1
            for k in range(length):
                corners[found, 0], corners[found, 1], corners[found, 2] = plane, chain[k, 0], chain[k, 1]
                found += 1
        for i in range(start, found):
            for j in range(i):
                if j < start:
                    continue
                apart = ((corners[i, 1] - corners[j, 1]) * row_mm) ** 2
                apart += ((corners[i, 2] - corners[j, 2]) * column_mm) ** 2
                largest = max(largest, apart)
    return np.sqrt(largest), corners[:found].copy()
