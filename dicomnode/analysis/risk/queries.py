"""What a bundle's models are asked and what they answer, whatever they look at."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dicomnode.analysis.arrays import Labels, Volume
from dicomnode.analysis.findings import Flag


@dataclass(frozen=True)
class PriorScan:
    """The patient's latest prior scan, as its findings remember it.

    Attributes:
        years: between the two scans.
        bundle_sha256: of the bundle whose networks made the codes; another bundle's mean nothing here.
        codes: `findings.Risk.scan_codes`.
    """

    years: float
    bundle_sha256: str
    codes: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Question:
    """All that a model may take from a scan.

    Attributes:
        volume, labels: the image, and what of it is lung.
        features: measured numbers by the names of `tabular.features_of`.
        scanner: `tabular.BATCH_PARTS` by name.
        prior: None where no prior scan is known.
    """

    volume: Volume
    labels: Labels
    features: Mapping[str, float] = field(default_factory=dict)
    scanner: Mapping[str, str] = field(default_factory=dict)
    prior: PriorScan | None = None


@dataclass(frozen=True)
class Answer:
    """What the models of one bundle say of a scan.

    Attributes:
        risks: cumulative risk of each member at the end of each interval, (members, intervals).
        attention: mean over the networks, by their arms' weights: (slices,), sums to 1; None where none has a say.
        codes: by network, what it remembers the scan by.
        flags: doubts.
        by_arm: cumulative risk by the fold models of each arm, not yet joined: (models, intervals).
    """

    risks: NDArray[np.float64]
    attention: NDArray[np.float64] | None = None
    codes: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    flags: tuple[Flag, ...] = ()
    by_arm: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
