"""From a run to a bundle: models, `model.toml`, golden case, card. The node's own reader checks it.

The bundle's Device UID is not stored: the node derives it from the digest of its whole method, of which the bundle's
sha256 (over model.toml, which holds all other digests) is a part (`dicomnode.report.uids.device`).
"""

import json
import shutil
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import tomli_w

from dicomnode.analysis.risk import golden_case, tabular
from dicomnode.analysis.risk.bundle import Bundle
from dicomnode.analysis.risk.covariates import Covariate
from dicomnode.analysis.risk.load_bundle import load, read
from dicomnode.analysis.risk.manifest import Golden, seal_of
from dicomnode.analysis.risk.tabular import TabularModel
from dicomnode.errors import UsageError
from dicomnode.files import sha256_of
from dicomnode.registry_format.provenance import Provenance
from training.bundle import encoders, golden, held_out, reference
from training.bundle.model_card import model_card
from training.data import registry_folder
from training.data.outcomes import HORIZONS_YEARS
from training.data.splits import Nested
from training.evaluation.bar import departures
from training.evaluation.misjudged import without_single_scans
from training.models.arm import DEEP_ARMS
from training.models.deep import settings as deep_settings
from training.models.deep.settings import DeepSettings
from training.models.encoder_settings import EncoderSettings
from training.models.stacking import Stack

LIMITS = (
    "research use only: not validated outside the training population",
    "read each scan's flags before its numbers",
)
LIMITS_SYNTHETIC = (
    "trained on synthetic phantoms only: the numbers mean nothing for a patient",
    "the lung masks of the synthetic registry are the phantom's true labels, not a segmentation",
)
#: Of each arm, the file of a fold's model in the run, and its ending in the bundle.
_NETWORK, _TABLE = "model.safetensors", "model.json"


@dataclass(frozen=True)
class Run:
    """What a bundle takes from a run folder.

    Attributes:
        folder: the run.
        content: `run.json`.
        stack: the ensemble; arms that weigh nothing are left out.
        cohort: `cohort.parquet`, of those whom the models have learnt from.
        features: `features.parquet`; without rows in a run that has none.
        scans: of the registry.
        deep: settings of the networks.
        encoder: of the arm on embeddings.
        synthetic: whether the registry's scans are phantoms.
        imported: whether its numbers come from somebody's table.
        provenance: who the patients are.
    """

    folder: Path
    content: Mapping[str, Any]
    stack: Stack
    cohort: pd.DataFrame
    features: pd.DataFrame
    scans: pd.DataFrame
    deep: DeepSettings
    encoder: EncoderSettings
    synthetic: bool
    imported: bool
    provenance: Provenance

    @property
    def horizons(self) -> tuple[int, ...]:
        """Years after the scan for which the risk is given; older runs state none."""
        return tuple(self.content["settings"].get("horizons") or HORIZONS_YEARS)

    @property
    def limits(self) -> tuple[str, ...]:
        """What the model cannot do, for people."""
        if self.synthetic:
            return LIMITS_SYNTHETIC
        disease = self.provenance.disease
        of = f"trained on patients with {disease} alone" if disease else "the disease of its patients is not stated"
        tables = (
            "trained on a table of measurements: the node serves it only if it measures the same in the same way",
        )
        return (LIMITS[0], of, *(tables if self.imported else ()), *LIMITS[1:])

    def models(self, arm: str) -> list[Path]:
        """Return the fold models of an arm.

        Raises:
            UsageError: there is none.
        """
        name = _NETWORK if arm in DEEP_ARMS else _TABLE
        found = sorted((self.folder / "arms" / arm).glob(f"fold-*/{name}"), key=lambda p: int(p.parent.name[5:]))
        if not found:
            raise UsageError(f"{self.folder / 'arms' / arm} has no {name} of any fold: let `training run` finish")
        return found


