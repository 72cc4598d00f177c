"""What an analysis found: frozen records, and their form in `findings.json`.

That form is a contract with scripts and later work: add to it, keep what is there.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, TypeAdapter, ValidationError

Severity = Literal["info", "warning", "error"]
IntendedUse = Literal["synthetic-demo", "research"]
#: How a segmenter works: what the SEG and SR state as the algorithm's family (DICOM CID 7162).
SegmenterFamily = Literal["network", "morphology"]


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
    """Which segmenter made the mask, what kind of algorithm it is, and the volumes of the mask.

    `left_out_ml`: what lies within the lungs' hull and not in the mask (`gap.left_out`); None in findings of before.
    """

    segmenter: str
    segmenter_version: str
    volume_ml: VolumeMl
    family: SegmenterFamily
    left_out_ml: VolumeMl | None = None


def _with_family(stored: object) -> object:
    """Lungs as stored, with the family, which older findings leave to the segmenter's name."""
    if not isinstance(stored, dict) or "family" in stored:
        return stored
    network = str(stored.get("segmenter")).lower().startswith("lungmask")
    return {**stored, "family": "network" if network else "morphology"}


@dataclass(frozen=True)
class Quantities:
    """Attenuation of one region, Hounsfield units; percentages are of the region's voxels. See `quantify`.

    `volume_ml` is None where the voxels' size was not known (and in findings of version 0.1.0), `dense_percent` in
    findings of before it was measured.
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
    dense_percent: float | None = None


@dataclass(frozen=True)
class Conditions:
    """What the attenuation measures of a scan depend on, beside kernel and thickness (`ChosenSeries`).

    Attributes:
        noise_hu: standard deviation of the air in the large airways, HU.
        air_hu: median of that air, HU.
    """

    noise_hu: float
    air_hu: float


@dataclass(frozen=True)
class Radiomics:
    """PyRadiomics features by region, and the parameter file as a mapping.

    Stock PyRadiomics accepts the mapping and repeats the features with it, unless it has `preparation`.
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
class Contribution:
    """What one input adds to an arm's linear predictor (a log hazard; 0: as the mean of the training scans).

    Attributes:
        name: as in `tabular.features_of`; "encoder": all numbers of an image encoder together.
        value: of this scan; None where it is not known (the training median stands in), or is more than one number.
        unit: of the value; "" for none.
        added: above 0, it raises the risk.
    """

    name: str
    value: float | None
    unit: str
    added: float


@dataclass(frozen=True)
class HeatMap:
    """Where the networks of an arm see a higher risk, in the slice that adds most (Grad-CAM, on their own grid).

    Attributes:
        z_mm: LPS z of the slice's centre at the volume's first row and column.
        level, levels: the slice is the level-th of so many over the lungs' height, 1 the lowest.
        attention: its share of the attention, 0 to 1.
        cells: by row and column, 0 to 1: a share of the hottest cell of all slices.
        size_mm: (height, width) that the cells cover, centred on the lungs' bounding box.
    """

    z_mm: float
    level: int
    levels: int
    attention: float
    cells: tuple[tuple[float, ...], ...]
    size_mm: tuple[float, float]


@dataclass(frozen=True)
class ArmExplanation:
    """How one arm weighs the scan: in contributions or in a heat map; or why that cannot be told.

    Attributes:
        arm: its name.
        weight: its share of the ensemble, 0 to 1.
        models: how many fold models it has.
        explained: how many of them are told of: what is told is their mean.
        linear_predictor: log hazard against the mean of the training scans: `contributions` and `others_sum` together.
        contributions: the largest first.
        others: how many inputs add something besides.
        others_sum: what these add.
        heat: of networks.
        not_explained: of which fold models nothing is told, and why; "" where all are.
    """

    arm: str
    weight: float
    models: int
    explained: int
    linear_predictor: float | None = None
    contributions: tuple[Contribution, ...] = ()
    others: int = 0
    others_sum: float = 0.0
    heat: HeatMap | None = None
    not_explained: str = ""


@dataclass(frozen=True)
class RiskExplanation:
    """How the bundle weighs the scan, by arm, those of most weight first; `years`: of the risk that is explained."""

    years: int
    arms: tuple[ArmExplanation, ...]


