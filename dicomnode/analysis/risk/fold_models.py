"""The models of a bundle: arms of networks and of tabular models, one a fold, joined by an ensemble.

Member i is the ensemble over the i-th model of each arm; an arm with fewer models than another begins anew. So each
member is what the evaluation has judged: one fold's models, combined and calibrated.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dicomnode.analysis.findings import Flag
from dicomnode.analysis.risk import tabular
from dicomnode.analysis.risk.covariates import PREFIX, Covariate, check
from dicomnode.analysis.risk.encoder import PREFIX as ENCODER
from dicomnode.analysis.risk.encoder import Encoder
from dicomnode.analysis.risk.ensemble import Ensemble
from dicomnode.analysis.risk.manifest import Manifest, NetworkArm
from dicomnode.analysis.risk.network import CODE_WIDTH, HazardNet, risk
from dicomnode.analysis.risk.preprocess import Spec, prepare
from dicomnode.analysis.risk.queries import Answer, PriorScan, Question
from dicomnode.analysis.risk.stored_weights import fill, to_be_filled
from dicomnode.analysis.risk.tabular import TabularModel, batch_name
from dicomnode.errors import BundleError, RefusedError


@dataclass(frozen=True)
class Networks:
    """The fold networks of one arm, by the names of their files."""

    name: str
    nets: dict[str, HazardNet]


@dataclass(frozen=True)
class Tables:
    """The fold models of a tabular arm."""

    name: str
    models: tuple[TabularModel, ...]


@dataclass(frozen=True)
class FoldModels:
    """The models of a bundle, loaded. `sha256` is the bundle's: codes of a prior scan must be of the same.

    `covariates` are declared by the bundle; older ones declare none, and what is not known is the training's median.
    """

    sha256: str
    spec: Spec | None
    networks: tuple[Networks, ...]
    tables: tuple[Tables, ...]
    ensemble: Ensemble
    covariates: tuple[Covariate, ...] = ()
    encoder: Encoder | None = None

    @property
    def imaged(self) -> bool:
        """Whether a scan's voxels are looked at, not its measured numbers alone."""
        return bool(self.networks) or self.encoder is not None

    @property
    def members(self) -> int:
        """How many members the ensemble has."""
        return max([*(len(arm.nets) for arm in self.networks), *(len(arm.models) for arm in self.tables)])

    @property
    def interval(self) -> str:
        """What the bounds of a prediction are, in words."""
        counts = [f"{arm.name}: {len(arm.nets)}" for arm in self.networks]
        counts += [f"{arm.name}: {len(arm.models)}" for arm in self.tables]
        if self.members == 1:
            return f"No interval: the bundle has one model of each kind ({', '.join(counts)})."
        # What the bounds are not comes first: the summary has room for the first clause alone.
        return (
            f"Spread of {self.members} models, not the certainty of the risk: their 2.5th to 97.5th percentiles (about "
            "their range, as they are few); the probability is their mean. Each model is an ensemble of fold models "
            f"({', '.join(counts)}) trained without one fold of the patients. Uncertainty from the image, or from a "
            "different population, is not included."
        )

    def by_arm(self, scan: Question) -> dict[str, NDArray[np.float64]]:
        """Cumulative risk by the fold models of each arm, not yet joined: (models, intervals), by the arm's name."""
        return self._risks(self.encoded(scan), self._looks(scan))

    def answer(self, scan: Question) -> Answer:
        """Ask every member.

        Raises:
            RefusedError: no-lungs, features-missing, covariate-missing or covariate-out-of-range.
        """
        scan = self.encoded(scan)
        flags = _doubts(self.tables, scan, self.covariates)
        looks = self._looks(scan)
        risks = self._risks(scan, looks)
        members = {name: found[np.arange(self.members) % len(found)] for name, found in risks.items()}
        every = {name: look for found in looks.values() for name, look in found.items()}
        codes = {name: look.code for name, look in every.items() if look.code}
        return Answer(self.ensemble.combine(members), self._attention(looks), codes, flags, risks)

    def encoded(self, scan: Question) -> Question:
        """Return the scan with its embedding among its features: once for all fold models.

        Raises:
            RefusedError: no-lungs.
            BundleError: the encoder fails.
        """
        if self.encoder is None or f"{ENCODER}0" in scan.features:
            return scan
        return replace(scan, features={**scan.features, **self.encoder.features(scan.volume, scan.labels)})

    def _looks(self, scan: Question) -> "dict[str, dict[str, _Look]]":
        """By arm and network."""
        if self.spec is None:
            return {}
        slices = torch.from_numpy(prepare(scan.volume, scan.labels, self.spec))[None]
        prior = self.prior_of(scan)
        return {
            arm.name: {name: _look(name, net, slices, prior) for name, net in arm.nets.items()} for arm in self.networks
        }

    def prior_of(self, scan: Question) -> PriorScan | None:
        """Return the scan's prior where this bundle has seen it: another's codes mean nothing here."""
        return scan.prior if scan.prior and scan.prior.bundle_sha256 == self.sha256 else None

    def _attention(self, looks: "dict[str, dict[str, _Look]]") -> NDArray[np.float64] | None:
        """Each arm's mean over its networks, and of these the mean by the arms' weights: (slices,), sums to 1.

        None where no network has a say in the answer.
        """
        weights = {name: self.ensemble.weights[name] for name in looks}
        total = sum(weights.values())
        if not total > 0:
            return None
        by_arm = {name: np.mean([look.attention for look in found.values()], axis=0) for name, found in looks.items()}
        return np.sum([weights[name] / total * mean for name, mean in by_arm.items()], axis=0)

    def _risks(self, scan: Question, looks: "dict[str, dict[str, _Look]]") -> dict[str, NDArray[np.float64]]:
        of_tables = {arm.name: _table_risks(arm, scan) for arm in self.tables}
        return of_tables | {name: np.stack([x.risks for x in found.values()]) for name, found in looks.items()}


