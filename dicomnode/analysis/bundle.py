"""The model bundle: a folder with weights, `model.toml`, a golden case and a card, all checked before it serves.

```
model.toml          what the model is, how its input is made, digests of every other file (see `Manifest`)
*.safetensors       one file an arm (encoder.*, heads.<i>.*; half precision), and the golden case's scan
golden.json         spacing of the golden scan, expected probabilities, tolerance
MODEL_CARD.md       for people
```
"""

import hashlib
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dicomnode.analysis.arrays import Labels, Volume
from dicomnode.analysis.findings import Horizon, IntendedUse, Risk
from dicomnode.analysis.manifest import Calibration, Golden, Manifest
from dicomnode.analysis.model import AttentionHead, HazardNet, encode, horizon_indices, risk
from dicomnode.analysis.preprocess import Spec, prepare
from dicomnode.errors import BundleError

__all__ = ["Arm", "Bundle", "Calibration", "load", "member_logits", "read"]


@dataclass(frozen=True)
class Arm:
    """One encoder with its bootstrap heads, in evaluation mode."""

    encoder: nn.Module
    heads: tuple[AttentionHead, ...]


@dataclass(frozen=True)
class Bundle:
    """A model ready to predict. `sha256` is over model.toml, which holds the digests of all other files."""

    folder: Path
    manifest: Manifest
    spec: Spec
    arms: tuple[Arm, ...]
    sha256: str

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """The model's version."""
        return self.manifest.version

    @property
    def intended_use(self) -> IntendedUse:
        """What the model may be used for."""
        return self.manifest.intended_use

    @property
    def interval(self) -> str:
        """What the bounds of a prediction are, in words."""
        heads = sum(len(arm.heads) for arm in self.arms)
        return (
            f"95 % percentile interval (2.5th to 97.5th percentile) over {heads} model heads, each trained on a "
            "bootstrap sample of the training patients over a shared image encoder; the probability is the heads' "
            "mean. It shows the heads' uncertainty only, not that of the encoder, the image or another population."
        )

    def predict(self, volume: Volume, labels: Labels) -> Risk:
        """Probability of death within each horizon, with bounds; none falls with time; lower <= probability <= upper.

        Raises:
            RefusedError: no-lungs.
        """
        slices = torch.from_numpy(prepare(volume, labels, self.spec))[None]
        with torch.inference_mode():
            logits = torch.cat([member_logits(arm.heads, encode(arm.encoder, slices)) for arm in self.arms])[:, 0]
            members = risk(self.manifest.calibration.apply(logits)).double().numpy()
        members = members[:, horizon_indices(self.manifest.edges_years, self.manifest.horizons_years)]
        mean = members.mean(axis=0)
        # Each member rises with time, so means and percentiles do. With many, very unequal heads a mean can leave the
        # percentiles; the bounds then give way, and stay monotone as the minimum or maximum of two monotone rows.
        lower = np.minimum(np.percentile(members, 2.5, axis=0), mean)
        upper = np.maximum(np.percentile(members, 97.5, axis=0), mean)
        return Risk(
            bundle=self.name,
            bundle_sha256=self.sha256,
            intended_use=self.intended_use,
            horizons=tuple(
                Horizon(years, float(p), float(low), float(high))
                for years, p, low, high in zip(self.manifest.horizons_years, mean, lower, upper, strict=True)
            ),
            version=self.version,
            interval=self.interval,
        )


def member_logits(heads: Sequence[AttentionHead], features: Tensor) -> Tensor:
    """Hazard logits of each head: (heads, scans, intervals), from features (scans, slices, width)."""
    with torch.inference_mode():
        return torch.stack([head(features)[0] for head in heads])


def load(folder: Path, *, allow_demo: bool) -> Bundle:
    """Read a bundle, check every digest, and let it reproduce its golden case.

    Raises:
        BundleError: a file is missing or changed, model.toml does not fit, the golden case comes out differently, or
        the
            bundle is a demonstration and `allow_demo` is False.
    """
    bundle = read(folder)
    if bundle.intended_use == "synthetic-demo" and not allow_demo:
        raise BundleError(
            f"the bundle {bundle.name!r} in {folder} was trained on synthetic phantoms and is for demonstration only: "
            "its numbers mean nothing for a patient. Install a research bundle, or, to show how the node works, set "
            "analysis.allow_demo_bundles = true in the configuration"
        )
    _check_golden(bundle)
    return bundle


