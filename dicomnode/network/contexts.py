"""What the node accepts over the network, in one list: SOP classes (PS3.4 B.5), transfer syntaxes (PS3.5 chapter 10).

An association costs time for every context it negotiates, so the list holds what a chest CT study may carry, no more.

Order of the transfer syntaxes: the acceptor's choice where one context offers several. Uncompressed first: a sender
that offers both in one context can decode, and an uncompressed file is readable whatever decoders a machine has. A
sender that wants its compressed files taken as they are offers them in contexts of their own (as DCMTK does), and each
of these is accepted.
Lossy syntaxes come last: between two offers the lossless one must win.
"""

from pydicom import uid
from pydicom.uid import UID
from pynetdicom.presentation import PresentationContext, build_context

VERIFICATION = UID("1.2.840.10008.1.1")
STORAGE_COMMITMENT = UID("1.2.840.10008.1.20.1")
#: The well-known SOP instance of the Storage Commitment Push Model, PS3.4 J.3.5.
STORAGE_COMMITMENT_INSTANCE = UID("1.2.840.10008.1.20.1.1")

UNCOMPRESSED: tuple[UID, ...] = (
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)
#: Each is decoded by a package that dicomnode installs (a test asks pydicom): GDCM, pylibjpeg-openjpeg, pyjpegls.
COMPRESSED: tuple[UID, ...] = (
    uid.JPEGLSLossless,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.JPEG2000Lossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLossless,
    uid.RLELossless,
    uid.JPEGLSNearLossless,
    uid.HTJ2K,
    uid.JPEG2000,
    uid.JPEGExtended12Bit,
    uid.JPEGBaseline8Bit,
)

#: CT first, then the other images that a study may hold beside it.
IMAGES: tuple[UID, ...] = (
    uid.CTImageStorage,
    uid.EnhancedCTImageStorage,
    uid.LegacyConvertedEnhancedCTImageStorage,
    uid.SecondaryCaptureImageStorage,
    uid.MultiFrameSingleBitSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
    uid.SegmentationStorage,
    uid.PositronEmissionTomographyImageStorage,
    uid.MRImageStorage,
    uid.ComputedRadiographyImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
)
#: Objects without pixel data: no compressed syntaxes to negotiate.
DOCUMENTS: tuple[UID, ...] = (
    uid.BasicTextSRStorage,
    uid.EnhancedSRStorage,
    uid.ComprehensiveSRStorage,
    uid.Comprehensive3DSRStorage,
    uid.XRayRadiationDoseSRStorage,
    uid.GrayscaleSoftcopyPresentationStateStorage,
    uid.KeyObjectSelectionDocumentStorage,
    uid.EncapsulatedPDFStorage,
)


def accepted() -> list[PresentationContext]:
    """Return the presentation contexts of the receiver: verification, images, documents."""
    return [
        build_context(VERIFICATION, [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian]),
        *(build_context(sop_class, [*UNCOMPRESSED, *COMPRESSED]) for sop_class in IMAGES),
        *(build_context(sop_class, list(UNCOMPRESSED)) for sop_class in DOCUMENTS),
    ]
