"""The report of a run folder: complete, self-contained, honest about what is missing, and safe to open."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from dicomnode.errors import UsageError
from training.cli import commands
from training.evaluation.evaluate import evaluate
from training.evaluation.inputs import RISKS
from training.evaluation.misjudged import without_single_scans
from training.evaluation.records import Evaluation
from training.evaluation.transplants import sensitivity
from training.report import checklists, figures, report, run_facts
from training.run.closing import closing


@pytest.fixture(scope="module")
def evaluation() -> tuple[Evaluation, pd.DataFrame]:
    """A small evaluation of two arms, with an oracle."""
    rng = np.random.default_rng(5)
    count = 240
    patients = [f"P{i // 2:03d}" for i in range(count)]
    severity = np.repeat(rng.standard_normal(count // 2), 2)
    rate = 0.12 * np.exp(severity)
    death, lost = rng.exponential(1 / rate), rng.uniform(0.5, 9, count)
    cohort = pd.DataFrame(
        {
            "scan": [f"{p}-{i % 2}" for i, p in enumerate(patients)],
            "patient": patients,
            "date": ["2015-01-01", "2016-01-01"] * (count // 2),
            "time_years": np.minimum(death, lost),
            "event": death <= lost,
            "age_years": rng.uniform(30, 80, count),
            "sex": rng.choice(["F", "M"], count),
            "manufacturer": rng.choice(["Maker A", "Maker <B> & Co"], count),
            "kernel_family": rng.choice(["lung", "soft"], count),
            "slice_thickness_mm": 1.25,
            "prior_scan": ["", "x"] * (count // 2),
        }
    )
    risks = 1 - np.exp(-rate[:, None] * np.arange(1, 6))
    truth = pd.DataFrame(risks[:, [0, 2, 4]], columns=["risk_1y", "risk_3y", "risk_5y"]).assign(scan=cohort["scan"])
    tables = [
        cohort[["scan", "patient"]].assign(arm=name, fold=0, **dict(zip(RISKS, values.T, strict=True)))
        for name, values in (("radiomics", risks**1.3), ("ensemble", risks))
    ]
    settings = type("Settings", (), {"bootstrap": 30, "threshold": 0.2})()
    return evaluate(cohort, pd.concat(tables), settings, truth), cohort


PLOTS = ("auc", "roc", "calibration", "net_benefit", "risk_groups")
RUN = {
    "settings": {
        "registry": "nowhere",
        "seed": 7,
        "cohort": {"transplant": "censor"},
        "splits": {"outer": 2, "inner": 3},
        "radiomics": {"combat": ["manufacturer"], "families": ["quantities", "change"], "models": ["cox", "network"]},
        "deep": {"epochs": 3},
        "bundle": {"make": True, "name": "ssc", "version": "4"},
    },
    "fixed": {"sha256": {"registry": "abc"}},
    "warnings": ["quantities.lungs.odd alone tells death within 3 years (AUC 0.999): is it an outcome?"],
    "software": {"dicomnode": "0.1.0", "numpy": "2.4"},
    "code": {"git_commit": "0123abcd", "git_changed": False},
    "split_sha256": "feed",
    "steps": {"cohort": {"state": "done"}, "report": {"state": "running"}},
}
FLOW = [
    {"step": "registry", "patients": 130, "scans": 260, "reason": ""},
    {"step": "excluded", "patients": 10, "scans": 20, "reason": "the patient has no row in the outcomes"},
    {"step": "cohort", "patients": 120, "scans": 240, "reason": ""},
]


@pytest.fixture
def folder(folder_of, tmp_path: Path) -> Path:
    return folder_of(tmp_path)


@pytest.fixture(scope="module")
def folder_of(evaluation) -> Callable[[Path], Path]:
    return lambda parent: _run_folder(parent, *evaluation)


def _run_folder(parent: Path, found: Evaluation, cohort: pd.DataFrame) -> Path:
    registry = parent / "registry"
    registry.mkdir()
    (registry / "registry.toml").write_text('made_by = "synthetic"\nalgorithm_digest = "dd"\nnotes = "made up"\n')
    run = parent / "run"
    run.mkdir()
    settings = {**RUN["settings"], "registry": str(registry)}
    (run / "run.json").write_text(json.dumps({**RUN, "settings": settings}))
    (run / "flow.json").write_text(json.dumps(FLOW))
    (run / "splits.json").write_text(json.dumps({"outer": [["a", "b"], ["c"]]}))
    (run / "ensemble.json").write_text(json.dumps({"arms": ["radiomics"], "weights": [1.0], "slope": 0.9}))
    (run / "evaluation.json").write_text(found.to_json())
    cohort.to_parquet(run / "cohort.parquet")
    features = {"scan": cohort["scan"], "quantities.lungs.mean_hu": 1.0, "change.a": [np.nan, 1.0] * 120}
    # What the arms are not given is no predictor, and its gaps are nobody's.
    features["covariates.fvc_l"] = np.nan
    pd.DataFrame(features).to_parquet(run / "features.parquet")
    return run


@pytest.fixture(scope="module")
def written(folder_of, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with its report, for tests that only read."""
    run = folder_of(tmp_path_factory.mktemp("written"))
    assert report.write(run) == run / "report.html"
    return run


