"""The image that shows what a measurement group measured: TID 1411, «Illustration of ROI»."""

from collections.abc import Sequence

import highdicom as hd
from pydicom.dataset import Dataset

from dicomnode.report import codes


def illustrate(
    group: hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations, seg: Dataset, segments: Sequence[int]
) -> None:
    """Add to a group the source image at the middle of its segments, from the references of the segmentation.

    A segment without frames has no image to show, and none is added.
    """
    image = _middle(seg, segments)
    if image is None:
        return
    frames = image.get("ReferencedFrameNumber")
    shown = hd.sr.ImageContentItem(
        name=codes.ILLUSTRATION_OF_ROI,
        referenced_sop_class_uid=image.ReferencedSOPClassUID,
        referenced_sop_instance_uid=image.ReferencedSOPInstanceUID,
        referenced_frame_numbers=None if frames is None else [int(frames)],
        relationship_type="CONTAINS",
    )
    content = group[0].ContentSequence
    references = [k for k, one in enumerate(content) if one.ValueType in ("IMAGE", "UIDREF")]
    content.insert(references[-1] + 1, shown)


def _middle(seg: Dataset, segments: Sequence[int]) -> Dataset | None:
    """Return the reference to the source of the middle one of the frames of these segments."""
    frames = [
        frame
        for frame in seg.PerFrameFunctionalGroupsSequence
        if _group(seg, frame, "SegmentIdentificationSequence")[0].ReferencedSegmentNumber in segments
    ]
    # The frames of one segment follow one another; those of two lie beside each other by their place.
    frames.sort(key=lambda frame: [float(v) for v in _place(seg, frame)][::-1])
    sources = [
        image
        for frame in frames
        for derivation in _group(seg, frame, "DerivationImageSequence")
        for image in derivation.SourceImageSequence
    ]
    return sources[len(sources) // 2] if sources else None


def _place(seg: Dataset, frame: Dataset) -> Sequence[float]:
    place: Sequence[float] = _group(seg, frame, "PlanePositionSequence")[0].ImagePositionPatient
    return place


def _group(seg: Dataset, frame: Dataset, keyword: str) -> Sequence[Dataset]:
    """Return a functional group of a frame: its own, or what all share (one segment's number, PS3.3 C.7.6.16)."""
    found: Sequence[Dataset] = frame.get(keyword) or seg.SharedFunctionalGroupsSequence[0][keyword].value
    return found
