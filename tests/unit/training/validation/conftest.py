"""A bundle of measured numbers, made in a run, and a site that differs from where it was trained."""

from pathlib import Path

import pytest

from tests.helpers.tabular_worlds import second_site, settings_toml, world, write
from training.run.run import run
from training.run.settings import load as load_settings


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
    return write(second_site(), tmp_path_factory.mktemp("site") / "registry")
