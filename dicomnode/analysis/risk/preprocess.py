"""From a volume and its lung labels to the network's input, by a spec kept in the bundle: node and training alike."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import numpy as np
from numpy.typing import NDArray

from dicomnode.analysis.arrays import Labels, Volume
from dicomnode.errors import RefusedError

#: The recipe in this module. A bundle made for another version is refused: the same numbers would mean another input.
SPEC_VERSION = 1


@dataclass(frozen=True)
class Spec:
    """How the input is made; see `prepare`.

    Attributes:
        spacing_mm: in-plane pixel of the prepared slices.
        canvas: (height, width) of a prepared slice, pixels, at least 32: the networks halve it five times. Lung beyond
            it is cut off.
        slices: how many, evenly spaced over the lungs' height.
        slab_mm: thickness of each prepared slice: thin and thick source slices then look alike.
        window_hu: the HU that become 0 and 1.
        outside_hu: what stands outside the lungs.
        version: `SPEC_VERSION` of the code that this spec was written for.
    """

    spacing_mm: float
    canvas: tuple[int, int]
    slices: int
    slab_mm: float = 5.0
    window_hu: tuple[float, float] = (-1024.0, 200.0)
    outside_hu: float = -1024.0
    version: int = SPEC_VERSION

    def __post_init__(self) -> None:
        low, high = self.window_hu
        wrong = {
            "version": (self.version != SPEC_VERSION, f"this dicomnode supports version {SPEC_VERSION}"),
            "spacing_mm": (not 0.2 <= self.spacing_mm <= 10, "give 0.2 to 10 mm"),
            "canvas": (min(self.canvas) < 32 or max(self.canvas) > 2048, "give 32 to 2048 pixels"),
            "slices": (not 1 <= self.slices <= 512, "give 1 to 512"),
            "slab_mm": (not 0.2 <= self.slab_mm <= 50, "give 0.2 to 50 mm"),
            "window_hu": (not low < high, "give (low, high) with low below high"),
            "outside_hu": (not low <= self.outside_hu <= high, "give a value within window_hu"),
        }
        for name, (bad, cure) in wrong.items():
            if bad:
                raise ValueError(f"preprocessing spec: {name} is {getattr(self, name)}: {cure}")

    def to_dict(self) -> dict[str, float | int | list[int] | list[float]]:
        """Return the spec as plain values, for TOML."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "Spec":
        """Return the spec that `to_dict` wrote.

        Raises:
            ValueError: a key is unknown or missing, or a value does not fit.
        """
        known = {f.name for f in fields(cls)}
        if set(values) != known:
            odd = ", ".join(sorted(set(values) ^ known))
            raise ValueError(f"preprocessing spec: unknown or missing key: {odd}")
        try:
            pairs: dict[str, object] = {k: tuple(values[k]) for k in ("canvas", "window_hu")}  # type: ignore[arg-type]
            return cls(**{**values, **pairs})  # type: ignore[arg-type]
        except TypeError as error:
            raise ValueError(f"preprocessing spec: a value has the wrong type: {error}") from None


