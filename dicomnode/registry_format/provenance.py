"""Who a registry's patients are and where their data come from, as registry.toml states it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

#: How patients of the study are named that this project puts into practice (Peltekian et al. 2025, arXiv 2509.23530).
_SYSTEMIC_SCLEROSIS = frozenset(
    {
        *("systemic sclerosis", "systemic sclerosis ild", "systemic scleroderma", "scleroderma", "ssc", "ssc ild"),
        *("systemic sclerosis associated interstitial lung disease", "systemic sclerosis interstitial lung disease"),
        *("systemic sclerosis with interstitial lung disease", "scleroderma ild", "ild in systemic sclerosis"),
        "systemic sclerosis imitated by phantoms",
    }
)
#: Of phantoms.
_IMITATED = "systemic sclerosis, imitated by phantoms"
NOT_STATED = "not stated"
_DATES = {
    "node": "shifted by patient",
    "training": "shifted by patient",
    "synthetic": "drawn",
    "import": "shifted by patient",
}
#: Where nothing else is stated, the registry's writer tells it.
_SOURCES = {"node": "clinical scans received by a dicomnode", "synthetic": "phantoms drawn by `training synthetic`"}


@dataclass(frozen=True)
class Provenance:
    """What is known; "" or empty: not stated.

    Attributes:
        disease: of the patients.
        source: of the data, with their licence.
        sites: hospitals.
        period: years of the scans, before any date was shifted.
        dates: what the registry's dates are.
    """

    disease: str = ""
    source: str = ""
    sites: tuple[str, ...] = ()
    period: str = ""
    dates: str = ""

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> Self:
        """Return what registry.toml states.

        Synthetic phantoms imitate the lung disease of systemic sclerosis, and say so by their writer.
        """
        made_by = str(about.get("made_by", ""))
        sites = about.get("sites", ())
        return cls(
            disease=str(about.get("disease", "") or (_IMITATED if made_by == "synthetic" else "")),
            source=str(about.get("source", "") or _SOURCES.get(made_by, "")),
            sites=tuple(map(str, sites)) if isinstance(sites, list | tuple) else (str(sites),),
            period=str(about.get("period", "")),
            dates=str(about.get("dates", "") or _DATES.get(made_by, "")),
        )

    @property
    def systemic_sclerosis(self) -> bool:
        """Whether the patients are those of the study: its results stand beside no others."""
        return " ".join(re.findall("[a-z]+", self.disease.casefold())) in _SYSTEMIC_SCLEROSIS

    @property
    def lines(self) -> tuple[tuple[str, str], ...]:
        """Name and value of each fact, for cards and reports."""
        return (
            ("Disease", self.disease or NOT_STATED),
            ("Source", self.source or NOT_STATED),
            ("Sites", ", ".join(self.sites) or NOT_STATED),
            ("Period of the scans", self.period or NOT_STATED),
            ("Dates", self.dates or NOT_STATED),
        )
