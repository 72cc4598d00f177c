"""Where the phantom's organs lie. Coordinates in mm: x from right to left, y from front to back, z upwards.

Sizes are those of a slender adult in deep inspiration; the origin lies in the middle of the chest, a little below the
carina.
"""

from dataclasses import dataclass

import numpy as np

from dicomnode.analysis.phantom.shapes import Floats, Tubes, cover, ellipse, grow_tree, single, smooth_max

RIGHT_HILUM = (-2.0, 8.0, -36.0)  # (z, y, x)
LEFT_HILUM = (4.0, 12.0, 38.0)
CARINA_Z = 30.0


@dataclass(frozen=True)
class Body:
    """What differs from one phantom person to the next."""

    width: float  # factors on the sizes written in this module
    depth: float
    height: float
    heart: float
    fat_mm: float
    diaphragm_mm: float  # above the deep-inspiration height
    rib_phase: float


def cage(z: Floats | float) -> tuple[Floats, Floats, Floats]:
    """Return half width, half depth and centre y, mm, of the inner chest wall, in the shape of the heights z, mm."""
    up = np.clip((single(z) + 40) / 172, 0, 1)
    shape = np.sqrt(1 - 0.84 * up * up)
    return single(129 * shape), single(86 * (0.25 + 0.75 * shape)), single(9 * up * up)


def cage_distance(x: Floats, y: Floats, z: Floats | float) -> Floats:
    """Return the distance to the inner chest wall.

    Coordinates in mm, of shapes that broadcast together; the result has the joint shape, mm, negative inside.
    """
    a, b, centre = cage(z)
    return ellipse(x, y - centre, a, b)


def diaphragm_z(x: Floats, y: Floats, side: int, raised: float) -> Floats:
    """Return the height of one dome (-1 right, 1 left), mm, in the joint shape of x and y, mm; the right is higher."""
    top = (-70.0 if side < 0 else -80.0) + raised
    return single(top - (x - side * 60) ** 2 / 200 - (y + 10) ** 2 / 170)


def _diaphragm_distance(x: Floats, y: Floats, z: Floats | float, side: int, raised: float) -> Floats:
    slope = ((x - side * 60) / 100) ** 2 + ((y + 10) / 85) ** 2
    return single((diaphragm_z(x, y, side, raised) - z) / np.sqrt(1 + slope))


def heart_distance(x: Floats, y: Floats, z: Floats | float, size: float) -> Floats:
    """Return the distance to the heart with its pericardium: an ellipsoid whose apex points left, forward and down.

    Coordinates in mm, of shapes that broadcast together; the result has the joint shape, mm, negative inside.
    """
    turn = np.float32(np.deg2rad(38))
    dx, dy, dz = x - 23, y + 30, single(z + 46)
    along = dx * np.cos(turn) - dy * np.sin(turn) - 0.25 * dz
    across = dx * np.sin(turn) + dy * np.cos(turn)
    a, b, c = 60 * size, 43 * size, 52 * size
    k = np.sqrt((along / a) ** 2 + (across / b) ** 2 + (dz / c) ** 2)
    return single((k - 1) * b)


def _mediastinum_half(y: Floats, z: Floats | float, side: int) -> Floats:
    """How far the mediastinum reaches from the midline towards one side, without heart and spine."""
    hilum = np.exp(-(((single(z) - 12) / 34) ** 2))
    return single(5 + (20 + 6 * hilum + 9 * (side > 0)) * np.exp(-(((y + 4) / 34) ** 2)))


def spine_y(z: Floats | float) -> Floats:
    """Return the centre y of the vertebral body, mm, at heights z, mm, in their shape: the thoracic kyphosis."""
    t = single(z) / 130
    return single(58 + 9 * t - 10 * t * t)


def lung_distance(x: Floats, y: Floats, z: Floats | float, side: int, body: Body) -> Floats:
    """Return the distance to one lung (-1 right, 1 left).

    It is the chest wall, less mediastinum, spine, heart and diaphragm, with a rounded apex.

    Coordinates in mm, of shapes that broadcast together; the result has the joint shape, mm, negative inside.
    """
    side_x = x * side
    d = smooth_max(cage_distance(x, y, z) + 1.5, _mediastinum_half(y, z, side) - side_x, 14)
    spine = single(25 - np.hypot(x, (y - spine_y(z)) * 0.9))
    d = smooth_max(d, spine, 12)
    d = smooth_max(d, -heart_distance(x, y, z, body.heart), 6)
    d = smooth_max(d, _diaphragm_distance(x, y, z, side, body.diaphragm_mm), 5)
    apex = single((z - (122 - ((side_x - 46) ** 2 + (y - 8) ** 2) / 62)) * 0.75)
    return smooth_max(d, apex, 10)


def lung_vessels(rng: np.random.Generator, side: int, body: Body, count: int = 850) -> Tubes:
    """Return the vessel tree of one lung, from the hilum to `count` points spread through the lung."""
    leaves: list[Floats] = []
    while len(leaves) < count:
        z = rng.uniform(-140, 120, 4000).astype(np.float32)
        y = rng.uniform(-90, 95, 4000).astype(np.float32)
        x = (side * rng.uniform(4, 130, 4000)).astype(np.float32)
        inside = lung_distance(x, y, z, side, body) < -7
        leaves.extend(np.stack([z, y, x], axis=1)[inside])
    root = np.array(RIGHT_HILUM if side < 0 else LEFT_HILUM, np.float32)
    return grow_tree(root, np.array(leaves[:count], np.float32), leaf_radius=0.66)


