"""What an external validation says of the bundles that it has judged, from `validation.json`: for its report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dicomnode.registry_format.provenance import NOT_STATED, Provenance

NAME = "validation.json"


@dataclass(frozen=True)
class JudgedBundle:
    """A bundle as the report names it; `stated` is its entry in `validation.json`."""

    label: str
    stated: Mapping[str, Any]

    @property
    def population(self) -> Mapping[str, Any]:
        """On whom it was trained, as its model.toml says."""
        found: Mapping[str, Any] = self.stated["population"]
        return found

    @property
    def provenance(self) -> Provenance:
        """Who these patients are."""
        known = {key: str(self.population.get(key, "")) for key in ("disease", "source", "period", "dates")}
        return Provenance(**known, sites=tuple(self.population.get("sites", ())))

    @property
    def trained_on(self) -> str:
        """On whom it was trained, in words."""
        of, p = self.provenance, self.population
        sites = ", ".join(of.sites) or NOT_STATED
        return (
            f"{p['description']}: {p['patients']} patients, {p['scans']} scans, {p['deaths']} followed by death; sites "
            f"{sites}; scans {of.period or NOT_STATED}"
        )

    @property
    def named(self) -> str:
        """Its name, version and digest."""
        return f"{self.stated['name']} {self.stated['version']}, sha256 {self.stated['sha256']}"


@dataclass(frozen=True)
class ValidationFacts:
    """The content of `validation.json`."""

    content: Mapping[str, Any]

    @property
    def bundles(self) -> tuple[JudgedBundle, ...]:
        """The bundles, the one that decides first."""
        return tuple(JudgedBundle(label, stated) for label, stated in self.content["bundles"].items())

    @property
    def recalibration(self) -> Mapping[str, Any]:
        """What `training recalibrate` has found; empty for an evaluation alone."""
        found: Mapping[str, Any] = self.content.get("recalibration") or {}
        return found

    @property
    def unknown(self) -> tuple[str, ...]:
        """Of which bundles nobody can tell whom they were trained on, in words."""
        return tuple(self.content.get("unknown_training", ()))
