"""Masks of lungs and lobes as a DICOM Segmentation (PS3.3 A.51): binary, little endian, without empty frames."""

from collections.abc import Sequence
from typing import Literal

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from dicomnode.analysis.arrays import LEFT, Labels
from dicomnode.analysis.findings import Findings, Lungs
from dicomnode.report import codes, source, stamp, uids
from dicomnode.report.context import MANUFACTURER, MODEL_NAME, SEGMENTATION, Context, Kind
from dicomnode.report.structures import LOBES_OF_LUNG, LUNGS, Structure, segments
from dicomnode.report.wording import DEMO, is_demo, plain
from dicomnode.words.numerals import plural

SegmentationType = Literal["BINARY", "LABELMAP"]


def encode(
    headers: Sequence[Dataset],
    labels_in_source: Labels,
    findings: Findings,
    context: Context,
    lobes_in_source: NDArray[np.uint8] | None = None,
    *,
    segmentation_type: SegmentationType = "BINARY",
    transfer_syntax_uid: UID = ExplicitVRLittleEndian,
) -> Dataset:
    """Return the segmentation object of one analysis.

    Args:
        headers: the source images without pixel data, in the order of the frames; or one enhanced multi-frame image, or
            the parts of one (a concatenation).
        labels_in_source: shape (frame, row, column), 0 background, 1 right lung, 2 left lung, in the source's own rows
            and columns (`Volume.to_source`).
        findings: of these images, with `lungs` and `series`; each lung and lobe of its quantities becomes a segment.
        context: the result's circumstances.
        lobes_in_source: likewise, numbers as in `arrays.LOBES`; needed where the findings have lobes.
        segmentation_type: BINARY, or LABELMAP of segments that don't overlap.
        transfer_syntax_uid: how the frames are encoded.

    Raises:
        ValueError: the findings have no lungs, the number of frames differs, a label is not 0, 1 or 2, or lobes lack.
    """
    if findings.lungs is None or findings.series is None:
        raise ValueError(f"no segmentation to encode: the findings ({findings.status}) have no lungs")
    if labels_in_source.max(initial=0) > LEFT:
        raise ValueError(f"labels must be 0, 1 (right) or 2 (left), but one is {labels_in_source.max()}")
    return assemble(
        SEGMENTATION,
        headers,
        _pixels(labels_in_source, lobes_in_source, findings),
        [
            _describe(number, {**LUNGS, **LOBES_OF_LUNG}[name], headers[0], findings.lungs)
            for name, number in segments(findings).items()
        ],
        findings,
        context,
        label="LUNGS",
        description=f"{DEMO}, research use only" if is_demo(findings) else "Lungs, research use only",
        segmentation_type=segmentation_type,
        transfer_syntax_uid=transfer_syntax_uid,
    )


def assemble(
    kind: Kind,
    headers: Sequence[Dataset],
    pixels: NDArray[np.uint8],
    described: Sequence[hd.seg.SegmentDescription],
    findings: Findings,
    context: Context,
    *,
    label: str,
    description: str,
    segmentation_type: SegmentationType = "BINARY",
    transfer_syntax_uid: UID = ExplicitVRLittleEndian,
) -> Dataset:
    """Return a segmentation object of any kind, on the frames of the source.

    Args:
        kind: which object it is.
        headers: as of `encode`.
        pixels: segment numbers, (frame, row, column); of segments that overlap, (frame, row, column, segment).
        described: the segments.
        findings: with `series`.
        context: the result's circumstances.
        label: Content Label (CS).
        description: Content Description (LO).
        segmentation_type: BINARY, or LABELMAP.
        transfer_syntax_uid: how the frames are encoded.

    Raises:
        ValueError: the findings have no series, or the number of frames differs.
    """
    if findings.series is None:
        raise ValueError(f"no segmentation to encode: the findings ({findings.status}) have no series")
    frames = sum(int(header.get("NumberOfFrames", 1)) for header in headers)
    if len(pixels) != frames:
        raise ValueError(f"the source has {plural(frames, 'frame')} and the labels have {len(pixels)}")

    first = headers[0]
    sop_uid = uids.sop_instance(kind, str(first.StudyInstanceUID), findings)
    seg = hd.seg.Segmentation(
        source_images=_places(headers, findings.series.spacing_mm),
        pixel_array=pixels,
        segmentation_type=segmentation_type,
        segment_descriptions=described,
        series_instance_uid=uids.series(kind, str(first.StudyInstanceUID), findings),
        series_number=kind.series_number,
        sop_instance_uid=sop_uid,
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL_NAME,
        software_versions=plain(context.software_version),
        device_serial_number=plain(context.device_serial),
        content_label=label,
        content_description=description,
        pixel_measures=_measures(first, findings.series.spacing_mm),
        transfer_syntax_uid=transfer_syntax_uid,
        omit_empty_frames=True,
    )
    if "NumberOfFrames" in first:
        _refer_to_parts(seg, headers)
    _state_the_step(seg, findings.series.spacing_mm[0])
    _name_dimensions(seg, uids.dimension_organization(sop_uid))
    seg.BodyPartExamined = "CHEST"
    stamp.finish(seg, kind, first, findings, context)
    return seg


def _pixels(labels: Labels, lobes: NDArray[np.uint8] | None, findings: Findings) -> NDArray[np.uint8]:
    """Segment numbers, (frame, row, column); with lobes, which overlap the lungs, (frame, row, column, segment)."""
    numbers = segments(findings)
    lungs = {LUNGS[name].value: number for name, number in numbers.items() if name in LUNGS}
    if len(lungs) == len(numbers):
        return labels if all(value == number for value, number in lungs.items()) else (labels > 0).astype(np.uint8)
    if lobes is None:
        raise ValueError("the findings have lobes, but lobes_in_source is not given")
    masks = np.empty((*labels.shape, len(numbers)), np.uint8)
    for name, number in numbers.items():
        array, structure = (labels, LUNGS[name]) if name in LUNGS else (lobes, LOBES_OF_LUNG[name])
        np.equal(array, structure.value, out=masks[..., number - 1].view(bool))
    return masks


