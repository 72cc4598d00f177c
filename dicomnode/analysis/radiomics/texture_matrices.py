"""The texture matrices of PyRadiomics 3.0.1 at distance 1, counted in two passes over a volume of grey levels.

Grey levels are a C-contiguous array (z, y, x) with a border of zeros one voxel wide: 0 is outside of the region,
1 to `count` are the levels inside. The matrices are those of PyRadiomics' C extension (`_cmatrices`) before its Python
code drops empty rows; definitions: https://pyradiomics.readthedocs.io/en/v3.0.1/features.html. It walks through the
volume once for each class and for each direction, with a division for each index; here every voxel's neighbours are
read once for four classes.
"""

from concurrent.futures import Executor, Future
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dicomnode.analysis.compiled import compiled

Levels = NDArray[np.uint8] | NDArray[np.uint16]
Counts = NDArray[np.int64]

#: One of each pair of opposite directions to the 26 neighbours, as steps in (z, y, x).
DIRECTIONS = tuple((z, y, x) for z in (0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1) if (z, y, x) > (0, 0, 0))
_IN_PLANE = 4  # the first of them stay in the plane
#: Slabs are shared among the threads: several for each, so that all end at about the same time.
_SLABS = 8


@dataclass(frozen=True)
class Matrices:
    """Rows are grey levels 1 to n.

    Attributes:
        glcm: (direction, n, n): how often level j follows level i; not symmetric.
        glrlm: (direction, n, run length - 1).
        gldm: (n, dependent neighbours).
        ngtdm_sum: (n,), summed absolute differences from the mean of the neighbours.
        zone_level, zone_size: of each zone of the GLSZM, in no particular order.
    """

    glcm: Counts
    glrlm: Counts
    gldm: Counts
    ngtdm_sum: NDArray[np.float64]
    zone_level: Levels
    zone_size: NDArray[np.int32]


def start(levels: Levels, count: int, alpha: int, threads: Executor, *, in_plane: bool = False) -> "Pending":
    """Start to count.

    Args:
        levels: (z, y, x), grey levels from 1, 0 outside of the region.
        count: how many levels there are.
        alpha: GLDM's largest difference between dependent neighbours.
        threads: where the counting is done.
        in_plane: neighbours are those of the same plane z; each matrix is that of all planes together (IBSI: 2.5D).
    """
    depth, height, width = levels.shape
    flat = levels.ravel()
    steps = np.array([(z * height + y) * width + x for z, y, x in DIRECTIONS[: _IN_PLANE if in_plane else None]])
    edges = np.linspace(1, depth - 1, _SLABS + 1).astype(int)
    zones = threads.submit(_zones, flat.copy(), steps)
    slabs = [
        threads.submit(_neighbours, flat, levels.shape, int(a), int(b), steps, count, alpha)
        for a, b in pairwise(edges)
        if a < b
    ]
    return Pending(slabs, zones)


@dataclass(frozen=True)
class Pending:
    """Matrices that threads are counting."""

    slabs: list[Future[tuple[Counts, Counts, Counts, NDArray[np.float64]]]]
    zones: Future[tuple[Levels, NDArray[np.int32]]]

    def result(self) -> Matrices:
        """Return the matrices, when all threads are done."""
        glcm, glrlm, gldm, ngtdm = zip(*(slab.result() for slab in self.slabs), strict=True)
        return Matrices(sum(glcm), sum(glrlm), sum(gldm), sum(ngtdm), *self.zones.result())


@compiled
def _neighbours(
    flat: Levels, shape: tuple[int, int, int], first: int, last: int, steps: Counts, count: int, alpha: int
) -> tuple[Counts, Counts, Counts, NDArray[np.float64]]:
    """GLCM, GLRLM, GLDM and NGTDM of the slices [first, last)."""
    _, height, width = shape
    glcm = np.zeros((len(steps), count, count), np.int64)
    glrlm = np.zeros((len(steps), count, max(shape) - 2), np.int64)
    gldm = np.zeros((count, 2 * len(steps) + 1), np.int64)
    ngtdm = np.zeros(count)
    for z in range(first, last):
        for y in range(1, height - 1):
            row = (z * height + y) * width
            for here in range(row + 1, row + width - 1):
                level = np.int64(flat[here])
                if level == 0:
                    continue
                neighbours = dependent = 0
                total = np.int64(0)
                for a in range(len(steps)):
                    step = steps[a]
                    after, before = np.int64(flat[here + step]), np.int64(flat[here - step])
                    if after:
                        glcm[a, level - 1, after - 1] += 1
                        neighbours += 1
                        total += after
                        if abs(after - level) <= alpha:
                            dependent += 1
                    if before:
                        neighbours += 1
                        total += before
                        if abs(before - level) <= alpha:
                            dependent += 1
                    if before != level:  # a run begins here
                        end = here + step
                        length = 0
                        while flat[end] == level:
                            end += step
                            length += 1
                        glrlm[a, level - 1, length] += 1
                gldm[level - 1, dependent] += 1
                if neighbours:
                    ngtdm[level - 1] += abs(level - total / neighbours)
    return glcm, glrlm, gldm, ngtdm


@compiled
def _zones(flat: Levels, steps: Counts) -> tuple[Levels, NDArray[np.int32]]:
    """Level and size of each 26-connected zone of one level. Empties `flat`."""
    inside = np.count_nonzero(flat)
    levels, sizes = np.empty(inside, flat.dtype), np.empty(inside, np.int32)
    waiting = np.empty(inside, np.int64)
    found = 0
    for seed in range(len(flat)):
        level = flat[seed]
        if level == 0:
            continue
        flat[seed] = 0
        waiting[0] = seed
        top = 1
        size = 0
        while top:
            top -= 1
            here = waiting[top]
            size += 1
            for step in steps:
                for neighbour in (here + step, here - step):
                    if flat[neighbour] == level:
                        flat[neighbour] = 0
                        waiting[top] = neighbour
                        top += 1
        levels[found], sizes[found] = level, size
        found += 1
    return levels[:found].copy(), sizes[:found].copy()


def lines_with_two(levels: Levels, direction: int) -> bool:
    """Say whether any line along a direction meets the region of levels (z, y, x) twice, 0 outside.

    PyRadiomics drops GLRLM's other directions.
    """
    step = np.array(DIRECTIONS[direction])
    voxels = np.argwhere(levels)
    axis = int(np.flatnonzero(step)[0])
    lines = voxels - voxels[:, axis : axis + 1] * step * step[axis]
    return len(np.unique(lines, axis=0)) < len(lines)
