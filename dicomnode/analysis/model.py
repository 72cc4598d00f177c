"""The network: a slice encoder, attention over the slices, discrete-time hazards of death.

Hazards follow the logistic-hazard form (Brown 1975; Gensheimer and Narasimhan 2019, PeerJ 7:e6257): interval k has the
conditional probability sigmoid(logit_k) of death given survival to its start, so survival falls and risk rises with
time by construction, whatever the weights.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from dicomnode.analysis.backbones import encoder

# Mean and SD of ImageNet's grey values: pre-trained encoders expect inputs about like these.
_MEAN, _SD = 0.449, 0.226


class AttentionHead(nn.Module):
    """Attention pooling over slices (Ilse et al. 2018, arXiv 1802.04712), then one logit for each interval."""

    def __init__(self, width: int, intervals: int, hidden: int = 32) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        self.hazard = nn.Linear(width, intervals)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (scans, slices, width) to hazard logits (scans, intervals) and attention (scans, slices)."""
        attention = torch.softmax(self.score(features).squeeze(-1), dim=1)
        pooled = (attention.unsqueeze(-1) * features).sum(dim=1)
        return self.hazard(pooled), attention


class HazardNet(nn.Module):
    """Encoder and one head."""

    def __init__(self, backbone: str, intervals: int) -> None:
        super().__init__()
        self.encoder, self.width = encoder(backbone)
        self.head = AttentionHead(self.width, intervals)

    def forward(self, slices: Tensor) -> tuple[Tensor, Tensor]:
        """Prepared slices (scans, slices, height, width), 0 to 1, to hazard logits and attention."""
        return self.head(encode(self.encoder, slices))


def encode(net: nn.Module, slices: Tensor) -> Tensor:
    """Features (scans, slices, width) of prepared slices (scans, slices, height, width)."""
    scans, count, height, width = slices.shape
    images = ((slices - _MEAN) / _SD).reshape(scans * count, 1, height, width).expand(-1, 3, -1, -1)
    return net(images).reshape(scans, count, -1)


def risk(logits: Tensor) -> Tensor:
    """Probability of death by the end of each interval (the last axis), from hazard logits. Never falls along it."""
    return 1 - torch.exp(torch.cumsum(nn.functional.logsigmoid(-logits), dim=-1))


def horizon_indices(edges_years: Sequence[float], horizons_years: Sequence[int]) -> list[int]:
    """The interval that ends at each horizon; `edges_years` starts with 0.

    Raises:
        ValueError: edges do not rise from 0, or a horizon is no edge.
    """
    edges = list(edges_years)
    if len(edges) < 2 or edges[0] != 0 or any(a >= b for a, b in pairwise(edges)):
        raise ValueError(f"interval edges {edges} must rise from 0")
    missing = [h for h in horizons_years if h not in edges[1:]]
    if missing:
        raise ValueError(f"horizons {missing} are no interval edges: {edges}")
    return [edges.index(h) - 1 for h in horizons_years]