def _describe(number: int, structure: Structure, header: Dataset, lungs: Lungs) -> hd.seg.SegmentDescription:
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=structure.name.capitalize(),
        segmented_property_category=codes.ANATOMICAL_STRUCTURE,
        segmented_property_type=structure.kind,
        algorithm_type="AUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=plain(lungs.segmenter),
            version=plain(lungs.segmenter_version),
            family=codes.ALGORITHM_FAMILIES[lungs.family],
            source=MANUFACTURER,
        ),
        tracking_id=structure.name.capitalize(),
        tracking_uid=uids.tracking(source.patient_key(header), structure.name),
        display_color=hd.color.CIELabColor.from_rgb(*structure.colour),
    )
    modifier = [codes.item(structure.laterality)]
    description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = modifier
    return description


def _places(headers: Sequence[Dataset], spacing_mm: tuple[float, float, float]) -> list[Dataset]:
    """Return the headers with nothing but geometry; what highdicom insists on and the source lacks is filled in."""
    frame_of_reference = uids.frame_of_reference(str(headers[0].SeriesInstanceUID))
    places = [source.placeholder(header, frame_of_reference) for header in headers]
    for place in places:
        if "PixelSpacing" in place and not place.get("SliceThickness"):
            place.SliceThickness = spacing_mm[0]
    if "NumberOfFrames" in places[0]:
        return [_with_shared(_joined(places))]
    for place in places[1:]:  # equal but for rounding: highdicom compares to the last digit
        place["ImageOrientationPatient"] = places[0]["ImageOrientationPatient"]
    return places


def _joined(parts: Sequence[Dataset]) -> Dataset:
    """Return the image whose parts these are: highdicom takes one multi-frame image.

    Their shared groups are the same.
    """
    frames = [groups for part in parts for groups in part.PerFrameFunctionalGroupsSequence]
    whole = parts[0]
    # Taken out first: a placeholder shares its elements with the header that it was made from.
    del whole.PerFrameFunctionalGroupsSequence, whole.NumberOfFrames
    whole.PerFrameFunctionalGroupsSequence, whole.NumberOfFrames = frames, len(frames)
    return whole


def _with_shared(image: Dataset) -> Dataset:
    """Return the image with its orientation and pixel size in the shared groups: highdicom looks nowhere else.

    They may stand with each frame (PS3.3 C.7.6.16.2.1 and 2.4), where they are the same for all that was analysed.
    """
    (shared,), frames = image.SharedFunctionalGroupsSequence, image.PerFrameFunctionalGroupsSequence
    lacking = [macro for macro in ("PlaneOrientationSequence", "PixelMeasuresSequence") if macro not in shared]
    if lacking:
        copy = Dataset()
        copy.update({element.tag: element for element in shared})
        copy.update({frames[0][macro].tag: frames[0][macro] for macro in lacking})
        # A new element: a placeholder shares its own with the header that it was made from.
        tag = image["SharedFunctionalGroupsSequence"].tag
        image[tag] = DataElement(tag, "SQ", [copy])
    return image


def _refer_to_parts(seg: Dataset, headers: Sequence[Dataset]) -> None:
    """Each reference to a frame of the joined image becomes one to the part that has the frame: what a PACS holds."""
    places = [(header, frame) for header in headers for frame in range(1, int(header.NumberOfFrames) + 1)]
    references = [
        reference
        for groups in seg.PerFrameFunctionalGroupsSequence
        for derivation in groups.get("DerivationImageSequence", [])
        for reference in derivation.SourceImageSequence
    ]
    # Frames of different segments at one place may share an item, which must be changed once.
    for reference in {id(r): r for r in references}.values():
        header, reference.ReferencedFrameNumber = places[int(reference.ReferencedFrameNumber) - 1]
        reference.ReferencedSOPInstanceUID = header.SOPInstanceUID
    (series,) = seg.ReferencedSeriesSequence
    series.ReferencedInstanceSequence = [_instance(header) for header in headers]


def _instance(header: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    return reference


def _measures(header: Dataset, spacing_mm: tuple[float, float, float]) -> hd.PixelMeasuresSequence | None:
    """Pixel measures with the spacing that the positions show. None: an enhanced image has its own."""
    if "PixelSpacing" not in header:
        return None
    thickness = header.get("SliceThickness")
    return hd.PixelMeasuresSequence(
        pixel_spacing=[float(v) for v in header.PixelSpacing],
        slice_thickness=float(thickness) if thickness else spacing_mm[0],
        spacing_between_slices=spacing_mm[0],
    )


def _state_the_step(seg: Dataset, step_mm: float) -> None:
    """Give the distance between slices wherever the pixels' size stands.

    highdicom leaves it out where the slices are tilted or uneven, and an enhanced source may lack it: readers then take
    Slice Thickness for it, and with it another volume.
    """
    for groups in (*seg.SharedFunctionalGroupsSequence, *seg.PerFrameFunctionalGroupsSequence):
        for measures in groups.get("PixelMeasuresSequence", ()):
            measures.SpacingBetweenSlices = DSfloat(step_mm, auto_format=True)


def _name_dimensions(seg: Dataset, uid: str) -> None:
    # highdicom draws this UID at random; a repeated run must give the same bytes.
    seg.DimensionOrganizationSequence[0].DimensionOrganizationUID = uid
    for index in seg.DimensionIndexSequence:
        index.DimensionOrganizationUID = uid
