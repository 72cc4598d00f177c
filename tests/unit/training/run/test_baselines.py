"""What the arms are compared with: fitted on the same folds, and told where it is not beaten."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dicomnode.errors import UsageError
from tests.helpers.tabular_worlds import World, settings_toml, world, write
from training.evaluation.records import Evaluation
from training.models.baseline_settings import columns_of
from training.run.closing import closing
from training.run.run import run
from training.run.settings import load

torch.set_num_threads(1)
SMALL = {
    "splits": "outer = 3\ninner = 2",
    "features": "radiomics = false\nworkers = 1",
    "radiomics": 'models = ["cox"]\nfamilies = ["quantities"]\nstability = 0',
    "evaluation": "bootstrap = 100",
    "bundle": "make = false",
}


def volumed(made: World, *, alone: bool) -> World:
    """The world with a lung volume that shrinks with the severity; alone, no other number knows anything."""
    rng, table = np.random.default_rng(8), made.features.copy()
    noise = 0.4 if alone else 4.0
    table["quantities.lungs.volume_ml"] = 4000 - 500 * (made.severity + rng.normal(0, noise, len(made.severity)))
    if alone:
        for name in ("quantities.lungs.haa_percent", "quantities.lungs.mean_hu"):
            table[name] = rng.normal(size=len(table))
    return replace(made, features=table)


def finished(folder: Path, made: World, **tables: str) -> Path:
    write(made, folder / "registry")
    toml = settings_toml(folder, **{**SMALL, **tables})
    return run(load(toml), toml.read_text(), lambda *_: None, "report")


def test_where_the_risk_is_the_volume_s_alone_the_report_says_so(tmp_path: Path) -> None:
    done = finished(tmp_path, volumed(world(patients=120, seed=4), alone=True))
    found = Evaluation.from_json((done / "evaluation.json").read_text())
    assert found.baselines == ("clinical", "volume") and found.primary == "ensemble"
    predicted = pd.read_parquet(done / "arms" / "volume" / "predictions.parquet")
    arm = pd.read_parquet(done / "arms" / "radiomics" / "predictions.parquet")
    assert predicted[["scan", "patient", "fold"]].equals(arm[["scan", "patient", "fold"]])
    page = (done / "report.md").read_text()
    assert "no arm is shown to discriminate better than the baseline volume alone" in page.split("## Discrimination")[0]
    assert "| volume (baseline) |" in page and "| ensemble minus volume |" in page and "AUC, within folds" in page
    assert set(pd.read_parquet(done / "predictions.parquet")["arm"]) == {"radiomics", "ensemble"}
    said = closing(done)
    assert any(line.startswith("ensemble, 3 y: AUC ") for line in said.lines)
    assert any("better than the baseline volume alone" in text for text in said.warnings)


def test_where_an_arm_knows_more_nothing_is_said(tmp_path: Path) -> None:
    done = finished(tmp_path, volumed(world(patients=120, seed=4), alone=False))
    assert "is shown to discriminate better" not in (done / "report.md").read_text()


def test_a_run_of_before_gets_its_baselines_when_it_is_started_again(tmp_path: Path) -> None:
    done = finished(tmp_path, world(patients=60, seed=5), baselines="fit = []")
    record = json.loads((done / "run.json").read_text())
    record["fixed"]["settings"].pop("baselines", None)
    record["settings"].pop("baselines")
    record["steps"].pop("baselines")
    (done / "run.json").write_text(json.dumps(record))
    again = finished(tmp_path, world(patients=60, seed=5))
    found = Evaluation.from_json((again / "evaluation.json").read_text())
    assert found.baselines == ("clinical", "volume"), "haa_percent stands for the volume that is not there"
    old = json.loads((again / "evaluation.json").read_text())
    del old["baselines"], old["differences"]
    for arm in old["arms"]:
        for horizon in arm["horizons"]:
            del horizon["auc_within"]
    assert Evaluation.from_json(json.dumps(old)).differences == ()


def test_which_number_stands_for_the_volume() -> None:
    names = ["quantities.lungs.haa_percent", "radiomics.tumour.original_shape_MeshVolume", "covariates.age_years"]
    assert columns_of("volume", names, "") == (names[1],)
    assert columns_of("volume", [*names, "quantities.lungs.volume_ml"], "") == ("quantities.lungs.volume_ml",)
    assert columns_of("volume", names[:1], "") == (names[0],)
    assert columns_of("volume", names, names[0]) == (names[0],)
    assert columns_of("clinical", names, "") == (names[2],) and columns_of("volume", names[2:], "") == ()
    with pytest.raises(UsageError, match=r"baselines\.quantity: there is no feature 'volume'"):
        columns_of("volume", names, "volume")
