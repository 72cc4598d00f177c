"""The notebook of the documentation, cell by cell; and that the API gives a run's own numbers."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch

from dicomnode.errors import UsageError
from tests.conftest import ROOT
from tests.helpers.tabular_worlds import settings_toml, world, write
from training import api
from training.run.run import run
from training.run.settings import load

torch.set_num_threads(1)
NOTEBOOK = ROOT / "docs" / "research" / "first-notebook.ipynb"


def test_every_cell_of_the_notebook_runs_and_it_shows_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    # The pseudonyms decide the folds: with a key by lot, the AUC of 150 patients differs by some hundredths.
    monkeypatch.setattr("dicomnode.registry_format.pseudonyms.secrets.token_bytes", lambda size: b"k" * size)
    mpl.use("svg")
    stored = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (stored["nbformat"], stored["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in stored["cells"]}) == len(stored["cells"])
    space: dict[str, Any] = {}
    for cell in stored["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], "a notebook is kept without what it printed"
            exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}, {cell['id']}", "exec"), space)
    seeing, blind = space["auc"]
    assert seeing > 0.75 and blind < 0.65, space["auc"]
    auc = space["metrics"].query("metric == 'auc' and arm == 'radiomics' and years == 3").iloc[0]
    assert auc["lower"] < auc["value"] < auc["upper"] and auc["value"] == seeing


def test_the_api_gives_the_numbers_of_a_run(tmp_path: Path) -> None:
    write(world(patients=60), tmp_path / "registry")
    toml = settings_toml(
        tmp_path,
        splits="outer = 2\ninner = 2",
        features="workers = 1",
        radiomics='models = ["cox"]',
        evaluation="bootstrap = 20",
        baselines="fit = []",
    )
    folder = run(load(toml), toml.read_text(), lambda *_: None, "evaluation")
    cohort = api.cohort(tmp_path / "registry")
    features = api.features(cohort)
    found = api.cross_validate(cohort, features, settings={"models": ["cox"]}, outer=2, inner=2)
    both = pd.read_parquet(folder / "predictions.parquet")
    pd.testing.assert_frame_equal(found, both[both["arm"] == "radiomics"].reset_index(drop=True))
    judged = api.evaluate(cohort, [found, api.combine(cohort, [found])], bootstrap=20)
    stored = json.loads((folder / "evaluation.json").read_text())
    assert json.loads(judged.to_json())["arms"] == stored["arms"]
    frame = api.metrics(judged)
    assert {"arm", "years", "metric", "value", "lower", "upper"} == set(frame) and np.isfinite(frame["value"]).any()
    with pytest.raises(UsageError, match="the table lacks 1 of"):
        api.cross_validate(cohort, features.iloc[1:])
