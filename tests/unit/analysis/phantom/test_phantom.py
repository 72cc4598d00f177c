"""The phantom: repeatable, of realistic attenuation, and with the changes where systemic sclerosis puts them."""

import numpy as np
import pytest

from dicomnode.analysis.arrays import LEFT, RIGHT
from dicomnode.analysis.phantom.phantom import Disease, Phantom, PhantomScanner, chest

SHAPE, SPACING = (60, 72, 88), (5.0, 4.0, 4.0)


def small(seed: int = 1, **arguments: object) -> Phantom:
    return chest(seed, shape=SHAPE, spacing_mm=SPACING, **arguments)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def healthy() -> Phantom:
    return small(scanner=PhantomScanner(noise_hu=0.0))


def test_same_seed_same_phantom() -> None:
    a, b, other = small(5), small(5), small(6)
    assert a.volume.hu.dtype == np.int16
    np.testing.assert_array_equal(a.volume.hu, b.volume.hu)
    np.testing.assert_array_equal(a.labels, b.labels)
    assert a.truth == b.truth
    assert not np.array_equal(a.labels, other.labels)


def test_serial_scans_of_one_person_differ_in_noise_only() -> None:
    a, b = small(5, person=9), small(6, person=9)
    np.testing.assert_array_equal(a.labels, b.labels)
    assert np.std(a.volume.hu.astype(float) - b.volume.hu) == pytest.approx(22 * np.sqrt(2), rel=0.1)


def test_disease_progresses_in_the_same_lungs() -> None:
    """Where it was dense it stays dense, above the diaphragm that rises."""
    earlier, later = (
        small(s, person=9, disease=Disease(ground_glass=g), scanner=PhantomScanner(noise_hu=0.0))
        for s, g in ((1, 0.4), (2, 0.6))
    )
    lung = earlier.labels > 0
    np.testing.assert_array_equal(earlier.labels, later.labels)
    change = later.volume.hu[lung].astype(int) - earlier.volume.hu[lung]
    assert change.min() >= -1 and change.mean() > 5


def test_lungs_are_two_of_normal_size_and_density(healthy: Phantom) -> None:
    lung = healthy.volume.hu[healthy.labels > 0]
    assert -880 < lung.mean() < -800
    assert 1500 < healthy.truth.left_ml < healthy.truth.right_ml < 3500
    voxel = healthy.volume.voxel_ml
    assert healthy.truth.right_ml == pytest.approx((healthy.labels == RIGHT).sum() * voxel)
    centre = [np.nonzero(healthy.labels == side)[2].mean() for side in (RIGHT, LEFT)]
    assert centre[0] < SHAPE[2] / 2 < centre[1], "x grows from the patient's right to the left"
    bases = [np.nonzero(healthy.labels == side)[0].min() for side in (RIGHT, LEFT)]
    assert min(bases) > 0
    assert max(np.nonzero(healthy.labels)[0]) < SHAPE[0] - 1, "the whole lungs are in the volume"


def test_dependent_lung_is_denser(healthy: Phantom) -> None:
    _, y, _ = np.nonzero(healthy.labels)
    hu = healthy.volume.hu[healthy.labels > 0]
    front, back = np.quantile(y, [0.25, 0.75])
    assert np.median(hu[y >= back]) > np.median(hu[y <= front]) + 15


@pytest.mark.parametrize(
    ("tissue", "low", "high", "least_ml"),
    [
        ("fat", -115, -90, 1500),
        ("soft tissue", 20, 75, 3000),
        ("bone", 250, 600, 300),
        ("air around", -1024, -980, 5000),
    ],
)
def test_each_tissue_is_there(healthy: Phantom, tissue: str, low: int, high: int, least_ml: int) -> None:
    hu = healthy.volume.hu
    assert ((hu >= low) & (hu <= high)).sum() * healthy.volume.voxel_ml > least_ml, tissue


