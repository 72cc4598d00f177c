"""A bundle of measured numbers, made in a run, and sites that differ from where it was trained."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.tabular_worlds import World, settings_toml, world, write
from training.run.run import run
from training.run.settings import load as load_settings


def renamed(made: World, prefix: str) -> World:
    """The same tables of other patients."""
    scans = made.scans.assign(patient=prefix + made.scans["patient"], scan=prefix + made.scans["scan"])
    features = made.features.assign(scan=prefix + made.features["scan"])
    return replace(
        made, scans=scans, features=features, outcomes=made.outcomes.assign(patient=prefix + made.outcomes["patient"])
    )


def elsewhere(seed: int = 11, patients: int = 300, base: float = 3.0, effect: float = 1.2) -> World:
    """A second site: another scanner and kernel, and `base` times the hazard at the same lungs."""
    made = renamed(world(patients, seed, effect, hazard=0.08 * base), "Q")
    other = {"manufacturer": "Canon Medical Systems", "model": "Aquilion", "kernel": "FC52", "kernel_family": "lung"}
    scans = made.scans.assign(**other)
    return replace(made, scans=scans)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a bundle, on one site's tables; the bundle takes no image."""
    folder = tmp_path_factory.mktemp("trained")
    write(world(patients=200, seed=5), folder / "registry")
    toml = settings_toml(
        folder,
        splits="outer = 3\ninner = 2",
        features="radiomics = false\nworkers = 1",
        radiomics='models = ["cox"]\nfamilies = ["quantities"]\nstability = 0',
        evaluation="bootstrap = 20",
        baselines="fit = []",
        bundle='name = "tables"\nversion = "1"',
    )
    return run(load_settings(toml), toml.read_text(), lambda *_: None)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The registry folder of a second site."""
    return write(elsewhere(), tmp_path_factory.mktemp("site") / "registry")
