"""The models of a bundle of format 1: encoders, each with bootstrap heads over it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dicomnode.analysis.answers import Answer, Scan
from dicomnode.analysis.manifest import Calibration, Manifest1
from dicomnode.analysis.model import AttentionHead, HazardNet, encode, risk
from dicomnode.analysis.preprocess import Spec, prepare
from dicomnode.analysis.stored_weights import fill


@dataclass(frozen=True)
class Arm:
    """One encoder with its bootstrap heads, in evaluation mode."""

    encoder: nn.Module
    heads: tuple[AttentionHead, ...]


@dataclass(frozen=True)
class SharedEncoders:
    """Each head is a member; see `answers.Models`."""

    spec: Spec
    calibration: Calibration
    arms: tuple[Arm, ...]

    @property
    def interval(self) -> str:
        """What the bounds of a prediction are, in words."""
        heads = sum(len(arm.heads) for arm in self.arms)
        return (
            f"95 % percentile interval (2.5th to 97.5th percentile) over {heads} model heads, each trained on a "
            "bootstrap sample of the training patients over a shared image encoder; the probability is the heads' "
            "mean. It shows the heads' uncertainty only, not that of the encoder, the image or another population."
        )

    def answer(self, scan: Scan) -> Answer:
        """See `answers.Models`."""
        slices = torch.from_numpy(prepare(scan.volume, scan.labels, self.spec))[None]
        with torch.inference_mode():
            logits = torch.cat([member_logits(arm.heads, encode(arm.encoder, slices)) for arm in self.arms])[:, 0]
            return Answer(risk(self.calibration.apply(logits)).double().numpy())


def member_logits(heads: Sequence[AttentionHead], features: Tensor) -> Tensor:
    """Hazard logits of each head: (heads, scans, intervals), from features (scans, slices, width)."""
    with torch.inference_mode():
        return torch.stack([head(features)[0] for head in heads])


def read(folder: Path, manifest: Manifest1) -> SharedEncoders:
    """The models of a bundle whose digests are checked.

    Raises:
        ValueError: the preprocessing spec does not fit.
        BundleError: a file does not hold what the manifest says.
    """
    intervals = len(manifest.edges_years) - 1
    arms = tuple(_arm(folder / arm.weights, arm.backbone, arm.heads, intervals) for arm in manifest.arms)
    return SharedEncoders(Spec.from_dict(manifest.preprocessing), manifest.calibration, arms)


def _arm(path: Path, backbone: str, heads: int, intervals: int) -> Arm:
    with torch.device("meta"):
        net = HazardNet(backbone, intervals)
        blank = [AttentionHead(net.width, intervals) for _ in range(heads)]
    parts: Mapping[str, nn.Module] = {"encoder": net.encoder, "heads": nn.ModuleList(blank)}
    fill(nn.ModuleDict(parts), path, f"a {backbone} with {heads} heads of {intervals} intervals")
    return Arm(net.encoder, tuple(blank))
