"""A second site with another scanner, kernel and base rate: found out by `evaluate`, put right by `recalibrate`.

By the command line, from the tables of two sites to the report that a node writes with the recalibrated bundle.
"""

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from click.testing import Result
from typer.testing import CliRunner

from tests.helpers.running import dicomnode
from tests.helpers.tabular_worlds import renamed, second_site, settings_toml, world, write
from training.cli.commands import app

QUICK = ("--bootstrap", "200")
#: Three hundred patients tell a slope within a third.
BAR = "calibration_slope = [0.7, 1.43]\n"


def training(*arguments: str | Path) -> Result:
    """A command of `training`, without a process of its own: to start one takes longer than most of these."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done


def of(registry: Path) -> tuple[str | Path, ...]:
    return ("--registry", registry, "--outcomes", registry / "outcomes.csv")


def horizons(folder: Path, arm: int = 0) -> list[dict]:
    return list(json.loads((folder / "evaluation.json").read_text())["arms"][arm]["horizons"])


@pytest.mark.slow
def test_a_bundle_at_another_site(data: Path, tmp_path: Path) -> None:
    write(world(patients=300, seed=5), tmp_path / "registry")
    toml = settings_toml(
        tmp_path,
        splits="outer = 3\ninner = 2",
        features="radiomics = false\nworkers = 1",
        radiomics='models = ["cox"]\nfamilies = ["quantities"]\nstability = 0',
        evaluation="bootstrap = 20",
        baselines="fit = []",
        bundle='name = "two-sites"\nversion = "1"',
        provenance='disease = "systemic sclerosis"\nsites = ["Site A"]',
    )
    training("run", toml)
    bundle = tmp_path / "run" / "bundle"
    there = write(second_site(sharper=1.5), tmp_path / "there")

    looked = training("evaluate", bundle, *of(there), "--out", tmp_path / "look", *QUICK)
    assert "the level of risk is wrong here" in looked.stderr and "calibration slope" in looked.stdout
    assert all(h["observed_to_expected"]["lower"] > 1 for h in horizons(tmp_path / "look"))

    new = tmp_path / "recalibrated"
    made = training("recalibrate", bundle, *of(there), "--site", "Site B", "--out", new, *QUICK)
    assert "two-sites 1-site-b" in made.stdout and "next: training compare" in made.stdout
    for after in horizons(new):
        assert abs(np.log(after["observed_to_expected"]["value"])) < 0.15, after["years"]
        assert 0.7 < after["calibration_slope"]["value"] < 1.43, after["years"]

    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "gate.toml").write_text(BAR)
    assert "gate passed" in training("compare", new, weights / "current").stdout
    assert "is now two-sites-1-site-b-" in training("promote", new, "--to", weights).stdout

    # The site's later patients: the recalibrated bundle fits, and the one that it was made from does not.
    later = write(renamed(second_site(seed=23, sharper=1.5), "L"), tmp_path / "later")
    training("evaluate", weights / "current", bundle, *of(later), "--out", tmp_path / "both", *QUICK)
    for after, before in zip(horizons(tmp_path / "both"), horizons(tmp_path / "both", 1), strict=True):
        assert abs(np.log(after["observed_to_expected"]["value"])) < 0.3, after["years"]
        assert after["ici"]["value"] < before["ici"]["value"] and after["brier"]["value"] < before["brier"]["value"]

    config = tmp_path / "ae_config.toml"
    config.write_text(f'[analysis]\nweights = {json.dumps(str(weights))}\nbundle = "current"\nradiomics = false\n')
    served = dicomnode("analyze", data / "chest_tiny_cip", "--out", tmp_path / "served", "--config", config)
    assert served.returncode == 0, served.stderr
    findings = json.loads((tmp_path / "served" / "findings.json").read_text())
    risk = findings["risk"]
    # A real chest is none of the drawn world's: the recalibrated bundle still carries what it was made on, and says so.
    assert findings["population"]["outside"] and "outside-population" in {flag["code"] for flag in findings["flags"]}
    assert (risk["bundle"], risk["version"], risk["recalibrated_to"]) == ("two-sites", "1-site-b", "Site B")
    said = "made from patients with systemic sclerosis and was recalibrated to Site B."
    for name in ("risk.dcm", "measurements.dcm"):
        report = pydicom.dcmread(tmp_path / "served" / name)
        assert any(said in str(element.value) for element in report.iterall() if element.VR != "SQ"), name