def test_airways_are_not_lung(healthy: Phantom) -> None:
    trachea = (healthy.volume.hu[45] < -900) & (healthy.labels[45] == 0)
    middle = trachea[20:50, 38:50]
    assert middle.sum() >= 6, "the trachea lies in the middle, and without a label"


def test_disease_is_basal_and_peripheral_and_takes_volume(healthy: Phantom) -> None:
    sick = small(disease=Disease.of_severity(0.6), scanner=PhantomScanner(noise_hu=0.0))
    assert sick.truth.right_ml + sick.truth.left_ml < 0.9 * (healthy.truth.right_ml + healthy.truth.left_ml)
    dense = (sick.volume.hu > -700) & (sick.volume.hu < -200) & (sick.labels > 0)
    heights = np.nonzero(sick.labels)[0]
    lower, upper = np.quantile(heights, [1 / 3, 2 / 3]).astype(int)
    share = [dense[part].sum() / (sick.labels[part] > 0).sum() for part in (slice(0, lower), slice(upper, None))]
    assert share[0] > 3 * share[1]


def test_more_severe_is_denser_and_smaller() -> None:
    series = [small(disease=Disease.of_severity(s), scanner=PhantomScanner(noise_hu=0.0)) for s in (0.0, 0.3, 0.6, 0.9)]
    means = [p.volume.hu[p.labels > 0].mean() for p in series]
    volumes = [p.truth.right_ml + p.truth.left_ml for p in series]
    assert means == sorted(means) and volumes == sorted(volumes, reverse=True)
    extents = [p.truth.ground_glass_percent for p in series]
    assert extents[0] == 0 and extents == sorted(extents)
    assert series[0].truth.honeycombing_percent == 0 < series[3].truth.honeycombing_percent


def test_resolution_changes_the_measures_little() -> None:
    quiet = PhantomScanner(noise_hu=0.0)
    coarse = small(3, disease=Disease.of_severity(0.5), scanner=quiet)
    fine = chest(3, shape=(120, 144, 176), spacing_mm=(2.5, 2.0, 2.0), disease=Disease.of_severity(0.5), scanner=quiet)
    assert coarse.truth.right_ml == pytest.approx(fine.truth.right_ml, rel=0.03)
    assert coarse.truth.ground_glass_percent == pytest.approx(fine.truth.ground_glass_percent, rel=0.15)
    means = [float(p.volume.hu[p.labels > 0].mean()) for p in (coarse, fine)]
    assert means[0] == pytest.approx(means[1], abs=15)


def test_a_sharp_kernel_raises_the_noise() -> None:
    noise = []
    for sharpness in (0.1, 0.5, 0.9):
        phantom = chest(1, shape=(10, 120, 160), spacing_mm=(1.5, 2.0, 2.0), scanner=PhantomScanner(20.0, sharpness))
        noise.append(float(phantom.volume.hu[:, 2:10, 2:150].std()))
    assert noise[0] < noise[1] < noise[2]


def test_the_middle_of_the_array_is_the_origin(healthy: Phantom) -> None:
    x, y, z = healthy.volume.origin_mm
    assert (z, y, x) == tuple(-(n - 1) / 2 * s for n, s in zip(SHAPE, SPACING, strict=True))
    assert healthy.volume.frames == ()


@pytest.mark.parametrize("extent", [-0.1, 1.01, float("nan")])
def test_an_extent_outside_0_to_1_is_refused(extent: float) -> None:
    with pytest.raises(ValueError, match=r"ground_glass is .*: give an extent from 0 to 1"):
        Disease(ground_glass=extent)


@pytest.mark.parametrize(("shape", "spacing"), [((4, 60, 60), SPACING), (SHAPE, (0.0, 1.0, 1.0))])
def test_an_impossible_grid_is_refused(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="give at least 8 voxels"):
        chest(1, shape=shape, spacing_mm=spacing)
