"""A good small series whose values are removed, emptied, doubled, mistyped, lengthened, localised, and replaced.

Each case goes the whole way, as `analyze` and as the node's steps take it: headers, selection, volume, findings,
checkpoint, reports, and what else the node reads of an image. It ends analysed, with objects that read back without an
invalid value, or refused with a reason. `dciodvfy` sees them too, where it is installed. What lies in no header is
computed once: lungs from a box, their measurements, one page for all. Reports are made once of the same headers, series
and flags: most changes leave nothing that a report could repeat.
"""

import functools
import hashlib
import json
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomnode.analysis.arrays import Labels, Volume
from dicomnode.analysis.findings import Findings, SegmenterFamily
from dicomnode.analysis.lungs import plausible
from dicomnode.analysis.measures import quantify
from dicomnode.analysis.pipeline import Analysis, Method, analyse
from dicomnode.analysis.risk.predict import covariates
from dicomnode.analysis.series.headers import read_headers, read_source
from dicomnode.analysis.series.modules import PATIENT, STUDY
from dicomnode.analysis.series.selection_rules import Rules
from dicomnode.context import worklist_query
from dicomnode.errors import RefusedError
from dicomnode.logs import is_uid
from dicomnode.network import mpps, ups
from dicomnode.network.file_meta import encode as file_meta
from dicomnode.operations.explain import explain
from dicomnode.report.attributes import CARRIED, GEOMETRY
from dicomnode.report.page import summary
from dicomnode.results import encode
from dicomnode.routing import study_facts
from tests.fuzz.target import Run, Target
from tests.helpers.ct_files import ct_series
from tests.helpers.report_cases import quantities

_RULES = Rules(min_slices=3, min_coverage_mm=1.0)
_SLICES, _ROWS, _COLUMNS = 3, 16, 20
_LONG = ("OB", "OW", "SQ", "UN", "UT", "UC", "UR", "OF", "OD", "OL", "OV", "SV", "UV")
_VRS = (
    "DS", "IS", "US", "SS", "UL", "FD", "FL", "LO", "SH", "CS", "UI", "DA", "TM", "PN", "UT", "UN", "OB", "SQ", "ST",
    "ZZ",
)  # fmt: skip
_VALUES = (
    b"1,5", b"3,98", b"1.0\\1.0", b"1.0\\2.0", b"1e400", b"NaN", b"-inf", b"0", b"-1", b"1_0", b"0x10", b"1.234,5",
    b"\xd9\xa1\xd9\xa2", b"+7.5", b"1.0000000000000000000001", b"99999999999", b"3.0", b"", b" ", b"\0\0", b"\\",
    b"\\\\\\", b"ct", b"YES", b"A" * 65, b"B" * 17, b"C" * 1025, b"D" * 11000, b"\xff\xfe\xfd", b"\x1b$B", b"a\x01b",
    b"a\nb", b"a\x7f", b"1.2.3", b"1..2", b"1.2.840.10008.5.1.4.1.1.2", b"1.2." * 20 + b"1", b"20200203",
    b"2020.02.03", b"03.02.2020", b"20201301", b"120000", b"12:00:00", b"250000", b"12", b"120000.1234567", b"046Y",
    b"46Y", b"46", b"20200203120000+0100", b"M", b"X", b"weiblich", b"ISO_IR 192", b"ISO 8859-1", b"ISO_IR 999",
    b"\\ISO 2022 IR 87", b"A^B^C^D^E^F", b"A=B=C=D", b"\x00\x02", b"\x00\x02\x00\x00", b"\x00\x00", b"\xff\xff",
    b"\x01\x00\x00", b"\x00\x00\x00\x00\x00\x00\xf0?", "Müller^Änne".encode(), "山田^太郎".encode("shift_jis"), b"no",
    b"+0100", b"+9900", b"MONOCHROME1", b"HU", b"01", b"$\\frac$", b"$A$", b"#{1}*_`[b]", b"<b>&amp;", b"%s{0}",
    b"=1+1",
)  # fmt: skip
_MORE = (
    "SliceThickness", "SpacingBetweenSlices", "SeriesDescription", "ProtocolName", "BodyPartExamined",
    "ContrastBolusAgent", "KVP", "AcquisitionNumber", "AcquisitionTime", "ContentTime", "TriggerTime", "SeriesNumber",
    "RescaleType", "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
    "PixelPaddingValue", "PixelPaddingRangeLimit", "SpecificCharacterSet", "TimezoneOffsetFromUTC",
    "ManufacturerModelName", "NumberOfFrames", "ImageComments", "RequestAttributesSequence", "PlanarConfiguration",
    "TemporalPositionIdentifier", "StationName", "ConcatenationUID", "InConcatenationTotalNumber",
    "InConcatenationNumber", "StackID", "PixelAspectRatio", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "DimensionIndexSequence",
)  # fmt: skip
#: Tag, VR, value.
Raw = tuple[int, str, bytes]


