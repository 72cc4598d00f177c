"""The analysis of one study, from files to findings: select, load, segment, judge, measure, predict.

Everything is decided from the files alone; nothing is written, sent or looked up. The node's workflow, `dicomnode
analyze` and the training module all call this.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

import dicomnode
from dicomnode.analysis import change, geometry, kernels, lungs, quantify, radiomics, trend
from dicomnode.analysis.arrays import LEFT, RIGHT, Labels, Volume
from dicomnode.analysis.findings import ChosenSeries, Findings, Flag, Lungs, Radiomics, Reason, RejectedSeries, Risk
from dicomnode.analysis.headers import string
from dicomnode.analysis.rules import DEFAULT as DEFAULT_RULES
from dicomnode.analysis.rules import Rules
from dicomnode.analysis.series import (
    Selection,
    Series,
    Unreadable,
    group,
    input_digest,
    read_headers,
    select,
    studies,
)
from dicomnode.analysis.volume import load
from dicomnode.errors import RefusedError

if TYPE_CHECKING:
    from dicomnode.analysis.bundle import Bundle  # torch takes seconds to import: who has a bundle has it already

Stage = Literal["load", "segment", "quantify", "radiomics", "risk"]
Progress = Callable[[Stage, float], None]


@dataclass(frozen=True)
class Method:
    """What makes the numbers, and from which series. No radiomics settings: no radiomics; no bundle: no risk."""

    segmenter: lungs.Segmenter
    radiomics_settings: Mapping[str, Any] | None
    bundle: "Bundle | None"
    rules: Rules = DEFAULT_RULES

    @property
    def digest(self) -> str:
        """SHA-256 over all that decides the numbers besides the images: UIDs of the results are derived from it."""
        parts = {
            "software": dicomnode.__version__,
            "segmenter": [self.segmenter.name, self.segmenter.version],
            "radiomics": None if self.radiomics_settings is None else dict(self.radiomics_settings),
            "bundle": None if self.bundle is None else self.bundle.sha256,
            "selection": asdict(self.rules),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Analysis:
    """Findings, with what the reports need besides.

    Attributes:
        headers: of the source images in the order of the frames (feet first); or of the one multi-frame source image.
        volume: in Hounsfield units.
        labels: of the volume.
    """

    findings: Findings
    headers: tuple[Dataset, ...] = ()
    volume: Volume | None = None
    labels: Labels | None = None

    @property
    def labels_in_source(self) -> NDArray[np.uint8]:
        """Labels in the source images' own rows and columns, (frame, row, column). Only of an analysed study.

        The frames are in the order of `headers`; of a multi-frame source, all its frames in their own order.
        """
        if self.volume is None or self.labels is None:
            raise ValueError("a refused study has no labels")
        labels = self.volume.to_source(self.labels)
        numbers = [f.frame_number - 1 for f in self.volume.frames if f.frame_number is not None]
        if not numbers:
            return labels
        every = np.zeros((int(self.headers[0].NumberOfFrames), *labels.shape[1:]), np.uint8)
        every[numbers] = labels
        return every


@dataclass(frozen=True)
class Segmented:
    """A study half way: its volume and labels, and the seconds that they took."""

    selection: Selection
    series: Series
    volume: Volume
    labels: Labels
    seconds: Mapping[str, float]


class _Stopwatch:
    def __init__(self, progress: Progress | None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        if self._progress:
            self._progress(name, 0.0)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)


def analyse(
    files: Sequence[Path], method: Method, progress: Progress | None = None, earlier: Sequence[Findings] = ()
) -> Analysis:
    """Analyse the chest CT among `files` (in any order; one study's, or several of which one has a suitable series).

    Args:
        files: DICOM files and whatever else lies beside them.
        method: segmenter, radiomics settings, bundle.
        progress: called at the start of a stage, and while the images load, with the stage's name and a fraction.
        earlier: findings of other scans of the same patient, in any order; later ones are not looked at.

    Returns:
        The analysis; refused (`findings.status`) where no series is suitable, with the reasons.
    """
    segmented = segment(files, method.segmenter, method.rules, progress)
    return segmented if isinstance(segmented, Analysis) else measure(segmented, method, progress, earlier)


def segment(
    files: Sequence[Path], segmenter: lungs.Segmenter, rules: Rules = DEFAULT_RULES, progress: Progress | None = None
) -> "Segmented | Analysis":
    """The first half of `analyse`, up to the labels, for which no bundle is needed; or the refused analysis."""
    watch = _Stopwatch(progress)
    with watch.stage("load"):
        headers, unreadable = read_headers(files)
        selection = _select(group(headers), unreadable, rules)
        if selection.chosen is None:
            return Analysis(_refused(selection))
        try:
            report = None if progress is None else lambda i, n: progress("load", i / n)
            volume = load(selection.chosen, report, rules)
        except RefusedError as e:
            return Analysis(_refused(selection, e))
    try:
        with watch.stage("segment"):
            labels = segmenter(volume)
    except RefusedError as e:
        return Analysis(_refused(selection, e))
    return Segmented(selection, selection.chosen, volume, labels, watch.seconds)


def measure(
    segmented: "Segmented", method: Method, progress: Progress | None = None, earlier: Sequence[Findings] = ()
) -> Analysis:
    """The second half of `analyse`, with the method whose segmenter made the labels."""
    watch = _Stopwatch(progress)
    watch.seconds |= segmented.seconds
    findings = _measure(segmented, method, watch)
    findings = replace(findings, change=change.compare(findings, earlier), trend=trend.trend(findings, earlier))
    sources = {h.path: h.source for h in segmented.series.headers}
    headers = tuple(sources[path] for path in segmented.volume.paths)
    return Analysis(findings, headers, segmented.volume, segmented.labels)


def _select(series: Sequence[Series], unreadable: Sequence[Unreadable], rules: Rules) -> Selection:
    """The selection over everything that was given: a folder may hold several studies, and only one can be meant."""
    by_study = studies(series)
    if len(by_study) <= 1:
        return select(series, unreadable, rules)
    selections = [select(s, (), rules) for s in by_study.values()]
    flags = select((), unreadable).flags
    rejected = tuple(r for s in selections for r in s.rejected)
    suitable = [s for s in selections if s.chosen is not None]
    if len(suitable) == 1:
        return replace(suitable[0], rejected=rejected, flags=flags + suitable[0].flags)
    reason = Reason("several-studies", f"{len(suitable)} studies hold a suitable chest CT: give one study at a time.")
    doubtful = tuple(
        RejectedSeries(s.chosen.series_uid, s.chosen.modality, len(s.chosen.headers), (reason,), s.chosen.part)
        for s in suitable
        if s.chosen is not None
    )
    return Selection(None, reason.text if suitable else "No study holds a suitable series.", doubtful + rejected, flags)


def _measure(segmented: Segmented, method: Method, watch: _Stopwatch) -> Findings:
    selection, series = segmented.selection, segmented.series
    volume, labels = segmented.volume, segmented.labels
    with watch.stage("quantify"):
        flags = selection.flags + lungs.check(volume, labels)
        volume_ml = lungs.volumes(volume, labels)
        quantities = quantify.by_region(volume, labels)
    features = None
    if method.radiomics_settings is not None:
        with watch.stage("radiomics"):
            features, unmeasured = _radiomics(volume, labels, method.radiomics_settings)
            flags = (*flags, *unmeasured)
    risk: Risk | None = None
    if method.bundle is not None:
        with watch.stage("risk"):
            doubts = [f.code for f in flags if f.severity == "error"]
            if doubts:
                text = f"no risk was predicted, because the lungs are in doubt ({', '.join(doubts)})"
                flags = (*flags, Flag("risk-withheld", "error", text))
            else:
                risk = method.bundle.predict(volume, labels)
    for stage in ("radiomics", "risk"):
        watch.seconds.setdefault(stage, 0.0)
    return Findings(
        status="analysed",
        series=_chosen(series, volume, selection.why_chosen),
        rejected=selection.rejected,
        flags=flags,
        lungs=Lungs(method.segmenter.name, method.segmenter.version, volume_ml),
        quantities=quantities,
        radiomics=features,
        risk=risk,
        timings_s=watch.seconds,
        software_version=dicomnode.__version__,
        input_digest=input_digest(series),
        algorithm_digest=method.digest,
    )


def _radiomics(volume: Volume, labels: Labels, settings: Mapping[str, Any]) -> tuple[Radiomics, list[Flag]]:
    """Features of both lungs and of each; a lung that is missing or tiny is flagged instead."""
    found, flags = {}, []
    for name, mask in (("lungs", labels > 0), ("right", labels == RIGHT), ("left", labels == LEFT)):
        try:
            found[name] = radiomics.extract(volume, mask, settings)
        except RefusedError as e:
            flags.append(Flag(e.code, "warning", f"no radiomics of {name}: {e.text}"))
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
    )


def _kernel(series: Series) -> str:
    kernel = series.headers[0].dataset.get("ConvolutionKernel", "")
    return kernel if isinstance(kernel, str) else "\\".join(str(k) for k in kernel or ())


def _refused(selection: Selection, error: RefusedError | None = None) -> Findings:
    """Refused findings; a series that was chosen and then failed joins the rejected ones with its reason."""
    rejected = selection.rejected
    if error is not None and selection.chosen is not None:
        series = selection.chosen
        reason = Reason(error.code, error.text)
        failed = RejectedSeries(series.series_uid, series.modality, len(series.headers), (reason,), series.part)
        rejected = (failed, *rejected)
    return Findings("refused", None, rejected, selection.flags, software_version=dicomnode.__version__)


def with_encode_time(findings: Findings, seconds: float) -> Findings:
    """The findings with the time that encoding the reports took."""
    return replace(findings, timings_s={**findings.timings_s, "encode": round(seconds, 3)})
