"""The model card: what the model is, on whom it was made, how well it does, where it must not be used."""

from collections.abc import Mapping, Sequence
from typing import Any


def model_card(run: Mapping[str, Any], name: str, version: str, created_by: str, limits: Sequence[str]) -> str:
    """`MODEL_CARD.md` from the content of `run.json`."""
    settings, spec = run["settings"], run["settings"]["spec"]
    losses = run["train_loss"]
    return f"""# {name} {version}

**For demonstration only.** Trained on synthetic chest phantoms with a known truth. It shows how dicomnode serves a model; its
numbers mean nothing for a patient, and the node refuses it unless `analysis.allow_demo_bundles = true`.

## Model
- {settings["backbone"]} on {spec["slices"]} axial slices of the masked lungs ({spec["canvas"][1]} x {spec["canvas"][0]} pixels of
  {spec["spacing_mm"]} mm, slab {spec["slab_mm"]} mm, window {spec["window_hu"][0]:g} to {spec["window_hu"][1]:g} HU), attention over slices,
  discrete-time logistic hazards over intervals ending at {", ".join(f"{e:g}" for e in run["edges_years"][1:])} years. Random start: no pre-trained weights.
- {settings["heads"]} heads (attention and hazard), each trained on a bootstrap sample of the training patients over the frozen encoder.
  Probability: their mean. Interval: their 2.5th to 97.5th percentile; it leaves out the encoder's own uncertainty.
- Hazard logits recalibrated on separate patients: slope {run["calibration"]["slope"]}, intercept {run["calibration"]["intercept"]}.
- {settings["epochs"]} epochs, seed {settings["seed"]}, training loss {losses[0]:.3f} in the first, {losses[-1]:.3f} in the last.

## Population
Synthetic patients with a latent severity that grows with time; death depends on severity, age and sex; censoring is independent.
Split by patient. «Censored»: lost before the horizon, so neither dead nor alive there.

{_population(run)}

## Held-out patients
Time-dependent AUC and Brier score with inverse-probability-of-censoring weights; 95 % intervals by bootstrap over patients.
The oracle is the generator's own risk, which also knows age, sex and the true severity: no model can be expected to do better. With as
few deaths as in this test part its AUC is as uncertain as the model's, and a model's AUC above it is chance.

{_metrics(run)}

## Limits
{chr(10).join(f"- {limit}" for limit in limits)}

## How it was made
```
{created_by}
```
Registry sha256 `{run["registry_sha256"]}`, split sha256 `{run["split_sha256"]}`,
{", ".join(f"{k} {v}" for k, v in run["software"].items())}. Training on another machine gives slightly other weights (floating
point); the golden case in the bundle tells whether a machine reproduces this model's predictions.
"""  # noqa: E501 (a paragraph of Markdown is one line)


def _population(run: Mapping[str, Any]) -> str:
    years = run["horizons_years"]
    head = ["part", "patients", "scans", *(f"dead / censored, {h} y" for h in years)]
    rows = [
        [
            part,
            str(n["patients"]),
            str(n["scans"]),
            *(f"{n[f'dead_{h}y']} / {n[f'censored_before_{h}y']}" for h in years),
        ]
        for part, n in run["population"].items()
    ]
    return _table(head, rows)


def _metrics(run: Mapping[str, Any]) -> str:
    head = [
        "horizon",
        "AUC",
        "oracle's AUC",
        "Brier",
        "oracle's Brier",
        "mean predicted risk",
        "observed (Kaplan-Meier)",
    ]
    rows = []
    for years, m in run["test"].items():
        oracle = m["oracle"]
        rows.append(
            [
                f"{years} y",
                _estimate(m["auc"]),
                _number(oracle.get("auc")),
                _estimate(m["brier"]),
                _number(oracle.get("brier")),
                _number(m["mean_risk"]),
                _number(m["observed_risk"]),
            ]
        )
    return _table(head, rows)


def auc_lines(run: Mapping[str, Any]) -> list[str]:
    """The held-out AUC of a run, a line for each horizon."""
    return [
        f"{years} y: AUC {_estimate(m['auc'])} on held-out patients, oracle {_number(m['oracle'].get('auc'))}"
        for years, m in run["test"].items()
    ]


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3f}"


def _estimate(estimate: Mapping[str, float | None]) -> str:
    return f"{_number(estimate['value'])} ({_number(estimate['lower'])} to {_number(estimate['upper'])})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