def _values(dataset: Dataset) -> list[Raw]:
    made = []
    for element in dataset:
        alone = Dataset()
        alone.add(element)
        buffer = _buffer()
        write_dataset(buffer, alone)
        head = 12 if element.VR in _LONG else 8
        made.append((int(element.tag), str(element.VR), buffer.getvalue()[head:]))
    return made


@functools.cache
def _base() -> tuple[tuple[Raw, ...], ...]:
    stored = np.random.default_rng(0).integers(100, 1200, (_SLICES, _ROWS, _COLUMNS)).astype(np.int16)
    code, order = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "CTTHX", "99LOCAL", "CT Thorax"
    order.RequestedProcedureID, order.ScheduledProcedureStepID = "RP1", "SPS1"
    images = ct_series(
        stored, SpecificCharacterSet="ISO_IR 100", PatientBirthDate="19600102", PatientSex="F", PatientAge="060Y",
        PatientName="Grün^Anna", PatientID="P-1", IssuerOfPatientID="HOSPITAL", StudyDate="20200203",
        StudyTime="101112", AccessionNumber="A1", StudyID="7", ReferringPhysicianName="Doe^J",
        StudyDescription="CT Thorax", SeriesNumber=3, SeriesDescription="Lung 1.0", ProtocolName="Thorax",
        BodyPartExamined="CHEST", KVP="120", PatientWeight="70.5", PatientSize="1.7", ManufacturerModelName="Model",
        AcquisitionNumber=1, AcquisitionTime="101010", PixelPaddingValue=-2000, RescaleType="HU",
        TimezoneOffsetFromUTC="+0100", ProcedureCodeSequence=[code], RequestAttributesSequence=[order],
        StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.4", FrameOfReferenceUID="1.2.5",
        PositionReferenceIndicator="", PatientComments="none",
    )  # fmt: skip
    for number, image in enumerate(images):
        image.SOPInstanceUID = f"1.2.6.{number}"
        image["PixelPaddingValue"].VR = "SS"
    return tuple(tuple(_values(image)) for image in images)


@functools.cache
def _keywords() -> tuple[str, ...]:
    here = {pydicom.datadict.keyword_for_tag(tag) for tag, _, _ in _base()[0]} - {"PixelData"}
    # What is here counts twice: it is what goes wrong.
    return (*sorted(here), *sorted(here), *sorted({*PATIENT, *STUDY, *_MORE} - here))


def make(rng: Random) -> bytes:
    """A case: the changes, and how the files are written."""
    changes = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        how = rng.choice(
            ("remove", "empty", "double", "mistype", "lengthen", "localise", "replace", "replace", "append")
        )
        which = rng.choice(("all", "all", "all", 0, rng.randrange(_SLICES)))
        change: dict[str, Any] = {"keyword": rng.choice(_keywords()), "how": how, "which": which}
        if how in ("replace", "append"):
            change["value"] = rng.choice(_VALUES).decode("latin-1")
        if how == "mistype":
            change["vr"] = rng.choice(_VRS)
        changes.append(change)
    form = rng.choice(("explicit", "explicit", "implicit", "no meta"))
    return json.dumps({"form": form, "changes": changes}).encode()


def _changed(value: bytes, change: dict[str, Any]) -> bytes:
    match change["how"]:
        case "empty":
            return b""
        case "double":
            return value.rstrip(b" \0") + b"\\" + value if not change["binary"] else value * 2
        case "lengthen":
            return (value.rstrip(b" \0") or b"1") * 70
        case "localise":
            return value.replace(b".", b",") if b"." in value else value.rstrip(b" \0") + b",0"
        case "replace":
            return change["value"].encode("latin-1")
        case "append":
            return value.rstrip(b" \0") + change["value"].encode("latin-1")
    return value


