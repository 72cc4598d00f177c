"""What the objects take over from the source images: patient, study and order, byte for byte.

A name that was decoded and encoded again may come back changed (escape sequences, padding, values that are not valid
for their VR). So the bytes are never decoded: each element is put into our object as it was read, under the source's
own Specific Character Set, and only its frame (tag, VR, length, padding to an even length) is written anew.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from pydicom.charset import convert_encodings, default_encoding, encode_string
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import correct_ambiguous_vr, write_dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import PersonName

from dicomnode.report.attributes import BINARY_VRS, CARRIED, GEOMETRY, TYPE_2

_CODE_VALUES: Final = ("CodeValue", "LongCodeValue", "URNCodeValue")


def carry_over(source: Dataset, target: Dataset, extra: Sequence[str] = ()) -> None:
    """Put the patient, study and order elements of `source` into `target`, byte for byte.

    What the source lacks leaves the target too, save the type 2 elements, which stay there empty. Sequences without
    items are dropped. `source` is not changed. pydicom keeps an element's bytes only until it is first looked at, in
    the source and in our object alike: nobody may read these elements before the object is written, and it must be
    written as Explicit VR Little Endian.

    Args:
        source: header of an image of the study.
        target: the object that is made.
        extra: keywords of further elements to carry over (the order of an image: Request Attributes Sequence).
    """
    # pydicom does this when it writes, except in a dataset that is marked as written before (below).
    correct_ambiguous_vr(target, is_little_endian=True)
    for keyword in (*CARRIED, *extra):
        tag = _tag(keyword)
        element = _raw_element(source, tag)
        if element is not None:
            target[tag] = element
        elif keyword in TYPE_2:
            target[tag] = DataElement(tag, dictionary_VR(tag), None)
        else:
            target.pop(tag, None)
    _keep_bytes(target)


def placeholder(header: Dataset, frame_of_reference_uid: str | None = None) -> Dataset:
    """Return the header without patient, study and free text.

    That is what highdicom may see, so that it decodes nothing it must not.

    Args:
        header: of a source image.
        frame_of_reference_uid: used where the header has no Frame of Reference UID; without it none is set.
    """
    bare = Dataset()
    for keyword in GEOMETRY:
        if keyword in header and not header[keyword].is_empty:
            bare[keyword] = header[keyword]
    for keyword in TYPE_2:
        setattr(bare, keyword, None)
    if not bare.get("FrameOfReferenceUID"):
        bare.pop("FrameOfReferenceUID", None)
        if frame_of_reference_uid is not None:
            bare.FrameOfReferenceUID = frame_of_reference_uid
    return bare


def uids_of(header: Dataset) -> Dataset:
    """Return the four UIDs by which a report refers to an image."""
    bare = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        bare[keyword] = header[keyword]
    return bare


def names_its_order(header: Dataset) -> bool:
    """Whether the image says which order it answers (Request Attributes Sequence)."""
    return any(_names_an_order(item) for item in _items(header, "RequestAttributesSequence"))


def requests(header: Dataset, order: Dataset | None = None) -> list[Dataset]:
    """Return the items of Referenced Request Sequence (PS3.3 C.17.2): the orders that the source images answer.

    They come from Request Attributes Sequence, and what is not in there from the image itself. An image without any
    sign of an order gives none.

    Args:
        header: of a source image.
        order: the worklist's item of the study, for an image that does not name its order.
    """
    named = [item for item in _items(header, "RequestAttributesSequence") if _names_an_order(item)]
    asked = named or [order or Dataset()]
    found = (_request(item, header) for item in asked)
    return [request for request in found if _names_an_order(request)]


def procedures(header: Dataset, order: Dataset | None = None) -> list[Dataset]:
    """Return the codes of the performed, else of the requested procedure.

    As the source has them, else as the order has them.

    An item that lacks value, scheme or meaning is no code and is left out; so is one of the order's whose meaning needs
    a character set, because our object has the source's.
    """
    for holder in (header, *_items(header, "RequestAttributesSequence"), order or Dataset()):
        for keyword in ("ProcedureCodeSequence", "RequestedProcedureCodeSequence"):
            complete = [item for item in _items(holder, keyword) if _is_code(item)]
            if holder is order:
                complete = [item for item in complete if _is_plain(text_bytes(item, "CodeMeaning"))]
            if complete:
                return complete
    return []


def add_accession_number(target: Dataset, order: Dataset) -> None:
    """Give `target` the order's Accession Number where the study has none of its own."""
    tag = _tag("AccessionNumber")
    value = text_bytes(order, "AccessionNumber")
    if not text_bytes(target, "AccessionNumber") and value and _is_plain(value):
        target[tag] = DataElement(tag, "SH", value.decode("ascii"))


def order_bytes(order: Dataset, header: Dataset) -> bytes:
    """Return what the reports take from an order, encoded: another order, or a changed one, gives other bytes."""
    content = DicomBytesIO()
    content.is_implicit_VR, content.is_little_endian = False, True
    items = [*requests(header, order), *procedures(header, order)]
    for item in items:
        write_dataset(content, item)
    return content.getvalue()


def patient_key(header: Dataset) -> tuple[bytes, ...]:
    """Return the bytes that tell this patient from others.

    Patient ID and its issuer; without an ID, the study instead.
    """
    patient_id = text_bytes(header, "PatientID")
    if not patient_id:
        return (b"study", str(header.StudyInstanceUID).encode())
    return (b"patient", patient_id, text_bytes(header, "IssuerOfPatientID"))