def bronchi_beside(vessels: Tubes, side: int) -> Tubes:
    """Return a bronchus beside each larger artery: the pairs that a reader looks for."""
    large = vessels.radius > 1.5
    offset = np.array([0.5, 0.75, -0.45 * side], np.float32)
    shift = offset * (2.1 * vessels.radius[large, None])
    return Tubes(vessels.start[large] + shift, vessels.end[large] + shift, vessels.radius[large] * 0.72)


def _path(points: list[tuple[float, float, float]], radius: float) -> Tubes:
    p = np.array(points, np.float32)
    return Tubes(p[:-1], p[1:], np.full(len(p) - 1, radius, np.float32))


def joined(*tubes: Tubes) -> Tubes:
    """Several sets of tubes as one."""
    return Tubes(
        np.concatenate([t.start for t in tubes]),
        np.concatenate([t.end for t in tubes]),
        np.concatenate([t.radius for t in tubes]),
    )


def central_airways() -> Tubes:
    """Trachea and main bronchi (lumen); points are (z, y, x)."""
    return joined(
        _path([(175, -8, 0), (90, 4, 0), (CARINA_Z + 4, 12, 2)], 8.5),
        _path([(CARINA_Z + 2, 12, 1), (12, 14, -24), RIGHT_HILUM], 6.8),
        _path([(CARINA_Z + 2, 12, 1), (14, 16, 26), LEFT_HILUM], 6.0),
        _path([RIGHT_HILUM, (-22, 14, -42), (-40, 20, -50)], 4.2),
        _path([LEFT_HILUM, (-18, 20, 44), (-36, 24, 52)], 4.0),
        _path([(12, 14, -24), (26, 14, -42), (38, 12, -52)], 3.8),
        _path([LEFT_HILUM, (20, 10, 50), (34, 8, 56)], 3.6),
    )


def great_vessels() -> Tubes:
    """Aorta with its arch and branches, superior vena cava, pulmonary arteries, azygos-side vessels."""
    return joined(
        _path([(-38, -22, -2), (0, -26, -10), (28, -22, -10)], 15.5),
        _path([(28, -22, -10), (46, -12, -2), (52, 6, 10), (44, 26, 20), (24, 36, 24)], 13.5),
        _path([(24, 36, 24), (-40, 38, 24), (-110, 36, 18), (-175, 32, 10)], 12.0),
        _path([(-30, -6, -26), (40, -12, -28), (72, -16, -24)], 9.0),
        _path([(72, -16, -24), (84, -22, 4), (92, -26, 34)], 6.5),
        _path([(-16, -34, 14), (6, -30, 18), (14, -16, 18)], 13.5),
        _path([(12, -14, 14), (8, -4, -14), RIGHT_HILUM], 9.5),
        _path([(14, -16, 18), (12, 2, 34), LEFT_HILUM], 9.5),
        _path([(48, -8, -6), (84, -8, -14), (150, -6, -22)], 5.5),
        _path([(52, 4, 8), (86, 2, 12), (150, 0, 22)], 4.5),
        _path([(50, 10, 14), (88, 12, 22), (120, 4, 46)], 5.0),
        _path([(72, -16, -24), (150, -14, -30)], 6.0),
    )


def clavicles() -> Tubes:
    """Both clavicles, rising outwards (arms raised)."""
    return joined(*(_path([(96, -64, s * 16), (112, -62, s * 56), (136, -34, s * 104)], 6.0) for s in (-1, 1)))


def rib_part(x: Floats, y: Floats, z: float, distance: Floats, phase: float) -> tuple[Floats, Floats]:
    """Ribs at height z: distance (mm) to the nearest rib's surface, and 0 (bone, behind) to 1 (cartilage, in front).

    `distance` is that to the inner chest wall. A rib falls by 85 mm from spine to sternum, so one slice cuts several.
    """
    _, _, centre = cage(z)
    around = np.arctan2(np.abs(x), y - centre) / np.pi  # 0 behind, 1 in front
    height = (z + 85 * around**1.25) / 25 + phase
    off = (np.abs(height - np.round(height)) * 25) * 0.62  # the rib runs obliquely through the slice
    surface = np.hypot(off / 1.25, distance - 6.5) - 4.2
    surface = np.where((around < 0.05) | (around > 0.97), 9.0, surface)
    return surface.astype(np.float32), np.clip((around - 0.72) / 0.08, 0, 1).astype(np.float32)


def vertebra(x: Floats, y: Floats, z: float, voxel: float) -> list[tuple[Floats, float]]:
    """Return what is painted of the spine at height z, in order: (coverage, HU)."""
    centre = float(spine_y(z))
    phase = (z / 26.0) % 1.0
    disc = phase < 0.2
    front = ellipse(x, y - centre, 17.5, 14)
    canal = ellipse(x, y - centre - 21, 9, 7.5)
    arch = ellipse(x, y - centre - 22, 15, 12)
    process = np.maximum(np.abs(x) - 3.2, np.abs(y - centre - 42) - 14)
    sideways = np.maximum(np.abs(y - centre - 22 - 0.25 * np.abs(x)) - 4.5, np.abs(x) - 32)
    painted = [(cover(front, voxel), 75.0 if disc else 480.0)]
    if not disc:
        painted += [(cover(front + 2.0, voxel), 190.0)]
    painted += [(cover(arch, voxel), 60.0 if disc else 420.0)]
    if phase > 0.35:
        painted += [(cover(process.astype(np.float32), voxel), 380.0)]
    if 0.45 < phase < 0.9:
        painted += [(cover(sideways.astype(np.float32), voxel), 360.0)]
    return [*painted, (cover(canal, voxel), 22.0)]
