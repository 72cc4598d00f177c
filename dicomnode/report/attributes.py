"""Which elements of a source image the objects take over, or need to see, by keyword."""

from typing import Final

from dicomnode.analysis.series.modules import PATIENT, STUDY

_ENCODING = "SpecificCharacterSet TimezoneOffsetFromUTC"

_TYPE_2 = """
    PatientName PatientID PatientBirthDate PatientSex
    StudyDate StudyTime AccessionNumber ReferringPhysicianName StudyID
"""

_GEOMETRY = """
    SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID Modality FrameOfReferenceUID Rows Columns
    PixelSpacing SliceThickness ImagePositionPatient ImageOrientationPatient NumberOfFrames
    SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence DimensionIndexSequence
    DimensionOrganizationSequence LossyImageCompression LossyImageCompressionRatio LossyImageCompressionMethod
"""

#: Taken over byte for byte.
CARRIED: Final = (*_ENCODING.split(), *PATIENT, *STUDY)
#: Present in every object, empty where the source has nothing (type 2).
TYPE_2: Final = frozenset(_TYPE_2.split())
#: What it takes to place a segmentation upon an image.
GEOMETRY: Final = tuple(_GEOMETRY.split())
#: Values whose bytes depend on the byte order of the source (those of text do not).
BINARY_VRS: Final = frozenset(
    ("AT", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV", "OB", "OD", "OF", "OL", "OV", "OW")
)
