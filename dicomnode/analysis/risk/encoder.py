"""A frozen 3-D encoder that somebody brings as TorchScript: its embedding of a scan's lungs, here and in training.

The file is code: who writes it decides what runs. It is loaded from bytes whose SHA-256 was compared with the one in
the bundle (or in a run's settings), and from nowhere else; see docs/security.md.

The input is one float32 tensor (1, 1, a, b, c), the axes in the order of `EncoderSpec.axes`; the output a tensor
(1, width), or (1, width, …), of which the mean over the further axes is taken. Weights are never changed.
"""

import hashlib
import io
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray

from dicomnode.analysis.arrays import Labels, Volume
from dicomnode.analysis.risk.preprocess import lung_box, triangle_weights
from dicomnode.errors import BundleError

#: The recipe of `prepare_input`; a file made for another version is refused.
ENCODER_SPEC_VERSION = 1
#: Features that an embedding becomes: encoder.0, encoder.1, …
PREFIX = "encoder."
WIDEST = 4096
#: Folder beside the bundles for encoders whose licence does not let them lie in a bundle.
FOLDER = "encoders"
_MOST_VOXELS = 512**3


@dataclass(frozen=True)
class EncoderSpec:
    """How an encoder's input is made; see `prepare_input`.

    Attributes:
        spacing_mm: of the voxels, (z, y, x).
        size: how many, (z, y, x), centred on the lungs' bounding box; what lies beyond is cut off.
        window_hu: the HU that become the ends of `values`; what lies beyond is clipped.
        values: what they become.
        outside_hu: what stands outside the lungs: an encoder sees the lungs alone, as a registry keeps them.
        axes: order of the axes as the encoder takes them, of z (feet to head), y (front to back), x (the patient's
            right to left).
        flipped: axes that run the other way there, such as "z" for head to feet.
        version: of this recipe.
    """

    spacing_mm: tuple[float, float, float]
    size: tuple[int, int, int]
    window_hu: tuple[float, float] = (-1024.0, 200.0)
    values: tuple[float, float] = (0.0, 1.0)
    outside_hu: float = -1024.0
    axes: str = "zyx"
    flipped: str = ""
    version: int = ENCODER_SPEC_VERSION

    def __post_init__(self) -> None:
        low, high = self.window_hu
        three = len(self.spacing_mm) == 3 and len(self.size) == 3
        wrong = {
            "version": (self.version != ENCODER_SPEC_VERSION, f"this version supports {ENCODER_SPEC_VERSION}"),
            "spacing_mm": (not three or not all(0.2 <= v <= 20 for v in self.spacing_mm), "give z, y, x, 0.2 to 20 mm"),
            "size": (
                not three or min(self.size) < 8 or int(np.prod(self.size)) > _MOST_VOXELS,
                f"give z, y, x, each at least 8, at most {_MOST_VOXELS} voxels in all",
            ),
            "window_hu": (not low < high, "give (low, high) with low below high"),
            "values": (not self.values[0] < self.values[1], "give (low, high) with low below high"),
            "outside_hu": (not low <= self.outside_hu <= high, "give a value within window_hu"),
            "axes": (sorted(self.axes) != ["x", "y", "z"], "give z, y and x in the encoder's order"),
            "flipped": (not set(self.flipped) <= set("xyz"), "give some of z, y, x"),
        }
        for name, (bad, cure) in wrong.items():
            if bad:
                raise ValueError(f"encoder spec: {name} is {getattr(self, name)}: {cure}")

    def to_dict(self) -> dict[str, object]:
        """Return the spec as plain values, for TOML."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "EncoderSpec":
        """Return the spec that `to_dict` wrote; what has a default may be missing.

        Raises:
            ValueError: a key is unknown or missing, or a value does not fit.
        """
        if odd := sorted(set(values) - {f.name for f in fields(cls)}):
            raise ValueError(f"encoder spec: unknown key: {', '.join(odd)}")
        try:
            plain = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            return cls(**plain)  # type: ignore[arg-type]
        except TypeError as error:
            raise ValueError(f"encoder spec: a key is missing or has the wrong type: {error}") from None


def prepare_input(volume: Volume, labels: Labels, spec: EncoderSpec) -> NDArray[np.float32]:
    """Return an encoder's input: the lungs alone, resampled as `preprocess.prepare` does it, in the encoder's axes.

    Args:
        volume: axes as `arrays` says.
        labels: same shape, (z, y, x); above 0 is lung.
        spec: the recipe.

    Returns:
        The three axes in the order of the spec, its numbers within `spec.values`.

    Raises:
        RefusedError: no-lungs, when no voxel is labelled.
        ValueError: labels and volume differ in shape.
    """
    box = lung_box(volume, labels)
    low, high = spec.window_hu
    hu = np.where(labels[box] > 0, np.clip(volume.hu[box].astype(np.float32), low, high), np.float32(spec.outside_hu))
    image = hu - np.float32(spec.outside_hu)  # weights outside the box are lost, which is right relative to this
    for axis, lungs in enumerate(box):
        count, source_mm, target_mm = lungs.stop - lungs.start, volume.spacing_mm[axis], spec.spacing_mm[axis]
        middle = (np.arange(spec.size[axis]) - (spec.size[axis] - 1) / 2) * target_mm + count * source_mm / 2
        weights = triangle_weights(middle, count, source_mm, target_mm)
        image = np.moveaxis(np.tensordot(weights, image, axes=(1, axis)), 0, axis)
    share = np.clip((image + spec.outside_hu - low) / (high - low), 0, 1)
    first, last = spec.values
    turned = np.flip(first + share * (last - first), tuple("zyx".index(axis) for axis in spec.flipped))
    return np.ascontiguousarray(turned.transpose(["zyx".index(axis) for axis in spec.axes]), np.float32)


@dataclass(frozen=True)
class Encoder:
    """A loaded encoder.

    Attributes:
        module: in evaluation mode, on the CPU.
        spec: of its input.
        width: of its embedding; None: not known yet, as in training.
        name: of its file, for messages.
    """

    module: torch.jit.ScriptModule
    spec: EncoderSpec
    width: int | None
    name: str

    @torch.inference_mode()
    def embed(self, volume: Volume, labels: Labels) -> NDArray[np.float32]:
        """Return a scan's embedding: the encoder's numbers, (width,). Labels are (z, y, x) as the volume.

        Raises:
            RefusedError: no-lungs.
            BundleError: the encoder fails, or gives something else.
        """
        given = torch.from_numpy(prepare_input(volume, labels, self.spec))[None, None]
        try:
            found = self.module(given)
        except RuntimeError as error:
            last = str(error).strip().splitlines()[-1][:200]
            raise BundleError(f"the encoder {self.name} fails on {tuple(given.shape)}: {last}") from None
        if not isinstance(found, torch.Tensor) or found.ndim < 2 or found.shape[0] != 1:
            what = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise BundleError(f"the encoder {self.name} gives {what}, not a tensor (1, width) or (1, width, …)")
        flat = found.float().reshape(1, found.shape[1], -1).mean(dim=2)[0]
        fits = len(flat) <= WIDEST if self.width is None else len(flat) == self.width
        if not fits or not bool(torch.isfinite(flat).all()):
            wanted = f"at most {WIDEST}" if self.width is None else f"{self.width}"
            raise BundleError(f"the encoder {self.name} gives {len(flat)} numbers, not {wanted} finite ones")
        return np.asarray(flat.numpy(), np.float32)

    def features(self, volume: Volume, labels: Labels) -> dict[str, float]:
        """Return a scan's embedding as features by name; labels (z, y, x); errors as `embed`."""
        found = self.embed(volume, labels)
        return dict(zip(names(len(found)), map(float, found), strict=True))


def names(width: int) -> tuple[str, ...]:
    """Return the names of an embedding's features."""
    return tuple(f"{PREFIX}{number}" for number in range(width))


def load_encoder(content: bytes, sha256: str, spec: EncoderSpec, width: int | None, name: str) -> Encoder:
    """Load TorchScript from bytes, if these are the ones that are expected; nothing is read beside them.

    Raises:
        BundleError: they have another SHA-256, and were not loaded; or they are no TorchScript.
    """
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise BundleError(
            f"the encoder {name} has sha256 {found[:12]}…, expected {sha256[:12]}…: it was not loaded. "
            "Copy it again from its source"
        )
    try:
        with warnings.catch_warnings():
            # torch 2.13 would rather have torch.export, whose files hang on one version of torch.
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            module = torch.jit.load(io.BytesIO(content), map_location="cpu")
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise BundleError(
            f"{name} is not TorchScript ({reason}): save it with torch.jit.save, of torch.jit.trace or .script"
        ) from None
    return Encoder(module.eval(), spec, width, name)
