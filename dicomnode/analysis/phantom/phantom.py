"""A numeric chest phantom: a synthetic CT with a known truth, for the demo, the synthetic registry and tests.

It looks like a supine chest CT without contrast in deep inspiration; changes like those of systemic-sclerosis ILD
(basal and peripheral ground glass, reticulation, honeycombing, volume loss) are set by parameters. Nothing in it comes
from a patient. Attenuation follows textbook values: air -1000, aerated lung about -860 with a gradient towards the
dependent side, fat -105, muscle 55, blood 42, liver 58, bone 200 to 480 HU.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from dicomnode.analysis.arrays import LEFT, RIGHT, Labels, Volume
from dicomnode.analysis.phantom import anatomy
from dicomnode.analysis.phantom.lungs import Disease, Grain, LungPainter, PhantomGrid
from dicomnode.analysis.phantom.shapes import Floats, Tubes, cover, draw_tubes, ellipse, mix, single

__all__ = ["Disease", "Phantom", "PhantomScanner", "Truth", "chest"]


@dataclass(frozen=True)
class PhantomScanner:
    """Noise (SD before the kernel, HU) and kernel (0 smooth, 0.5 neutral, 1 sharp: a sharp one raises the noise)."""

    noise_hu: float = 22.0
    sharpness: float = 0.5


@dataclass(frozen=True)
class Truth:
    """What is in the phantom: recipe, lung volumes, and the percentage of lung voxels that each change fills."""

    seed: int
    disease: Disease
    scanner: PhantomScanner
    right_ml: float
    left_ml: float
    ground_glass_percent: float
    reticulation_percent: float
    honeycombing_percent: float


@dataclass(frozen=True)
class Phantom:
    """A phantom scan. `labels` is the truth: both lungs with their vessels, without airways."""

    volume: Volume
    labels: Labels
    truth: Truth


def chest(
    seed: int = 0,
    *,
    shape: tuple[int, int, int] = (200, 256, 256),
    spacing_mm: tuple[float, float, float] = (1.5, 1.4, 1.4),
    disease: Disease | None = None,
    scanner: PhantomScanner | None = None,
    person: int | None = None,
) -> Phantom:
    """Make a chest phantom.

    Args:
        seed: what differs from scan to scan (noise), and the person unless `person` is given. Same arguments,
            same arrays (for one numpy release).
        shape: (z, y, x). 300 mm in z and 350 mm in x hold the whole chest; less cuts it off as a scanner would.
        spacing_mm: (z, y, x).
        disease: none by default.
        scanner: one with a neutral kernel by default.
        person: the seed of the anatomy, for serial scans of one person.

    Returns:
        Volume with axes as `arrays` says, `frames` empty and its origin such that (0, 0, 0) mm is the array's middle.

    Raises:
        ValueError: an axis has fewer than 8 voxels, or a spacing is not above 0.
    """
    disease, scanner = disease or Disease(), scanner or PhantomScanner()
    if min(shape) < 8 or min(spacing_mm) <= 0:
        raise ValueError(f"shape {shape} with spacing {spacing_mm}: give at least 8 voxels a side and spacings above 0")
    person = seed if person is None else person
    body = _person(np.random.default_rng([person, 1]), disease)
    mm = [((np.arange(n) - (n - 1) / 2) * s).astype(np.float32) for n, s in zip(shape, spacing_mm, strict=True)]
    grid = PhantomGrid(mm[0] / body.height, mm[1] / body.depth, mm[2] / body.width, float(spacing_mm[1]))
    hu, labels, changes = _paint(grid, body, disease, person)
    _acquire(hu, scanner, spacing_mm, np.random.default_rng([seed, 2]))
    z, y, x = (float(axis[0]) for axis in mm)
    volume = Volume(
        hu=np.clip(np.rint(hu), -1024, 3071).astype(np.int16),
        spacing_mm=spacing_mm,
        origin_mm=(x, y, z),
        axes=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
        frames=(),
    )
    return Phantom(volume, labels, Truth(seed, disease, scanner, *_measured(volume, labels, changes)))


def _person(rng: np.random.Generator, disease: Disease) -> anatomy.Body:
    return anatomy.Body(
        width=rng.uniform(0.95, 1.04),
        depth=rng.uniform(0.95, 1.05),
        height=rng.uniform(0.95, 1.04),
        heart=rng.uniform(0.93, 1.06),
        fat_mm=rng.uniform(9, 17),
        diaphragm_mm=rng.uniform(-4, 6) + 38 * disease.volume_loss,
        rib_phase=rng.uniform(0, 1),
    )


def _paint(grid: PhantomGrid, body: anatomy.Body, disease: Disease, person: int) -> tuple[Floats, Labels, Floats]:
    """Paint the noiseless image (HU) and the labels.

    Also counted: the lung voxels that are ground glass, reticulation, honeycombing.
    """
    shape = (len(grid.z), len(grid.y), len(grid.x))
    # A generator for each purpose: how much one draws hangs on the disease, and must not move what the others draw.
    vessels = {side: anatomy.lung_vessels(np.random.default_rng([person, 4 + side]), side, body) for side in (-1, 1)}
    bronchi = [anatomy.bronchi_beside(vessels[side], side) for side in (-1, 1)]
    lumen = anatomy.joined(anatomy.central_airways(), *bronchi)
    drawn = [
        anatomy.joined(vessels[-1], vessels[1]),
        _thickened(lumen),
        lumen,
        anatomy.great_vessels(),
        anatomy.clavicles(),
    ]
    tubes = [np.zeros(shape, np.float32) for _ in drawn]
    for part, into in zip(drawn, tubes, strict=True):
        draw_tubes(into, part, grid.z, grid.y, grid.x)
    painter = LungPainter(grid, body, disease, np.random.default_rng([person, 6]))
    hu, labels, changes = np.empty(shape, np.float32), np.zeros(shape, np.uint8), np.zeros(3, np.float32)
    middle = int(np.searchsorted(grid.x, 0))
    sides = ((-1, RIGHT, slice(0, middle)), (1, LEFT, slice(middle, None)))  # no lung crosses the midline
    for index in range(shape[0]):
        vessel, wall, air, great, clavicle = (t[index] for t in tubes)
        grain = Grain(painter.coarse.plane(index), painter.patchy.plane(index))
        image = _soft_tissue(grid, body, float(grid.z[index]), grain.coarse)
        image = mix(image, great, 42.0)
        for side, label, half in sides:
            distance, parenchyma, alpha = painter.plane(index, side, half, grain)
            inside = distance < 0
            image[:, half] = mix(image[:, half], cover(distance, grid.voxel), parenchyma)
            labels[index, :, half][inside & (air[:, half] < 0.5)] = label
            changes += (alpha[:, inside] > 0.5).sum(axis=1)
        image = mix(image, vessel, 38.0)
        image = mix(image, wall, 20.0)
        image = mix(image, air, -990.0)
        hu[index] = mix(image, clavicle, 420.0)
    return hu, labels, changes


def _thickened(tubes: Tubes) -> Tubes:
    """Return the outer surface of an airway whose lumen is given: a wall of a fifth of its radius, 0.5 to 1.4 mm."""
    return Tubes(tubes.start, tubes.end, tubes.radius + np.clip(0.22 * tubes.radius, 0.5, 1.4))


def _soft_tissue(grid: PhantomGrid, body: anatomy.Body, z: float, texture: Floats) -> Floats:
    """Everything but lungs, vessels and airways on one slice."""
    y, x, voxel = grid.y[:, None], grid.x[None, :], grid.voxel
    image = np.full((len(grid.y), len(grid.x)), -1000.0, np.float32)
    for offset, thickness, hu in (
        (8.0, 5.0, -880.0),
        (5.0, 1.6, -250.0),
        (12.5, 1.6, -250.0),
    ):  # the table: foam, shell
        bend = y - (118 - (x / 50) ** 2)
        image = mix(image, cover(np.abs(bend - offset) - thickness, voxel) * (np.abs(x) < 175), hu)
    up = max(0.0, (z - 60) / 90)
    skin = ellipse(x, y - 2 - 4 * up, 156 - 6 * up, 111 - 12 * up * up)
    wall = anatomy.cage_distance(x, y, z)
    image = mix(image, cover(skin, voxel), 20.0)
    image = mix(image, cover(skin + 1.8, voxel), -105.0)
    streaks = single(55 - 70 * np.clip(np.abs(texture) - 1.5, 0, 1))
    image = mix(image, cover(np.maximum(skin + body.fat_mm, -wall - 40) - 3 * texture, voxel), streaks)
    image = mix(image, cover(np.abs(wall - 11.5) - 1.2, voxel) * 0.6, -95.0)  # fat planes outside the ribs
    image = mix(image, cover(wall, voxel), -98.0)  # mediastinal and abdominal fat
    image = _abdomen(image, grid, body, z, wall)
    heart = anatomy.heart_distance(x, y, z, body.heart)
    image = mix(image, cover(heart + 3.5, voxel), 44.0)
    image = mix(image, cover(ellipse(x - 8, y - 30, 7, 5), voxel), 32.0)  # oesophagus
    return _bones(image, grid, body, z, wall)


def _abdomen(image: Floats, grid: PhantomGrid, body: anatomy.Body, z: float, wall: Floats) -> Floats:
    """Liver, spleen and stomach below the domes."""
    y, x, voxel = grid.y[:, None], grid.x[None, :], grid.voxel
    below = {s: (z - anatomy.diaphragm_z(x, y, s, body.diaphragm_mm)) * 0.8 for s in (-1, 1)}
    muscle = np.minimum(np.maximum(below[-1], x), np.maximum(below[1], -x))
    image = mix(image, cover(np.maximum(muscle, wall), voxel) * cover(-wall - 4, voxel), 50.0)
    liver = np.maximum(np.maximum(below[-1] + 3, wall + 3), 0.8 * (x - 34 - 0.25 * y) + 0.4 * (z + 90))
    image = mix(image, cover(np.maximum(liver, y - 60), voxel), 58.0)
    spleen = np.maximum(np.maximum(below[1] + 4, wall + 4), np.hypot((x - 92) / 1.0, (y - 46) / 1.3) - 36)
    image = mix(image, cover(spleen, voxel), 48.0)
    stomach = np.maximum(below[1] + 5, ellipse(x - 62, y + 18, 40, 34))
    image = mix(image, cover(stomach, voxel), 25.0)
    return mix(image, cover(np.maximum(stomach + 4, y + 22), voxel), -980.0)  # its gas rises to the front


def _bones(image: Floats, grid: PhantomGrid, body: anatomy.Body, z: float, wall: Floats) -> Floats:
    y, x, voxel = grid.y[:, None], grid.x[None, :], grid.voxel
    rib, cartilage = anatomy.rib_part(x, y, z, wall, body.rib_phase)
    image = mix(image, cover(rib, voxel), 480 - 380 * cartilage)
    image = mix(image, cover(rib + 1.7, voxel), 180 - 95 * cartilage)
    if z > -60:
        _, depth, centre = anatomy.cage(z)
        sternum = ellipse(x, y - float(centre - depth) + 7, 17 if z < 80 else 24, 6)
        image = mix(image, cover(sternum, voxel), 330.0)
        image = mix(image, cover(sternum + 1.8, voxel), 140.0)
    if z > 10:  # shoulder blades, swung outwards by the raised arms
        blade = np.maximum(np.abs(wall - 21 - 6 * (np.abs(x) - 90) / 40) - 2.2, np.abs(np.abs(x) - 92) - 30)
        image = mix(image, cover(np.maximum(blade, 12 - y), voxel), 430.0)
    for part, hu in anatomy.vertebra(x, y, z, voxel):
        image = mix(image, part, hu)
    return image


def _acquire(
    hu: Floats, scanner: PhantomScanner, spacing_mm: tuple[float, float, float], rng: np.random.Generator
) -> None:
    """Noise and reconstruction kernel, in place, slice by slice."""
    gain = 2 * scanner.sharpness - 1
    sigma = (0.9 / spacing_mm[1], 0.9 / spacing_mm[2])
    for index in range(len(hu)):
        noise = scanner.noise_hu * rng.standard_normal(hu[index].shape, dtype=np.float32)
        image = hu[index] + noise
        hu[index] = image + gain * (image - gaussian_filter(image, sigma)) if gain else image


def _measured(volume: Volume, labels: Labels, changes: Floats) -> tuple[float, ...]:
    """Right and left lung, ml, and the three changes' percentages."""
    voxels = np.bincount(labels.ravel(), minlength=3)
    percent = (100.0 * float(c) / max(1, int(voxels[RIGHT] + voxels[LEFT])) for c in changes)
    return (float(voxels[RIGHT] * volume.voxel_ml), float(voxels[LEFT] * volume.voxel_ml), *percent)