class _Page(HTMLParser):
    """Everything that a page would load, and whether each opened tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.loads += [v for k, v in attrs if k in ("src", "href", "xlink:href") and not v.startswith("#")]
        if tag in ("script", "link", "iframe"):
            self.loads.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag


def test_the_page_is_complete_and_needs_nothing_else(written: Path) -> None:
    text = (written / "report.html").read_text()
    parsed = _Page(text)
    assert parsed.open == [] and parsed.loads == []
    assert text.count("<svg") == 5
    assert not re.search(r"\bnan\b|None|Undefined", text)
    for said in ("130 patients, 260 scans", "the patient has no row in the outcomes", "0.769", "is it an outcome?"):
        assert said in text
    assert "Synthetic registry: phantoms" in text


def test_patients_are_described_once_at_their_first_scan_and_scans_as_scans(folder: Path) -> None:
    """One patient with many scans is one man, as old as at the first; the scans are of his scanner nonetheless."""
    rows = [
        ("A", "2015-01-01", "F", 40.0, "GE"),
        *(("B", f"201{9 - i}-01-01", "M", 69.0 - i, ("TOSHIBA", "Canon")[i % 2]) for i in range(4)),
    ]
    frame = pd.DataFrame(rows, columns=["patient", "date", "sex", "age_years", "manufacturer"])
    frame = frame.assign(
        scan=[f"s{i}" for i in range(5)], kernel_family="lung", slice_thickness_mm=1.0, earlier_scan=""
    )
    frame.to_parquet(folder / "cohort.parquet")
    facts = run_facts.read(folder)
    found = {c.name: c.value for c in facts.characteristics}
    assert found["sex (patients)"] == "F: 1 (50 %); M: 1 (50 %)"
    assert found["age at first scan, years (patients)"].startswith("median 53.0")  # of 40 and 66
    assert found["scanner (scans)"].startswith("Canon/Toshiba: 4 (80 %)")
    assert (found["patients"], found["scans"]) == ("2", "5")
    claim = {i.number: i.value for i in checklists.claim(facts)}
    assert claim["36"].startswith("age at first scan") and "sex (patients): F: 1" in claim["36"]
    assert claim["13"].count("(scans)") == 3


def test_what_the_data_call_themselves_is_escaped(written: Path) -> None:
    text = (written / "report.html").read_text()
    assert "Maker &lt;B&gt; &amp; Co" in text and "<B>" not in text


def test_it_is_said_how_far_the_ensembles_judgement_is_independent(folder: Path, written: Path, evaluation) -> None:
    for name in ("report.html", "report.md"):
        text = unescape((written / name).read_text())
        assert "Each arm predicts a scan with a model that was not fitted on its patient." in text
        assert "cross-fitted stacking" in text and "The node reports the mean of the fold models" in text
        assert "have not seen" not in text
    # Without an ensemble there is nothing to add.
    alone = replace(evaluation[0], arms=evaluation[0].arms[:1], primary="radiomics")
    (folder / "evaluation.json").write_text(alone.to_json())
    summary = report._content(run_facts.read(folder)).summary[0]
    assert summary.endswith("not fitted on its patient.")


def test_the_json_holds_the_evaluation_and_the_rest(written: Path, evaluation) -> None:
    stated = json.loads((written / "report.json").read_text())
    assert Evaluation.from_json(json.dumps(stated["evaluation"])) == evaluation[0]
    assert stated["flow"] == FLOW and stated["synthetic"] is True
    assert stated["warnings"][0].startswith("quantities.lungs.odd")
    assert stated["model_card"]["Name and version"] == "ssc 4"
    assert stated["sha256"] == {"registry": "abc"}


def test_markdown_has_the_same_tables(written: Path, evaluation) -> None:
    text = (written / "report.md").read_text()
    auc = evaluation[0].arm("ensemble").at(3).auc
    assert f"{auc.value:.3f} ({auc.lower:.3f} to {auc.upper:.3f})" in text
    assert "| study: best network | 0.769 | 0.801 | 0.709 |" in text
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(line.endswith("|") for line in lines)
    # A blank line ends a table: what follows a heading row must have as many cells.
    for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.strip().splitlines()}) == 1


def test_deaths_are_told_by_scan_and_by_patient(written: Path, evaluation) -> None:
    at = evaluation[0].horizons[1]
    assert at.patients_died < at.deaths
    said = f"3 y: {at.deaths} scans of {at.patients_died} patients followed by death, {at.censored} censored earlier"
    for name in ("report.md", "report.html"):
        text = (written / name).read_text()
        assert text.count(said) >= 3  # TRIPOD+AI 10 and 21, CLAIM 21
        assert f"{at.deaths} ({100 * at.deaths / 240:.1f} %), in {at.patients_died} patients" in text
    women = [s for s in evaluation[0].arm("ensemble").subgroups if (s.by, s.value) == ("sex", "F")]
    assert " / ".join(f"{s.deaths} ({s.patients_died})" for s in women) in (written / "report.md").read_text()


def test_single_scans_that_were_judged_worst_stand_in_all_three_forms(written: Path, evaluation) -> None:
    found = evaluation[0].misjudged
    assert len(found) == 20
    html, markdown = (written / "report.html").read_text(), (written / "report.md").read_text()
    for one in found:
        cells = (
            "died within 3 y" if one.died else "alive at 3 y",
            one.scan,
            f"{one.risk:.3f}",
            f"{one.time_years:.2f}",
        )
        assert f"| {' | '.join(cells)} |" in markdown
        assert "".join(f"<td>{cell}</td>" for cell in cells) in html
    stated = json.loads((written / "report.json").read_text())
    assert [m["scan"] for m in stated["evaluation"]["misjudged"]] == [m.scan for m in found]
    assert stated["model_card"]["Run steps"] == "all steps before the report are complete"
    # What goes into a bundle travels farther, and tells of nobody alone.
    shared = without_single_scans(markdown)
    assert not any(one.scan in shared for one in found) and "## Model card" in shared


def test_a_step_that_is_not_finished_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_plots", lambda _: dict.fromkeys(PLOTS, ""))
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**run, "steps": {"arms": {"state": "running"}}}))
    report.write(folder)
    assert "**Run steps**: incomplete: arms" in (folder / "report.md").read_text()


def test_the_same_run_makes_the_same_bytes(written: Path) -> None:
    names = ("report.html", "report.md", "report.json")
    first = [(written / name).read_bytes() for name in names]
    report.write(written)
    assert [(written / name).read_bytes() for name in names] == first
    assert not list(written.glob(".*part"))


def test_checklists_state_what_the_run_knows(folder: Path) -> None:
    facts = run_facts.read(folder)
    tripod = {i.number: i.value for i in checklists.tripod_ai(facts)}
    assert "2 outer folds by patient" in tripod["12a"] and "3 inner folds" in tripod["12a"] and "feed" in tripod["12a"]
    assert tripod["9b"] == "radiomics: 1 quantities, 1 change"
    gaps = "radiomics: missing values: quantities 0.00 %, change 50.00 % (first scans have no change)"
    assert tripod["11"].startswith(gaps) and "median of the fold's training scans" in tripod["11"]
    assert tripod["12c"] == "arms: radiomics; combined as a weighted sum of hazard logits"
    assert "ComBat by manufacturer" in tripod["12b"]
    assert "censored at lung transplant" in tripod["8a"]
    assert "commit 0123abcd" in tripod["18f"] and "bundle" in tripod["22"]
    claim = {i.number: i.value for i in checklists.claim(facts)}
    assert claim["33"] == checklists.NOT_AVAILABLE
    assert claim["24"] == "seed 7" and claim["25"] == "radiomics: cox, network"
    assert claim["31"] == checklists.NOT_AVAILABLE, "numbers are not explained"
    assert claim["40"] == tripod["26"]
    h = facts.evaluation.arm("ensemble").at(3)
    assert f"3 y: sensitivity {checklists.interval(h.sensitivity)}, specificity" in claim["38"]
    range_ = r"predicted risk \(0\.\d{3} to 0\.\d{3}\)"
    survivors = f"the 10 survivors beyond 3 years with the highest {range_}"
    said = f"the 10 deaths within 3 years with the lowest {range_}; {survivors}"
    assert re.fullmatch(f"{said}: see the table of prediction errors", claim["39"])


def _fit(folder: Path, arm: str, fold: int, **content: object) -> None:
    path = folder / "arms" / arm / f"fold-{fold}" / "fit.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))


def test_checklists_tell_what_each_fold_came_to(folder: Path) -> None:
    # Ten folds and more are in the order of their numbers.
    for fold, chosen in ((0, "cox penalizer=0.1"), (2, "network steps=15 decay=1"), (10, "cox penalizer=0.1")):
        losses = {"cox penalizer=0.1": [1.0], "network steps=15 decay=1": [2.0]}
        _fit(
            folder,
            "radiomics",
            fold,
            chosen=chosen,
            inner_loss=losses,
            left_out={} if fold else {"change.a": "missing"},
        )
    facts = run_facts.read(folder)
    tripod, claim = ({i.number: i.value for i in of(facts)} for of in (checklists.tripod_ai, checklists.claim))
    assert tripod["9b"] == "radiomics: 1 quantities, 1 change (1 to 2 retained by the filters within each fold)"
    chosen = "cox penalizer=0.1 in 2 of 3 folds, network steps=15 decay=1 in 1 of 3 folds"
    assert f"radiomics (selected: {chosen})" in tripod["12c"] and claim["22"] == tripod["12c"]
    assert claim["25"] == "radiomics: cox, network: 2 candidates in each of 3 folds"
    assert claim["26"].startswith("radiomics: the candidate") and "networks" not in claim["26"]
    assert [fit["chosen"][:3] for fit in facts.fits["radiomics"]] == ["cox", "net", "cox"]


def test_a_setting_at_the_edge_of_its_grid_is_warned_of_in_every_form(folder: Path) -> None:
    losses = {f"cox penalizer={p}": [1.0] for p in (0.1, 1, 10)}
    for fold in range(3):
        _fit(folder, "radiomics", fold, chosen="cox penalizer=10" if fold else "cox penalizer=1", inner_loss=losses)
    steps = json.loads((folder / "run.json").read_text()) | {"steps": {"evaluation": {"state": "done"}}}
    (folder / "run.json").write_text(json.dumps(steps))
    report.write(folder)
    told = "radiomics: cox penalizer = 10 was chosen in 2 of 3 outer folds, the largest of the grid"
    for name in ("report.html", "report.md", "report.json"):
        assert told in unescape((folder / name).read_text()), name
    assert any(told in text and "widen radiomics.penalizers upwards" in text for text in closing(folder).warnings)
    for fold in range(3):
        path = folder / "arms" / "radiomics" / f"fold-{fold}" / "fit.json"
        path.write_text(path.read_text().replace('"chosen": "cox penalizer=10"', '"chosen": "cox penalizer=1"'))
    assert not any("of the grid" in text for text in closing(folder).warnings)


def test_transplants_are_shown_by_treatment_where_there_are_any(folder: Path, evaluation, written: Path) -> None:
    found, cohort = evaluation
    rng = np.random.default_rng(2)
    first = rng.random(len(cohort)) < 0.2
    courses = pd.DataFrame(
        {"years": cohort["time_years"], "died": cohort["event"] & ~first, "transplanted": first}
    ).set_index(cohort["scan"])
    risks = np.tile(rng.uniform(0.1, 0.6, len(cohort))[:, None], (1, 5))
    told = sensitivity(cohort, risks, courses, 10, (1, 3, 5))
    (folder / "evaluation.json").write_text(replace(found, transplants=told).to_json())
    report.write(folder)
    text = (folder / "report.md").read_text()
    assert "## Lung transplants" in text and "| competing risk | observed risk (Aalen-Johansen) |" in text
    ratio = next(t for t in told[1].treatments if t.treatment == "compete").observed_to_expected
    assert f"{ratio.value:.3f} ({ratio.lower:.3f} to {ratio.upper:.3f})" in text
    assert json.loads((folder / "report.json").read_text())["evaluation"]["transplants"][0]["transplanted"] > 0
    assert "Lung transplants" in (folder / "report.html").read_text()
    assert "Lung transplants" not in (written / "report.md").read_text()


def test_checklists_tell_the_settings_in_force_of_networks(folder: Path, evaluation) -> None:
    """What the settings leave out has its default, and is told; the raw table has three words."""
    found = evaluation[0]
    arms = tuple(replace(found.arm("radiomics"), arm=name) for name in ("resnet18", "swin_t"))
    (folder / "evaluation.json").write_text(replace(found, arms=(*arms, found.arm("ensemble"))).to_json())
    run = json.loads((folder / "run.json").read_text())
    deep = {"epochs": 3, "prior": True, "learning_rates": {"swin_t": 0.0001}}
    deep["pretrained"] = {"resnet18": {"path": "resnet18.pth", "sha256": "ab" * 32}}
    run["settings"]["deep"] = deep
    (folder / "run.json").write_text(json.dumps(run))
    for fold, best in ((0, 2), (1, 3)):
        _fit(folder, "resnet18", fold, best_epoch=best)
    facts = run_facts.read(folder)
    tripod, claim = ({i.number: i.value for i in of(facts)} for of in (checklists.tripod_ai, checklists.claim))
    assert tripod["9b"] == (
        "resnet18, swin_t: 24 axial slices of the masked lungs (256 x 208 pixels of 1.5 mm), and the same of the most "
        "recent prior scan"
    )
    assert "no missing images; a scan without a prior is evaluated on its own" in tripod["11"]
    assert tripod["12b"] == checklists.NOT_AVAILABLE, "networks are given no measured numbers"
    assert "resnet18 (slice encoder, attention over slices, hazards; best epochs 2, 3), swin_t" in tripod["12c"]
    assert (
        claim["24"]
        == f"seed 7; resnet18 initialised from ImageNet weights (sha256 {'ab' * 32}); swin_t initialised randomly"
    )
    for said in (
        "networks (2 fitted): up to 3 epochs, stopped after 8 without",
        "batches of 16 scans; AdamW, one-cycle learning rate up to resnet18 0.0003, swin_t 0.0001; weight decay 0.02;",
        "augmentation: zoom 0.06, shift 0.04, brightness_hu 10.0, contrast 0.03, noise_hu 15.0, mirror False;",
        "forward pass in auto",
    ):
        assert said in claim["25"]
    assert "fitted anew" not in claim["25"], "a run of before did not"
    for fold in (0, 1):
        path = folder / "arms" / "resnet18" / f"fold-{fold}" / "fit.json"
        path.write_text(json.dumps({"best_epoch": 2, "stop_after": 2}))
    again = {i.number: i.value for i in checklists.claim(run_facts.read(folder))}
    assert "likelihood, then fitted anew on all training patients for as many epochs as were best; batch" in again["25"]
    assert "no selection" in claim["26"] and "radiomics" not in claim["26"]
    assert claim["31"].startswith("resnet18, swin_t: attention over slices")
    # Settings that today's code does not know: nothing is guessed.
    run["settings"]["deep"] = {"colour": "blue"}
    (folder / "run.json").write_text(json.dumps(run))
    unknown = {i.number: i.value for i in checklists.claim(run_facts.read(folder))}
    assert unknown["25"] == checklists.NOT_AVAILABLE and unknown["24"] == "seed 7"


def test_what_is_missing_is_not_available_and_never_invented(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_plots", lambda _: dict.fromkeys(PLOTS, ""))
    for name in ("run.json", "flow.json", "splits.json", "ensemble.json", "cohort.parquet", "features.parquet"):
        (folder / name).unlink()
    text = report.write(folder).read_text()
    assert "Flow chart: not available." in text
    facts = run_facts.read(folder)
    missing = {i.number for i in checklists.tripod_ai(facts) if i.value == checklists.NOT_AVAILABLE}
    assert {"5a", "6b", "7", "9b", "11", "12a", "12b", "12f", "18f", "22", "20a", "20b"} <= missing


def test_a_report_on_patients_says_research_only(folder: Path, evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_plots", lambda _: dict.fromkeys(PLOTS, ""))
    (folder / "evaluation.json").write_text(replace(evaluation[0], oracle=()).to_json())
    registry = Path(json.loads((folder / "run.json").read_text())["settings"]["registry"])
    (registry / "registry.toml").write_text('made_by = "node"\n')
    report.write(folder)
    text = (folder / "report.md").read_text()
    assert "Research use only. Not a medical device" in text and "phantoms" not in text


def test_an_evaluation_without_figures_makes_a_report(folder: Path, evaluation) -> None:
    _, cohort = evaluation
    cohort = cohort.assign(event=False)
    table = cohort[["scan", "patient"]].assign(arm="radiomics", fold=0, **dict.fromkeys(RISKS, 0.1))
    found = evaluate(cohort, table, type("Settings", (), {"bootstrap": 0, "threshold": 0.2})())
    (folder / "evaluation.json").write_text(found.to_json())
    text = report.write(folder).read_text()
    assert "not estimable" in text and not re.search(r"\bnan\b|None", text)


def test_a_folder_without_an_evaluation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="run the evaluation"):
        report.write(tmp_path)


def test_the_command_prints_the_path_and_opens_it_when_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("typer.launch", opened.append)
    monkeypatch.setattr(report, "_plots", lambda _: dict.fromkeys(PLOTS, ""))  # they are tried above
    result = CliRunner().invoke(commands.app, ["report", str(folder)])
    assert result.exit_code == 0 and result.output.strip() == str(folder / "report.html")
    assert opened == []
    CliRunner().invoke(commands.app, ["report", str(folder), "--open"])
    assert opened == [str(folder / "report.html")]


def test_names_in_plots_are_no_formulas() -> None:
    assert "$\\frac$" in figures.as_svg(1, 3, 3, lambda axes: axes[0].set_title("$\\frac$"))
