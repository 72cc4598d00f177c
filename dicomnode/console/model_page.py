"""The bundle that serves, the candidate in its shadow, and the last look of the registry. No patient stands in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.responses import Response

from dicomnode.config import Config
from dicomnode.console.site import ConsoleSite, Visit
from dicomnode.files import parse_toml
from dicomnode.registry.latest_look import latest

#: A card is a text of a page or two.
_LONGEST_CARD = 200_000


@dataclass(frozen=True)
class BundleCard:
    """A bundle as it says itself.

    Attributes:
        name: of its folder in `analysis.weights`.
        facts: labels and values; empty where model.toml cannot be read.
        limits: as it states them.
        is_demo: made from synthetic phantoms.
        card: MODEL_CARD.md, "" where there is none.
    """

    name: str
    facts: Sequence[tuple[str, str]]
    limits: Sequence[str]
    is_demo: bool
    card: str


def model(site: ConsoleSite, visit: Visit) -> Response:
    """Show the model."""
    table = site.config.analysis
    return site.page(
        visit,
        "model.html",
        bundle=card(table.weights, table.bundle) if table.bundle else None,
        candidate=card(table.weights, table.shadow_bundle) if table.shadow_bundle else None,
        shadow=site.shadow.found() if table.shadow_bundle else [],
        drift=_drift(site.config),
    )


def card(weights: Path, name: str) -> BundleCard:
    """Read what a bundle says of itself. Its digests are the worker's to check: that takes torch, and seconds."""
    folder = (weights / name).resolve()
    try:
        stored = parse_toml((folder / "model.toml").read_text("utf-8"))
        facts, limits = _facts(stored), [str(one) for one in stored["limits"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        stored, facts, limits = {}, [], []
    try:
        with (folder / "MODEL_CARD.md").open(encoding="utf-8", errors="replace") as file:
            text = file.read(_LONGEST_CARD)
    except OSError:
        text = ""
    return BundleCard(name, facts, limits, stored.get("intended_use") == "synthetic-demo", text)


def _facts(stored: Mapping[str, Any]) -> list[tuple[str, str]]:
    made_on = stored["population"]
    return [
        ("name", str(stored["name"])),
        ("version", str(stored["version"])),
        ("intended use", str(stored["intended_use"])),
        ("horizons, years", ", ".join(str(one) for one in stored["horizons_years"])),
        ("arms", ", ".join(str(one["name"]) for one in stored["arms"])),
        ("population", str(made_on["description"])),
        ("disease", str(made_on.get("disease", ""))),
        ("patients", str(made_on["patients"])),
        ("scans", str(made_on["scans"])),
        ("deaths", str(made_on["deaths"])),
        ("recalibrated", "yes" if "site_calibration" in stored else "no"),
    ]


def _drift(config: Config) -> Mapping[str, Any] | None:
    """Return what of the last look is shown; None where there was none, or its file is not one of ours."""
    found = latest(config)
    if found is None:
        return None
    try:
        changed = [(row["title"], row["scanner"], row["since"]) for row in found["drift"] if row["raised"]]
        return {**{key: found[key] for key in ("until", "scans", "month", "month_scans", "month_outside", "note")},
                "changed": changed}  # fmt: skip
    except (KeyError, TypeError):
        return None
