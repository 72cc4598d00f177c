"""What an analysis found: frozen records, and their form in `findings.json`.

That form is a contract with scripts and later work: add to it, keep what is there.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["info", "warning", "error"]
IntendedUse = Literal["synthetic-demo", "research"]


@dataclass(frozen=True)
class Reason:
    """Why a series was not analysed. `code` is stable for scripts, `text` is for people."""

    code: str
    text: str


@dataclass(frozen=True)
class Flag:
    """A doubt about input or result that a reader must see before the numbers."""

    code: str
    severity: Severity
    text: str


@dataclass(frozen=True)
class RejectedSeries:
    """A series of the study that was not analysed, or a part of one (`part`, "" for a whole series)."""

    series_uid: str
    modality: str
    slices: int
    reasons: tuple[Reason, ...]
    part: str = ""


@dataclass(frozen=True)
class ChosenSeries:
    """The analysed series, or the analysed part of one (`part`, "" for a whole series).

    `spacing_mm` is (z, y, x), from slice positions and Pixel Spacing, never from Slice Thickness. Date, time, scanner,
    kernel family, stated thickness and contrast are there to compare scans of a patient; dates stay out of logs.
    `contrast`: whether the images name a contrast agent; None in findings of version 0.1.0.
    """

    study_uid: str
    series_uid: str
    slices: int
    spacing_mm: tuple[float, float, float]
    kernel: str
    why_chosen: str
    part: str = ""
    study_date: str = ""
    study_time: str = ""
    manufacturer: str = ""
    manufacturer_model: str = ""
    kernel_family: str = "unknown"
    slice_thickness_mm: float | None = None
    contrast: bool | None = None


@dataclass(frozen=True)
class VolumeMl:
    """Lung volumes in millilitres (segmented voxels times voxel volume)."""

    total: float
    left: float
    right: float


@dataclass(frozen=True)
class Lungs:
    """Which segmenter made the mask, and the volumes of it."""

    segmenter: str
    segmenter_version: str
    volume_ml: VolumeMl


@dataclass(frozen=True)
class Quantities:
    """Attenuation of one region, Hounsfield units; percentages are of the region's voxels. See `quantify`.

    `volume_ml` is None where the voxels' size was not known (and in findings of version 0.1.0).
    """

    mean_hu: float
    sd_hu: float
    skewness: float
    kurtosis: float
    p05_hu: float
    p15_hu: float
    p50_hu: float
    p85_hu: float
    p95_hu: float
    haa_percent: float
    laa950_percent: float
    volume_ml: float | None = None


@dataclass(frozen=True)
class Radiomics:
    """PyRadiomics features by region, and the parameter file as a mapping.

    Stock PyRadiomics accepts the mapping and repeats the features with it.
    """

    settings: Mapping[str, Any]
    features: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Horizon:
    """Predicted probability of death from any cause within `years`, with its interval (all 0 to 1)."""

    years: int
    probability: float
    lower: float
    upper: float


@dataclass(frozen=True)
class SliceRelevance:
    """How much a slice of the lungs weighed in the networks' answer: attention, which sums to 1 over the slices.

    `z_mm` is the LPS z of the slice's centre at the volume's first row and column. It is no proof of disease there.
    """

    z_mm: float
    weight: float


@dataclass(frozen=True)
class Risk:
    """Risk from a model bundle. `interval` says in words what `lower` and `upper` are.

    Attributes:
        slice_relevance: feet first; empty where no network looked at slices.
        scan_codes: by network, the numbers that it remembers this scan by, for the patient's next scan.
        flags: doubts about this prediction alone; they stand among the findings' flags too.
    """

    bundle: str
    bundle_sha256: str
    intended_use: IntendedUse
    horizons: tuple[Horizon, ...]
    version: str = ""
    interval: str = ""
    slice_relevance: tuple[SliceRelevance, ...] = ()
    scan_codes: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    flags: tuple[Flag, ...] = ()


@dataclass(frozen=True)
class Delta:
    """One number earlier and now. `relative_percent` is None for a change from 0, `per_year` over a short interval."""

    earlier: float
    now: float
    absolute: float
    relative_percent: float | None
    per_year: float | None


@dataclass(frozen=True)
class Change:
    """What changed since the latest earlier scan of the same patient, and why the two may not be comparable."""

    earlier_study_uid: str
    earlier_series_uid: str
    earlier_study_date: str
    interval_days: float
    measures: Mapping[str, Delta]
    flags: tuple[Flag, ...] = ()
    earlier_input_digest: str = ""
    earlier_algorithm_digest: str = ""


@dataclass(frozen=True)
class TrendPoint:
    """An earlier scan of the same patient, `days_before` this one. None: it was not measured.

    Attributes:
        doubts: codes of the flags (`change.doubts`) by which it may not be comparable with this scan.
        version: `Findings.version` of the earlier result, which tells the UIDs of its objects.
        stays_here: its reports were not sent: the scan was only fetched, to compare with.
    """

    study_uid: str
    series_uid: str
    study_date: str
    days_before: float
    volume_ml: float
    haa_percent: float | None
    mean_hu: float | None
    horizons: tuple[Horizon, ...] = ()
    bundle_sha256: str = ""
    doubts: tuple[str, ...] = ()
    version: tuple[str, ...] = ()
    stays_here: bool = False


@dataclass(frozen=True)
class Findings:
    """All that one analysis found. Refused: no series was suitable, and `rejected` says why for each."""

    status: Literal["analysed", "refused"]
    series: ChosenSeries | None = None
    rejected: tuple[RejectedSeries, ...] = ()
    flags: tuple[Flag, ...] = ()
    lungs: Lungs | None = None
    quantities: Mapping[str, Quantities] = field(default_factory=dict)
    radiomics: Radiomics | None = None
    risk: Risk | None = None
    timings_s: Mapping[str, float] = field(default_factory=dict)
    #: dicomnode version, input digest, algorithm digest: what the result's UIDs are derived from.
    software_version: str = ""
    input_digest: str = ""
    algorithm_digest: str = ""
    change: Change | None = None
    #: Earlier scans of the same patient, the oldest first.
    trend: tuple[TrendPoint, ...] = ()
    #: SHA-256 over what the node added from worklist and PACS (the order, doubts about order and earlier scans); "" if
    #: nothing. UIDs are derived from it too.
    surroundings_digest: str = ""

    @property
    def version(self) -> tuple[str, ...]:
        """What tells this result from other results of the same study: the UIDs of its objects derive from it."""
        # A refusal has no chosen series to take a digest of: what was refused, and why, stands for it.
        refused = json.dumps([asdict(r) for r in self.rejected]) if self.status == "refused" else ""
        made = [self.input_digest, self.algorithm_digest, self.software_version, refused]
        if self.surroundings_digest:
            made.append(self.surroundings_digest)
        if self.change is not None:
            # The same scan compared with other earlier ones makes other reports.
            compared = json.dumps([asdict(self.change), [asdict(point) for point in self.trend]], sort_keys=True)
            made.append(hashlib.sha256(compared.encode()).hexdigest())
        return tuple(made)

    def to_json(self) -> str:
        """`findings.json`: UTF-8 text, two-space indent, a newline at the end. NaN is not JSON and is refused."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Findings":
        """Return the findings that `to_json` wrote.

        Raises:
            KeyError, TypeError: the text is not such a file.
        """
        d = json.loads(text)
        series, lungs, radiomics, risk = d["series"], d["lungs"], d["radiomics"], d["risk"]
        return cls(
            status=d["status"],
            series=None if series is None else ChosenSeries(**{**series, "spacing_mm": tuple(series["spacing_mm"])}),
            rejected=tuple(
                RejectedSeries(**{**r, "reasons": tuple(Reason(**x) for x in r["reasons"])}) for r in d["rejected"]
            ),
            flags=tuple(Flag(**f) for f in d["flags"]),
            lungs=None if lungs is None else Lungs(**{**lungs, "volume_ml": VolumeMl(**lungs["volume_ml"])}),
            quantities={k: Quantities(**v) for k, v in d["quantities"].items()},
            radiomics=None if radiomics is None else Radiomics(**radiomics),
            risk=None if risk is None else _risk(risk),
            timings_s=d["timings_s"],
            software_version=d["software_version"],
            input_digest=d["input_digest"],
            algorithm_digest=d["algorithm_digest"],
            change=_change(d.get("change")),
            trend=tuple(_trend_point(p) for p in d.get("trend", ())),
            surroundings_digest=d.get("surroundings_digest", ""),
        )


def _trend_point(d: Mapping[str, Any]) -> TrendPoint:
    horizons = tuple(Horizon(**h) for h in d["horizons"])
    return TrendPoint(**{**d, "horizons": horizons, "doubts": tuple(d["doubts"]), "version": tuple(d["version"])})


def _risk(d: Mapping[str, Any]) -> Risk:
    read: dict[str, Any] = {
        "horizons": tuple(Horizon(**h) for h in d["horizons"]),
        "slice_relevance": tuple(SliceRelevance(**r) for r in d.get("slice_relevance", ())),
        "scan_codes": {name: tuple(code) for name, code in d.get("scan_codes", {}).items()},
        "flags": tuple(Flag(**f) for f in d.get("flags", ())),
    }
    return Risk(**{**d, **read})


def _change(d: Mapping[str, Any] | None) -> Change | None:
    if d is None:
        return None
    measures = {k: Delta(**v) for k, v in d["measures"].items()}
    return Change(**{**d, "measures": measures, "flags": tuple(Flag(**f) for f in d["flags"])})
