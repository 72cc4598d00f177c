"""The few slices of a volume that the pictures need, so that a page can be drawn after the volume itself is gone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dicomnode.analysis.arrays import HuArray, Labels, Volume
from dicomnode.analysis.findings import HeatMap, RiskExplanation
from dicomnode.files import write_whole

_MARGIN_MM: Final = 30.0


@dataclass(frozen=True)
class View:
    """One slice as a radiologist looks at it: the patient's right on the left, the head or the anterior side up.

    Attributes:
        name: what it shows.
        hu: shape (row, column), HU.
        labels: shape (row, column), 0 background, 1 right lung, 2 left lung.
        spacing_mm: (row, column).
    """

    name: str
    hu: HuArray
    labels: Labels
    spacing_mm: tuple[float, float]


@dataclass(frozen=True)
class Looked:
    """The slice that weighs most with the networks of an arm.

    Attributes:
        arm: its name.
        view: the slice.
        covers: what the heat map covers, in pixels of the view: left, right, top, bottom; it may reach beyond.
    """

    arm: str
    view: View
    covers: tuple[float, float, float, float]


@dataclass(frozen=True)
class Views:
    """A coronal slice and two axial ones: through the middle, and near the base, where SSc-ILD begins.

    `coronal_z_mm` is the LPS z of the coronal's first and last row, at the volume's first row and column. `looked`:
    where the bundle explains itself, a slice for each arm of networks.
    """

    coronal: View
    middle: View
    basal: View
    coronal_z_mm: tuple[float, float]
    looked: tuple[Looked, ...] = ()

    def save(self, path: Path) -> None:
        """Write the views as a compressed .npz file."""
        arrays: dict[str, NDArray[np.generic]] = {"coronal_z_mm": np.array(self.coronal_z_mm)}
        if self.looked:
            arrays["looked_arms"] = np.array([one.arm for one in self.looked])
            arrays["looked_covers"] = np.array([one.covers for one in self.looked])
        for key, view in self._items():
            arrays[f"{key}_hu"] = view.hu
            arrays[f"{key}_labels"] = view.labels
            arrays[f"{key}_spacing_mm"] = np.array(view.spacing_mm)
            arrays[f"{key}_name"] = np.array(view.name)
        write_whole(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays), durable=False)

    @classmethod
    def load(cls, path: Path) -> "Views":
        """Return the views that `save` wrote.

        Raises:
            KeyError, ValueError: the file is not such a file.
        """
        with np.load(path, allow_pickle=False) as file:
            top, bottom = (float(v) for v in file["coronal_z_mm"])
            shown = {key: _view(file, key) for key in ("coronal", "middle", "basal")}
            arms = [str(arm) for arm in file["looked_arms"]] if "looked_arms" in file else []
            looked = []
            for number, arm in enumerate(arms):
                left, right, upper, lower = (float(v) for v in file["looked_covers"][number])
                looked.append(Looked(arm, _view(file, f"looked{number}"), (left, right, upper, lower)))
            return cls(**shown, coronal_z_mm=(top, bottom), looked=tuple(looked))

    def _items(self) -> tuple[tuple[str, View], ...]:
        looked = ((f"looked{number}", one.view) for number, one in enumerate(self.looked))
        return ("coronal", self.coronal), ("middle", self.middle), ("basal", self.basal), *looked


def choose(volume: Volume, labels: Labels, explanation: RiskExplanation | None = None) -> Views:
    """Return the coronal slice with most lung, the axial slice half way up the lungs, and one an eighth of the way up.

    Args:
        volume: the scan, HU.
        labels: shape (z, y, x) of the volume; without any lung the middle slices are taken.
        explanation: of the scan's risk: the slices where its networks look are taken too.

    Raises:
        ValueError: the shapes of volume and labels differ.
    """
    if labels.shape != volume.hu.shape:
        raise ValueError(f"labels have shape {labels.shape} and the volume {volume.hu.shape}: they must be the same")
    dz, dy, dx = volume.spacing_mm
    zs, ys, xs = (_extent(labels, axis, spacing) for axis, spacing in enumerate(volume.spacing_mm))
    y = int(np.count_nonzero(labels, axis=(0, 2)).argmax()) if labels.any() else labels.shape[1] // 2
    occupied = np.flatnonzero(labels.any(axis=(1, 2)))
    lowest, highest = (int(occupied[0]), int(occupied[-1])) if occupied.size else (0, labels.shape[0] - 1)

    def axial(name: str, height: float) -> View:
        z = round(lowest + height * (highest - lowest))
        return View(name, volume.hu[z, ys, xs].copy(), labels[z, ys, xs].copy(), (dy, dx))

    # z grows towards the head, and the picture's rows grow downwards.
    coronal = View("Coronal", volume.hu[zs, y, xs][::-1].copy(), labels[zs, y, xs][::-1].copy(), (dz, dx))
    feet, _, _ = zs.indices(labels.shape[0])
    head = feet + coronal.hu.shape[0] - 1
    top_mm, bottom_mm = (volume.origin_mm[2] + z * dz * volume.axes[0][2] for z in (head, feet))
    middle, basal = axial("Axial, middle of the lungs", 0.5), axial("Axial, base of the lungs", 0.125)
    arms = () if explanation is None else explanation.arms
    looked = [_looked(arm.arm, arm.heat, volume, labels, (ys, xs)) for arm in arms if arm.heat is not None]
    return Views(coronal, middle, basal, (top_mm, bottom_mm), tuple(looked))


def _looked(arm: str, heat: HeatMap, volume: Volume, labels: Labels, crop: tuple[slice, slice]) -> Looked:
    """Return the slice at a heat map's height, cropped in y and x, and where the map lies on it."""
    dz, *in_plane = volume.spacing_mm
    z = round((heat.z_mm - volume.origin_mm[2]) / (dz * volume.axes[0][2]))
    z = min(max(z, 0), labels.shape[0] - 1)
    view = View("", volume.hu[z][crop].copy(), labels[z][crop].copy(), (in_plane[0], in_plane[1]))
    ends = []
    for axis, spacing, size, part in zip((1, 2), in_plane, heat.size_mm, crop, strict=True):
        occupied = np.flatnonzero(labels.any(axis=(0, 3 - axis)))
        middle = (int(occupied[0]) + int(occupied[-1])) / 2 - part.indices(labels.shape[axis])[0]
        ends.append((middle - size / spacing / 2, middle + size / spacing / 2))
    (top, bottom), (left, right) = ends
    return Looked(arm, view, (left, right, top, bottom))


def _extent(labels: Labels, axis: int, spacing_mm: float) -> slice:
    """Where the lungs lie along an axis, with a margin: the rest of the picture would only make the lungs smaller."""
    others = tuple(other for other in range(3) if other != axis)
    occupied = np.flatnonzero(labels.any(axis=others))
    if not occupied.size:
        return slice(None)
    margin = round(_MARGIN_MM / spacing_mm)
    return slice(max(int(occupied[0]) - margin, 0), int(occupied[-1]) + margin + 1)


def _view(file: "np.lib.npyio.NpzFile", key: str) -> View:
    row, column = (float(v) for v in file[f"{key}_spacing_mm"])
    return View(str(file[f"{key}_name"]), file[f"{key}_hu"], file[f"{key}_labels"], (row, column))
