"""The whole way in small: registry, fit, bundle; the node's reader then loads and predicts."""

import dataclasses
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from dicomnode.analysis.bundle import Bundle, load
from dicomnode.analysis.phantom import Disease, chest
from dicomnode.analysis.preprocess import Spec
from dicomnode.errors import UsageError
from training.bundle import make_bundle, to_toml
from training.dataset import load_registry
from training.fit import Settings, fit

SETTINGS = Settings(
    spec=Spec(spacing_mm=8.0, canvas=(32, 40), slices=3),
    epochs=2,
    batch=8,
    heads=3,
    head_steps=10,
    fractions=(0.4, 0.3, 0.3),
)


def registry_with_deaths(folder: Path) -> Path:
    """Six patients with one or two coarse scans each; every other one dies: each part of the split has a death."""
    (folder / "scans").mkdir(parents=True)
    tables = {
        "scans": ["patient,scan,date,volume"],
        "outcomes": ["patient,death_date,last_contact_date"],
        "truth": ["scan,risk_1y,risk_3y,risk_5y"],
    }
    for number in range(9):
        patient, dies = number % 6, number % 2 == 0
        phantom = chest(
            number,
            shape=(36, 44, 56),
            spacing_mm=(8.0, 6.0, 6.0),
            disease=Disease.of_severity(0.6 * dies),
            person=patient,
        )
        arrays = {"hu": phantom.volume.hu, "labels": phantom.labels}
        np.savez(folder / f"scans/{number}.npz", **arrays, spacing_mm=phantom.volume.spacing_mm, origin_mm=(0, 0, 0))
        tables["scans"].append(f"P{patient},{number},2015-0{1 + number // 6}-01,scans/{number}.npz")
        tables["truth"].append(f"{number},0.1,0.{2 + dies},0.{3 + dies}")
    for patient in range(6):
        last = f"201{6 + patient % 4}-01-01"
        tables["outcomes"].append(f"P{patient},{last if patient % 2 == 0 else ''},{last}")
    for name, rows in tables.items():
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n")
    return folder


@dataclasses.dataclass(frozen=True)
class Chain:
    registry: Path
    run: Path
    content: dict[str, object]
    bundle: Bundle


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("chain")
    registry = registry_with_deaths(folder / "registry")
    content = fit(registry, folder / "run", SETTINGS)
    made = make_bundle(folder / "run", folder / "bundle", name="tiny", version="7", created_by="a test")
    return Chain(registry, folder / "run", content, made)


def test_the_run_tells_what_was_done(chain: Chain) -> None:
    run = json.loads((chain.run / "run.json").read_text())
    assert run["settings"]["epochs"] == 2 and len(run["train_loss"]) == 2
    assert sum(part["patients"] for part in run["population"].values()) == 6
    assert set(run["test"]) == {"1", "3", "5"} and set(run["test"]["5"]["oracle"]) == {"auc", "brier"}
    split = json.loads((chain.run / "split.json").read_text())["parts"]
    assert not set(split["train"]) & set(split["test"])


def test_the_bundle_loads_and_predicts(chain: Chain) -> None:
    loaded = load(chain.bundle.folder, allow_demo=True)
    assert (loaded.name, loaded.version, loaded.intended_use) == ("tiny", "7", "synthetic-demo")
    assert loaded.sha256 == chain.bundle.sha256 and loaded.spec == SETTINGS.spec
    phantom = chest(1, shape=(40, 50, 60), spacing_mm=(7.0, 6.0, 6.0), disease=Disease.of_severity(0.5))
    found = loaded.predict(phantom.volume, phantom.labels)
    assert [h.years for h in found.horizons] == [1, 3, 5]
    assert "over 3 model heads" in found.interval
    assert loaded.predict(phantom.volume, phantom.labels) == found, "the same scan, the same numbers"


def test_the_bundle_says_where_it_comes_from(chain: Chain) -> None:
    folder = chain.bundle.folder
    manifest = tomllib.loads((folder / "model.toml").read_text())
    assert manifest["population"]["registry_sha256"] == load_registry(chain.registry).sha256
    card = (folder / "MODEL_CARD.md").read_text()
    assert "synthetic" in card and "a test" in card and "nan" not in card.lower()


def test_an_older_bundle_is_replaced_and_nothing_else(chain: Chain, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    first = make_bundle(chain.run, out, name="tiny", version="7", created_by="a test")
    second = make_bundle(chain.run, out, name="tiny", version="8", created_by="a test")
    assert second.version == "8" and first.sha256 != second.sha256
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(UsageError, match="holds something that is no bundle"):
        make_bundle(chain.run, tmp_path / "mine", name="tiny", version="7", created_by="a test")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "mine"], "no temporary folder is left"


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no finished run"):
        make_bundle(tmp_path, tmp_path / "out", name="x", version="1", created_by="a test")


def test_a_run_on_another_registry_does_not_pass_as_a_demonstration(chain: Chain, tmp_path: Path) -> None:
    run = json.loads((chain.run / "run.json").read_text())
    for measured in run["test"].values():
        measured["oracle"] = {}
    (tmp_path / "run.json").write_text(json.dumps(run))
    (tmp_path / "arm.safetensors").symlink_to(chain.run / "arm.safetensors")
    with pytest.raises(UsageError, match="was not trained on a synthetic registry"):
        make_bundle(tmp_path, tmp_path / "out", name="x", version="1", created_by="a test")


def test_a_run_is_never_overwritten(chain: Chain) -> None:
    with pytest.raises(UsageError, match="is not empty"):
        fit(chain.registry, chain.run, SETTINGS)


def test_a_registry_without_deaths_is_refused(chain: Chain, tmp_path: Path) -> None:
    (tmp_path / "scans.csv").write_text((chain.registry / "scans.csv").read_text())
    (tmp_path / "scans").symlink_to(chain.registry / "scans")
    rows = [f"{patient},,2019-01-01" for patient in sorted(set(load_registry(chain.registry).patients))]
    (tmp_path / "outcomes.csv").write_text("patient,death_date,last_contact_date\n" + "\n".join(rows) + "\n")
    with pytest.raises(UsageError, match=r"no death within 5 years among the .* scans of the part 'train'"):
        fit(tmp_path, tmp_path / "run", SETTINGS)


def test_toml_goes_out_and_in() -> None:
    table = {
        "text": 'quote " backslash \\ line\nbreak Grüße \x7f',
        "numbers": [1, -2, 3.5, 1e-9],
        "yes": True,
        "empty": [],
        "table": {"a": 1, "with space.and dot": "x"},
        "entries": [{"a": 1}, {"a": 2, "b": [1.0]}],
    }
    assert tomllib.loads(to_toml(table)) == table


@pytest.mark.parametrize("value", [None, float("nan"), np.float32(1.0), {1, 2}])
def test_what_toml_cannot_hold_is_an_error(value: object) -> None:
    with pytest.raises(TypeError, match="has no form in TOML"):
        to_toml({"a": value})
