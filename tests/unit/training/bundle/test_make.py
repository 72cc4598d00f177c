"""A bundle: made of a run, predicting as the run did, and refused in every way in which it can be wrong."""

import dataclasses
import hashlib
import json
import re
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from dicomnode.analysis.findings import Findings
from dicomnode.analysis.lungs.classical import ClassicalSegmenter
from dicomnode.analysis.phantom.phantom import chest
from dicomnode.analysis.pipeline import Method, analyse
from dicomnode.analysis.radiomics.extract import DEFAULT_SETTINGS, with_preparation
from dicomnode.analysis.risk import fold_models
from dicomnode.analysis.risk.bundle import Bundle
from dicomnode.analysis.risk.ensemble import Ensemble
from dicomnode.analysis.risk.fold_models import FoldModels
from dicomnode.analysis.risk.load_bundle import load
from dicomnode.analysis.risk.queries import Answer, PriorScan, Question
from dicomnode.config import AnalysisTable
from dicomnode.errors import BundleError, RefusedError, UsageError
from dicomnode.models import build
from dicomnode.registry_format.volumes import read_volume
from dicomnode.report import uids
from tests.helpers import bundles, deep_cases
from tests.helpers.ct_files import ct_series, write
from training.bundle.make import make_bundle
from training.evaluation.misjudged import BEGIN, END
from training.models.stacking import RISKS, Stack
from training.validation import served
from training.validation import site as validation_site
from training.validation.site import SiteTables

pytestmark = pytest.mark.slow  # the networks of its run take half a minute to fit
torch.set_num_threads(1)
NETWORK, TABLE = "resnet18-0.safetensors", "radiomics-0.json"


@dataclass(frozen=True)
class Made:
    """A run with a tabular and a network arm of two folds, the network with a prior scan, and its bundle."""

    run: Path
    bundle: Bundle

    @property
    def registry(self) -> Path:
        return self.run.parent / "registry"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("bundles")
    run = deep_cases.run(folder, prior=True)
    combined = json.loads((run / "ensemble.json").read_text()) | {"weights": [0.6, 0.4]}  # it may have chosen one arm
    (run / "ensemble.json").write_text(json.dumps(combined))
    (run / "report.md").write_text(f"# Evaluation\n{BEGIN}\n| scan-17 |\n{END}\n")
    return Made(run, make_bundle(run, folder / "bundle", name="tiny", version="7", created_by="a test"))


@pytest.fixture(scope="module")
def small(made: Made) -> Bundle:
    """With one network: quicker to copy."""
    out = made.run.parent / "small"
    return make_bundle(made.run, out, name="tiny", version="7", created_by="a test", networks=1)


@pytest.fixture
def copy(small: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small.folder, tmp_path / "bundle"))


def asked(made: Made, scan: str, prior: PriorScan | None = None) -> Question:
    """A scan of the registry as a node would ask about it."""
    features = pd.read_parquet(made.run / "features.parquet").set_index("scan").loc[scan].dropna()
    return Question(*read_volume(made.registry / "volumes" / f"{scan}.npz"), features.to_dict(), {}, prior)


def answer(made: Made, scan: str, prior: PriorScan | None = None) -> Answer:
    return made.bundle.models.answer(asked(made, scan, prior))


def test_each_member_predicts_what_its_fold_predicted_in_the_run(made: Made) -> None:
    """Of first scans and of second ones, whose prior scan is known by the codes in its own result."""
    arms = [pd.read_parquet(made.run / "arms" / a / "predictions.parquet") for a in ("radiomics", "resnet18")]
    stack = Stack.from_dict(json.loads((made.run / "ensemble.json").read_text()))
    assert min(stack.weights) > 0.05, "both arms are in it"
    expected = stack.risk(np.stack([arm[list(RISKS)].to_numpy() for arm in arms]))
    years = pd.read_parquet(made.run / "cohort.parquet").set_index("scan")["years_since_prior"]
    moved = []
    for row, (scan, fold) in enumerate(zip(arms[0]["scan"], arms[0]["fold"], strict=True)):
        prior = None
        if scan.endswith("-1"):
            codes = answer(made, scan[:-1] + "0").codes
            prior = PriorScan(float(years[scan]), made.bundle.sha256, codes)
        found = answer(made, scan, prior).risks
        np.testing.assert_allclose(found[fold], expected[row], atol=2e-4)
        moved.append(prior is not None and not np.allclose(found, answer(made, scan).risks, atol=1e-6))
    assert any(moved), "a prior scan changes the answer"


