"""External validation and recalibration of a bundle of measured numbers, by the command line, on tables alone."""

import json
import shutil
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines import KaplanMeierFitter
from sksurv.metrics import brier_score, concordance_index_ipcw, cumulative_dynamic_auc
from sksurv.util import Surv
from typer.testing import CliRunner

from dicomnode.analysis.findings import Findings
from dicomnode.analysis.phantom.phantom import chest
from dicomnode.analysis.risk.load_bundle import load
from dicomnode.report.sr import risk as risk_report
from tests.helpers import report_cases as cases
from tests.helpers.bundles import change
from tests.helpers.tabular_worlds import FIRST_DAY, World, renamed, second_site, world, write
from training.cli import commands
from training.report import report

QUICK = ["--bootstrap", "20"]
PLOTS = ("auc", "roc", "calibration", "net_benefit", "risk_groups")


def call(*arguments: str | Path) -> str:
    """What a command that ends well prints."""
    result = CliRunner().invoke(commands.app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refusal(arguments: list[str | Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that is refused says, in a line."""
    monkeypatch.setattr(sys, "argv", ["training", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        commands.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "Traceback" not in said
    return said


def of(registry: Path, out: Path) -> list[str | Path]:
    return ["--registry", registry, "--outcomes", registry / "outcomes.csv", "--out", out, *QUICK]


@pytest.fixture(autouse=True)
def without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take seconds, and the two reports of the module have them."""
    monkeypatch.setattr(report, "_plots", lambda _: dict.fromkeys(PLOTS, ""))


@pytest.fixture(scope="module")
def validated(trained: Path, site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("validated") / "look"
    call("evaluate", trained / "bundle", *of(site, out))
    return out


@pytest.fixture(scope="module")
def recalibrated(trained: Path, site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("recalibrated") / "new"
    call("recalibrate", trained / "bundle", *of(site, out), "--site", "Site B")
    return out


def evaluation(folder: Path) -> dict:
    return json.loads((folder / "evaluation.json").read_text())


def test_the_figures_are_scikit_survival_s_and_lifelines_own(validated: Path) -> None:
    cohort = pd.read_parquet(validated / "cohort.parquet")
    told = pd.read_parquet(validated / "predictions.parquet").set_index("scan").loc[cohort["scan"]]
    years, event = cohort["time_years"].to_numpy(), cohort["event"].to_numpy()
    surv = Surv.from_arrays(event, years)
    found = evaluation(validated)["arms"][0]
    last = concordance_index_ipcw(surv, surv, told["risk_5"].to_numpy(), tau=5.0)[0]
    assert found["uno_c"]["value"] == pytest.approx(last, abs=1e-6)
    for at in found["horizons"]:
        horizon = float(at["years"])
        risk = told[f"risk_{at['years']}"].to_numpy()
        assert at["auc"]["value"] == pytest.approx(cumulative_dynamic_auc(surv, surv, risk, horizon)[0][0], abs=1e-6)
        assert at["brier"]["value"] == pytest.approx(brier_score(surv, surv, 1 - risk, horizon)[1][0], abs=1e-6)
        observed = 1 - float(KaplanMeierFitter().fit(years, event).predict(horizon))
        assert at["observed_to_expected"]["value"] == pytest.approx(observed / risk.mean(), abs=1e-6)


def test_the_bundle_is_asked_as_a_node_asks_it(validated: Path, trained: Path, site: Path) -> None:
    bundle = load(trained / "bundle", allow_demo=True)
    features = pd.read_parquet(site / "features.parquet").set_index("scan")
    told = pd.read_parquet(validated / "predictions.parquet").set_index("scan")
    cohort = pd.read_parquet(validated / "cohort.parquet").set_index("scan")
    first = cohort.index[cohort["prior_scan"] == ""][:5]
    image = chest(3, shape=(20, 24, 24), spacing_mm=(12.0, 12.0, 12.0))
    for scan in first:
        scanner = {"manufacturer": "Canon Medical Systems", "model": "Aquilion", "kernel_family": "lung"}
        risk = bundle.predict(image.volume, image.labels, features.loc[scan].to_dict(), None, scanner)
        wanted = [told.loc[scan, f"risk_{h.years}"] for h in risk.horizons]
        assert [h.probability for h in risk.horizons] == pytest.approx(wanted, abs=1e-9)


def test_the_miscalibration_is_found_and_said(validated: Path) -> None:
    found = evaluation(validated)
    (arm,) = found["arms"]
    ratios = [h["observed_to_expected"] for h in arm["horizons"]]
    assert all(r["lower"] > 1.2 for r in ratios)
    assert any("the level of risk is wrong here" in text for text in found["warnings"])
    stated = json.loads((validated / "validation.json").read_text())
    assert any("the registry does not state disease, sites: state it in " in text for text in stated["warnings"])
    assert arm["horizons"][1]["ici"]["value"] > 0.1 and len(arm["horizons"][1]["smooth"]) > 10


def test_the_report_is_whole(validated: Path, trained: Path) -> None:
    stated = json.loads((validated / "report.json").read_text())
    (items,) = stated["checklists"].values()
    numbers = [item["number"] for item in items]
    assert {"4", "5a", "10", "12d", "12e", "12f", "12g", "16", "20a", "20c", "21", "23a", "24", "26"} <= set(numbers)
    bundle = load(trained / "bundle", allow_demo=True)
    markdown = (validated / "report.md").read_text()
    assert bundle.sha256 in markdown and "External validation of tables 1" in markdown
    assert "No external validation" not in markdown and "Out-of-fold" not in markdown
    assert "no bundle was trained on these patients" in markdown
    assert "Predictors here and in training" in markdown
    html = (validated / "report.html").read_text()
    assert html.count("<svg") == 5


def test_recalibration_puts_the_level_right(recalibrated: Path, validated: Path) -> None:
    new, old = evaluation(recalibrated)["arms"]
    assert (new["arm"], old["arm"]) == ("recalibrated", "tables 1")
    for after, before in zip(new["horizons"], old["horizons"], strict=True):
        assert abs(np.log(after["observed_to_expected"]["value"])) < 0.15
        assert after["ici"]["value"] < before["ici"]["value"] / 2
        assert after["auc"]["value"] == pytest.approx(before["auc"]["value"], abs=0.01)
    (pair,) = evaluation(recalibrated)["differences"]
    assert all(one["upper"] < 0 for one in pair["brier"] + pair["ici"]), "better, on the same draws"
    assert evaluation(validated)["arms"][0]["horizons"][0]["auc"] == old["horizons"][0]["auc"]


def test_the_reports_of_the_node_name_the_site(recalibrated: Path, trained: Path) -> None:
    image = chest(3, shape=(20, 24, 24), spacing_mm=(12.0, 12.0, 12.0))
    measured = {"quantities.lungs.haa_percent": 12.0, "quantities.lungs.mean_hu": -705.0}
    named: dict[Path, set[str]] = {}
    for folder in (trained, recalibrated):
        risk = load(folder / "bundle", allow_demo=True).predict(image.volume, image.labels, measured)
        findings = cases.analysed(predicted=risk)
        report_ = cases.reread(risk_report.encode(cases.synthetic(), findings, cases.CONTEXT))
        named[folder] = {str(one.value) for one in report_.iterall() if one.keyword == "TextValue"}
        assert Findings.from_json(findings.to_json()).risk == risk
    assert {"The risk model was recalibrated to Site B.", "1-site-b"} <= named[recalibrated]
    assert not [text for text in named[trained] if "recalibrated" in text]


def test_the_recalibrated_bundle_is_whole_and_named(recalibrated: Path, trained: Path) -> None:
    before, after = (load(folder / "bundle", allow_demo=True) for folder in (trained, recalibrated))
    of_site = after.manifest.site_calibration
    assert of_site is not None and of_site.site == "Site B" and of_site.bundle_sha256 == before.sha256
    assert (after.name, after.version) == ("tables", "1-site-b") and after.sha256 != before.sha256
    assert after.manifest.population == before.manifest.population and before.manifest.site_calibration is None
    assert "Recalibrated to Site B" in (recalibrated / "bundle" / "MODEL_CARD.md").read_text()
    assert any("Site B" in limit for limit in after.manifest.limits)
    old, new = (
        [h["probability"] for h in json.loads((b.folder / "golden.json").read_text())["expected"]]
        for b in (before, after)
    )
    assert new != pytest.approx(old, abs=0.02), "the golden case is the recalibrated bundle's own"
    said = (recalibrated / "bundle" / "validation.md").read_text()
    assert "Q0001-" not in said, "a bundle names no scan"


def checks_of(folder: Path, *more: str | Path) -> tuple[int, dict[str, dict]]:
    """The exit status of the gate, and its conditions by name."""
    result = CliRunner().invoke(commands.app, ["compare", str(folder), *map(str, more), "--json"])
    return result.exit_code, {check["name"]: check for check in json.loads(result.stdout)["checks"]}


def failed(checks: dict[str, dict]) -> list[str]:
    return [name for name, check in checks.items() if not check["passed"]]


def test_the_gate_finds_the_recalibration_again_by_asking_the_bundle(recalibrated: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(recalibrated, tmp_path / "new"))
    status, checks = checks_of(folder)
    assert status == 0 and float(checks["parity"]["text"].split("by at most ")[1].split(",")[0]) < 1e-6
    table = pd.read_parquet(folder / "predictions.parquet")
    table.loc[table["arm"] == "recalibrated", "risk_3"] += 0.02
    table.to_parquet(folder / "predictions.parquet")
    status, checks = checks_of(folder)
    assert status == 3 and failed(checks) == ["parity"], "other risks than those that the report tells of"


def test_it_goes_into_service_through_the_gate(recalibrated: Path, trained: Path, tmp_path: Path) -> None:
    folder, weights = Path(shutil.copytree(recalibrated, tmp_path / "new")), tmp_path / "weights"
    shutil.copytree(trained / "bundle", weights / "tables-1")
    (weights / "current").symlink_to("tables-1")
    (folder / "gate.json").unlink(missing_ok=True)
    verdict = json.loads(call("compare", folder, weights / "current", "--json"))
    assert verdict["passed"] and {"parity", "calibration slope", "discrimination", "intended use"} <= {
        check["name"] for check in verdict["checks"]
    }
    assert "patients of the site" in verdict["judged_on"]
    assert "is now tables-1-site-b-" in call("promote", folder, "--to", weights)
    assert load(weights / "current", allow_demo=True).manifest.site_calibration is not None
    call("rollback", weights)
    assert load(weights / "current", allow_demo=True).sha256 == load(trained / "bundle", allow_demo=True).sha256


def test_the_gate_refuses_what_does_not_fit_the_site(recalibrated: Path, trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(recalibrated, tmp_path / "new"))
    (folder / "gate.toml").write_text("calibration_slope = [0.99, 1.01]\ncalibration_intercept = 0.001\n")
    status, checks = checks_of(folder, "--weights", folder)
    assert status == 3 and "calibration slope" in failed(checks) and "which depart" in checks["thresholds"]["text"]
    shutil.rmtree(folder / "bundle")
    shutil.copytree(trained / "bundle", folder / "bundle")
    status, checks = checks_of(folder)
    assert status == 3 and failed(checks) == ["bundle"] and "is not recalibrated" in checks["bundle"]["text"]
    change(folder / "bundle", "^slope = .*$", "slope = 0.3")
    status, checks = checks_of(folder)
    assert status == 3 and failed(checks) == ["bundle"] and "golden case" in checks["bundle"]["text"]


def test_the_gate_needs_the_whole_folder_and_its_registry(
    recalibrated: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(recalibrated, tmp_path / "new"))
    moved = Path(shutil.copytree(site, tmp_path / "registry"))
    stored = json.loads((folder / "validation.json").read_text())
    stored["settings"]["registry"] = str(moved)
    (folder / "validation.json").write_text(json.dumps(stored))
    with (moved / "registry.toml").open("a") as file:
        file.write('notes = "another one"\n')
    assert "has changed since" in refusal(["compare", folder], monkeypatch, capsys)
    (folder / "predictions.parquet").unlink()
    assert "is not whole (predictions.parquet missing)" in refusal(["compare", folder], monkeypatch, capsys)


def test_several_bundles_side_by_side(trained: Path, recalibrated: Path, tmp_path: Path) -> None:
    """On another set of the site's patients; the differences are paired, the first bundle's first."""
    registry = write(renamed(second_site(seed=21, patients=150), "R"), tmp_path / "registry")
    out = tmp_path / "both"
    call("evaluate", recalibrated / "bundle", trained / "bundle", *of(registry, out))
    found = evaluation(out)
    assert [arm["arm"] for arm in found["arms"]] == ["tables 1-site-b", "tables 1"]
    (pair,) = found["differences"]
    assert (pair["arm"], pair["against"]) == ("tables 1-site-b", "tables 1") and pair["brier"][1]["upper"] < 0
    assert "integrated calibration index" in (out / "report.md").read_text()
    page = call("report", out, "--no-open")
    assert Path(page.strip()).is_file()


def test_an_intercept_alone(trained: Path, site: Path, tmp_path: Path) -> None:
    said = call("recalibrate", trained / "bundle", *of(site, tmp_path / "new"), "--site", "B", "--intercept-only")
    assert "slope 1.0000" in said
    of_site = load(tmp_path / "new" / "bundle", allow_demo=True).manifest.site_calibration
    assert of_site is not None and of_site.slope == 1 and of_site.intercept > 0.5


def test_training_patients_are_refused_and_can_be_left_out(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own, more = world(patients=200, seed=5), second_site(patients=120)
    both = World(
        pd.concat([own.scans[:60], more.scans], ignore_index=True),
        pd.concat([own.features[:60], more.features], ignore_index=True),
        pd.concat([own.outcomes, more.outcomes], ignore_index=True),
        more.severity,
    )
    registry = write(both, tmp_path / "registry")
    arguments = ["evaluate", trained / "bundle", *of(registry, tmp_path / "out")]
    said = refusal(arguments, monkeypatch, capsys)
    assert "tables 1 was made with " in said and "--leave-out-training-patients" in said
    call(*arguments, "--leave-out-training-patients")
    cohort = pd.read_parquet(tmp_path / "out" / "cohort.parquet")
    assert cohort["patient"].str.startswith("Q").all()
    flow = json.loads((tmp_path / "out" / "flow.json").read_text())
    assert any("was used to make tables 1" in step["reason"] for step in flow)


def test_a_recalibrated_bundle_is_not_judged_on_whom_it_was_recalibrated_by(
    recalibrated: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(["evaluate", recalibrated / "bundle", *of(site, tmp_path / "out")], monkeypatch, capsys)
    assert "tables 1-site-b was made with " in said
    again = ["recalibrate", recalibrated / "bundle", *of(site, tmp_path / "out"), "--site", "C"]
    assert "was recalibrated to Site B already" in refusal(again, monkeypatch, capsys)


def without_features(made: World) -> World:
    return replace(made, features=made.features.drop(columns=["quantities.lungs.mean_hu"]))


def nobody_died(made: World) -> World:
    return replace(made, outcomes=made.outcomes.assign(death_date=""))


def other_patients(made: World) -> World:
    return replace(made, outcomes=made.outcomes.assign(patient="X" + made.outcomes["patient"]))


def empty(made: World) -> World:
    return replace(made, scans=made.scans[:0], features=made.features[:0])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_features, "lacks 1 of the 2 features that tables 1 takes: quantities.lungs.mean_hu"),
        (nobody_died, "patients died: there is nothing to judge; are the deaths in death_date?"),
        (other_patients, "no scan remains: the patient has no row in the outcomes"),
        (empty, "scans.csv has a header but no rows: add at least one"),
    ],
)
def test_tables_that_cannot_answer_are_refused(
    spoil, message: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    registry = write(spoil(second_site(patients=40)), tmp_path / "registry")
    assert message in refusal(["evaluate", trained / "bundle", *of(registry, tmp_path / "out")], monkeypatch, capsys)
    assert not (tmp_path / "out" / "evaluation.json").exists()


def test_who_is_left_out_is_counted_with_the_reason(trained: Path, tmp_path: Path) -> None:
    """Scans without a feature get no risk, as in the node; patients without an outcome cannot be judged."""
    made = second_site(patients=80)
    made.features.loc[:4, "quantities.lungs.mean_hu"] = np.nan
    registry = write(replace(made, outcomes=made.outcomes[:-5]), tmp_path / "registry")
    call("evaluate", trained / "bundle", *of(registry, tmp_path / "out"))
    flow = json.loads((tmp_path / "out" / "flow.json").read_text())
    (step,) = [one for one in flow if "gives no risk" in one["reason"]]
    assert step["scans"] == 5 and "features-missing" in step["reason"]
    assert len(pd.read_parquet(tmp_path / "out" / "cohort.parquet")) == flow[-1]["scans"]
    stated = json.loads((tmp_path / "out" / "report.json").read_text())
    assert any("5 of 80 patients of the registry have no outcome" in text for text in stated["warnings"])
    (items,) = stated["checklists"].values()
    assert any(item["number"] == "11" and "5 scans, excluded" in item["value"] for item in items)


@pytest.mark.parametrize("patients", [1, 2, 5])
def test_a_handful_of_patients_is_judged_as_far_as_it_goes(patients: int, trained: Path, tmp_path: Path) -> None:
    """What cannot be estimated is said so; nobody is told that the level is wrong."""
    registry = write(second_site(patients=patients), tmp_path / "registry")
    call("evaluate", trained / "bundle", *of(registry, tmp_path / "out"))
    stated = json.loads((tmp_path / "out" / "report.json").read_text())
    assert any("estimates are unstable" in text for text in stated["warnings"])
    assert not any("level of risk is wrong" in text for text in stated["warnings"])


def test_nothing_is_said_of_horizons_that_nobody_was_followed_for(trained: Path, tmp_path: Path) -> None:
    made = second_site(patients=60)
    first = ~made.scans["patient"].duplicated().to_numpy()
    end = (FIRST_DAY + timedelta(days=500)).isoformat()
    outcomes = made.outcomes.assign(
        death_date=made.outcomes["death_date"].where(made.outcomes["death_date"] <= end, ""),
        last_contact_date=made.outcomes["last_contact_date"].clip(upper=end),
    )
    short = replace(made, scans=made.scans[first], features=made.features[first], outcomes=outcomes)
    call("evaluate", trained / "bundle", *of(write(short, tmp_path / "registry"), tmp_path / "out"))
    one, three, five = evaluation(tmp_path / "out")["arms"][0]["horizons"]
    assert one["observed_to_expected"]["lower"] > 1
    for at in (three, five):
        assert {at[name]["value"] for name in ("observed_to_expected", "auc", "brier", "ici")} == {None}
        assert at["calibration"] == []
    warnings = json.loads((tmp_path / "out" / "report.json").read_text())["warnings"]
    assert "3 y: nobody was followed this long: the risk at 3 y cannot be judged here" in warnings
    (level,) = [text for text in warnings if "level of risk is wrong" in text]
    assert " at 1 y " in level and " at 3 y" not in level and " at 5 y" not in level


def test_predictors_in_another_unit_are_warned_of(trained: Path, tmp_path: Path) -> None:
    made, name = second_site(patients=60), "quantities.lungs.mean_hu"
    features = made.features.assign(**{name: made.features[name] * 10})
    registry = write(replace(made, features=features), tmp_path / "registry")
    call("evaluate", trained / "bundle", *of(registry, tmp_path / "out"))
    stated = json.loads((tmp_path / "out" / "report.json").read_text())
    (warning,) = [text for text in stated["warnings"] if "outside the range of training" in text]
    assert f"{name} (100 % of scans)" in warning and "haa_percent" not in warning


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--transplant", "end"], "--transplant 'end': use event, censor, ignore"),
        (["--threshold", "1"], "--threshold 1: give a risk between 0 and 1"),
    ],
)
def test_options_that_cannot_be_are_refused(
    more: list[str], message: str, trained: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    arguments = ["evaluate", trained / "bundle", *of(site, tmp_path / "out"), *more]
    assert message in refusal(arguments, monkeypatch, capsys)


def test_what_would_be_lost_or_meaningless_is_refused(
    trained: Path, validated: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    bundle = trained / "bundle"
    full = ["evaluate", bundle, *of(site, validated)]
    assert "is not empty: give a new folder" in refusal(full, monkeypatch, capsys)
    twice = ["evaluate", bundle, bundle, *of(site, tmp_path / "out")]
    assert "the bundle tables 1 is given twice" in refusal(twice, monkeypatch, capsys)
    nameless = ["recalibrate", bundle, *of(site, tmp_path / "out"), "--site", " "]
    assert "name the hospital in 1 to 60 printable characters" in refusal(nameless, monkeypatch, capsys)
    same = ["recalibrate", bundle, *of(site, tmp_path / "out"), "--site", "B", "--version", "1"]
    assert "name another one of up to 32 characters with --version" in refusal(same, monkeypatch, capsys)
    few = write(second_site(patients=18), tmp_path / "few")
    said = refusal(["recalibrate", bundle, *of(few, tmp_path / "out"), "--site", "B"], monkeypatch, capsys)
    assert "20 are needed to find intercept and slope" in said
    made = second_site(patients=40)
    outcomes = made.outcomes.assign(death_date=made.outcomes["last_contact_date"])
    dead = write(replace(made, outcomes=outcomes), tmp_path / "dead")
    said = refusal(["recalibrate", bundle, *of(dead, tmp_path / "out"), "--site", "B"], monkeypatch, capsys)
    assert "0 patients of " in said and "were alive at their last contact, and 10 are needed" in said


def test_a_bundle_that_does_not_say_whom_it_has_seen_is_said_so(
    trained: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    older = Path(shutil.copytree(trained / "bundle", tmp_path / "older"))
    (older / "held_out.json").unlink()
    change(older, '^"?held_out.json"? = .*\n', "")
    call("evaluate", older, *of(site, tmp_path / "out"))
    assert "is not verified" in (tmp_path / "out" / "report.md").read_text()
    own = trained.parent / "registry"
    said = refusal(["evaluate", older, *of(own, tmp_path / "own")], monkeypatch, capsys)
    assert "is the registry that tables 1 was made with" in said