def make_bundle(
    run_folder: Path, out: Path, *, name: str, version: str, created_by: str, networks: int | None = None
) -> Bundle:
    """Write the bundle of a run to `out`, replacing a bundle that is there, and load it as the node does.

    Args:
        run_folder: made by `training run`.
        out: folder of the bundle.
        name: of the model.
        version: of the model.
        created_by: the command that made it.
        networks: how many fold models of each deep arm are kept, all if None. One of resnet18 is 22 MB; with fewer, the
            interval shows less of the models' disagreement, and the model says how many there are.

    Raises:
        UsageError: `run_folder` is no finished run, or `out` holds something that is no bundle.
        BundleError: what was written does not load.
    """
    run = read_run(run_folder)
    if out.exists() and any(out.iterdir()) and not (out / "model.toml").is_file():
        raise UsageError(f"{out} is not empty and not a bundle: give another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".bundle-") as temporary:
        folder = Path(temporary) / "bundle"
        folder.mkdir()
        arms = [_copy_arm(run, arm, folder, networks) for arm in run.stack.arms]
        encoder = encoders.place(run.encoder, folder) if encoders.NAME in run.stack.arms else None
        tables = [tabular.read(folder / file) for arm in arms if arm["kind"] == "tabular" for file in arm["models"]]
        settings = _radiomics(run, tables)
        held_out.write(run_folder, folder, run.stack.arms)
        used = list(dict.fromkeys(name for model in tables for name in model.harmoniser.features))
        reference.write(folder, run.cohort, run.features, run.scans, used)
        manifest = _manifest(run, arms, tables, settings) | ({} if encoder is None else {"encoder": encoder})
        manifest |= {"name": name, "version": version, "created_by": created_by}
        if (run_folder / "report.md").is_file():
            report = without_single_scans((run_folder / "report.md").read_text(encoding="utf-8"))
            (folder / "report.md").write_text(report, encoding="utf-8")
        own = departures(run.content["settings"].get("gate") or {}, run.horizons)
        (folder / "MODEL_CARD.md").write_text(model_card(manifest, own), encoding="utf-8")
        # The golden answer needs the bundle, the bundle the golden file's digest: a first reading gives the answer.
        asked = golden.question(folder, tables, settings, manifest["covariates"])
        write_sealed(folder, manifest, asked)
        write_sealed(folder, manifest, golden.answered(asked, read(folder)))
        load(folder, allow_demo=True)
        if out.exists():
            shutil.rmtree(out)
        if encoder is not None:
            encoders.keep_beside(folder, out)
        share(folder)
        folder.rename(out)
    return load(out, allow_demo=True)


def share(folder: Path) -> None:
    """Let others read a bundle: it holds no patient's data, and the node may run as another user than who trains."""
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)


def read_run(folder: Path) -> Run:
    """Return what a bundle takes from a run folder.

    Raises:
        UsageError: the run is not finished, or its registry is gone or another one by now.
    """
    missing = [n for n in ("run.json", "ensemble.json", "cohort.parquet") if not (folder / n).is_file()]
    if missing:
        raise UsageError(f"{folder} is not a finished run ({', '.join(missing)} missing): run `training run`")
    content = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    stored = Stack.from_dict(json.loads((folder / "ensemble.json").read_text(encoding="utf-8")))
    source = registry_folder.read(Path(content["settings"]["registry"]))
    if source.sha256 != content["fixed"]["sha256"]["registry"]:
        raise UsageError(f"{source.folder} is not the registry that {folder} was trained on: its tables have changed")
    if not stored.slope > 0:
        raise UsageError(
            f"{folder}: the calibration slope is {stored.slope:g}: the out-of-fold predictions are not associated with "
            "death, so there is no usable model"
        )
    kept = [(arm, weight) for arm, weight in zip(stored.arms, stored.weights, strict=True) if weight > 0]
    return Run(
        folder=folder,
        content=content,
        stack=replace(stored, arms=tuple(a for a, _ in kept), weights=tuple(w for _, w in kept)),
        cohort=_learnt_from(folder, content),
        features=_features(folder / "features.parquet"),
        scans=source.scans,
        deep=deep_settings.read(content["settings"]["deep"]),
        encoder=EncoderSettings.model_validate(content["settings"].get("encoder") or {}),
        synthetic=source.synthetic,
        imported=source.imported,
        provenance=_provenance(content, source.about),
    )


def _learnt_from(folder: Path, content: Mapping[str, Any]) -> pd.DataFrame:
    """Return the cohort, without the later patients of a split in time: no model has learnt from them."""
    frame = pd.read_parquet(folder / "cohort.parquet")
    if (content.get("split") or {}).get("kind") != "temporal":
        return frame
    later = set(Nested.load(folder / "splits.json").outer[0])
    return frame[~frame["patient"].isin(later)].reset_index(drop=True)