def prepare(volume: Volume, labels: Labels, spec: Spec) -> NDArray[np.float32]:
    """Return the network's input: the lungs alone, at the spec's resolution, nearly whatever the source's was.

    HU are clipped to the window and set to `outside_hu` outside the lungs at full resolution; then each axis is
    resampled with a triangle filter as wide as the coarser of the two grids: linear interpolation where the source is
    coarser, area-like averaging (antialiased) where it is finer. Slices lie evenly over the lungs' height, each in the
    middle of its share, first the lowest; in-plane the canvas is centred on the lungs' bounding box.

    Args:
        volume: axes as `arrays` says.
        labels: same shape; above 0 is lung.
        spec: the recipe.

    Returns:
        Shape (slices, height, width), float32, 0 to 1.

    Raises:
        RefusedError: no-lungs, when no voxel is labelled.
        ValueError: labels and volume differ in shape.
    """
    box = lung_box(volume, labels)
    low, high = spec.window_hu
    deep, tall, wide = (lungs.stop - lungs.start for lungs in box)
    dz, dy, dx = volume.spacing_mm
    z = (np.arange(spec.slices) + 0.5) / spec.slices * deep * dz
    through = triangle_weights(z, deep, dz, spec.slab_mm)
    # Source slices between the slabs weigh nothing: of a thin-slice CT that is most of them.
    used = np.flatnonzero(through.any(axis=0))
    hu = np.clip(volume.hu[box][used].astype(np.float32), low, high)
    image = np.where(labels[box][used] > 0, hu, np.float32(spec.outside_hu))
    image = (image - low) / (high - low)
    edge = (spec.outside_hu - low) / (high - low)

    y = tall * dy / 2 + (np.arange(spec.canvas[0]) - (spec.canvas[0] - 1) / 2) * spec.spacing_mm
    x = wide * dx / 2 + (np.arange(spec.canvas[1]) - (spec.canvas[1] - 1) / 2) * spec.spacing_mm
    # Weights outside the bounding box are lost, which is right once the image is relative to what stands there.
    image -= edge
    image = np.tensordot(through[:, used], image, axes=1)
    down, across = triangle_weights(y, tall, dy, spec.spacing_mm), triangle_weights(x, wide, dx, spec.spacing_mm)
    image = np.matmul(np.matmul(down, image), across.T)
    return np.ascontiguousarray(np.clip(image + edge, 0, 1), np.float32)


def slice_positions(volume: Volume, labels: Labels, spec: Spec) -> NDArray[np.float64]:
    """Where the slices of `prepare` lie: LPS z of their centres, mm, at the volume's first row and column; (slices,).

    Raises:
        RefusedError: no-lungs.
    """
    first, last = _extent(labels, 0)
    index = first + (np.arange(spec.slices) + 0.5) / spec.slices * (last - first) - 0.5
    return volume.origin_mm[2] + index * volume.spacing_mm[0] * volume.axes[0][2]


def lung_box(volume: Volume, labels: Labels) -> tuple[slice, slice, slice]:
    """Return the bounding box of the lungs: of each axis, (z, y, x), the indices that hold lung.

    Raises:
        RefusedError: no-lungs, when no voxel is labelled.
        ValueError: labels and volume differ in shape.
    """
    if labels.shape != volume.hu.shape:
        raise ValueError(f"labels {labels.shape} and volume {volume.hu.shape} differ in shape")
    deep, tall, wide = (slice(*_extent(labels, axis)) for axis in range(3))
    return deep, tall, wide


def _extent(labels: Labels, axis: int) -> tuple[int, int]:
    """Return the first and one past the last index along an axis of the labels, (z, y, x), that holds lung.

    Raises:
        RefusedError: no-lungs.
    """
    others = tuple(a for a in range(3) if a != axis)
    used = np.flatnonzero(labels.any(axis=others))
    if used.size == 0:
        raise RefusedError("no-lungs", "no voxel is labelled as lung: there is no input for the model")
    return int(used[0]), int(used[-1]) + 1


def triangle_weights(
    positions: NDArray[np.floating], count: int, source_mm: float, target_mm: float
) -> NDArray[np.float32]:
    """Return triangle-filter weights (positions, count) over `count` samples, the first at half of `source_mm`."""
    width = max(source_mm, target_mm)
    # One sample of the surroundings' value on each side, not kept, so that weights sum to 1 over an endless grid.
    reach = int(np.ceil(width / source_mm)) + 1
    centres = (np.arange(-reach, count + reach) + 0.5) * source_mm
    clamped = np.clip(positions, centres[0], centres[-1])
    weights = np.clip(1 - np.abs(clamped[:, None] - centres) / width, 0, None)
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    return weights[:, reach:-reach].astype(np.float32)
