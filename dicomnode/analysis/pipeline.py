"""The analysis of one study, from files to findings: select, load, segment, judge, measure, predict.

Everything is decided from the files alone; nothing is written, sent or looked up. The node's workflow, `dicomnode
analyze` and the training module all call this.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

import dicomnode
from dicomnode.analysis.arrays import Labels, Volume
from dicomnode.analysis.findings import ChosenSeries, Findings, Flag, Lungs, Radiomics, Reason, RejectedSeries, VolumeMl
from dicomnode.analysis.lungs import agreement, gap, lobes, plausible
from dicomnode.analysis.lungs import segmenter as lungs
from dicomnode.analysis.measures import attenuation, change, conditions, quantify, trend
from dicomnode.analysis.radiomics import extract
from dicomnode.analysis.risk import predict, reference
from dicomnode.analysis.series import content_rules, geometry, kernels
from dicomnode.analysis.series.headers import ImageHeader, string, strings
from dicomnode.analysis.series.selection import (
    Selection,
    Series,
    Unreadable,
    group,
    input_digest,
    read_headers,
    select,
    studies,
)
from dicomnode.analysis.series.selection_rules import DEFAULT as DEFAULT_RULES
from dicomnode.analysis.series.selection_rules import Rules
from dicomnode.analysis.volume.load import load
from dicomnode.errors import RefusedError

if TYPE_CHECKING:
    from dicomnode.analysis.risk.bundle import Bundle  # torch takes seconds to import: who has a bundle has it already

Stage = Literal["load", "segment", "quantify", "radiomics", "risk"]
#: Raised whenever what is measured of a mask, or flagged, changes: other findings must have other UIDs.
MEASURES = 3
Progress = Callable[[Stage, float], None]


@dataclass(frozen=True)
class Method:
    """What makes the numbers, and from which series. No radiomics settings: no radiomics; no bundle: no risk."""

    segmenter: lungs.Segmenter
    radiomics_settings: Mapping[str, Any] | None
    bundle: "Bundle | None"
    rules: Rules = DEFAULT_RULES
    #: Of the one patient who is analysed, by name, as the bundle declares them: `dicomnode analyze --covariates`.
    covariates: Mapping[str, float | str] = field(default_factory=dict)
    #: Its disagreement with `segmenter` is a flag; nothing is measured in its labels.
    second: lungs.Segmenter | None = None
    #: Whether the risk tells how the bundle weighs the scan.
    explanation: bool = False

    @property
    def digest(self) -> str:
        """SHA-256 over all that decides the numbers besides the images: UIDs of the results are derived from it."""
        parts = {
            "software": dicomnode.__version__,
            "segmenter": [self.segmenter.name, self.segmenter.version],
            "measures": MEASURES,
            "radiomics": None if self.radiomics_settings is None else dict(self.radiomics_settings),
            "bundle": None if self.bundle is None else self.bundle.sha256,
            "selection": self.rules.stated,
            **({"covariates": dict(self.covariates)} if self.covariates else {}),
            **({"second": [self.second.name, self.second.version]} if self.second else {}),
            # No number changes by it, but what is shown does: other findings must have other UIDs.
            **({"explanation": 1} if self.explanation and self.bundle is not None else {}),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Analysis:
    """Findings, with what the reports need besides.

    Attributes:
        headers: of the source images in the order of the frames (feet first); or of the multi-frame source image, of
            which there are several files if it was sent as a concatenation.
        volume: in Hounsfield units.
        labels: of the volume.
        lobes: of the volume, numbers as in `arrays.LOBES`; None without a lobe model.
    """

    findings: Findings
    headers: tuple[Dataset, ...] = ()
    volume: Volume | None = None
    labels: Labels | None = None
    lobes: NDArray[np.uint8] | None = None

    @property
    def labels_in_source(self) -> NDArray[np.uint8]:
        """Labels in the source images' own rows and columns, (frame, row, column). Only of an analysed study.

        The frames are in the order of `headers`; of multi-frame images, all their frames in their own order.

        Raises:
            ValueError: the study was refused.
        """
        if self.labels is None:
            raise ValueError("a refused study has no labels")
        return self._in_source(self.labels)

    @property
    def lobes_in_source(self) -> NDArray[np.uint8] | None:
        """Lobes likewise, (frame, row, column), numbers as in `arrays.LOBES`; None where there are none."""
        return None if self.lobes is None else self._in_source(self.lobes)

    @property
    def areas_in_source(self) -> NDArray[np.uint8]:
        """Areas by attenuation likewise, (frame, row, column), numbers as in `attenuation.AREAS`.

        Raises:
            ValueError: the study was refused.
        """
        if self.volume is None or self.labels is None:
            raise ValueError("a refused study has no areas")
        return self._in_source(attenuation.areas(self.volume, self.labels))

    def _in_source(self, array: NDArray[np.uint8]) -> NDArray[np.uint8]:
        assert self.volume is not None, "only of an analysed study"
        turned = self.volume.to_source(array)
        if self.volume.frames[0].frame_number is None:
            return turned
        counts = [int(header.NumberOfFrames) for header in self.headers]
        first = dict(zip(self.volume.paths, np.cumsum([0, *counts]), strict=False))
        every = np.zeros((sum(counts), *turned.shape[1:]), np.uint8)
        every[[first[f.path] + (f.frame_number or 1) - 1 for f in self.volume.frames]] = turned
        return every


@dataclass(frozen=True)
class Segmented:
    """A study half way: its volume, labels and lobes, doubts about the lobes, seconds taken, highest Series Number.

    `input_digest` is that of its images (`selection.input_digest`).
    """

    selection: Selection
    series: Series
    volume: Volume
    labels: Labels
    lobes: NDArray[np.uint8] | None
    flags: tuple[Flag, ...]
    seconds: Mapping[str, float]
    highest_series_number: int
    input_digest: str


@dataclass(frozen=True)
class Measured:
    """A study that is measured, but not compared with others: findings without change, risk and trend."""

    segmented: Segmented
    findings: Findings
    seconds: Mapping[str, float]


class _Stopwatch:
    def __init__(self, progress: Progress | None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress
        self._stage: Stage = "load"

    def done(self, share: float) -> None:
        """Report how far the stage has come."""
        if self._progress:
            self._progress(self._stage, share)

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        self._stage = name
        self.done(0.0)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 3)


def analyse(
    files: Sequence[Path],
    method: Method,
    progress: Progress | None = None,
    priors: Sequence[Findings] = (),
    memory_bytes: int | None = None,
) -> Analysis:
    """Analyse the chest CT among `files` (in any order; one study's, or several of which one has a suitable series).

    Args:
        files: DICOM files and whatever else lies beside them.
        method: segmenter, radiomics settings, bundle.
        progress: called at the start of a stage, and while the images load, with the stage's name and a fraction.
        priors: findings of other scans of the same patient, in any order; later ones are not looked at.
        memory_bytes: what the analysis may use: a series that would take more is refused by its headers.

    Returns:
        The analysis; refused (`findings.status`) where no series is suitable, with the reasons.
    """
    found = examine(files, method, progress, memory_bytes)
    return found if isinstance(found, Analysis) else conclude(found, method, progress, priors)


def examine(
    files: Sequence[Path], method: Method, progress: Progress | None = None, memory_bytes: int | None = None
) -> "Measured | Analysis":
    """Run of `analyse` what no other scan of the patient enters: all but change, risk and trend; or the refusal."""
    segmented = segment(files, method.segmenter, method.rules, progress, memory_bytes, method.second)
    if isinstance(segmented, Analysis):
        return replace(segmented, findings=replace(segmented.findings, refused_by=method.digest))
    return _measured(segmented, method, progress)


def segment(
    files: Sequence[Path],
    segmenter: lungs.Segmenter,
    rules: Rules = DEFAULT_RULES,
    progress: Progress | None = None,
    memory_bytes: int | None = None,
    second: lungs.Segmenter | None = None,
) -> "Segmented | Analysis":
    """Run the first half of `analyse`, up to the labels (no bundle is needed), or up to the refusal."""
    watch = _Stopwatch(progress)
    with watch.stage("load"):
        headers, unreadable = read_headers(files)
        highest = _highest_series_number(headers)
        selection = _select(group(headers), unreadable, rules)
        if selection.chosen is None:
            return Analysis(_refused(selection, highest))
        try:
            report = None if progress is None else lambda i, n: progress("load", i / n)
            volume = load(selection.chosen, report, rules, memory_bytes)
        except RefusedError as e:
            return Analysis(_refused(selection, highest, e))
    try:
        with watch.stage("segment"), ThreadPoolExecutor(1) as beside:
            digest = beside.submit(input_digest, selection.chosen)  # reads and hashes without Python's lock
            found = segmenter(volume)
            labels = plausible.in_chest(volume, found)
            plausible.refuse_unless_chest(volume, labels)
            parts = segmenter.lobes(volume, labels)
            flags = () if parts is None else lobes.check(labels, parts)
            against = () if second is None else agreement.check(volume, labels, second)
    except RefusedError as e:
        return Analysis(_refused(selection, highest, e))
    return Segmented(
        selection,
        selection.chosen,
        volume,
        labels,
        None if flags else parts,
        selection.flags + flags + (() if labels is found else (plausible.CUT_TO_CHEST,)) + against,
        watch.seconds,
        highest,
        digest.result(),
    )


def measure(
    segmented: "Segmented", method: Method, progress: Progress | None = None, priors: Sequence[Findings] = ()
) -> Analysis:
    """Run the second half of `analyse`, with the method whose segmenter made the labels."""
    return conclude(_measured(segmented, method, progress), method, progress, priors)


def _measured(segmented: Segmented, method: Method, progress: Progress | None) -> "Measured":
    watch = _Stopwatch(progress)
    watch.seconds |= segmented.seconds
    return Measured(segmented, _measure(segmented, method, watch), watch.seconds)


def conclude(
    measured: "Measured", method: Method, progress: Progress | None = None, priors: Sequence[Findings] = ()
) -> Analysis:
    """Run the rest of `analyse`: the comparison with the patient's other scans, the risk, the trend."""
    segmented, watch = measured.segmented, _Stopwatch(progress)
    watch.seconds |= measured.seconds
    findings = replace(measured.findings, change=change.compare(measured.findings, priors))
    sources = {h.path: h.source for h in segmented.series.headers}
    headers = tuple(sources[path] for path in segmented.volume.paths)
    if method.bundle is not None:
        with watch.stage("risk"):
            before = change.latest_before(findings, priors)
            findings = _with_risk(findings, method, headers[0], segmented, before)
    for stage in ("radiomics", "risk"):
        watch.seconds.setdefault(stage, 0.0)
    findings = replace(findings, trend=trend.trend(findings, priors), timings_s=watch.seconds)
    return Analysis(findings, headers, segmented.volume, segmented.labels, segmented.lobes)


def _select(series: Sequence[Series], unreadable: Sequence[Unreadable], rules: Rules) -> Selection:
    """Select over everything that was given.

    A folder may hold several studies, and only one can be meant.
    """
    by_study = studies(series)
    if len(by_study) <= 1:
        return select(series, unreadable, rules)
    selections = [select(s, (), rules) for s in by_study.values()]
    flags = select((), unreadable).flags
    rejected = tuple(r for s in selections for r in s.rejected)
    suitable = [s for s in selections if s.chosen is not None]
    if len(suitable) == 1:
        return replace(suitable[0], rejected=rejected, flags=flags + suitable[0].flags)
    reason = Reason(
        "several-studies", f"{len(suitable)} studies contain a suitable chest CT: analyse one study at a time."
    )
    doubtful = tuple(
        RejectedSeries(s.chosen.series_uid, s.chosen.modality, len(s.chosen.headers), (reason,), s.chosen.part)
        for s in suitable
        if s.chosen is not None
    )
    return Selection(
        None, reason.text if suitable else "No study contains a suitable series.", doubtful + rejected, flags
    )


def _measure(segmented: Segmented, method: Method, watch: _Stopwatch) -> Findings:
    selection, series = segmented.selection, segmented.series
    volume, labels = segmented.volume, segmented.labels
    with ThreadPoolExecutor(1) as beside:
        # What counts, filters and labels runs without Python's lock, and so side by side with the loops of radiomics.
        doubted = beside.submit(_doubted, volume, labels)
        with watch.stage("quantify"):
            chosen, depends_on = _chosen(series, volume, selection.why_chosen), conditions.measure(volume, labels)
            quantities = quantify.by_region(volume, labels, segmented.lobes)
        features: Radiomics | None = None
        unmeasured: list[Flag] = []
        if method.radiomics_settings is not None:
            with watch.stage("radiomics"):
                features, unmeasured = _radiomics(volume, labels, method.radiomics_settings, watch.done)
        with watch.stage("quantify"):
            volume_ml, left_out_ml, doubts = doubted.result()
    flags = (*segmented.flags, *conditions.doubts(depends_on, chosen), *doubts)
    flags += gap.flags(left_out_ml, volume_ml)
    flags += gap.dense_flags(quantities.get("right"), quantities.get("left"))
    flags = (*flags, *unmeasured)
    return Findings(
        status="analysed",
        series=chosen,
        rejected=selection.rejected,
        flags=flags,
        lungs=Lungs(method.segmenter.name, method.segmenter.version, volume_ml, method.segmenter.family, left_out_ml),
        quantities=quantities,
        radiomics=features,
        software_version=dicomnode.__version__,
        input_digest=segmented.input_digest,
        algorithm_digest=method.digest,
        highest_series_number=segmented.highest_series_number,
        conditions=depends_on,
    )


def _doubted(volume: Volume, labels: Labels) -> tuple[VolumeMl, VolumeMl, tuple[Flag, ...]]:
    """Volumes of the lungs, and of what their mask leaves out; what speaks against the mask."""
    return lungs.volumes(volume, labels), gap.left_out(volume, labels), lungs.check(volume, labels)


def _with_risk(
    findings: Findings,
    method: Method,
    header: Dataset,
    segmented: Segmented,
    before: Findings | None,
) -> Findings:
    """Return the findings with the bundle's risk, or with a flag that says why there is none; and how far it holds."""
    bundle, given = method.bundle, method.covariates
    assert bundle is not None
    distance = predict.population_distance(bundle, findings, header, given)
    findings = replace(findings, population=distance, flags=(*findings.flags, *reference.flags(distance)))
    if doubts := [f.code for f in findings.flags if f.severity == "error"]:
        why = f"the lung segmentation is doubtful ({', '.join(doubts)})"
    else:
        try:
            volume, labels, explained = segmented.volume, segmented.labels, method.explanation
            risk = predict.predict(bundle, findings, header, volume, labels, before, given, explained=explained)
            return replace(findings, risk=risk, flags=(*findings.flags, *risk.flags))
        except RefusedError as e:
            why = str(e)
    withheld = Flag("risk-withheld", "error", f"No risk was predicted: {why}")
    return replace(findings, flags=(*findings.flags, withheld))


def _radiomics(
    volume: Volume, labels: Labels, settings: Mapping[str, Any], done: Callable[[float], None] | None = None
) -> tuple[Radiomics, list[Flag]]:
    """Features of both lungs and of each; a lung that is missing or tiny is flagged instead."""
    found, refused = extract.by_region(volume, labels, settings, done)
    flags = [Flag(e.code, "warning", f"No radiomics of {name}: {e.text}") for name, e in refused.items()]
    return Radiomics(dict(settings), found), flags


def _chosen(series: Series, volume: Volume, why_chosen: str) -> ChosenSeries:
    first = series.headers[0].dataset
    thickness = geometry.numbers(first, "SliceThickness", 1)
    return ChosenSeries(
        study_uid=series.study_uid,
        series_uid=series.series_uid,
        slices=len(volume.frames),
        spacing_mm=volume.spacing_mm,
        kernel=_kernel(series),
        why_chosen=why_chosen,
        part=series.part,
        study_date=string(first, "StudyDate"),
        study_time=string(first, "StudyTime"),
        manufacturer=string(first, "Manufacturer"),
        manufacturer_model=string(first, "ManufacturerModelName"),
        kernel_family=kernels.family_of(first),
        slice_thickness_mm=None if thickness is None else float(thickness[0]),
        contrast=content_rules.has_contrast(h.dataset for h in series.headers),
    )


def _kernel(series: Series) -> str:
    return "\\".join(strings(series.headers[0].dataset, "ConvolutionKernel"))


_MADE_OF_IMAGES = frozenset({"SR", "SEG", "OT", "DOC", "KO", "PR", "REG", "RTSTRUCT", "RTDOSE", "RTPLAN"})


def _highest_series_number(headers: Sequence[ImageHeader]) -> int:
    """Return the highest Series Number (VR IS) of images, 0 where none has one that is a number.

    What was made of images, our own reports among it, does not count: else each new version would begin higher.
    """
    images = (h.dataset for h in headers if string(h.dataset, "Modality") not in _MADE_OF_IMAGES)
    texts = {string(dataset, "SeriesNumber").strip() for dataset in images}
    return max((int(text) for text in texts if re.fullmatch(r"[0-9]{1,10}", text)), default=0)


def _refused(selection: Selection, highest: int, error: RefusedError | None = None) -> Findings:
    """Refused findings; a series that was chosen and then failed joins the rejected ones with its reason."""
    rejected = selection.rejected
    if error is not None and selection.chosen is not None:
        series = selection.chosen
        reason = Reason(error.code, error.text)
        failed = RejectedSeries(series.series_uid, series.modality, len(series.headers), (reason,), series.part)
        rejected = (failed, *rejected)
    return Findings(
        "refused",
        None,
        rejected,
        selection.flags,
        software_version=dicomnode.__version__,
        highest_series_number=highest,
    )
