"""Means of blocks are those of ITK, to the last bit."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dicomnode.analysis.block_means import block_means


def of_itk(hu: NDArray[np.int16], steps: tuple[int, ...]) -> NDArray[np.int16]:
    found: NDArray[np.int16] = sitk.GetArrayFromImage(sitk.BinShrink(sitk.GetImageFromArray(hu), steps[::-1]))
    return found


@given(st.tuples(*[st.integers(1, 9)] * 3), st.tuples(*[st.integers(1, 7)] * 3), st.integers(0, 2**32 - 1))
def test_as_itk(shape: tuple[int, ...], steps: tuple[int, ...], seed: int) -> None:
    steps = tuple(min(pair) for pair in zip(shape, steps, strict=True))
    hu = np.random.default_rng(seed).integers(-32768, 32768, shape).astype(np.int16)
    assert np.array_equal(block_means(hu, steps), of_itk(hu, steps))
    turned = hu[:, ::-1].transpose(0, 2, 1)
    turned_steps = (steps[0], steps[2], steps[1])
    assert np.array_equal(block_means(turned, turned_steps), of_itk(np.ascontiguousarray(turned), turned_steps))


@pytest.mark.parametrize(("steps", "total"), [((2, 7, 7), 147), ((5, 6, 5), -153_525), ((2, 2, 2), 4), ((2, 2, 2), -4)])
def test_halves_as_itk(steps: tuple[int, int, int], total: int) -> None:
    """Where to multiply by the inverse, and to divide, differ."""
    base, rest = divmod(total, int(np.prod(steps)))
    hu = np.full(int(np.prod(steps)), base, np.int16)
    hu[:rest] += 1
    assert np.array_equal(block_means(hu.reshape(steps), steps), of_itk(hu.reshape(steps), steps))
