"""The results of one analysis as files.

Findings, DICOM objects and the overlay picture, written whole or not at all.
"""

import io
import json
import time
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset

import dicomnode
from dicomnode.analysis.findings import Findings
from dicomnode.analysis.series import repeatable
from dicomnode.analysis.series.headers import read_source
from dicomnode.config import ObjectName
from dicomnode.errors import RefusedError
from dicomnode.files import make_folder, write_whole
from dicomnode.report import gc_pause, letters
from dicomnode.report.context import Context
from dicomnode.report.page import views
from dicomnode.report.pdf import document
from dicomnode.results import sources
from dicomnode.store.records import Instance
from dicomnode.store.results_folder import FINDINGS, LABELS, OVERLAY, SOURCES, VIEWS, report_file

if TYPE_CHECKING:
    from dicomnode.analysis.pipeline import Analysis


@dataclass(frozen=True)
class ResultObject:
    """One DICOM object of a result, on disk.

    `name` is an `ObjectName`, or "refusal", "refusal-summary" or "refusal-pdf". `is_labelmap`: it stands for the object
    of this name where label maps are wanted.
    """

    name: str
    sop_class_uid: str
    sop_instance_uid: str
    path: Path
    is_labelmap: bool = False


@dataclass(frozen=True)
class AnalysisCheckpoint:
    """What encoding needs of an analysis: small enough to keep on disk.

    For the next step of the workflow, and for results that are encoded anew because patient or study were corrected.
    """

    findings: Findings
    sources: tuple[Path, ...]
    labels_in_source: NDArray[np.uint8]
    views: views.Views
    lobes_in_source: NDArray[np.uint8] | None = None
    areas_in_source: NDArray[np.uint8] | None = None

    @classmethod
    def of(cls, analysis: "Analysis", *, attenuation_maps: bool = False) -> "AnalysisCheckpoint":
        """Return the checkpoint of an analysed study, with the areas by attenuation where a map of them is wanted."""
        if analysis.volume is None or analysis.labels is None:
            raise ValueError("a refused study has nothing to encode")
        risk = analysis.findings.risk
        return cls(
            analysis.findings,
            analysis.volume.paths,
            analysis.labels_in_source,
            views.choose(analysis.volume, analysis.labels, risk.explanation if risk is not None else None),
            analysis.lobes_in_source,
            analysis.areas_in_source if attenuation_maps else None,
        )

    def save(self, folder: Path) -> None:
        """Write the checkpoint's files into `folder`."""
        make_folder(folder)
        arrays = {"labels": self.labels_in_source}
        if self.lobes_in_source is not None:
            arrays["lobes"] = self.lobes_in_source
        if self.areas_in_source is not None:
            arrays["areas"] = self.areas_in_source
        write_whole(folder / LABELS, lambda file: _save_arrays(file, arrays), durable=False)
        self.views.save(folder / VIEWS)
        write_whole(folder / SOURCES, json.dumps([str(p) for p in self.sources]).encode())
        write_whole(folder / FINDINGS, self.findings.to_json().encode())

    @classmethod
    def restore(cls, folder: Path) -> "AnalysisCheckpoint":
        """Return the checkpoint that `save` wrote into `folder`."""
        with np.load(folder / LABELS, allow_pickle=False) as file:
            labels, lobes, areas = file["labels"], file.get("lobes"), file.get("areas")
        return cls(
            Findings.from_json((folder / FINDINGS).read_text("utf-8")),
            tuple(Path(p) for p in json.loads((folder / SOURCES).read_text("utf-8"))),
            labels,
            views.Views.load(folder / VIEWS),
            lobes,
            areas,
        )


