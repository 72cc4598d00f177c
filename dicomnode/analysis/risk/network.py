"""The network: a slice encoder, attention over the slices, discrete-time hazards of death.

Hazards follow the logistic-hazard form (Brown 1975; Gensheimer and Narasimhan 2019, PeerJ 7:e6257): interval k has the
conditional probability sigmoid(logit_k) of death given survival to its start, so survival falls and risk rises with
time by construction, whatever the weights.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn

from dicomnode.analysis.risk.backbones import encoder

# Mean and SD of ImageNet's grey values: pre-trained encoders expect inputs about like these.
_MEAN, _SD = 0.449, 0.226
_Value = TypeVar("_Value", float, Tensor)
#: How many numbers stand for a scan once it is a prior one.
CODE_WIDTH = 16
#: A change over less time says more of the scanner than of the patient (as `change.SHORTEST_FOR_A_RATE_DAYS`).
SHORTEST_YEARS = 0.25


class AttentionHead(nn.Module):
    """Attention pooling over slices (Ilse et al. 2018, arXiv 1802.04712), then one logit for each interval."""

    def __init__(self, width: int, intervals: int, hidden: int = 32) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        self.hazard = nn.Linear(width, intervals)

    def pool(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (scans, slices, width) to their weighted mean (scans, width) and the attention (scans, slices)."""
        attention = torch.softmax(self.score(features).squeeze(-1), dim=1)
        return (attention.unsqueeze(-1) * features).sum(dim=1), attention

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (scans, slices, width) to hazard logits (scans, intervals) and attention (scans, slices)."""
        pooled, attention = self.pool(features)
        return self.hazard(pooled), attention


class ChangeHead(nn.Module):
    """The second input: how a scan differs from the patient's latest prior one, and how long ago that was.

    A scan is remembered by `CODE_WIDTH` numbers, so that a node can keep them until the patient's next scan.
    """

    def __init__(self, width: int, intervals: int) -> None:
        super().__init__()
        self.code = nn.Linear(width, CODE_WIDTH)
        self.hazard = nn.Linear(2 * CODE_WIDTH, intervals)
        nn.init.zeros_(self.hazard.weight)  # training begins as if there were no prior scan
        nn.init.zeros_(self.hazard.bias)

    def forward(self, codes: Tensor, prior: Tensor, years: Tensor) -> Tensor:
        """Return what the change adds to the hazard logits (scans, intervals); 0 for a scan without a prior.

        Args:
            codes: of the scans, (scans, CODE_WIDTH).
            prior: codes of the prior scans, same shape; any finite value where there is none.
            years: since the prior scan, (scans,); NaN where there is none.
        """
        known = torch.isfinite(years).unsqueeze(-1)
        apart = torch.where(known, years.unsqueeze(-1), 1.0).clamp(min=SHORTEST_YEARS).to(codes.dtype)
        change = codes - prior
        return torch.where(known, self.hazard(torch.cat([change, change / apart], dim=-1)), 0.0)


class HazardNet(nn.Module):
    """Encoder, head and, with `prior`, the second input for the latest prior scan."""

    def __init__(self, backbone: str, intervals: int, *, prior: bool = False) -> None:
        super().__init__()
        self.encoder, self.width = encoder(backbone)
        self.head = AttentionHead(self.width, intervals)
        self.change = ChangeHead(self.width, intervals) if prior else None

    def forward(
        self, slices: Tensor, prior: Tensor | None = None, years: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Hazard logits (scans, intervals) and attention (scans, slices).

        Args:
            slices: prepared, (scans, slices, height, width), 0 to 1.
            prior: prepared slices of the prior scans alone, in the order of the scans that have one.
            years: since the prior scan, (scans,); NaN where there is none. None: no scan has one.
        """
        count = len(slices)
        pooled, attention = self.look(slices if prior is None else torch.cat([slices, prior]))
        before = None
        if self.change is not None and years is not None:
            codes = self.change.code(pooled)
            before = torch.zeros_like(codes[:count])
            before[torch.isfinite(years)] = codes[count:]
        return self.hazards(pooled[:count], before, years), attention[:count]

    def look(self, slices: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled features (scans, width) and attention (scans, slices) of prepared slices."""
        pooled, attention = self.head.pool(encode(self.encoder, slices))
        return pooled, attention

    def hazards(self, pooled: Tensor, before: Tensor | None = None, years: Tensor | None = None) -> Tensor:
        """Hazard logits (scans, intervals) of pooled features; codes and years of prior scans as in `ChangeHead`."""
        logits: Tensor = self.head.hazard(pooled)
        if self.change is None or before is None or years is None:
            return logits
        return logits + self.change(self.change.code(pooled), before, years)


def normalised(value: _Value) -> _Value:
    """Return what an encoder is given for prepared values (0 to 1), of any shape."""
    return (value - _MEAN) / _SD


def encode(net: nn.Module, slices: Tensor) -> Tensor:
    """Features (scans, slices, width) of prepared slices (scans, slices, height, width)."""
    scans, count, height, width = slices.shape
    images = normalised(slices).reshape(scans * count, 1, height, width).expand(-1, 3, -1, -1)
    return net(images).reshape(scans, count, -1)


def risk(logits: Tensor) -> Tensor:
    """Return the probability of death by the end of each interval from hazard logits, both (..., intervals)."""
    return 1 - torch.exp(torch.cumsum(nn.functional.logsigmoid(-logits), dim=-1))


def horizon_indices(edges_years: Sequence[float], horizons_years: Sequence[int]) -> list[int]:
    """Return the interval that ends at each horizon; `edges_years` starts with 0.

    Raises:
        ValueError: edges do not rise from 0, or a horizon is no edge.
    """
    edges = list(edges_years)
    if len(edges) < 2 or edges[0] != 0 or any(a >= b for a, b in pairwise(edges)):
        raise ValueError(f"interval edges {edges} must increase from 0")
    missing = [h for h in horizons_years if h not in edges[1:]]
    if missing:
        raise ValueError(f"horizons {missing} are not interval edges: {edges}")
    return [edges.index(h) - 1 for h in horizons_years]
