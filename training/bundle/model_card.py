"""The model card: what the model is, on whom it was made, where it must not be used. How well it does: `report.md`."""

from collections.abc import Mapping, Sequence
from typing import Any

from dicomnode.analysis.risk.covariates import Covariate
from dicomnode.analysis.risk.encoder import PREFIX as ENCODED
from dicomnode.registry_format.provenance import Provenance
from dicomnode.words.numerals import plural
from training.bundle.encoders import NAME as ENCODER

_DEMO = (
    "**For demonstration only.** Trained on synthetic chest phantoms with known ground truth. It shows how dicomnode "
    "runs a model; its numbers have no meaning for any patient, and the node refuses to load it unless "
    "`analysis.allow_demo_bundles = true`."
)
_RESEARCH = "**Research use only.** Not a medical device; not for diagnosis or treatment. Review the images first."


def model_card(manifest: Mapping[str, Any], asked: Sequence[str] = ()) -> str:
    """`MODEL_CARD.md` from the content of `model.toml`; `asked` are thresholds of the run's own [gate] that depart."""
    population = manifest["population"]
    return f"""# {manifest["name"]} {manifest["version"]}

{_DEMO if manifest["intended_use"] == "synthetic-demo" else _RESEARCH}

## Model
Predicts death from any cause within {_list(manifest["horizons_years"])} years of a chest CT, from discrete-time hazards over
intervals ending at {_list(manifest["edges_years"][1:])} years.

{_arms(manifest)}

The arms are combined on the logit of their hazards: {_weights(manifest["ensemble"])}. Weights and calibration were fitted to
out-of-fold predictions. The reported probability is the mean over the fold models, its bounds are their 2.5th and 97.5th
percentiles: they reflect disagreement between models trained on different subsets of patients, not uncertainty from the image
or from a different population.

## Population
{population["description"][:1].upper() + population["description"][1:]}: {population["patients"]} patients, {population["scans"]} scans, {population["deaths"]} of
them followed by death within {manifest["horizons_years"][-1]} years. Scans censored before a horizon count as neither dead nor
alive at that horizon. Folds are by patient.

{_provenance(population)}
{_covariates(manifest)}

## Evaluation
For cross-validated discrimination and calibration with confidence intervals, see `report.md` beside this file, if the run
wrote one.

{_gate(asked)}
## Limits
{chr(10).join(f"- {limit}" for limit in manifest["limits"])}

## Provenance
```
{manifest["created_by"]}
```
Registry sha256 `{population["registry_sha256"]}`, split sha256 `{population["split_sha256"]}`,
{", ".join(f"{k} {v}" for k, v in manifest["software"].items())}. Training on another machine gives slightly different
weights (floating point); the bundle's golden case checks whether a machine reproduces this model's predictions.
"""  # noqa: E501 (a paragraph of Markdown is one line)


def _gate(asked: Sequence[str]) -> str:
    if not asked:
        return ""
    return f"""## Gate
The run's settings ask for thresholds of their own: {", ".join(asked)}. They set nothing: the node's `gate.toml` does.
"""


def _arms(manifest: Mapping[str, Any]) -> str:
    lines = []
    for arm in manifest["arms"]:
        count = len(arm["models"])
        models = plural(count, "fold model")
        if arm["kind"] == "tabular":
            lines.append(_tabular(arm["name"], models, manifest))
            continue
        spec = manifest["preprocessing"]
        second = "; the most recent prior scan is a second input" if arm["prior"] else ""
        lines.append(
            f"- `{arm['name']}`: {models}, {arm['backbone']} on {spec['slices']} axial slices of the masked lungs "
            f"({spec['canvas'][1]} x {spec['canvas'][0]} pixels of {spec['spacing_mm']:g} mm, slab "
            f"{spec['slab_mm']:g} mm, window {spec['window_hu'][0]:g} to {spec['window_hu'][1]:g} HU), attention over "
            f"slices{second}."
        )
    return "\n".join(lines)


def _tabular(name: str, models: str, manifest: Mapping[str, Any]) -> str:
    encoded = [feature for feature in manifest["features"] if feature.startswith(ENCODED)]
    if name != ENCODER:
        return f"- `{name}`: {models} on {len(manifest['features']) - len(encoded)} measured numbers."
    file = manifest["encoder"]
    spec = file["preprocessing"]
    size, spacing = (" x ".join(f"{v:g}" for v in spec[key]) for key in ("size", "spacing_mm"))
    where = (
        "in this bundle" if file["included"] else "not in this bundle: `encoders` of the weights folder must hold it"
    )
    return (
        f"- `{name}`: {models} on {len(encoded)} of {file['width']} numbers of the frozen 3-D encoder `{file['file']}` "
        f"(somebody else's work; licence: {file['licence']}; {where}; sha256 `{file['sha256']}`). Its input: the "
        f"masked lungs, {size} voxels of {spacing} mm (z, y, x), {spec['window_hu'][0]:g} to "
        f"{spec['window_hu'][1]:g} HU."
    )


def _provenance(population: Mapping[str, Any]) -> str:
    known = {key: population.get(key, "") for key in ("disease", "source", "period", "dates")}
    of = Provenance(**known, sites=tuple(population.get("sites", ())))
    return "\n".join(f"- {name}: {value}" for name, value in of.lines)


def _covariates(manifest: Mapping[str, Any]) -> str:
    """Return what the node must be given beside the image, with units and ranges."""
    declared = [Covariate.model_validate(one) for one in manifest.get("covariates", ())]
    if not declared:
        return ""
    without = {"refuse": "without it no risk is given", "median": "if unknown, the training median stands in"}
    lines = [f"- `{one.name}`: {one.described}; {without[one.missing]}." for one in declared]
    return "\n## Covariates\nBeside the image the model takes:\n" + "\n".join(lines) + "\n"


def _weights(ensemble: Mapping[str, Any]) -> str:
    shares = ", ".join(f"{weight:.3f} x {arm}" for arm, weight in ensemble["weights"].items())
    intercepts = ", ".join(f"{value:.3f}" for value in ensemble["intercepts"])
    return f"{ensemble['slope']:.3f} x ({shares}), plus intercepts {intercepts} by interval"


def _list(numbers: list[float]) -> str:
    return ", ".join(f"{n:g}" for n in numbers)