@dataclass(frozen=True)
class _Look:
    """What one network says of one scan: risks (intervals,), attention (slices,), its code (empty without one)."""

    risks: NDArray[np.float64]
    attention: NDArray[np.float64]
    code: tuple[float, ...]


@torch.inference_mode()
def _look(name: str, net: HazardNet, slices: torch.Tensor, prior: PriorScan | None) -> _Look:
    pooled, attention = net.look(slices)
    code: tuple[float, ...] = ()
    if net.change is not None:
        # Six digits are more than single precision holds, and keep the findings short.
        code = tuple(round(float(v), 6) for v in net.change.code(pooled)[0])
    risks = risk(net.hazards(pooled, *remembered(name, net, prior))[0].double()).numpy()
    return _Look(risks, attention[0].double().numpy(), code)


def remembered(
    name: str, net: HazardNet, prior: PriorScan | None
) -> tuple[torch.Tensor, torch.Tensor] | tuple[None, None]:
    """Return code, (1, CODE_WIDTH), and age in years, (1,), of the prior scan, as a network of this name takes them.

    None where it takes or knows none.
    """
    if net.change is None or prior is None or len(prior.codes.get(name, ())) != CODE_WIDTH:
        return None, None
    return torch.tensor([prior.codes[name]]), torch.tensor([prior.years])


def _table_risks(arm: Tables, scan: Question) -> NDArray[np.float64]:
    """(models, intervals)."""
    by = [batch_name(model.harmoniser.combat_by, scan.scanner) for model in arm.models]
    return np.stack([model.predict(scan.features, batch)[0] for model, batch in zip(arm.models, by, strict=True)])


def _doubts(tables: tuple[Tables, ...], scan: Question, declared: tuple[Covariate, ...]) -> tuple[Flag, ...]:
    """Return flags for what the tabular models lack.

    Raises:
        RefusedError: features-missing, where a measured number is not there: an average in its place would be a guess;
            covariate-missing or covariate-out-of-range, by what the bundle declares.
    """
    models = [model for arm in tables for model in arm.models]
    needed = {name for model in models for name in model.harmoniser.features}
    given = {name for name, value in scan.features.items() if np.isfinite(value)}
    # A first scan has no change; training knew such scans too.
    lacking = sorted(name for name in needed - given if not name.startswith("change."))
    measured = [name for name in lacking if not name.startswith(PREFIX)]
    if measured:
        shown = ", ".join(measured[:3]) + (f" and {len(measured) - 3} more" if len(measured) > 3 else "")
        raise RefusedError("features-missing", f"the model needs features that could not be measured: {shown}")
    check(declared, scan.features, needed)
    flags = []
    if lacking:
        text = f"Values not known were replaced by the median of the training population: {', '.join(lacking)}."
        flags.append(Flag("covariates-missing", "warning", text))
    strange = [
        model.harmoniser.combat_by
        for model in models
        if model.harmoniser.combat_by
        and batch_name(model.harmoniser.combat_by, scan.scanner) not in model.harmoniser.batches
    ]
    if strange:
        text = f"The training data include no such scanner ({', '.join(strange[0])}): features were not harmonised."
        flags.append(Flag("scanner-unknown", "warning", text))
    return tuple(flags)


def read(folder: Path, manifest: Manifest, sha256: str, encoder: Encoder | None = None) -> FoldModels:
    """Return the models of a bundle whose digests are checked, its encoder's too.

    Raises:
        ValueError: the preprocessing spec does not fit.
        BundleError: a file does not hold what the manifest says.
    """
    spec = None if manifest.preprocessing is None else Spec.from_dict(manifest.preprocessing)
    networks, tables = [], []
    for arm in manifest.arms:
        if isinstance(arm, NetworkArm):
            nets = {name: _net(folder / name, arm, len(manifest.edges_years) - 1) for name in arm.models}
            networks.append(Networks(arm.name, nets))
        else:
            models = tuple(_table(folder / name, manifest) for name in arm.models)
            tables.append(Tables(arm.name, models))
    return FoldModels(sha256, spec, tuple(networks), tuple(tables), manifest.ensemble, manifest.covariates, encoder)


def _net(path: Path, arm: NetworkArm, intervals: int) -> HazardNet:
    with to_be_filled():
        net = HazardNet(arm.backbone, intervals, prior=arm.prior)
    kind = f"{arm.backbone} with a prior scan" if arm.prior else arm.backbone
    fill(net, path, f"a network of {intervals} intervals on {kind}")
    return net


def _table(path: Path, manifest: Manifest) -> TabularModel:
    model = tabular.read(path)
    if model.edges_years != manifest.edges_years:
        raise BundleError(f"{path} has the intervals {model.edges_years}, but model.toml {manifest.edges_years}")
    if odd := sorted(set(model.harmoniser.features) - set(manifest.features)):
        raise BundleError(f"{path} uses features that model.toml does not list: {', '.join(odd[:3])}")
    return model
