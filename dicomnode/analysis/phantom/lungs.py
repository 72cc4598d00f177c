"""The phantom's lungs: aerated parenchyma with its grain, and the changes of interstitial lung disease in it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from dicomnode.analysis.phantom import anatomy
from dicomnode.analysis.phantom.shapes import Floats, SmoothNoise, cover, mix, rise, single

_REACH_MM = 260.0  # the noise fields reach farther than any phantom


@dataclass(frozen=True)
class Disease:
    """Extent of each change, 0 (none) to 1 (severe). `volume_loss` raises the diaphragm by up to 38 mm."""

    ground_glass: float = 0.0
    reticulation: float = 0.0
    honeycombing: float = 0.0
    volume_loss: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}: give an extent from 0 to 1")

    @classmethod
    def of_severity(cls, severity: float) -> "Disease":
        """Return the usual course (severity 0 to 1).

        Ground glass comes first, then reticulation, honeycombing, loss of volume.
        """
        return cls(
            ground_glass=min(1.0, 0.9 * severity),
            reticulation=min(1.0, max(0.0, 1.1 * (severity - 0.12))),
            honeycombing=min(1.0, max(0.0, 1.5 * (severity - 0.45))),
            volume_loss=severity,
        )


@dataclass(frozen=True)
class PhantomGrid:
    """Voxel positions in the body's own coordinates (mm), and the voxel's in-plane edge."""

    z: Floats
    y: Floats
    x: Floats
    voxel: float


@dataclass(frozen=True)
class Grain:
    """Two noise fields of one slice (y, x), used for several tissues."""

    coarse: Floats
    patchy: Floats


class LungPainter:
    """Parenchyma of one person, slice by slice: the noise fields are made once."""

    def __init__(self, grid: PhantomGrid, body: anatomy.Body, disease: Disease, rng: np.random.Generator) -> None:
        self.grid, self.body, self.disease = grid, body, disease
        seeds = rng.integers(0, 2**32, 4)
        fields = [
            SmoothNoise(np.random.default_rng(s), cell, (grid.z, grid.y, grid.x), _REACH_MM)
            for s, cell in zip(seeds, (26.0, 9.0, 7.0), strict=False)
        ]
        self.coarse, self.patchy, self.net = fields
        self._cysts = cKDTree(_cyst_centres(np.random.default_rng(int(seeds[3]))))

    def plane(self, index: int, side: int, half: slice, grain: Grain) -> tuple[Floats, Floats, Floats]:
        """One lung on one slice, on the columns `half`.

        Returns:
            Distance to the lung, its HU as if it filled the plane, and the three changes' parts (3, y, x).
        """
        z, y, x = float(self.grid.z[index]), self.grid.y[:, None], self.grid.x[None, half]
        distance = anatomy.lung_distance(x, y, z, side, self.body)
        coarse, patchy = grain.coarse[:, half], grain.patchy[:, half]
        hu = -862 + 0.36 * y + 9 * patchy + 5 * coarse
        alpha = np.zeros((3, *distance.shape), np.float32)
        if self.disease == Disease():
            return distance, hu, alpha
        level = 1 / (1 + np.exp((z + 22 - 0.35 * self.body.diaphragm_mm) / 26))  # 1 at the base, 0 at the apex
        depth = np.clip(-distance, 0, None)
        back = single(0.12 * y / 80)
        alpha[0] = self._extent(self.disease.ground_glass, level, depth, 26.0, patchy * 0.13 + back)
        alpha[1] = self._extent(self.disease.reticulation, level, depth, 15.0, coarse * 0.1 + back)
        alpha[2] = self._extent(self.disease.honeycombing, level, depth, 9.0, patchy * 0.08 + back)
        hu = mix(hu, 0.9 * alpha[0], -610 + 45 * patchy)
        line = np.exp(-((self.net.plane(index)[:, half] / 0.22) ** 2))
        hu = mix(hu, 0.8 * alpha[1] * np.maximum(line, 0.12), -260.0)
        return distance, self._honeycomb(hu, alpha[2] * (distance < self.grid.voxel), index, x[0]), alpha

    @staticmethod
    def _extent(
        extent: float, level: float, depth: Floats, falls_off_mm: float, uneven: NDArray[np.floating]
    ) -> Floats:
        """Return the part of each voxel that a change fills.

        It goes from the basal periphery inwards and upwards as it grows.
        """
        if extent == 0:
            return np.zeros_like(depth)
        near = 0.62 * level + 0.5 * np.exp(-depth / falls_off_mm) + uneven
        return rise((near - (1.2 - 0.85 * extent)) / 0.22)

    def _honeycomb(self, hu: Floats, part: Floats, index: int, x: Floats) -> Floats:
        """Cysts of about 6 mm with shared walls, where `part` is above 0."""
        rows, columns = np.nonzero(part > 0.02)
        if rows.size == 0:
            return hu
        where = np.stack([np.full(rows.size, self.grid.z[index]), self.grid.y[rows], x[columns]], axis=1)
        near, _ = self._cysts.query(where, k=2)
        wall = cover((near[:, 1] - near[:, 0]) / 2 - 0.8, max(self.grid.voxel, 1.0))
        cyst = -930 + wall * 760
        hu[rows, columns] += part[rows, columns] * (cyst - hu[rows, columns])
        return hu


def _cyst_centres(rng: np.random.Generator) -> Floats:
    """Jittered lattice points (n, 3) over the lower and middle chest."""
    grids = np.meshgrid(np.arange(-140, 60, 6.2), np.arange(-95, 100, 6.2), np.arange(-135, 138, 6.2), indexing="ij")
    points = np.stack([g.ravel() for g in grids], axis=1)
    return (points + rng.uniform(-2.2, 2.2, points.shape)).astype(np.float32)