def test_the_codes_of_another_bundle_are_not_used(made: Made) -> None:
    codes = answer(made, "P1-0").codes
    other = PriorScan(1.25, "0" * 64, codes)
    np.testing.assert_array_equal(answer(made, "P1-1", other).risks, answer(made, "P1-1").risks)


def other_site(folder: Path) -> Path:
    """The same scans, of other patients."""
    registry = deep_cases.registry(folder)
    for name in ("scans.csv", "outcomes.csv"):
        table = pd.read_csv(registry / name, dtype=str, keep_default_na=False)
        table.assign(patient="S" + table["patient"]).to_csv(registry / name, index=False)
    return registry


def test_another_site_asks_the_networks_with_volumes_and_prior_scans(made: Made, tmp_path: Path) -> None:
    registry = other_site(tmp_path / "site")
    tables = SiteTables(registry, registry / "outcomes.csv")
    site = validation_site.read(tables, [made.bundle], tmp_path / "cache", lambda *_: None)
    rest, (found,) = served.ask(site, [made.bundle], lambda *_: None)
    assert len(rest.frame) == 24 and found.members.shape == (24, 2, 5)
    place = {scan: row for row, scan in enumerate(rest.frame["scan"])}
    years = float(rest.frame["years_since_prior"].iloc[place["P1-1"]])
    prior = PriorScan(years, made.bundle.sha256, answer(made, "P1-0").codes)
    for scan, before in (("P1-0", None), ("P1-1", prior)):
        np.testing.assert_allclose(found.members[place[scan]], answer(made, scan, before).risks, atol=1e-6)
    table = pd.read_csv(registry / "scans.csv", dtype=str, keep_default_na=False)
    table.loc[table["scan"] == "P1-0", "volume"] = ""
    table.to_csv(registry / "scans.csv", index=False)
    site = validation_site.read(tables, [made.bundle], tmp_path / "cache", lambda *_: None)
    assert [one.scans for one in site.flow if "keeps no volume of the scan" in one.reason] == [1]
    table.assign(volume="").to_csv(registry / "scans.csv", index=False)
    with pytest.raises(UsageError, match="looks at images, and .* keeps no volumes: export it with registry.volumes"):
        validation_site.read(tables, [made.bundle], tmp_path / "cache", lambda *_: None)


