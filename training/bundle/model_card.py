"""The model card: what the model is, on whom it was made, where it must not be used. How well it does: `report.md`."""

from collections.abc import Mapping
from typing import Any

_DEMO = (
    "**For demonstration only.** Trained on synthetic chest phantoms with a known truth. It shows how dicomnode serves "
    "a model; its numbers mean nothing for a patient, and the node refuses it unless `analysis.allow_demo_bundles = "
    "true`."
)
_RESEARCH = "**Research use only.** No medical device; not for diagnosis or treatment. Check the images first."


def model_card(manifest: Mapping[str, Any]) -> str:
    """`MODEL_CARD.md` from the content of `model.toml`."""
    population = manifest["population"]
    return f"""# {manifest["name"]} {manifest["version"]}

{_DEMO if manifest["intended_use"] == "synthetic-demo" else _RESEARCH}

## Model
Predicts death from any cause within {_list(manifest["horizons_years"])} years of a chest CT, by discrete-time hazards over
intervals that end at {_list(manifest["edges_years"][1:])} years.

{_arms(manifest)}

The arms' hazards are combined as logits: {_weights(manifest["ensemble"])}; weights and calibration come from out-of-fold
predictions. The served probability is the mean over the fold models, its bounds their 2.5th and 97.5th percentile: they show
how far models that were trained on other parts of the patients disagree, not the uncertainty of the image or of another
population.

## Population
{population["description"].capitalize()}: {population["patients"]} patients, {population["scans"]} scans, {population["deaths"]} of
them followed by an observed death within {manifest["horizons_years"][-1]} years. Scans whose patient was lost before a horizon
count as neither dead nor alive there. Folds are by patient.

## Evaluation
Discrimination, calibration and their intervals by cross-validation: `report.md` beside this file, where the run has made one.

## Limits
{chr(10).join(f"- {limit}" for limit in manifest["limits"])}

## How it was made
```
{manifest["created_by"]}
```
Registry sha256 `{population["registry_sha256"]}`, split sha256 `{population["split_sha256"]}`,
{", ".join(f"{k} {v}" for k, v in manifest["software"].items())}. Training on another machine gives slightly other weights
(floating point); the golden case in the bundle tells whether a machine reproduces this model's predictions.
"""  # noqa: E501 (a paragraph of Markdown is one line)


def _arms(manifest: Mapping[str, Any]) -> str:
    lines = []
    for arm in manifest["arms"]:
        count = len(arm["models"])
        models = f"{count} fold model{'s' if count > 1 else ''}"
        if arm["kind"] == "tabular":
            lines.append(f"- `{arm['name']}`: {models} on {len(manifest['features'])} measured numbers.")
            continue
        spec = manifest["preprocessing"]
        second = "; the latest prior scan is a second input" if arm["prior"] else ""
        lines.append(
            f"- `{arm['name']}`: {models}, {arm['backbone']} on {spec['slices']} axial slices of the masked lungs "
            f"({spec['canvas'][1]} x {spec['canvas'][0]} pixels of {spec['spacing_mm']:g} mm, slab "
            f"{spec['slab_mm']:g} mm, window {spec['window_hu'][0]:g} to {spec['window_hu'][1]:g} HU), attention over "
            f"slices{second}."
        )
    return "\n".join(lines)


def _weights(ensemble: Mapping[str, Any]) -> str:
    shares = ", ".join(f"{weight:.3f} x {arm}" for arm, weight in ensemble["weights"].items())
    intercepts = ", ".join(f"{value:.3f}" for value in ensemble["intercepts"])
    return f"{ensemble['slope']:.3f} x ({shares}), plus {intercepts} in the intervals"


def _list(numbers: list[float]) -> str:
    return ", ".join(f"{n:g}" for n in numbers)