def _apply(elements: Sequence[Raw], change: dict[str, Any]) -> list[Raw]:
    tag = int(tag_for_keyword(change["keyword"]) or 0)
    found = {t: (t, vr, value) for t, vr, value in elements}
    if change["how"] == "remove":
        found.pop(tag, None)
    else:
        stated = dictionary_VR(tag)
        _, vr, value = found.get(tag, (tag, "US" if stated.startswith("US or") else stated, b"1"))
        binary = vr in ("US", "SS", "UL", "SL", "FD", "FL", "SQ")
        changed = _changed(value, {**change, "binary": binary})
        if stated == "UI" and _is_a_name(changed):
            return list(elements)
        found[tag] = (tag, change.get("vr", vr), changed)
    return [found[t] for t in sorted(found)]


def _is_a_name(uid: bytes) -> bool:
    """Whether a UID is none of the standard's, but somebody's name all the same, and taken as it is.

    Some writers put a zero in front of a component, or begin with a root that nobody gave them.
    """
    text = uid.decode("latin-1").strip(" \0")
    return is_uid(text) and not re.fullmatch(r"([01]\.[1-3]?\d|2\.(0|[1-9]\d*))(\.(0|[1-9]\d*))*", text)


def _encoded(elements: Sequence[Raw], form: str) -> bytes:
    made = []
    for tag, vr, stated in elements:
        value = stated + (b"\0" if vr in ("UI", "OB", "UN") else b" ") * (len(stated) % 2)
        head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        if form != "explicit":
            made.append(head + struct.pack("<L", len(value)) + value)
        elif vr in _LONG:
            made.append(head + vr.encode() + struct.pack("<HL", 0, len(value)) + value)
        else:
            made.append(head + vr.encode() + struct.pack("<H", len(value) & 0xFFFF) + value)
    body = b"".join(made)
    if form == "no meta":
        return body
    syntax = ExplicitVRLittleEndian if form == "explicit" else ImplicitVRLittleEndian
    return file_meta("1.2.840.10008.5.1.4.1.1.2", "1.2.6", syntax) + body


def write(case: bytes, folder: Path) -> list[Path]:
    """Write the files of a case."""
    told = json.loads(case)
    paths = []
    for number, base in enumerate(_base()):
        elements: Sequence[Raw] = base
        for change in told["changes"]:
            if change["which"] in ("all", number):
                elements = _apply(elements, change)
        if told["form"] != "explicit":
            # Sequences are written in explicit VR: where that does not hold, they are left out.
            elements = [e for e in elements if e[1] != "SQ"]
        paths.append(folder / f"{number}.dcm")
        paths[-1].write_bytes(_encoded(elements, told["form"]))
    return paths