def read(folder: Path) -> Bundle:
    """Read a bundle and check its digests, without the golden case: for the maker of bundles, who needs it for that.

    Raises:
        BundleError: as `load`, but for the golden case and the intended use.
    """
    text = _bytes(folder / "model.toml")
    try:
        manifest = Manifest.model_validate(tomllib.loads(text.decode("utf-8")))
        spec = Spec.from_dict(manifest.preprocessing)
        horizon_indices(manifest.edges_years, manifest.horizons_years)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{folder / 'model.toml'}: {where}: {first['msg']}") from None
    except ValueError as error:  # not TOML, not UTF-8, spec or edges
        raise BundleError(f"{folder / 'model.toml'}: {error}") from None
    for name, expected in manifest.files.items():
        found = hashlib.sha256(_bytes(folder / name)).hexdigest()
        if found != expected:
            raise BundleError(
                f"{folder / name} is not the file that model.toml names: sha256 {found[:12]}…, expected "
                f"{expected[:12]}…. Copy the bundle again from where it was made"
            )
    arms = tuple(
        _arm(folder / arm.weights, arm.backbone, arm.heads, len(manifest.edges_years) - 1) for arm in manifest.arms
    )
    return Bundle(folder, manifest, spec, arms, hashlib.sha256(text).hexdigest())


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise BundleError(f"{path} is missing: the bundle is incomplete or the folder is wrong") from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None


def _arm(path: Path, backbone: str, heads: int, intervals: int) -> Arm:
    """One arm in single precision."""
    # A random start costs a tenth of a second. Without one, on torch's meta device, its rules for shapes come in, and
    # with them torch's compiler, which takes longer to import than all the rest.
    with torch.random.fork_rng(devices=()):
        net = HazardNet(backbone, intervals)
        blank = [AttentionHead(net.width, intervals) for _ in range(heads)]
    whole = nn.ModuleDict({"encoder": net.encoder, "heads": nn.ModuleList(blank)})
    try:
        stored = {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
        whole.load_state_dict(stored, assign=True)
    except (SafetensorError, RuntimeError) as error:
        raise BundleError(
            f"{path} does not hold a {backbone} with {heads} heads of {intervals} intervals: {error}"
        ) from None
    whole.eval()
    return Arm(net.encoder, tuple(blank))


def _check_golden(bundle: Bundle) -> None:
    golden = read_golden(bundle.folder)
    if golden.scan not in bundle.manifest.files:
        raise BundleError(f"{bundle.folder / 'model.toml'}: files lacks the sha256 of {golden.scan}")
    found = bundle.predict(*golden_scan(bundle.folder, golden)).horizons
    if [h.years for h in found] != [h.years for h in golden.expected]:
        raise BundleError(f"{bundle.folder / 'golden.json'}: expected is not for the years {[h.years for h in found]}")
    for got, wanted in zip(found, golden.expected, strict=True):
        pairs = ((got.probability, wanted.probability), (got.lower, wanted.lower), (got.upper, wanted.upper))
        if not all(abs(a - b) <= golden.tolerance for a, b in pairs):  # NaN fails too
            raise BundleError(
                f"the bundle {bundle.name!r} in {bundle.folder} does not reproduce its golden case at {got.years} "
                f"years: found {got.probability:.4f} ({got.lower:.4f} to {got.upper:.4f}), expected "
                f"{wanted.probability:.4f} ({wanted.lower:.4f} to {wanted.upper:.4f}) within {golden.tolerance}. Its "
                "results would not be those that were evaluated: compare the software versions in model.toml with "
                "the installed ones"
            )


def read_golden(folder: Path) -> Golden:
    """The golden case's description.

    Raises:
        BundleError: golden.json is missing or does not fit.
    """
    try:
        return Golden.model_validate(json.loads(_bytes(folder / "golden.json")))
    except ValidationError as error:
        first = error.errors()[0]
        raise BundleError(f"{folder / 'golden.json'}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except ValueError as error:
        raise BundleError(f"{folder / 'golden.json'}: {error}") from None


def golden_scan(folder: Path, golden: Golden) -> tuple[Volume, Labels]:
    """The golden case's scan, stored as arrays so that it does not hang on a version of the phantom."""
    try:
        arrays = load_file(folder / golden.scan)
        hu, labels = arrays["hu"].numpy(), arrays["labels"].numpy()
    except (OSError, SafetensorError, KeyError) as error:
        raise BundleError(f"{folder / golden.scan} holds no golden scan (arrays hu and labels): {error}") from None
    axes = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    return Volume(hu, golden.spacing_mm, (0.0, 0.0, 0.0), axes, frames=()), labels
