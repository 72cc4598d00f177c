"""A volume shrunk to the means of its blocks, to the last bit as ITK does it, without a copy of the whole volume."""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from dicomnode.analysis.arrays import HuArray
from dicomnode.analysis.compiled import compiled

#: More threads wait for memory.
_MOST_THREADS = 4


def block_means(hu: HuArray, steps: Sequence[int]) -> HuArray:
    """Return the mean HU of each block, halves rounded up, as `itk::BinShrinkImageFilter` has it.

    Args:
        hu: (z, y, x), int16.
        steps: voxels of a block along (z, y, x), at most the volume's; an incomplete last block is left out.
    """
    shape = [size // step for size, step in zip(hu.shape, steps, strict=True)]
    whole, means = np.ascontiguousarray(hu), np.empty(shape, np.int16)
    threads = min(os.cpu_count() or 1, _MOST_THREADS, shape[0])
    ends = [shape[0] * part // threads for part in range(threads + 1)]

    def fill(part: int) -> None:
        first, end = ends[part], ends[part + 1]
        _fill(whole[first * steps[0] : end * steps[0]], means[first:end], steps[0], steps[1], steps[2])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, range(threads)))
    return means


@compiled
def _fill(hu: HuArray, means: HuArray, dz: int, dy: int, dx: int) -> None:
    share = 1.0 / (dz * dy * dx)  # ITK multiplies: to divide gives other halves
    sums = np.empty(means.shape[2], np.int64)
    for z in range(means.shape[0]):
        for y in range(means.shape[1]):
            sums[:] = 0
            for row in range(dz * dy):
                line = hu[z * dz + row // dy, y * dy + row % dy]
                for x in range(means.shape[2]):
                    for step in range(dx):
                        sums[x] += line[x * dx + step]
            for x in range(means.shape[2]):
                means[z, y, x] = math.floor(sums[x] * share + 0.5)
