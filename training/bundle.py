"""From a run to a bundle: weights, `model.toml`, golden case, card. The node's own reader checks what was written."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from dicomnode.analysis.bundle import Bundle, golden_scan, load, read
from dicomnode.analysis.manifest import Golden, GoldenHorizon
from dicomnode.analysis.phantom import Disease, Scanner, chest
from dicomnode.errors import UsageError
from training.card import model_card
from training.fit import software

GOLDEN_TOLERANCE = 0.005
_GOLDEN_SEED, _GOLDEN_SEVERITY = 7, 0.45
_GOLDEN_SPACING = (6.0, 5.0, 5.0)

LIMITS = (
    "trained on synthetic phantoms only: the numbers mean nothing for a patient",
    "the synthetic registry's lungs are the phantom's true labels, not a segmenter's",
    "images only: age, sex and everything else that the true risk depends on are unknown to the model",
)


def make_bundle(run_folder: Path, out: Path, *, name: str, version: str, created_by: str) -> Bundle:
    """Write the bundle of a run to `out`, replacing a bundle that is there, and load it as the node does.

    Raises:
        UsageError: `run_folder` is no run on a synthetic registry, or `out` holds something that is no bundle.
        BundleError: what was written does not load.
    """
    run = _read_run(run_folder)
    if out.exists() and any(out.iterdir()) and not (out / "model.toml").is_file():
        raise UsageError(f"{out} holds something that is no bundle: give another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".bundle-") as temporary:
        folder = Path(temporary) / "bundle"
        folder.mkdir()
        weights = f"{run['settings']['backbone']}.safetensors"
        shutil.copyfile(run_folder / "arm.safetensors", folder / weights)
        (folder / "MODEL_CARD.md").write_text(model_card(run, name, version, created_by, LIMITS), encoding="utf-8")
        golden = _golden_input(folder)
        manifest = _manifest(run, weights, name, version, created_by)
        # The golden answer needs the bundle, the bundle the golden file's digest: a first reading gives the answer.
        _write_golden(folder, golden)
        _write_manifest(folder, manifest)
        answer = read(folder).predict(*golden_scan(folder, golden))
        expected = tuple(GoldenHorizon(**{k: _rounded(v) for k, v in asdict(h).items()}) for h in answer.horizons)
        _write_golden(folder, golden.model_copy(update={"expected": expected}))
        _write_manifest(folder, manifest)
        load(folder, allow_demo=True)
        if out.exists():
            shutil.rmtree(out)
        folder.rename(out)
    return load(out, allow_demo=True)


def _rounded(value: float) -> float:
    return round(value, 6)


def _read_run(folder: Path) -> dict[str, Any]:
    if not (folder / "run.json").is_file() or not (folder / "arm.safetensors").is_file():
        raise UsageError(f"{folder} is no finished run (run.json and arm.safetensors): make one with `training fit`")
    run: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    if not all(measured["oracle"] for measured in run["test"].values()):
        # The card, the limits and the intended use written here are those of a demonstration.
        raise UsageError(f"{folder} was not trained on a synthetic registry: only those can become a bundle yet")
    return run


def _golden_input(folder: Path) -> Golden:
    """Store a small phantom as the golden scan."""
    shape = (46, 50, 64)
    phantom = chest(
        _GOLDEN_SEED,
        shape=shape,
        spacing_mm=_GOLDEN_SPACING,
        disease=Disease.of_severity(_GOLDEN_SEVERITY),
        scanner=Scanner(noise_hu=10.0),
    )
    arrays = {"hu": torch.from_numpy(phantom.volume.hu), "labels": torch.from_numpy(phantom.labels)}
    save_file(arrays, folder / "golden.safetensors")
    (folder / "golden.safetensors").chmod(0o644)  # safetensors writes for its owner alone; the node may run as another
    return Golden(
        scan="golden.safetensors",
        spacing_mm=_GOLDEN_SPACING,
        recipe=f"phantom.chest: seed {_GOLDEN_SEED}, shape {shape}, severity {_GOLDEN_SEVERITY}, noise 10 HU",
        expected=(),
        tolerance=GOLDEN_TOLERANCE,
    )


def _manifest(run: Mapping[str, Any], weights: str, name: str, version: str, created_by: str) -> dict[str, Any]:
    population, settings = run["population"], run["settings"]
    return {
        "format": 1,
        "name": name,
        "version": version,
        "intended_use": "synthetic-demo",
        "horizons_years": run["horizons_years"],
        "edges_years": run["edges_years"],
        "limits": list(LIMITS),
        "created_by": created_by,
        "preprocessing": settings["spec"],
        "calibration": run["calibration"],
        "population": {
            "description": "synthetic phantoms (training synthetic); no patient",
            "train_patients": population["train"]["patients"] + population["calibrate"]["patients"],
            "train_scans": population["train"]["scans"] + population["calibrate"]["scans"],
            "test_patients": population["test"]["patients"],
            "test_scans": population["test"]["scans"],
            "registry_sha256": run["registry_sha256"],
            "split_sha256": run["split_sha256"],
        },
        "software": software(),
        "arms": [{"backbone": settings["backbone"], "heads": settings["heads"], "weights": weights}],
    }


def _write_golden(folder: Path, golden: Golden) -> None:
    (folder / "golden.json").write_text(golden.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    names = sorted(p.name for p in folder.iterdir() if p.name != "model.toml")
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    (folder / "model.toml").write_text(to_toml({**manifest, "files": digests}), encoding="utf-8")


def to_toml(table: Mapping[str, Any]) -> str:
    """A mapping of plain values, lists, tables of plain values, and lists of such tables, as TOML 1.0.

    Raises:
        TypeError: a value has no such form.
    """
    plain = {k: v for k, v in table.items() if not isinstance(v, Mapping) and not _is_tables(v)}
    lines = [f"{_key(k)} = {_value(v)}" for k, v in plain.items()]
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += ["", f"[{_key(key)}]", *(f"{_key(k)} = {_value(v)}" for k, v in value.items())]
        elif _is_tables(value):
            for entry in value:
                lines += ["", f"[[{_key(key)}]]", *(f"{_key(k)} = {_value(v)}" for k, v in entry.items())]
    return "\n".join(lines) + "\n"


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) for v in value)


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and np.isfinite(value):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # JSON's escapes are TOML's
    if isinstance(value, list):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    raise TypeError(f"{value!r} has no form in TOML here")
