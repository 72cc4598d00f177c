"""The network's input: the same for one patient whatever the scanner's grid, and nothing but lungs."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from dicomnode.analysis.arrays import Labels, Volume
from dicomnode.analysis.phantom.phantom import Disease, PhantomScanner, chest
from dicomnode.analysis.risk.preprocess import Spec, prepare, slice_positions
from dicomnode.errors import RefusedError

SPEC = Spec(spacing_mm=4.0, canvas=(64, 80), slices=6)
AXES = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))


def volume(hu: np.ndarray, spacing: tuple[float, float, float] = (2.0, 2.0, 2.0)) -> Volume:
    return Volume(hu.astype(np.int16), spacing, (0.0, 0.0, 0.0), AXES, frames=())


def box(hu: int, shape: tuple[int, int, int] = (40, 60, 70), margin: int = 8) -> tuple[Volume, Labels]:
    """A block of lung of one HU, everything else water."""
    array, labels = np.zeros(shape, np.int16), np.zeros(shape, np.uint8)
    inner = (slice(margin, -margin),) * 3
    array[inner], labels[inner] = hu, 1
    return volume(array), labels


@pytest.mark.parametrize(("hu", "value"), [(-1024, 0.0), (-412, 0.5), (200, 1.0), (3000, 1.0), (-2000, 0.0)])
def test_the_window_maps_to_0_to_1(hu: int, value: float) -> None:
    prepared = prepare(*box(hu), SPEC)
    assert prepared.shape == (6, 64, 80) and prepared.dtype == np.float32
    np.testing.assert_allclose(prepared[:, 30:34, 38:42], value, atol=1e-5)


def test_outside_the_lungs_is_the_window_minimum() -> None:
    prepared = prepare(*box(-412), SPEC)
    assert prepared[:, :10].max() == 0 and prepared[:, :, :10].max() == 0


def test_a_stated_value_outside_is_kept() -> None:
    prepared = prepare(*box(-1024), dataclasses.replace(SPEC, outside_hu=200.0))
    np.testing.assert_allclose(prepared[:, 0, 0], 1.0)
    np.testing.assert_allclose(prepared[:, 32, 40], 0.0, atol=1e-5)


def test_only_the_lungs_matter() -> None:
    scan, labels = box(-700)
    prepared = prepare(scan, labels, SPEC)
    other = scan.hu.copy()
    other[labels == 0] = 1500
    np.testing.assert_array_equal(prepare(volume(other), labels, SPEC), prepared)
    around = ((3, 1), (9, 2), (0, 5))
    moved = prepare(volume(np.pad(scan.hu, around)), np.pad(labels, around), SPEC)
    np.testing.assert_array_equal(moved, prepared, "a wider field of view changes nothing")


def test_slices_run_from_the_base_to_the_apex_evenly() -> None:
    ramp = np.broadcast_to(np.linspace(-1000, 100, 60)[:, None, None], (60, 40, 40))
    levels = prepare(volume(ramp), np.ones(ramp.shape, np.uint8), SPEC)[:, 32, 40]
    steps = np.diff(levels)
    assert (steps > 0).all()
    np.testing.assert_allclose(steps, steps.mean(), rtol=0.02)


def test_resolution_hardly_matters() -> None:
    disease, quiet = Disease.of_severity(0.5), PhantomScanner(noise_hu=0.0)
    fine = chest(3, shape=(140, 128, 160), spacing_mm=(2.0, 2.0, 2.0), disease=disease, scanner=quiet)
    other = chest(3, shape=(70, 96, 120), spacing_mm=(4.0, 2.7, 2.7), disease=disease, scanner=quiet)
    a, b = (prepare(p.volume, p.labels, SPEC) for p in (fine, other))
    inside = (a > 0.05) | (b > 0.05)
    assert np.abs(a - b)[inside].mean() < 0.03, "mean difference below 37 HU, rim and vessels included"
    assert np.corrcoef(a[inside], b[inside])[0, 1] > 0.9
    assert a[inside].mean() == pytest.approx(b[inside].mean(), abs=0.01)


def test_a_volume_without_lungs_is_refused() -> None:
    scan, labels = box(-700)
    with pytest.raises(RefusedError, match="no voxel is labelled as lung") as caught:
        prepare(scan, np.zeros_like(labels), SPEC)
    assert caught.value.code == "no-lungs"


def test_labels_of_another_shape_are_an_error() -> None:
    scan, labels = box(-700)
    with pytest.raises(ValueError, match="differ in shape"):
        prepare(scan, labels[1:], SPEC)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version is 2: this dicomnode supports version 1"),
        ({"spacing_mm": 0.0}, "spacing_mm is 0.0"),
        ({"canvas": (31, 64)}, "canvas is"),
        ({"slices": 0}, "slices is 0"),
        ({"slab_mm": 99.0}, "slab_mm is 99"),
        ({"window_hu": (200.0, -1024.0)}, "window_hu is"),
        ({"outside_hu": -2000.0}, "outside_hu is -2000.0: give a value within window_hu"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SPEC, **change)


def test_a_spec_goes_to_plain_values_and_back() -> None:
    assert Spec.from_dict(SPEC.to_dict()) == SPEC


@pytest.mark.parametrize(
    "change", [{"spacing": 1.0}, {"slices": "eight"}, {"canvas": 64}], ids=["unknown", "text", "no pair"]
)
def test_a_wrong_key_or_type_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="preprocessing spec"):
        Spec.from_dict({**SPEC.to_dict(), **change})


def test_a_missing_key_is_named() -> None:
    values = SPEC.to_dict()
    del values["slab_mm"]
    with pytest.raises(ValueError, match="slab_mm"):
        Spec.from_dict(values)


def test_slice_positions_are_where_the_slices_lie() -> None:
    """Planes of lung that differ in HU: each prepared slice shows the one at its position."""
    array, labels = np.zeros((40, 30, 30), np.int16), np.zeros((40, 30, 30), np.uint8)
    labels[5:35, 5:25, 5:25] = 1
    array[:] = (-900 + 10 * np.arange(40))[:, None, None]
    lifted = dataclasses.replace(volume(array, (4.0, 2.0, 2.0)), origin_mm=(0.0, 0.0, -200.0))
    spec = Spec(spacing_mm=2.0, canvas=(32, 32), slices=6, slab_mm=4.0)
    positions = slice_positions(lifted, labels, spec)
    np.testing.assert_allclose(positions, -200 + 4 * (5 + np.array([2, 7, 12, 17, 22, 27])))
    shown = prepare(lifted, labels, spec)[:, 16, 16] * 1224 - 1024
    np.testing.assert_allclose(shown, -900 + 10 * (positions + 200) / 4, atol=0.5)


def test_positions_of_no_lungs_are_refused() -> None:
    empty = np.zeros((4, 4, 4), np.uint8)
    with pytest.raises(RefusedError):
        slice_positions(volume(empty), empty, SPEC)
