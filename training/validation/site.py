"""A site's registry in the form that finished bundles are asked about it: who is used, and what they lack.

Everything that would make the figures mean something else is refused here: features that the registry lacks or has
measured otherwise, patients that the bundle was trained on, a registry without a death.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dicomnode.analysis.risk.bundle import Bundle
from dicomnode.errors import UsageError
from training.bundle import held_out
from training.data import cohort, follow_up
from training.data.cohort import FlowStep
from training.data.follow_up import Transplant
from training.data.matching import Matching, matching
from training.data.registry_folder import Registry
from training.data.registry_folder import read as read_registry
from training.features import compute
from training.models.arm import Data
from training.progress_type import ProgressCallback
from training.validation import needs


@dataclass(frozen=True)
class SiteTables:
    """What a site gives.

    Attributes:
        registry: folder.
        outcomes, covariates: CSV files; None: no covariates.
        transplant: how a lung transplant counts.
        without_known: whether patients that a bundle was made with are left out; otherwise they are refused.
    """

    registry: Path
    outcomes: Path
    covariates: Path | None = None
    transplant: Transplant = "censor"
    without_known: bool = False


@dataclass(frozen=True)
class Site:
    """A site's scans, with outcomes.

    Attributes:
        frame: the cohort with `time_years` and `event`; index 0, 1, 2, ….
        data: the same scans as models are asked about them, without covariates (`of_bundle` adds them).
        flow: how the cohort came about.
        matched: how the tables match; None where they were read from a folder of before.
        warnings: to be read before any figure.
        unknown: of which bundles nobody can tell whom they were trained on, in words.
        courses: `cohort.courses` of the scans.
    """

    registry: Registry
    frame: pd.DataFrame
    data: Data
    flow: tuple[FlowStep, ...]
    matched: Matching | None
    warnings: tuple[str, ...]
    unknown: tuple[str, ...]
    courses: pd.DataFrame | None = None

    def of_bundle(self, bundle: Bundle) -> Data:
        """Return the scans with covariates encoded as the bundle declares them."""
        declared = [
            one for one in needs.declared_by(bundle, self.frame) if one.name in self.frame or one.name == "sex_male"
        ]
        encoded = compute.covariates(self.frame, declared).reset_index(drop=True)
        return replace(self.data, features=pd.concat([self.data.features, encoded], axis=1))


def read(tables: SiteTables, bundles: Sequence[Bundle], cache: Path, progress: ProgressCallback) -> Site:
    """Read a site's tables, and hold them against what the bundles need.

    Args:
        tables: of the site.
        bundles: to be asked; all of them about the same scans.
        cache: folder for what is measured of old synthetic registries.
        progress: told about each scan that is measured.

    Raises:
        UsageError: the tables do not fit, lack what a bundle takes, or hold patients that it was made with.
    """
    registry = read_registry(tables.registry)
    horizons = needs.horizons_of(bundles)
    free = needs.free_covariates(registry, bundles)
    outcomes = follow_up.read_outcomes(tables.outcomes)
    measured = None if tables.covariates is None else follow_up.read_covariates(tables.covariates, free=free)
    found = matching(registry, outcomes, measured, free)
    made = cohort.build(registry, outcomes, measured, tables.transplant)
    doubts = [text for bundle in bundles for text in needs.check(bundle, registry, made.frame, tables.covariates)]
    frame, flow = made.frame, list(made.flow[:-1])
    frame, unknown = _without_known(frame, flow, bundles, registry, tables)
    frame = _with_volumes(frame, flow, bundles)
    frame = _with_features(frame, flow, bundles, registry)
    flow.append(FlowStep("cohort", frame["patient"].nunique(), len(frame), ""))
    died = frame.loc[frame["event"], "patient"].nunique()
    if not died:
        raise UsageError(
            f"{tables.outcomes}: none of the {frame['patient'].nunique()} patients died: there is nothing to judge; "
            "are the deaths in death_date?"
        )
    settings = needs.feature_settings(bundles, registry)
    features = compute.compute(frame, registry, settings, cache, progress, ())
    known = frame.drop(columns=["time_years", "event"])
    data = Data(registry.folder, known, features.drop(columns="scan"), cohort.outcomes_of(frame, horizons))
    return Site(
        registry,
        frame,
        data,
        tuple(flow),
        found,
        (*found.warnings, *doubts, *unknown),
        tuple(unknown),
        cohort.courses(frame, outcomes),
    )


def kept(site: Site, rows: Sequence[int], refused: Mapping[int, str]) -> Site:
    """Return the site with only the scans that every bundle has answered for.

    Args:
        site: with all scans.
        rows: positions of those that are kept.
        refused: of the others, why a node would give no risk.

    Raises:
        UsageError: no scan is left.
    """
    patients = site.frame["patient"].to_numpy()
    rest = set(patients[list(rows)])
    flow = list(site.flow[:-1]) if refused else []
    for reason in dict.fromkeys(refused.values()):
        without = [row for row, why in refused.items() if why == reason]
        lost = len(set(patients[without]) - rest)
        flow.append(FlowStep("excluded", lost, len(without), reason))
    frame = forgotten(site.frame.iloc[list(rows)].reset_index(drop=True))
    if frame.empty:
        raise UsageError(f"{site.registry.folder}: no scan gets a risk: " + "; ".join(dict.fromkeys(refused.values())))
    flow.append(FlowStep("cohort", frame["patient"].nunique(), len(frame), ""))
    picked = list(rows)
    known = forgotten(site.data.cohort.iloc[picked].reset_index(drop=True))
    data = replace(
        site.data,
        cohort=known,
        features=site.data.features.iloc[picked].reset_index(drop=True),
        outcomes=site.data.outcomes[np.array(picked, np.intp)],
    )
    return replace(site, frame=frame, data=data, flow=tuple(flow))


def _without_known(
    frame: pd.DataFrame, flow: list[FlowStep], bundles: Sequence[Bundle], registry: Registry, tables: SiteTables
) -> tuple[pd.DataFrame, list[str]]:
    """Leave out, or refuse, patients that a bundle was made with; return also of which bundles that is not known."""
    unknown: list[str] = []
    for bundle in bundles:
        who, said = f"{bundle.name} {bundle.version}", held_out.read(bundle.folder)
        site = bundle.manifest.site_calibration
        own = {bundle.manifest.population.registry_sha256} | ({site.registry_sha256} if site else set())
        if said is None:
            if registry.sha256 in own:
                raise UsageError(
                    f"{registry.folder} is the registry that {who} was made with, and the bundle does not say which "
                    "patients it has learnt from: give a registry of other patients"
                )
            unknown.append(f"{who} does not say whom it was trained on: that nobody here is among them is not verified")
            continue
        known = pd.Series([said.knows(str(patient)) for patient in frame["patient"]], frame.index)
        if not known.any():
            continue
        count, of = frame.loc[known, "patient"].nunique(), frame["patient"].nunique()
        if not tables.without_known:
            raise UsageError(
                f"{who} was made with {count} of the {of} patients: their figures would tell what it remembers. Leave "
                "them out with --leave-out-training-patients"
            )
        flow.append(FlowStep("excluded", count, int(known.sum()), f"the patient was used to make {who}"))
        frame = frame[~known].reset_index(drop=True)
        if frame.empty:
            raise UsageError(f"{registry.folder}: no patient is left that {who} was not made with: give another one")
    return frame, unknown


def _with_features(
    frame: pd.DataFrame, flow: list[FlowStep], bundles: Sequence[Bundle], registry: Registry
) -> pd.DataFrame:
    """Leave out scans of which a registry whose volumes are cut has not measured what the bundles take."""
    if registry.imported or not registry.lungs_alone:
        return frame
    features = registry.features.set_axis(registry.scans["scan"].to_list()).reindex(frame["scan"])
    families = ["quantities."]
    families += ["radiomics."] if any(bundle.manifest.radiomics for bundle in bundles) else []
    has = [features[[c for c in features if c.startswith(f)]].notna().any(axis=1).to_numpy() for f in families]
    measured = np.logical_and.reduce(has)
    if not measured.any():
        raise UsageError(f"{registry.folder} has no measurements ({', '.join(families)}*): export it with features")
    return _without(frame, flow, ~measured, "the registry lacks measurements of the scan")


def _with_volumes(frame: pd.DataFrame, flow: list[FlowStep], bundles: Sequence[Bundle]) -> pd.DataFrame:
    """Leave out scans without a volume, where a bundle looks at images."""
    if not any(bundle.models.imaged for bundle in bundles):
        return frame
    return _without(frame, flow, (frame["volume"] == "").to_numpy(), "the registry keeps no volume of the scan")


def _without(frame: pd.DataFrame, flow: list[FlowStep], which: NDArray[np.bool_], reason: str) -> pd.DataFrame:
    """Leave out scans, and say so in the flow."""
    rest = forgotten(frame[~which].reset_index(drop=True))
    if which.any():
        lost = frame["patient"].nunique() - rest["patient"].nunique()
        flow.append(FlowStep("excluded", lost, int(which.sum()), reason))
    return rest


def forgotten(scans: pd.DataFrame) -> pd.DataFrame:
    """Return scans, with no prior scan where that one is not among them any more."""
    gone = ~scans["prior_scan"].isin(set(scans["scan"]))
    scans.loc[gone, "prior_scan"], scans.loc[gone, "years_since_prior"] = "", np.nan
    return scans