class Boxes:
    """A segmenter that needs no looking: two boxes."""

    name, version = "boxes", "1"
    family: SegmenterFamily = "morphology"

    def __call__(self, volume: Volume) -> Labels:
        labels = np.zeros(volume.hu.shape, np.uint8)
        _, rows, columns = labels.shape
        labels[:, rows // 4 : -(rows // 4), 1 : columns // 2 - 1] = 1
        labels[:, rows // 4 : -(rows // 4), columns // 2 + 1 : -1] = 2
        if not (labels == 1).any() or not (labels == 2).any():
            raise RefusedError("no-lungs", "No lungs.")
        return labels

    def lobes(self, _volume: Volume, _lungs: Labels) -> NDArray[np.uint8] | None:
        return None


_METHOD = Method(Boxes(), None, None, _RULES)


def _told(findings: Findings) -> str:
    """What reports tell of findings, without how often a value was odd."""
    flags = sorted({f.code for f in findings.flags} - {"values-repaired", "values-unusable"})
    rejected = [(r.modality, sorted(x.code for x in r.reasons)) for r in findings.rejected]
    return repr((findings.status, findings.series, flags, rejected))


def _seen(path: Path) -> str:
    """What a report may see of one image."""
    try:
        header = read_source(path)
    except RefusedError as error:
        return error.code
    return repr([(str(tag), str(header.get_item(tag).value)) for tag in _REPEATED if tag in header])


_REPEATED = [
    tag_for_keyword(k) for k in (*CARRIED, *GEOMETRY, "RequestAttributesSequence", "RequestedProcedureCodeSequence")
]


def _go(paths: list[Path], out: Path, done: set[str]) -> tuple[Findings, list[Path]]:
    """The way of `analyze`, over the checkpoint that the node keeps between its steps."""
    with mock.patch.object(plausible, "refuse_unless_chest", lambda *_: None):  # the boxes hold some ml
        analysis: Analysis = analyse(paths, _METHOD)
    context = encode.context(datetime(2026, 1, 2, tzinfo=UTC).timestamp(), highest_series_number=0)
    key = hashlib.sha256((_told(analysis.findings) + "".join(map(_seen, paths))).encode("utf-8", "replace")).hexdigest()
    known = key in done
    done.add(key)
    if analysis.findings.status == "refused":
        rejected = [r for series in analysis.findings.rejected for r in series.reasons]
        assert rejected or any(f.code == "unreadable-files" for f in analysis.findings.flags), (
            "refused without a reason"
        )
        assert Findings.from_json(analysis.findings.to_json()) == analysis.findings
        for path in () if known else paths:
            try:
                made = encode.encode_refusal(analysis.findings, path, context, out, ("summary", "pdf"))
            except RefusedError:  # the next image gives the patient
                continue
            return analysis.findings, [one.path for one in made]
        return analysis.findings, []
    covariates(analysis.findings, analysis.headers[0])
    if known:
        return analysis.findings, []
    encode.AnalysisCheckpoint.of(analysis).save(out)
    restored = encode.AnalysisCheckpoint.restore(out)
    assert restored.findings == analysis.findings
    return analysis.findings, [one.path for one in encode.encode(restored, context, out)]


def _others(paths: list[Path], folder: Path) -> None:
    """What else reads an image's header."""
    explain(paths[0], _RULES)
    wanted = {*PATIENT, *STUDY, *_MORE}
    study_facts.of_headers("1.2.3", read_headers(paths[:1])[0], (), wanted)
    try:
        header = read_source(paths[0])
    except RefusedError:
        return
    worklist_query.of_study(header)
    _written(mpps.begun(header, "1.2.3.4", "NODE", 1.0))
    reference = ups.Reference("1.2.3", "1.2.4", "1.2.840.10008.5.1.4.1.1.2", "1.2.6", ("NODE",))
    _written(ups.scheduled(read_source(paths[0]), [reference], ("1", "99X", "one"), "label", 1.0))


def _written(dataset: Dataset) -> None:
    """As pynetdicom encodes what it sends."""
    write_dataset(_buffer(), dataset)


def _buffer() -> DicomBytesIO:
    made = DicomBytesIO()
    made.is_little_endian, made.is_implicit_VR = True, False
    return made


def _valid(path: Path) -> None:
    settings = pydicom.config.settings
    before, settings.reading_validation_mode = settings.reading_validation_mode, pydicom.config.RAISE
    try:
        dataset = pydicom.dcmread(path)
        dataset.walk(lambda _, element: element.value)
    finally:
        settings.reading_validation_mode = before
    if shutil.which("dciodvfy"):
        done = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, errors="replace", check=False)
        # Study, series and frame of reference go back as they came, also where the source gave two of them one UID.
        errors = [
            line
            for line in (done.stdout + done.stderr).splitlines()
            if line.startswith("Error") and "has same value as" not in line
        ]
        if errors:  # a kind of its own for each attribute: one finding hides no other
            attribute = re.findall(r"\w+(?=\()", errors[0]) or ["Object"]
            raise type(f"Invalid{attribute[-1]}Error", (AssertionError,), {})(f"{path.name}: {errors[0]}")


@contextmanager
def opened() -> Iterator[Run]:
    """The whole way of one series."""
    page: NDArray[np.uint8] = np.zeros((8, 8, 3), np.uint8)
    numbers = dict.fromkeys(("lungs", "right", "left"), quantities())
    done: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="dicomnode-fuzz-") as name:
        folder, out = Path(name) / "in", Path(name) / "out"
        folder.mkdir()

        def run(case: bytes) -> None:
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            paths = write(case, folder)
            with (
                mock.patch.object(summary, "picture", lambda _views, _findings: page),
                mock.patch.object(quantify, "by_region", lambda *_: numbers),
            ):
                _, objects = _go(paths, out, done)
            _others(paths, folder)
            for path in objects:
                _valid(path)

        yield run


TARGETS = (Target("series", make, opened, share=5.0),)