def text_bytes(header: Dataset, keyword: str) -> bytes:
    """Return the bytes of a text element as they came, without the padding at the end; empty where it is absent."""
    element = _read(header, _tag(keyword))
    if element is None or not element.value:
        return b""
    if isinstance(element, RawDataElement):
        return element.value.rstrip(b" \0")
    if isinstance(element.value, PersonName):
        # Its bytes as they were read are kept with the name.
        return element.value.original_string.rstrip(b" \0")
    values = element.value if isinstance(element.value, MultiValue) else [element.value]
    encodings = convert_encodings(header.get("SpecificCharacterSet", "ISO_IR 6"))
    return b"\\".join(encode_string(str(value), encodings) for value in values).rstrip(b" \0")


def _request(item: Dataset, header: Dataset) -> Dataset:
    request = Dataset()
    request[_tag("StudyInstanceUID")] = _present(_raw_element(header, _tag("StudyInstanceUID")))
    request.ReferencedStudySequence = []
    for keyword in (
        "AccessionNumber",
        "PlacerOrderNumberImagingServiceRequest",
        "FillerOrderNumberImagingServiceRequest",
        "RequestedProcedureID",
        "RequestedProcedureDescription",
        "RequestedProcedureCodeSequence",
    ):
        tag = _tag(keyword)
        element = _raw_element(item, tag) or _raw_element(header, tag)
        request[tag] = element or DataElement(tag, dictionary_VR(tag), [] if dictionary_VR(tag) == "SQ" else None)
    for keyword in (
        "SpecificCharacterSet",
        "IssuerOfAccessionNumberSequence",
        "ReasonForTheRequestedProcedure",
        "ReasonForRequestedProcedureCodeSequence",
    ):
        element = _raw_element(item, _tag(keyword))
        if element is not None:
            request[_tag(keyword)] = element
    _keep_bytes(request)
    return request


def _names_an_order(request: Dataset) -> bool:
    return any(
        text_bytes(request, keyword)
        for keyword in (
            "AccessionNumber",
            "RequestedProcedureID",
            "PlacerOrderNumberImagingServiceRequest",
            "FillerOrderNumberImagingServiceRequest",
        )
    )


def _is_plain(value: bytes) -> bool:
    # An escape sequence, which begins a character set of ISO 2022, is ASCII too.
    return value.isascii() and b"\x1b" not in value


def _is_code(item: Dataset) -> bool:
    """Whether an item has value, scheme and meaning, each of them one.

    A backslash makes two values of one. So it does to readers that look at bytes alone where it is the second byte of
    a character of GB18030 or GBK (PS3.5 6.1.2.3 tells it apart there).
    """
    values = [text_bytes(item, keyword) for keyword in _CODE_VALUES]
    texts = [text_bytes(item, keyword) for keyword in ("CodeMeaning", "CodingSchemeDesignator")]
    single = (*values, *texts, text_bytes(item, "CodingSchemeVersion"))
    return any(values) and all(texts) and not any(b"\\" in one for one in single)


def _items(dataset: Dataset, keyword: str) -> Iterator[Dataset]:
    element = _raw_element(dataset, _tag(keyword))
    if isinstance(element, DataElement):
        yield from element.value


def _raw_element(dataset: Dataset, tag: BaseTag) -> DataElement | RawDataElement | None:
    """Return the element with its bytes untouched, ready for Explicit VR Little Endian.

    None where there is nothing in it.
    """
    element = _read(dataset, tag)
    if element is None:
        return None
    vr = dictionary_VR(tag)
    if vr == "SQ":
        is_coded = keyword_for_tag(tag).endswith("CodeSequence")
        items = [_raw_item(item) for item in _converted(element, dataset).value if not is_coded or _is_code(item)]
        return DataElement(tag, "SQ", Items(items)) if items else None
    if not isinstance(element, RawDataElement):
        return None if element.is_empty else element
    if not element.value:
        return None
    if vr in BINARY_VRS:
        return _converted(element, dataset)
    value = _padded(element.value, vr)
    return element._replace(VR=vr, value=value, length=len(value), is_implicit_VR=False, is_little_endian=True)


def _padded(value: bytes, vr: str) -> bytes:
    """Return the value at an even length. Padding is no part of a value, and text is padded with a space (PS3.5 6.2).

    Some writers pad text with NUL, which validators report as an error of our object.
    """
    if vr == "UI":
        return value + b"\0" * (len(value) % 2)
    if value.endswith(b"\0"):
        return value[:-1] + b" "
    return value + b" " * (len(value) % 2)


def _raw_item(item: Dataset) -> Dataset:
    copy = Dataset()
    for tag in item.keys():  # noqa: SIM118 - iterating over a Dataset itself converts its elements
        # What the dictionary lacks has no VR to be written with, and private data of others is not ours to pass on.
        if not tag.is_private and tag.element != 0 and dictionary_has_tag(tag):
            element = _raw_element(item, tag)
            if element is not None:
                copy[tag] = element
    _keep_bytes(copy)
    return copy


def _keep_bytes(dataset: Dataset) -> None:
    # Else pydicom decodes raw bytes and encodes them again, in case the character set has changed.
    stated = dataset.get("SpecificCharacterSet")
    dataset.set_original_encoding(False, True, convert_encodings(stated) if stated else default_encoding)


def _read(dataset: Dataset, tag: BaseTag) -> DataElement | RawDataElement | None:
    """Return the element as pydicom holds it: getting it in any other way would decode it."""
    return dataset.get_item(tag) if tag in dataset else None


def _converted(element: DataElement | RawDataElement, dataset: Dataset) -> DataElement:
    if not isinstance(element, RawDataElement):
        return element
    return convert_raw_data_element(element, encoding=dataset.original_character_set, ds=dataset)


def _present(element: DataElement | RawDataElement | None) -> DataElement | RawDataElement:
    if element is None:
        raise ValueError("the source image has no Study Instance UID: it cannot be reported on")
    return element


def _tag(keyword: str) -> BaseTag:
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return Tag(tag)
