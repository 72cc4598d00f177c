"""What the node accepts over the network: SOP classes (PS3.4 B.5), transfer syntaxes (PS3.5 chapter 10).

Every storage class of the standard is taken: a sender that may not send one object of a study often stops there, and
the rest of the chest never comes. What is no image is kept and forwarded as received. An association costs time for
every context it negotiates, so it is given those that it asks for, no more: at most 128 (PS3.8 9.3.2.2).

Order of the transfer syntaxes: the acceptor's choice where one context offers several. Uncompressed first: a sender
that offers both in one context can decode, and an uncompressed file is readable whatever decoders a machine has. A
sender that wants its compressed files taken as they are offers them in contexts of their own (as DCMTK does), and each
of these is accepted.
Lossy syntaxes come last: between two offers the lossless one must win.
"""

from collections.abc import Collection, Iterable

from pydicom import uid
from pydicom._uid_dict import UID_dictionary
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


#: Every composite storage class, those to come too (PS3.4 B.5); and what is stored without a patient (PS3.4 GG.3).
_STANDARD, _STORAGE_ROOT = "1.2.840.10008.", "1.2.840.10008.5.1.4.1.1."
_OTHER_STORAGE = frozenset(
    f"1.2.840.10008.5.1.4.{number}" for number in ("34.1", "34.7", "34.10", "38.1", "39.1", "43.1", "44.1", "45.1")
)
_DOCUMENTS = frozenset(DOCUMENTS)
#: Kept as they come; the node decodes none of them.
_VIDEO: tuple[UID, ...] = (
    uid.MPEG2MPML,
    uid.MPEG2MPHL,
    uid.MPEG4HP41,
    uid.MPEG4HP41BD,
    uid.MPEG4HP422D,
    uid.MPEG4HP423D,
    uid.MPEG4HP42STEREO,
    uid.HEVCMP51,
    uid.HEVCM10P51,
)


#: What the standard has below the root of its storage classes that stores nothing: queries of protocol approvals and
#: inventories, with all below them. Offered as storage, they would let anybody query who may send.
_NOT_STORAGE = tuple(
    _STORAGE_ROOT + number for number in ("200.4", "200.5", "200.6", "201.1.1", *(f"201.{n}" for n in range(2, 10)))
)


def is_storage(sop_class: str) -> bool:
    """Whether this is a storage class of the standard."""
    if any(sop_class == other or sop_class.startswith(f"{other}.") for other in _NOT_STORAGE):
        return False
    return sop_class.startswith(_STORAGE_ROOT) or sop_class in _OTHER_STORAGE


def storage_classes() -> list[UID]:
    """Return the storage classes that the standard has today, retired ones too, by UID."""
    known = (UID(value) for value in UID_dictionary if is_storage(value))
    return sorted((one for one in known if one.type == "SOP Class"), key=lambda one: [*map(int, one.split("."))])


def negotiable(requested: Iterable[str], private: Collection[str] = ()) -> list[PresentationContext]:
    """Return the contexts that an association is given of the SOP classes that it asks for.

    Args:
        requested: abstract syntaxes, in any order.
        private: SOP Class UIDs outside the standard that are stored too. One of the standard's own is not: it may be
            a query, which is for others to allow.
    """
    found = []
    for sop_class in dict.fromkeys(map(UID, requested)):
        if sop_class == VERIFICATION:
            found.append(build_context(VERIFICATION, [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian]))
        elif is_storage(sop_class) or (sop_class in private and not sop_class.startswith(_STANDARD)):
            found.append(build_context(sop_class, [*_syntaxes(sop_class)]))
    return found


def refusals(requested: Iterable[PresentationContext], offered: Iterable[PresentationContext]) -> list[str]:
    """Name the requested contexts that have nothing in common with those offered: SOP class, or its transfer syntaxes.

    A class of which another context is taken is not named for its syntaxes: senders offer those one by one.
    """
    syntaxes = {str(one.abstract_syntax): set(one.transfer_syntax) for one in offered}
    asked: dict[str, set[str]] = {}
    for one in requested:
        asked.setdefault(str(one.abstract_syntax), set()).update(one.transfer_syntax)
    named = []
    for sop_class, wanted in asked.items():
        if sop_class not in syntaxes:
            named.append(_name(sop_class))
        elif not wanted & syntaxes[sop_class]:
            named.append(f"{_name(sop_class)} in {', '.join(sorted(map(_name, wanted)))}")
    return named


def _name(value: str) -> str:
    """Return the standard's name of a UID with it; the UID alone where it has none."""
    found = UID(value).name
    return value if found == value else f"{found} ({value})"


def _syntaxes(sop_class: UID) -> list[UID]:
    if sop_class in _DOCUMENTS:
        return list(UNCOMPRESSED)
    video = _VIDEO if "Video" in sop_class.name or "Endoscop" in sop_class.name else ()
    return [*UNCOMPRESSED, *COMPRESSED, *video]


def accepted() -> list[PresentationContext]:
    """Return the presentation contexts of what a chest CT study usually holds, to ask for: fewer than 128."""
    return [
        build_context(VERIFICATION, [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian]),
        *(build_context(sop_class, [*UNCOMPRESSED, *COMPRESSED]) for sop_class in IMAGES),
        *(build_context(sop_class, list(UNCOMPRESSED)) for sop_class in DOCUMENTS),
    ]
