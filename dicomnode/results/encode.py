"""The results of one analysis as files.

Findings, DICOM objects and the overlay picture, written whole or not at all.
"""

import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset

import dicomnode
from dicomnode.analysis.findings import Findings
from dicomnode.analysis.pipeline import Analysis, with_encode_time
from dicomnode.analysis.series import repeatable
from dicomnode.analysis.series.headers import read_source
from dicomnode.config import ObjectName
from dicomnode.errors import RefusedError
from dicomnode.files import make_folder, write_whole
from dicomnode.report import gc_pause, segmentation
from dicomnode.report.context import Context
from dicomnode.report.page import summary, views
from dicomnode.report.sr import measurements, refusal, risk
from dicomnode.store.records import Instance
from dicomnode.store.results_folder import FINDINGS, LABELS, OVERLAY, SOURCES, VIEWS, report_file


@dataclass(frozen=True)
class ResultObject:
    """One DICOM object of a result, on disk. `name` is an `ObjectName`, or "refusal"."""

    name: str
    sop_class_uid: str
    sop_instance_uid: str
    path: Path


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

    @classmethod
    def of(cls, analysis: Analysis) -> "AnalysisCheckpoint":
        """Return the checkpoint of an analysed study."""
        if analysis.volume is None or analysis.labels is None:
            raise ValueError("a refused study has nothing to encode")
        return cls(
            analysis.findings,
            analysis.volume.paths,
            analysis.labels_in_source,
            views.choose(analysis.volume, analysis.labels),
            analysis.lobes_in_source,
        )

    def save(self, folder: Path) -> None:
        """Write the checkpoint's files into `folder`."""
        make_folder(folder)
        arrays = {"labels": self.labels_in_source}
        if self.lobes_in_source is not None:
            arrays["lobes"] = self.lobes_in_source
        write_whole(
            folder / LABELS, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays), durable=False
        )
        self.views.save(folder / VIEWS)
        write_whole(folder / SOURCES, json.dumps([str(p) for p in self.sources]).encode())
        write_whole(folder / FINDINGS, self.findings.to_json().encode())

    @classmethod
    def restore(cls, folder: Path) -> "AnalysisCheckpoint":
        """Return the checkpoint that `save` wrote into `folder`."""
        with np.load(folder / LABELS, allow_pickle=False) as file:
            labels, lobes = file["labels"], file.get("lobes")
        return cls(
            Findings.from_json((folder / FINDINGS).read_text("utf-8")),
            tuple(Path(p) for p in json.loads((folder / SOURCES).read_text("utf-8"))),
            labels,
            views.Views.load(folder / VIEWS),
            lobes,
        )


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
def encode(checkpoint: AnalysisCheckpoint, context: Context, folder: Path) -> tuple[ResultObject, ...]:
    """Make the reports and write them, `overlay.png` and `findings.json` into `folder`.

    The same checkpoint and context give the same bytes in every DICOM object.
    """
    start = time.perf_counter()
    findings = checkpoint.findings
    headers = [read_source(p) for p in checkpoint.sources]
    seg = segmentation.encode(headers, checkpoint.labels_in_source, findings, context, checkpoint.lobes_in_source)
    picture = summary.picture(checkpoint.views, findings)
    objects: list[tuple[ObjectName, Dataset]] = [
        ("seg", seg),
        ("measurements", measurements.encode(headers, findings, seg, context)),
    ]
    if findings.risk is not None:
        objects.append(("risk", risk.encode(headers, findings, context)))
    objects.append(("summary", summary.encode(headers, picture, findings, context)))
    written = tuple(_write(name, dataset, folder) for name, dataset in objects)
    png = io.BytesIO()
    Image.fromarray(picture).save(png, format="PNG")
    write_whole(folder / OVERLAY, png.getvalue())
    findings = with_encode_time(findings, time.perf_counter() - start)
    write_whole(folder / FINDINGS, findings.to_json().encode())
    return written


def encode_refusal(
    findings: Findings, source: Path, context: Context, folder: Path, *, verbatim: bool = False
) -> ResultObject:
    """Write the short «not analysed: reason» report of a refused study.

    Args:
        findings: what the analysis found.
        source: path of any image of the study.
        context: of the report.
        folder: where it goes.
        verbatim: `selection.invalid_identity`: even where the report is no valid object then.

    Raises:
        RefusedError: it is none that a report may refer to.
        OSError: it cannot be read.
    """
    header = read_source(source)
    if not verbatim and repeatable.keep(header):
        raise RefusedError("identity-invalid", "No valid report can name the patient or the order of this image.")
    if pydicom.uid.UID(header.SOPClassUID).name == header.SOPClassUID:
        raise RefusedError("not-ct-image", "No report refers to an object of an unknown or private class.")
    return _write("refusal", refusal.encode(header, findings, context), folder)


def _write(name: str, dataset: Dataset, folder: Path) -> ResultObject:
    content = io.BytesIO()
    pydicom.dcmwrite(content, dataset, enforce_file_format=True)
    path = report_file(folder, name)
    write_whole(path, content.getvalue())
    return ResultObject(name, str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), path)