@dataclass(frozen=True)
class Risk:
    """Risk from a model bundle. `interval` says in words what `lower` and `upper` are.

    Attributes:
        slice_relevance: feet first; empty where no network looked at slices.
        scan_codes: by network, the numbers that it remembers this scan by, for the patient's next scan.
        flags: doubts about this prediction alone; they stand among the findings' flags too.
        disease: of the patients that the model was made from; "": not stated, or phantoms.
        recalibrated_to: the site that the model was recalibrated to (`training recalibrate`); "": to none.
        explanation: how the bundle weighs the scan; None unless asked for (`analysis.explanation`).
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
    disease: str = ""
    recalibrated_to: str = ""
    explanation: RiskExplanation | None = None


@dataclass(frozen=True)
class PopulationDistance:
    """Where a scan lies among the scans that the model was made on (`risk.reference`).

    Attributes:
        score: without a unit; a twentieth of the training patients exceeds about 1.
        limit: of the bundle: a score above it is outside.
        percentile: share of the training patients, in per cent, whose score is no higher.
        outside: whether the score exceeds the limit.
        named: what deviates, and what is usual; empty where no input does by itself.
        patients: how many the reference tells of.
    """

    score: float
    limit: float
    percentile: float
    outside: bool
    named: tuple[str, ...] = ()
    patients: int = 0


#: A change's former keys and those of today: findings.json is kept for ten years.
_TODAYS_KEYS = {
    "earlier": "prior",
    "earlier_study_uid": "prior_study_uid",
    "earlier_series_uid": "prior_series_uid",
    "earlier_study_date": "prior_study_date",
    "earlier_input_digest": "prior_input_digest",
    "earlier_algorithm_digest": "prior_algorithm_digest",
}


@dataclass(frozen=True)
class Delta:
    """One number, prior and now. `relative_percent` is None for a change from 0, `per_year` over a short interval."""

    prior: float
    now: float
    absolute: float
    relative_percent: float | None
    per_year: float | None


@dataclass(frozen=True)
class Change:
    """What changed since the latest prior scan of the same patient, and why the two may not be comparable."""

    prior_study_uid: str
    prior_series_uid: str
    prior_study_date: str
    interval_days: float
    measures: Mapping[str, Delta]
    flags: tuple[Flag, ...] = ()
    prior_input_digest: str = ""
    prior_algorithm_digest: str = ""


@dataclass(frozen=True)
class TrendPoint:
    """A prior scan of the same patient, `days_before` this one. None: it was not measured.

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
    lungs: Annotated[Lungs | None, BeforeValidator(_with_family)] = None
    quantities: Mapping[str, Quantities] = field(default_factory=dict)
    radiomics: Radiomics | None = None
    risk: Risk | None = None
    timings_s: Mapping[str, float] = field(default_factory=dict)
    #: dicomnode version, input digest, algorithm digest: what the result's UIDs are derived from.
    software_version: str = ""
    input_digest: str = ""
    algorithm_digest: str = ""
    change: Change | None = None
    #: Prior scans of the same patient, the oldest first.
    trend: tuple[TrendPoint, ...] = ()
    #: SHA-256 over what the node added from worklist and PACS (the order, doubts about order and prior scans); "" if
    #: nothing. UIDs are derived from it too.
    surroundings_digest: str = ""
    #: The highest Series Number among the study's images: ours follow it, so that the images open first. Not part of
    #: `version`: what else lies in the study does not change the result.
    highest_series_number: int = 0
    #: None where no air in the airways could be measured, and in findings of version 0.3.0 and before.
    conditions: Conditions | None = None
    #: None without a bundle, with one that has no reference distribution, and in findings of before.
    population: PopulationDistance | None = None
    #: Of a result that is the same as one before the last (which was replaced or rejected since): it needs UIDs of its
    #: own. "" else.
    revision: str = ""
    #: Of a refusal: the digest of the method that refused; "" in findings of before. Not part of `version`: the same
    #: refusal by another method is no other report.
    refused_by: str = ""

    @property
    def version(self) -> tuple[str, ...]:
        """What tells this result from other results of the same study: the UIDs of its objects derive from it."""
        # A refusal has no chosen series to take a digest of: what was refused, and why, stands for it.
        refused = json.dumps([asdict(r) for r in self.rejected]) if self.status == "refused" else ""
        made = [self.input_digest, self.algorithm_digest, self.software_version, refused]
        if self.surroundings_digest:
            made.append(self.surroundings_digest)
        if self.change is not None:
            # The same scan compared with other priors makes other reports.
            compared = json.dumps([_former(self.change), [asdict(point) for point in self.trend]], sort_keys=True)
            made.append(hashlib.sha256(compared.encode()).hexdigest())
        if self.revision:
            made.append(f"revision {self.revision}")
        return tuple(made)

    def to_json(self) -> str:
        """`findings.json`: UTF-8 text, two-space indent, a newline at the end. NaN is not JSON and is refused."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Findings":
        """Return the findings that `to_json` wrote, in this version or an earlier one.

        Raises:
            ValueError: the text is not such a file.
        """
        try:
            return _reader().validate_python(_under_todays_keys(json.loads(text)))
        except ValidationError as error:
            # Not pydantic's own text, which quotes the file: there are dates and UIDs in it.
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")) from None


def _under_todays_keys(read: Any) -> Any:
    """Return findings as read, whose change may stand under the keys that it had before `_TODAYS_KEYS`."""
    change = read.get("change") if isinstance(read, dict) else None
    if not isinstance(change, dict):
        return read
    change = _renamed(change)
    if isinstance(change.get("measures"), dict):
        change["measures"] = {k: _renamed(v) for k, v in change["measures"].items()}
    return {**read, "change": change}


def _renamed(read: Any) -> Any:
    return {_TODAYS_KEYS.get(k, k): v for k, v in read.items()} if isinstance(read, dict) else read


def _former(change: Change) -> dict[str, Any]:
    """Return a change under the keys that it had before `_TODAYS_KEYS`: the UIDs of what was sent derive from these."""
    former = {today: key for key, today in _TODAYS_KEYS.items()}
    d = {former.get(k, k): v for k, v in asdict(change).items()}
    return {**d, "measures": {k: {former.get(n, n): x for n, x in v.items()} for k, v in d["measures"].items()}}


@cache
def _reader() -> TypeAdapter[Findings]:
    # Made when first used: it takes milliseconds, and not everybody who knows the records reads files.
    return TypeAdapter(Findings)
