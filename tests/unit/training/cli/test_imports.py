"""A public table to a report and a bundle in two commands; the node is told what the bundle was made from."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from dicomnode.analysis.arrays import Volume
from dicomnode.analysis.phantom.phantom import chest
from dicomnode.analysis.risk.bundle import Bundle
from dicomnode.analysis.risk.load_bundle import load
from dicomnode.errors import BundleError, RefusedError
from dicomnode.report import codes
from dicomnode.report.sr import risk as risk_report
from dicomnode.report.wording import warnings
from tests.helpers import report_cases as cases
from training.cli import commands

DISEASE = "non-small cell lung cancer"
COLUMNS = """
[covariates.stage]
column = "Overall.Stage"
type = "category"
categories = ["I", "II", "III"]
[covariates.smoking]
type = "category"
categories = ["never", "former", "current"]
missing = "median"
"""


def public_table(path: Path, patients: int = 120, seed: int = 5) -> Path:
    """As PyRadiomics and pandas leave it: index column, diagnostics, features under their own names."""
    rng = np.random.default_rng(seed)
    severity = rng.normal(size=patients)
    death, lost = rng.exponential(900 * np.exp(-severity)), rng.uniform(300, 3000, patients)
    pd.DataFrame(
        {
            "PatientID": [f"LUNG1-{number:03d}" for number in range(patients)],
            "diagnostics_Versions_PyRadiomics": "v3.0.1",
            "original_shape_MeshVolume": 1000 * np.exp(severity + rng.normal(0, 0.4, patients)),
            "original_glcm_Contrast": rng.normal(size=patients),
            "wavelet-HHL_firstorder_Mean": rng.normal(size=patients),
            "age": rng.integers(45, 85, patients),
            "gender": rng.choice(["male", "female"], patients),
            "Overall.Stage": rng.choice(["I", "II", "III"], patients),
            "smoking": rng.choice(["never", "former", "current", None], patients),
            "DLCO_ml_min_mmHg": rng.uniform(12, 26, patients).round(1),
            "Survival.time": np.ceil(np.minimum(death, lost)),
            "deadstatus.event": (death <= lost).astype(int),
        }
    ).to_csv(path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported")
    (folder / "columns.toml").write_text(COLUMNS)
    table = public_table(folder / "features.csv")
    roles = ["--time", "Survival.time", "--time-unit", "days", "--event", "deadstatus.event"]
    of = ["--disease", DISEASE, "--source", "NSCLC-Radiomics", "--site", "Maastricht", "--period", "2004 to 2010"]
    more = ["--columns", str(folder / "columns.toml"), "--horizons", "2,4", "--out", str(folder / "registry")]
    first = CliRunner().invoke(commands.app, ["import", str(table), *roles, *of, *more])
    assert first.exit_code == 0, first.output
    assert "120 patients on both sides" in first.output and "covariate stage" in first.output
    toml = folder / "registry/run.toml"
    written = tomllib.loads(toml.read_text())
    assert written["horizons"] == [2, 4] and written["radiomics"]["families"] == ["radiomics", "covariates"]
    quick = toml.read_text().replace("[radiomics]\n", '[radiomics]\nmodels = ["cox"]\n')
    toml.write_text(quick + "\n[evaluation]\nbootstrap = 10\n")
    second = CliRunner().invoke(commands.app, ["run", str(toml)])
    assert second.exit_code == 0, second.output
    return folder / "registry-run"


@pytest.fixture(scope="module")
def bundle(run: Path) -> Bundle:
    return load(run / "bundle", allow_demo=False)


def test_nothing_says_another_disease_or_shows_another_studys_results(run: Path) -> None:
    texts = {
        p.name: p.read_text() for p in (*run.glob("report.*"), *run.glob("bundle/*.md"), run / "bundle/model.toml")
    }
    assert len(texts) >= 5
    for name, text in texts.items():
        assert "sclerosis" not in text.casefold() and "2509.23530" not in text and "study:" not in text, name
    for name in ("report.md", "report.html", "MODEL_CARD.md", "model.toml"):
        for stated in (DISEASE, "NSCLC-Radiomics", "Maastricht", "2004 to 2010"):
            assert stated in texts[name], (name, stated)
    assert json.loads((run / "report.json").read_text())["published"] == []


def test_the_bundle_declares_horizons_covariates_and_where_it_comes_from(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest.horizons_years == (2, 4) and manifest.edges_years == (0, 1, 2, 3, 4)
    declared = {one.name: one for one in manifest.covariates}
    assert declared["stage"].categories == ("I", "II", "III") and declared["smoking"].missing == "median"
    assert declared["dlco_mmol_min_kpa"].unit == "mmol/min/kPa" and declared["dlco_mmol_min_kpa"].range == (0.3, 16)
    assert manifest.population.disease == DISEASE and manifest.population.sites == ("Maastricht",)
    assert "day 0" in manifest.population.dates
    with pytest.raises(BundleError, match="other radiomics settings than this node's"):
        bundle.check_radiomics({"setting": {}})


def asked(bundle: Bundle, **given: object) -> tuple[Volume, np.ndarray, dict[str, float]]:
    from dicomnode.analysis.risk.covariates import encoded

    phantom = chest(3, shape=(20, 24, 24), spacing_mm=(12.0, 12.0, 12.0))
    known = {"age_years": 60, "sex_male": 1, "dlco_mmol_min_kpa": 6.0, "stage": "II", "smoking": "never", **given}
    measured = {name: 1.0 for name in bundle.manifest.features if name.startswith("radiomics.")}
    return phantom.volume, phantom.labels, measured | encoded(bundle.manifest.covariates, known)


def test_a_table_of_other_patients_is_an_external_validation(bundle: Bundle, tmp_path: Path) -> None:
    """No image at all; covariates are encoded as the bundle declares them, and asked for where there are none."""
    (tmp_path / "columns.toml").write_text(COLUMNS)
    table = public_table(tmp_path / "features.csv", seed=8)
    roles = ["--time", "Survival.time", "--time-unit", "days", "--event", "deadstatus.event"]
    registry = tmp_path / "registry"
    of = ["--disease", DISEASE, "--source", "a table", "--site", "Leeds", "--period", "2011 to 2013"]
    more = ["--columns", str(tmp_path / "columns.toml"), *of, "--out", str(registry)]
    done = CliRunner().invoke(commands.app, ["import", str(table), *roles, *more])
    assert done.exit_code == 0, done.output
    of = ["--registry", str(registry), "--outcomes", str(registry / "outcomes.csv"), "--out", str(tmp_path / "look")]
    arguments = ["evaluate", str(bundle.folder), *of, "--bootstrap", "10"]
    refused = CliRunner().invoke(commands.app, arguments)
    said = str(refused.exception)
    assert "takes covariates that this registry has of nobody: " in said and "stage (one of I, II, III" in said
    assert "give them with --covariates" in said and "smoking" not in said, "for which a median may stand in"
    found = CliRunner().invoke(commands.app, [*arguments, "--covariates", str(registry / "covariates.csv")])
    assert found.exit_code == 0, found.output
    report = json.loads((tmp_path / "look" / "report.json").read_text())
    assert [h["years"] for h in report["evaluation"]["horizons"]] == [2, 4]
    assert any("radiomics were measured is not stated" in text for text in report["warnings"])
    assert any("covariates-missing" in text and "smoking" in text for text in report["warnings"])
    (items,) = report["checklists"].values()
    assert "Maastricht / Leeds" in next(item["value"] for item in items if item["number"] == "16")


def test_other_horizons_go_to_the_structured_report(bundle: Bundle) -> None:
    risk = bundle.predict(*asked(bundle))
    assert [h.years for h in risk.horizons] == [2, 4] and risk.disease == DISEASE and not risk.flags
    findings = cases.analysed(predicted=risk)
    document = cases.reread(risk_report.encode(cases.synthetic(), findings, cases.CONTEXT))
    text = str(document)
    assert "MORT2Y_LOW" in text and "MORT4Y_HIGH" in text and "MORT3Y" not in text
    assert "Probability of all-cause death within 4 years" in text
    assert f"The risk model was made from patients with {DISEASE}." in warnings(findings)
    assert len({code.value for years in range(1, 100) for code in codes.mortality(years)}) == 297


def test_a_covariate_that_is_missing_or_out_of_range_withholds_the_risk(bundle: Bundle) -> None:
    for given, code, says in (
        ({"stage": None}, "covariate-missing", "stage (one of I, II, III (reference: I))"),
        ({"dlco_mmol_min_kpa": None}, "covariate-missing", "dlco_mmol_min_kpa (0.3 to 16 mmol/min/kPa)"),
        ({"dlco_mmol_min_kpa": 18.0}, "covariate-out-of-range", "dlco_mmol_min_kpa"),
        ({"stage": "IV"}, "covariate-out-of-range", "stage"),
        ({"age_years": 0}, "covariate-out-of-range", "age_years"),
    ):
        with pytest.raises(RefusedError) as refused:
            bundle.predict(*asked(bundle, **given))
        assert refused.value.code == code and says in refused.value.text
    allowed = bundle.predict(*asked(bundle, smoking=None))
    assert [flag.code for flag in allowed.flags] == ["covariates-missing"]
