"""One TOML holds a run's settings; the example loads and shows every key with its default."""

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from dicomnode.errors import UsageError
from tests.conftest import ROOT
from tests.helpers.tabular_worlds import settings_toml
from training.models.deep import settings as deep_settings
from training.models.registry import make_arm
from training.run.settings import RunSettings, from_dict, load

EXAMPLE = ROOT / "docs" / "research" / "training-run.toml"


def keys(model: type[BaseModel], prefix: str = "") -> set[str]:
    found = set()
    for name, field in model.model_fields.items():
        inner = field.annotation
        nested = isinstance(inner, type) and issubclass(inner, BaseModel)
        found |= keys(inner, f"{prefix}{name}.") if nested else {prefix + name}
    return found


def test_the_example_shows_every_key_with_its_default() -> None:
    text = EXAMPLE.read_text(encoding="utf-8").replace("# covariates =", "covariates =")
    text = text.replace("# covariate_types =", "covariate_types =")
    stored, free = tomllib.loads(text), ("deep", "covariate_types")
    # What has no default of its own is shown commented out.
    encoder = text.split("# [encoder] ")[1].split("# [encoder.spec]")[0]
    shown_there = {f"encoder.{m}" for m in re.findall(r"(?m)^# (\w+) = ", encoder)}
    shown = {f"{k}.{i}" for k, v in stored.items() if isinstance(v, dict) and k not in free for i in v}
    shown |= {k for k, v in stored.items() if not isinstance(v, dict) or k in free}
    shown |= {"splits.groups"} if re.search("(?m)^# groups = ", text) else set()
    assert shown | shown_there | {"encoder.spec"} == {
        k for k in keys(RunSettings) if not k.startswith("gate.")
    }  # that is the node's
    bare = RunSettings.model_validate({k: stored[k] for k in ("registry", "outcomes", "out", "covariates")})
    assert from_dict({k: v for k, v in stored.items() if k != "deep"}, "example") == bare  # deep: see test_deep_arm


def test_the_example_loads_with_paths_beside_it() -> None:
    settings = load(EXAMPLE)
    assert settings.registry == EXAMPLE.parent / "registry" and settings.out == EXAMPLE.parent / "run"
    assert load(EXAMPLE, Path("elsewhere")).out == Path.cwd() / "elsewhere"
    assert make_arm("radiomics", {"radiomics": settings.radiomics.model_dump()}).name == "radiomics"


def test_all_paths_are_absolute_and_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    deep = f'cache = "prepared"\n[deep.pretrained.resnet18]\npath = "net.pth"\nsha256 = "{"0" * 64}"'
    settings_toml(tmp_path / "here", top='covariates = "lung.csv"', deep=deep)
    monkeypatch.chdir(tmp_path)
    settings, here = load(Path("here/run.toml")), tmp_path / "here"
    assert (settings.registry, settings.outcomes) == (here / "registry", here / "registry" / "outcomes.csv")
    assert (settings.covariates, settings.out) == (here / "lung.csv", here / "run")
    read = deep_settings.read(settings.deep)
    assert (read.cache, read.pretrained["resnet18"].path) == (here / "prepared", here / "net.pth")
    settings_toml(here, deep='cache = ""')
    assert deep_settings.read(load(here / "run.toml").deep).cache is None  # as the settings say: the registry's


@pytest.mark.parametrize(
    ("top", "tables", "message"),
    [
        ("sed = 1", {}, "run.toml: sed: unknown key: perhaps you meant 'seed'"),
        ("", {"splits": "outr = 5"}, "splits.outr: unknown key: perhaps you meant 'outer'"),
        ("", {"splits": "outer = 1"}, "splits.outer: 1: Input should be greater than or equal to 2: outer folds, each"),
        (
            "",
            {"cohort": "transplant = 'end'"},
            "cohort.transplant: 'end': Input should be 'event', 'censor' or 'ignore'",
        ),
        ("", {"radiomics": "families = []"}, "radiomics.families: []:"),
        ("", {"radiomics": "models = ['forest']"}, "radiomics.models.0: 'forest': Input should be 'cox'"),
        ("arms = ['radiomics', 'radiomics']", {}, "run.toml: arms contains a duplicate: radiomics, radiomics"),
        ("", {"radiomics": "penalizers = [0.0]"}, "radiomics.penalizers.0: 0.0: Input should be greater than 0"),
        ("", {"radiomics": "l1_ratios = [1.5]"}, "radiomics.l1_ratios.0: 1.5: Input should be less than or equal"),
        ("", {"evaluation": "threshold = 1.0"}, "evaluation.threshold: 1.0: Value error, 1.0 is not a risk between"),
        ("", {"evaluation": "threshold = [0.1, true]"}, "True is not a risk between 0 and 1: risk at or above"),
        ("", {"evaluation": "threshold = [0.1, 0.2]"}, "run.toml: threshold: 2 numbers for 3 horizons (1, 3, 5 years)"),
        ("", {"evaluation": "threshold = { 1 = 0.1, 4 = 0.2 }"}, "threshold: it has the years 1, 4, the horizons are"),
        ("", {"evaluation": "threshold = { one = 0.1 }"}, "a table has whole years as its keys: risk at or above"),
        ("seed = ", {}, "run.toml is not TOML"),
        ("arms = ['radiomics']", {"deep": "epoch = 3"}, "run.toml: deep.epoch: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_cure(tmp_path: Path, top: str, tables: dict, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        load(settings_toml(tmp_path, top=top, **tables))
    assert message in str(refused.value)


def test_a_threshold_may_be_one_or_one_for_each_horizon(tmp_path: Path) -> None:
    for text, found in (
        ("0.3", 0.3),
        ("[0.1, 0.2, 0.3]", (0.1, 0.2, 0.3)),
        ("{ 5 = 0.3, 1 = 0.1, 3 = 0.2 }", {1: 0.1, 3: 0.2, 5: 0.3}),
    ):
        settings = load(settings_toml(tmp_path, evaluation=f"threshold = {text}"))
        assert settings.evaluation.threshold == found
        again = from_dict(settings.model_dump(mode="json"), "run.json")
        assert again.evaluation == settings.evaluation, "as the run's record keeps it"


def test_missing_ones_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("seed = 1\n")
    with pytest.raises(UsageError) as refused:
        load(tmp_path / "run.toml")
    assert "registry: is missing: registry folder" in str(refused.value) and "out: is missing" in str(refused.value)
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load(tmp_path / "none.toml")