def test_a_prediction_says_all_that_a_reader_needs(made: Made) -> None:
    scan = asked(made, "P0-0")
    found = made.bundle.predict(scan.volume, scan.labels, scan.features)
    assert [h.years for h in found.horizons] == [1, 3, 5]
    for name in ("lower", "probability", "upper"):
        values = [getattr(h, name) for h in found.horizons]
        assert values == sorted(values) and min(values) >= 0 and max(values) <= 1
    assert all(h.lower <= h.probability <= h.upper for h in found.horizons)
    assert "ensemble of fold models (resnet18: 2, radiomics: 2)" in found.interval
    assert sum(r.weight for r in found.slice_relevance) == pytest.approx(1, abs=1e-4)
    # six slices of lung, 20 mm each, from -60 - 10 mm on; four prepared slices in the middle of their shares
    assert [r.z_mm for r in found.slice_relevance] == [-55, -25, 5, 35]
    assert sorted(found.scan_codes) == ["resnet18-0.safetensors", "resnet18-1.safetensors"]
    assert {len(code) for code in found.scan_codes.values()} == {16} and not found.flags
    assert made.bundle.predict(scan.volume, scan.labels, scan.features) == found, "the same scan, the same numbers"


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        # An arm counts by its weight, not by how many networks it has: (3 * [.2 .3 .3 .2] + [.9 .1 0 0]) / 4.
        ({"radiomics": 0.5, "resnet18": 0.3, "swin_t": 0.1}, [0.375, 0.25, 0.225, 0.15]),
        ({"radiomics": 0.5, "resnet18": 0.0, "swin_t": 0.1}, [0.9, 0.1, 0.0, 0.0]),
        ({"radiomics": 1.0, "resnet18": 0.0, "swin_t": 0.0}, None),
    ],
)
def test_a_slice_weighs_as_its_arm_does_in_the_answer(
    made: Made, weights: dict[str, float], expected: list[float] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(made.bundle.models, FoldModels)
    looks = {"a0": [0.1, 0.2, 0.4, 0.3], "a1": [0.3, 0.4, 0.2, 0.1], "b0": [0.9, 0.1, 0.0, 0.0]}
    monkeypatch.setattr(
        fold_models, "_look", lambda name, *_: fold_models._Look(np.full(5, 0.1), np.array(looks[name]), ())
    )
    net = next(iter(made.bundle.models.networks[0].nets.values()))
    arms = (fold_models.Networks("resnet18", {"a0": net, "a1": net}), fold_models.Networks("swin_t", {"b0": net}))
    ensemble = Ensemble(weights=weights, slope=1, intercepts=(0,) * 5)
    found = dataclasses.replace(made.bundle.models, networks=arms, ensemble=ensemble).answer(asked(made, "P0-0"))
    if expected is None:
        assert found.attention is None
    else:
        np.testing.assert_allclose(found.attention, expected, atol=1e-12)


def test_a_number_that_was_not_measured_withholds_the_risk(made: Made) -> None:
    scan = asked(made, "P0-0")
    features = {k: v for k, v in scan.features.items() if not k.startswith("quantities.lungs.haa")}
    with pytest.raises(RefusedError, match=r"not be measured: quantities\.lungs\.haa_percent") as refused:
        made.bundle.predict(scan.volume, scan.labels, features)
    assert refused.value.code == "features-missing"
    with pytest.raises(RefusedError):
        made.bundle.predict(scan.volume, scan.labels)


def test_a_first_scan_has_no_change_and_that_is_no_gap(made: Made) -> None:
    manifest = made.bundle.manifest
    assert any(name.startswith("change.") for name in manifest.features)
    assert not [name for name in asked(made, "P0-0").features if name.startswith("change.")]
    assert answer(made, "P0-0").flags == ()


def test_fewer_networks_make_a_smaller_bundle_that_says_so(made: Made, small: Bundle) -> None:
    assert sum(p.stat().st_size for p in small.folder.iterdir()) < 30e6
    assert "ensemble of fold models (resnet18: 1, radiomics: 2)" in small.interval
    scan = asked(made, "P0-0")
    both, one = (made.bundle.models.answer(scan).risks, small.models.answer(scan).risks)
    np.testing.assert_allclose(one[0], both[0], atol=1e-12)
    assert not np.allclose(one[1], both[1])


def test_the_bundle_says_where_it_comes_from(made: Made) -> None:
    folder = made.bundle.folder
    manifest = tomllib.loads((folder / "model.toml").read_text())
    record = json.loads((made.run / "run.json").read_text())
    assert manifest["intended_use"] == "synthetic-demo"
    assert manifest["population"]["registry_sha256"] == record["fixed"]["sha256"]["registry"]
    assert manifest["population"] | {"patients": 12, "scans": 24, "deaths": 12} == manifest["population"]
    assert manifest["population"]["split_sha256"] == record["split_sha256"]
    assert json.loads(manifest["radiomics"]) == record["radiomics_settings"]
    assert set(manifest["files"]) == {p.name for p in folder.iterdir()} - {"model.toml"} >= {"report.md"}
    assert "# Evaluation" in (report := (folder / "report.md").read_text()) and "scan-17" not in report
    card = (folder / "MODEL_CARD.md").read_text()
    assert "For demonstration only" in card and "a test" in card and "prior scan" in card
    golden = json.loads((folder / "golden.json").read_text())
    assert set(golden["features"]) >= {"quantities.lungs.mean_hu"} and set(golden["codes"]) == {
        NETWORK,
        "resnet18-1.safetensors",
    }


def rewrite(path: Path, change: Callable[[dict], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_node_s_registry_makes_a_research_bundle(made: Made, tmp_path: Path) -> None:
    run, registry = tmp_path / "run", tmp_path / "registry"
    shutil.copytree(made.run, run)
    shutil.copytree(made.registry, registry, ignore=shutil.ignore_patterns("prepared"))
    (registry / "registry.toml").write_text('format = 1\nmade_by = "node"\ncreated = "2024-01-01"\n')
    rewrite(run / "run.json", lambda c: c["settings"].update(registry=str(registry)))
    rewrite(run / "run.json", lambda c: c.pop("provenance"))  # which a run of the synthetic registry has written down
    with pytest.raises(UsageError, match="its tables have changed"):
        make_bundle(run, tmp_path / "b", name="x", version="1", created_by="a test", networks=1)
    from training.data.registry_folder import read

    rewrite(run / "run.json", lambda c: c["fixed"]["sha256"].update(registry=read(registry).sha256))
    bundle = make_bundle(run, tmp_path / "b", name="x", version="1", created_by="a test", networks=1)
    assert bundle.intended_use == "research" and load(bundle.folder, allow_demo=False).sha256 == bundle.sha256
    card = (bundle.folder / "MODEL_CARD.md").read_text()
    assert "Research use only" in card and "synthetic" not in card


def test_an_older_bundle_is_replaced_and_nothing_else(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    out.mkdir()
    (out / "model.toml").write_text("an older one")
    (out / "older.safetensors").touch()
    assert make_bundle(made.run, out, name="t", version="8", created_by="a test", networks=1).version == "8"
    assert not (out / "older.safetensors").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(UsageError, match="is not empty and not a bundle"):
        make_bundle(made.run, tmp_path / "mine", name="t", version="7", created_by="a test")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "mine"], "no temporary folder is left"


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not a finished run \(run.json, ensemble.json, cohort.parquet missing\)"):
        make_bundle(tmp_path, tmp_path / "out", name="x", version="1", created_by="a test")


def test_an_ensemble_that_tells_nothing_is_refused(made: Made, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(made.run, run)
    rewrite(run / "ensemble.json", lambda c: c.update(slope=0.0))
    with pytest.raises(UsageError, match="slope is 0: the out-of-fold predictions are not associated with death"):
        make_bundle(run, tmp_path / "out", name="x", version="1", created_by="a test")


def test_an_arm_that_weighs_nothing_is_left_out(made: Made, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(made.run, run)
    rewrite(run / "ensemble.json", lambda c: c.update(weights=[1.0, 0.0]))
    bundle = make_bundle(run, tmp_path / "out", name="x", version="1", created_by="a test")
    assert [arm.name for arm in bundle.manifest.arms] == ["radiomics"] and bundle.spec is None
    scan = asked(made, "P0-0")
    found = bundle.predict(scan.volume, scan.labels, scan.features)
    assert found.slice_relevance == () and found.scan_codes == {}


# What a node refuses


def change_json(name: str, change: Callable[[dict], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        rewrite(folder / name, change)
        bundles.list_again(folder, name)

    return apply


def other_network(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / NETWORK)
    save_file({k: -v if k == "head.hazard.bias" else v for k, v in state.items()}, folder / NETWORK)
    bundles.list_again(folder, NETWORK)


def no_safetensors(folder: Path) -> None:
    (folder / NETWORK).write_bytes(b"pickle")
    bundles.list_again(folder, NETWORK)


def deep_json(folder: Path) -> None:
    (folder / TABLE).write_text("[" * 200_000)
    bundles.list_again(folder, TABLE)


def change_scan(change: Callable[[dict], dict]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        from safetensors.torch import load, save_file

        save_file(change(load((folder / "golden.safetensors").read_bytes())), folder / "golden.safetensors")
        bundles.list_again(folder, "golden.safetensors")

    return apply


@pytest.mark.parametrize("name", [NETWORK, TABLE, "golden.json", "golden.safetensors", "MODEL_CARD.md", "report.md"])
def test_a_changed_or_missing_file_is_named(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError, match=rf"{re.escape(name)} is not the file listed in model\.toml"):
        load(copy, allow_demo=True)
    (copy / name).unlink()
    with pytest.raises(BundleError, match=rf"{re.escape(name)} is missing"):
        load(copy, allow_demo=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            change_json(TABLE, lambda c: c["predictor"].update(baseline=[3 * v for v in c["predictor"]["baseline"]])),
            "case",
        ),
        (
            change_json("golden.json", lambda c: c["expected"][1].update(upper=0.99)),
            "does not reproduce its golden case",
        ),
        (change_json("golden.json", lambda c: c["features"].popitem()), "golden.json: the model needs features"),
        (change_json("golden.json", lambda c: c["expected"].pop()), "expected must be for the years"),
        (other_network, "does not reproduce its golden case"),
        (no_safetensors, "does not hold a network of 5 intervals on resnet18"),
        (change_json(TABLE, lambda c: c.update(format=9)), "radiomics-0.json is not a tabular model"),
        (change_json(TABLE, lambda c: c.update(edges_years=[0, 1, 2, 3, 4, 6])), "has the intervals"),
        (change_json(TABLE, lambda c: c["features"].__setitem__(0, "quantities.x.y")), "does not list: quantities.x.y"),
        (change_json(TABLE, lambda c: c.update(combat={"by": ["weather"], "batches": {}})), "combat is by weather"),
        (change_json(TABLE, lambda c: c.update(edges_years=[0])), "radiomics-0.json is not a tabular model"),
        (deep_json, "radiomics-0.json is not a tabular model"),
        (change_json("golden.json", lambda c: c.update(spacing_mm=[0, 5, 5])), "spacing_mm.0: Input should be greater"),
        (change_scan(lambda a: {**a, "labels": a["labels"][1:].contiguous()}), "golden.safetensors is not a golden"),
        (change_scan(lambda a: {k: v[0].contiguous() for k, v in a.items()}), "golden.safetensors is not a golden"),
        (change_scan(lambda a: {**a, "hu": a["hu"].bfloat16()}), "golden.safetensors is not a golden"),
        (change_scan(lambda a: {"hu": a["hu"]}), "golden.safetensors is not a golden"),
    ],
)
def test_a_model_that_is_another_than_the_evaluated_is_found(
    copy: Path, change: Callable[[Path], None], message: str
) -> None:
    change(copy)
    with pytest.raises(BundleError, match=message):
        load(copy, allow_demo=True)


def test_a_bundle_of_before_says_earlier_and_serves(copy: Path) -> None:
    bundles.change(copy, "^prior = true$", "earlier = true")
    kept = load(copy, allow_demo=True).manifest.arms
    assert [arm.prior for arm in kept if arm.kind == "network"] == [True]
    bundles.change(copy, "^earlier = true$", "earlier = true\nprior = true")
    with pytest.raises(BundleError, match="earlier: Extra inputs are not permitted"):
        load(copy, allow_demo=True)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (r"^version = 1$", "version = 2", "version is 2: this dicomnode supports version 1"),
        (
            r"^format = .*$",
            "format = 2",
            "it has format 2, and this version reads 3: make it anew with `training bundle`",
        ),
        (r"^format = .*$", "format = 4", "it has format 4, and this version reads 3: upgrade dicomnode"),
        (r"^format = .*$", "format = true", "model.toml: format: Input should be 3"),
        (r"^name = .*$", 'name = "x"\ncolour = "blue"', "colour: Extra inputs are not permitted"),
        (r"^slab_mm = .*$", "slab_mm = 5.0\nsharpen = 2", "unknown or missing key: sharpen"),
        (
            r"^intended_use = .*$",
            'intended_use = "clinical"',
            "intended_use: Input should be 'synthetic-demo' or 'research'",
        ),
        (r"^horizons_years = .*$", "horizons_years = [3, 1]", "must increase"),
        (r'^"golden.safetensors" = .*$', "", "contains golden.safetensors, which model.toml does not list"),
        (r'^"report.md" = .*$', "", "contains report.md, which model.toml does not list: remove it"),
        (r"^seal = .*$", "", "model.toml: seal: Field required"),
        (r'^"resnet18-0.safetensors" = .*$', "", "files has no sha256 of resnet18-0.safetensors"),
        (r"^limits = .*$", "limits = [", "model.toml: "),
        (r"^slope = .*$", "slope = 0.0", "ensemble.slope: Input should be greater than 0"),
        (r"^intercepts = .*$", "intercepts = [0.0, 0.0]", "intercepts needs 5 numbers"),
        (r"^resnet18 = .*$", "resnet18 = -0.1", "must not be negative"),
        (r"^resnet18 = .*$", "swin_t = 0.5", "must name the same"),
        (r"^prior = true$", "prior = false", "does not hold a network of 5 intervals on resnet18"),
        (r"^backbone = .*$", 'backbone = "vgg"', "arms.1.backbone: Value error, 'vgg' is not one of"),
        (r'^kind = "tabular"$', 'kind = "crystal ball"', "does not match any of the expected tags"),
        (r"^features = .*$", "features = []", "features is required with a tabular arm"),
        (r"^radiomics = .*$", 'radiomics = ""', "radiomics is required where features has"),
        (
            r'^models = \["radiomics-0.json", ',
            'models = ["../x.json", ',
            "must be a file name in the bundle's own folder",
        ),
        (r"^horizons_years = .*$", "horizons_years = [1, 7]", r"horizons \[7\] are not interval edges"),
        (r'^"report.md" = ', r'"re\u0000port.md" = ', "must be a file name in the bundle's own folder"),
        (r"^radiomics = .*$", 'radiomics = "[1]"', "radiomics is required where features has"),
        (r"^limits = .*$", "limits = " + "[" * 100_000, r"model\.toml: tables or arrays more than 30 levels deep"),
    ],
)
def test_a_wrong_model_toml_is_refused_with_the_place(copy: Path, old: str, new: str, message: str) -> None:
    bundles.change(copy, old, new)
    with pytest.raises(BundleError, match=message):
        load(copy, allow_demo=True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"^intended_use = .*$", 'intended_use = "research"'),
        (r"^limits = .*$", "limits = []"),
        (r"^patients = .*$", "patients = 30000"),
        (r"^version = .*$", 'version = "9"'),
        (r"^seal = .*$", f'seal = "{"ab" * 32}"'),
    ],
)
def test_a_model_toml_that_was_edited_is_refused(copy: Path, old: str, new: str) -> None:
    """Also where no digest and no golden case tell it."""
    bundles.edit(copy, old, new)
    with pytest.raises(BundleError, match=r"model\.toml was changed after it was written: its seal does not match"):
        load(copy, allow_demo=True)
    bundles.seal(copy)
    if "seal" not in old:
        load(copy, allow_demo=True)


def test_a_scan_that_is_not_listed_is_not_taken(copy: Path) -> None:
    """golden.json names a file outside the listed ones."""
    change_json("golden.json", lambda c: c.update(scan="model.toml"))(copy)
    with pytest.raises(BundleError, match=r"files has no sha256 of model\.toml"):
        load(copy, allow_demo=True)


def test_all_files_are_of_one_bundle_though_current_moves(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`current` is moved to another bundle between the digests and the models: what is read stays the first one."""
    other = Path(shutil.copytree(copy, tmp_path / "other"))
    change_json(TABLE, lambda c: c["predictor"].update(baseline=[3 * v for v in c["predictor"]["baseline"]]))(other)
    current = tmp_path / "current"
    current.symlink_to("bundle")
    reader = fold_models.read

    def moved(*arguments: Any) -> FoldModels:
        current.unlink()
        current.symlink_to("other")
        return reader(*arguments)

    monkeypatch.setattr(fold_models, "read", moved)
    found = load(current, allow_demo=True)
    assert current.resolve() == other and found.folder == copy
    assert found.sha256 == hashlib.sha256((copy / "model.toml").read_bytes()).hexdigest()


def test_whatever_fails_in_a_bundle_is_the_bundle_s_error(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise IndexError("7 is out of bounds")

    monkeypatch.setattr(FoldModels, "answer", fails)
    with pytest.raises(BundleError, match=r"cannot be used as a bundle \(IndexError: 7 is out of bounds\): copy it"):
        load(copy, allow_demo=True)
    copy.parent.joinpath("loop").symlink_to("loop")
    with pytest.raises(BundleError, match="loop"):
        load(copy.parent / "loop", allow_demo=True)


def test_a_demonstration_needs_leave(small: Bundle) -> None:
    with pytest.raises(BundleError, match=r"analysis\.allow_demo_bundles = true"):
        load(small.folder, allow_demo=False)


def test_a_node_without_the_model_s_radiomics_refuses_it(made: Made) -> None:
    made.bundle.check_radiomics(DEFAULT_SETTINGS)
    with pytest.raises(BundleError, match=r"switched off: set analysis\.radiomics = true"):
        made.bundle.check_radiomics(None)
    coarse = {**DEFAULT_SETTINGS, "setting": {**DEFAULT_SETTINGS["setting"], "resampledPixelSpacing": [3, 3, 3]}}
    for others in (coarse, with_preparation(DEFAULT_SETTINGS, "ibsi")):
        with pytest.raises(BundleError, match="other radiomics settings"):
            made.bundle.check_radiomics(others)


def test_the_node_does_not_start_with_a_model_whose_radiomics_are_switched_off(small: Bundle) -> None:
    table = AnalysisTable(weights=small.folder.parent, bundle=small.folder.name, allow_demo_bundles=True)
    served = build.model_bundle(table)
    assert served is not None and served.sha256 == small.sha256
    with pytest.raises(BundleError, match="radiomics, which are switched off"):
        build.model_bundle(table.model_copy(update={"radiomics": False}))


def test_the_device_uid_follows_the_bundle(made: Made, small: Bundle) -> None:
    digests = [Method(ClassicalSegmenter(), None, bundle).digest for bundle in (made.bundle, small, small)]
    uid = [uids.device(digest) for digest in digests]
    assert uid[0] != uid[1] == uid[2]


def test_a_node_serves_it(small: Bundle, tmp_path: Path) -> None:
    """From DICOM files to a risk: the node measures by the names that the model knows."""
    scan = chest(3, shape=(60, 96, 96), spacing_mm=(5.0, 4.0, 4.0)).volume
    files = write(ct_series(scan.hu + np.int16(1024), step_mm=5.0, PixelSpacing=["4", "4"]), tmp_path)
    found = analyse(files, Method(ClassicalSegmenter(), DEFAULT_SETTINGS, small)).findings
    assert found.risk is not None and found.risk.bundle_sha256 == small.sha256
    assert len(found.risk.slice_relevance) == 4
    assert Findings.from_json(found.to_json()) == found
    without = analyse(files, Method(ClassicalSegmenter(), None, small)).findings
    assert without.risk is None and without.flags[-1].code == "risk-withheld"
    assert "radiomics.lungs.original_firstorder_Energy" in without.flags[-1].text


def test_an_unknown_scanner_is_said(made: Made) -> None:
    """ComBat passes through what it has not seen; age stands in by the median. Both are said."""
    assert isinstance(made.bundle.models, FoldModels)
    arm = made.bundle.models.tables[0]
    model = arm.models[0]
    names = (*model.harmoniser.features[:-1], "covariates.age_years")
    harmoniser = dataclasses.replace(
        model.harmoniser,
        features=names,
        combat_by=("manufacturer",),
        batches={"ge": (np.ones(len(names)), np.zeros(len(names)))},
    )
    strict = dataclasses.replace(arm, models=(dataclasses.replace(model, harmoniser=harmoniser),))
    models = dataclasses.replace(made.bundle.models, tables=(strict,))
    whole = asked(made, "P0-0")
    scan = dataclasses.replace(whole, features={k: v for k, v in whole.features.items() if "covariates" not in k})
    known = models.answer(dataclasses.replace(scan, scanner={"manufacturer": "GE"}))
    assert [flag.code for flag in known.flags] == ["covariates-missing"]
    unknown = models.answer(dataclasses.replace(scan, scanner={"manufacturer": "Canon"}))
    assert [flag.code for flag in unknown.flags] == ["covariates-missing", "scanner-unknown"]
    np.testing.assert_array_equal(known.risks, unknown.risks)


def test_bounds_give_way_to_the_mean(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """With very unequal members the mean can lie above the 97.5th percentile; the interval then reaches to it."""
    risks = np.full((100, 5), 1e-5)
    risks[:2] = 0.9
    monkeypatch.setattr(FoldModels, "answer", lambda self, scan: Answer(risks))
    scan = asked(made, "P0-0")
    for h in made.bundle.predict(scan.volume, scan.labels, scan.features).horizons:
        assert h.lower <= h.probability == h.upper


def test_no_lungs_is_refused(made: Made) -> None:
    phantom = chest(1, shape=(20, 24, 30), spacing_mm=(14.0, 12.0, 12.0))
    with pytest.raises(RefusedError) as refused:
        made.bundle.predict(phantom.volume, np.zeros_like(phantom.labels), asked(made, "P0-0").features)
    assert refused.value.code == "no-lungs"