def _features(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path) if path.is_file() else pd.DataFrame({"scan": pd.Series([], dtype=str)})


def _provenance(content: Mapping[str, Any], about: Mapping[str, object]) -> Provenance:
    """Return what the run has written down; of a run of an older version what its registry says."""
    stored = content.get("provenance")
    return Provenance.of(about) if stored is None else Provenance(**{**stored, "sites": tuple(stored["sites"])})


def _copy_arm(run: Run, arm: str, folder: Path, networks: int | None) -> dict[str, Any]:
    """Copy an arm's fold models into the bundle. Returns its entry in the manifest."""
    models = run.models(arm)
    if arm in DEEP_ARMS:
        models = models[:networks]
    names = [f"{arm}-{number}{model.suffix}" for number, model in enumerate(models)]
    for model, name in zip(models, names, strict=True):
        shutil.copyfile(model, folder / name)
    if arm in DEEP_ARMS:
        return {"name": arm, "kind": "network", "backbone": arm, "prior": run.deep.prior, "models": names}
    return {"name": arm, "kind": "tabular", "models": names}


def _radiomics(run: Run, tables: list[TabularModel]) -> dict[str, Any] | None:
    """PyRadiomics' settings, where a model takes its features."""
    if not any(name.startswith("radiomics.") for model in tables for name in model.harmoniser.features):
        return None
    settings: dict[str, Any] = run.content["radiomics_settings"]
    return settings


def _manifest(
    run: Run, arms: list[dict[str, Any]], tables: list[TabularModel], settings: dict[str, Any] | None
) -> dict[str, Any]:
    features = list(dict.fromkeys(name for model in tables for name in model.harmoniser.features))
    declared = [Covariate.model_validate(one) for one in run.content.get("covariates", ())]  # none in older runs
    of = run.provenance
    deaths = run.cohort["event"] & (run.cohort["time_years"] <= run.horizons[-1])
    manifest = {
        "format": 3,
        "name": "",
        "version": "",
        "intended_use": "synthetic-demo" if run.synthetic else "research",
        "horizons_years": list(run.horizons),
        "edges_years": list(run.stack.edges),
        "limits": list(run.limits),
        "created_by": "",
        "radiomics": "" if settings is None else json.dumps(settings, sort_keys=True),
        "features": features,
        "covariates": [
            one.model_dump(mode="json", exclude_none=True) for one in declared if set(one.features) & set(features)
        ],
        "ensemble": {
            "slope": run.stack.slope,
            "intercepts": list(run.stack.intercepts),
            "weights": dict(zip(run.stack.arms, run.stack.weights, strict=True)),
        },
        "population": {
            "description": "synthetic phantoms (training synthetic), no patients"
            if run.synthetic
            else f"patients with {of.disease}"
            if of.disease
            else "patients of a disease that is not stated",
            "patients": int(run.cohort["patient"].nunique()),
            "scans": len(run.cohort),
            "deaths": int(deaths.sum()),
            "registry_sha256": run.content["fixed"]["sha256"]["registry"],
            "split_sha256": run.content["split_sha256"],
            "disease": of.disease,
            "source": of.source,
            "sites": list(of.sites),
            "period": of.period,
            "dates": of.dates,
        },
        "software": dict(run.content["software"]),
        "arms": arms,
    }
    return manifest | ({"preprocessing": run.deep.spec.to_dict()} if any(a["kind"] == "network" for a in arms) else {})


def write_sealed(folder: Path, manifest: Mapping[str, Any], case: Golden) -> None:
    """Write golden.json, and model.toml with the digest of every other file and its own seal."""
    (folder / golden_case.NAME).write_text(case.model_dump_json(indent=1) + "\n", encoding="utf-8")
    names = sorted(p.name for p in folder.iterdir() if p.name != "model.toml")
    digests = {name: sha256_of(folder / name) for name in names}
    unsealed = {**manifest, "files": digests}
    seal = seal_of(tomllib.loads(tomli_w.dumps(unsealed)))  # of what a reader will find
    (folder / "model.toml").write_text(tomli_w.dumps({**unsealed, "seal": seal}), encoding="utf-8")