def _save_arrays(file: IO[bytes], arrays: Mapping[str, NDArray[np.uint8]]) -> None:
    """As `numpy.savez_compressed`, but quickly: labels shrink to a hundredth by the lowest level, too."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def warm() -> None:
    """Load what reports are made with, a second or two, so that the first study of a process need not wait for it."""
    from dicomnode.report import labelmap, segmentation  # noqa: F401, PLC0415  (as in `encode`)
    from dicomnode.report.page import summary  # noqa: F401, PLC0415
    from dicomnode.report.sr import measurements, risk  # noqa: F401, PLC0415

    letters.shown("a")


def context(
    made_at: float,
    station_name: str = "",
    previous: Findings | None = None,
    order: Dataset | None = None,
    highest_series_number: int = 0,
    version: int = 1,
) -> Context:
    """Return the circumstances of a result that was made (or first asked for) at `made_at`, seconds since 1970."""
    return Context(
        datetime.fromtimestamp(made_at, UTC),
        dicomnode.__version__,
        station_name or "offline",
        station_name,
        previous=previous,
        order=order,
        highest_series_number=highest_series_number,
        version=version,
    )


def source_image(folder: Path, received: Sequence[Instance]) -> Path | None:
    """Return the image that gives a result's reports patient, study and order.

    None where the study has lost its images.
    """
    sources = folder / SOURCES
    if sources.exists():
        return Path(json.loads(sources.read_text("utf-8"))[0])
    return Path(min(received, key=lambda one: one.is_note).path) if received else None


@gc_pause.put_off()
def encode(
    checkpoint: AnalysisCheckpoint, context: Context, folder: Path, *, with_pdf: bool = True, labelmaps: bool = False
) -> tuple[ResultObject, ...]:
    """Make the reports and write them, `overlay.png` and `findings.json` into `folder`.

    The same checkpoint and context give the same bytes in every DICOM object.

    Args:
        checkpoint: the analysis.
        context: the result's circumstances.
        folder: where the reports are written.
        with_pdf: whether the PDF is made too; where no destination takes it, it would only cost time.
        labelmaps: whether segmentation and measurements are made for destinations that take label maps, too.
    """
    # Here and below: half a second for highdicom, half a second for matplotlib, that no start needs.
    from dicomnode.report import attenuation, labelmap, segmentation  # noqa: PLC0415
    from dicomnode.report.page import summary  # noqa: PLC0415
    from dicomnode.report.sr import measurements, risk  # noqa: PLC0415

    start = time.perf_counter()
    findings = checkpoint.findings
    headers = sources.headers(checkpoint.sources)
    seg = segmentation.encode(headers, checkpoint.labels_in_source, findings, context, checkpoint.lobes_in_source)
    picture = summary.picture(checkpoint.views, findings)
    measured = measurements.encode(headers, findings, seg, context)
    objects: list[tuple[ObjectName, Dataset]] = [("seg", seg), ("measurements", measured)]
    if checkpoint.areas_in_source is not None:
        areas = attenuation.encode(headers, checkpoint.areas_in_source, findings, context)
        if areas is not None:
            objects.append(("attenuation", areas))
    if findings.risk is not None:
        objects.append(("risk", risk.encode(headers, findings, context)))
    objects.append(("summary", summary.encode(headers, picture, findings, context)))
    if with_pdf:
        from dicomnode.report.pdf import typesetting  # noqa: PLC0415  (as above)

        pdf = typesetting.pdf_bytes(findings, context, headers[0], checkpoint.views)
        objects.append(("pdf", document.encode(headers[0], pdf, findings, context)))
    written = [_write(name, dataset, folder) for name, dataset in objects]
    if labelmaps and labelmap.can_show(findings):
        flat = labelmap.encode(headers, checkpoint.labels_in_source, findings, context)
        written.append(_write("seg", flat, folder, is_labelmap=True))
        written.append(_write("measurements", labelmap.referring(measured, seg, flat), folder, is_labelmap=True))
    png = io.BytesIO()
    Image.fromarray(picture).save(png, format="PNG")
    write_whole(folder / OVERLAY, png.getvalue())
    took_s = round(time.perf_counter() - start, 3)
    findings = replace(findings, timings_s={**findings.timings_s, "encode": took_s})
    write_whole(folder / FINDINGS, findings.to_json().encode())
    return tuple(written)


def encode_refusal(
    findings: Findings,
    source: Path,
    context: Context,
    folder: Path,
    objects: Collection[ObjectName] = (),
    *,
    verbatim: bool = False,
) -> tuple[ResultObject, ...]:
    """Write the short «not analysed: reason» report of a refused study.

    Args:
        findings: the refusal.
        source: any image of the study.
        context: the result's circumstances.
        folder: where the report is written.
        objects: those that a destination wants; with "summary" and "pdf" the report is made as page and PDF too.
        verbatim: `selection.invalid_identity`: even where the report is no valid object then.

    Raises:
        RefusedError: it is none that a report may refer to.
        OSError: it cannot be read.
    """
    from dicomnode.report.sr import refusal  # noqa: PLC0415  (as in `encode`)

    header = read_source(source)
    if not verbatim and repeatable.keep(header):
        raise RefusedError("identity-invalid", "No valid report can name the patient or the order of this image.")
    if pydicom.uid.UID(header.SOPClassUID).name == header.SOPClassUID:
        raise RefusedError("not-ct-image", "No report refers to an object of an unknown or private class.")
    written = [_write("refusal", refusal.encode(header, findings, context), folder)]
    if "summary" in objects:
        from dicomnode.report.page import summary  # noqa: PLC0415  (as in `encode`)

        page = summary.encode(
            [header], summary.refusal_picture(findings, letters.words(header, "StudyDate")), findings, context
        )
        written.append(_write("refusal-summary", page, folder))
    if "pdf" in objects:
        from dicomnode.report.pdf import typesetting  # noqa: PLC0415  (as in `encode`)

        pdf = typesetting.pdf_bytes(findings, context, header)
        written.append(_write("refusal-pdf", document.encode(header, pdf, findings, context), folder))
    return tuple(written)


def is_for(name: str, objects: Collection[ObjectName]) -> bool:
    """Whether a destination that takes `objects` gets an object of this name.

    Of a refusal that it wants, it always gets the structured report.
    """
    return name == "refusal" or name.removeprefix("refusal-") in objects


def _write(name: str, dataset: Dataset, folder: Path, *, is_labelmap: bool = False) -> ResultObject:
    content = io.BytesIO()
    pydicom.dcmwrite(content, dataset, enforce_file_format=True)
    path = report_file(folder, f"{name}-labelmap" if is_labelmap else name)
    write_whole(path, content.getvalue())
    return ResultObject(name, str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), path, is_labelmap)
