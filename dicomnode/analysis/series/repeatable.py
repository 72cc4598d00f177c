"""What an object of ours may repeat of a header: a value that breaks its VR would make the object invalid as well."""

from typing import Final, cast

from pydicom import Dataset
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag

from dicomnode.analysis.series import values
from dicomnode.analysis.series.modules import NEEDS

_TAGS: Final = tuple(BaseTag(tag) for keyword in values.REPEATED if (tag := tag_for_keyword(keyword)) is not None)
#: What an item of these has to state (PS3.3 C.7.1.1, table 10-11).
_IN_ITEMS: Final = {
    "ReferencedPatientSequence": ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID"),
    "ReferencedStudySequence": ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID"),
    "OtherPatientIDsSequence": ("PatientID", "TypeOfPatientID"),
    "SourcePatientGroupIdentificationSequence": ("PatientID",),
    "GroupOfPatientsIdentificationSequence": ("PatientID",),
    "ConsentForClinicalTrialUseSequence": ("ConsentForDistributionFlag",),
}
#: Items that are an HL7v2 hierarchic designator (PS3.3 table 10-17).
_DESIGNATORS: Final = frozenset(
    ("IssuerOfAccessionNumberSequence", "IssuerOfAdmissionIDSequence", "IssuerOfServiceEpisodeIDSequence")
)
_CODE_VALUES: Final = ("CodeValue", "LongCodeValue", "URNCodeValue")


def keep(dataset: Dataset) -> tuple[str, ...]:
    """Take out of a settled header (`values.settle`) what no valid object may repeat of patient, study and order.

    What names the patient and the order (`values.IDENTITY`) stays as it came: without it, an object would be nobody's.

    Returns:
        Keywords of what stayed although it breaks its VR. Whoever makes an object of it makes an invalid one.
    """
    unfit: list[str] = []
    _keep_fitting(dataset, [tag for tag in _TAGS if tag in dataset], values.encodings_of(dataset), unfit)
    for keyword, groups in NEEDS.items():
        if keyword in dataset and not all(any(_stated(dataset, k) for k in group) for group in groups):
            del dataset[keyword]
    return tuple(sorted(set(unfit)))


def _keep_fitting(dataset: Dataset, tags: list[BaseTag], encodings: values.Encodings, unfit: list[str] | None) -> None:
    """`unfit`: for what stays; None where nothing does."""
    for tag in tags:
        if tag.is_private or not dictionary_has_tag(tag):
            continue
        element = cast(DataElement | RawDataElement, dataset.get_item(tag))
        keyword, vr = keyword_for_tag(tag), dictionary_VR(tag)
        if isinstance(element.value, Items):
            inner = unfit if keyword == "RequestAttributesSequence" else None
            for item in element.value:
                _keep_fitting(item, list(item.keys()), values.encodings_of(item, encodings), inner)
            whole = [item for item in element.value if _is_whole(keyword, item)]
            if not whole:
                del dataset[tag]
            elif len(whole) < len(element.value):
                dataset[tag].value = whole
            continue
        value = element.value if isinstance(element, RawDataElement) else None
        if not isinstance(value, bytes) or values.fits(keyword, vr, value, encodings):
            continue
        if unfit is not None and keyword in values.IDENTITY:
            unfit.append(keyword)
        else:
            del dataset[tag]


def _is_whole(keyword: str, item: Dataset) -> bool:
    """Whether an item holds what makes it one: half a code is none."""
    if keyword.endswith("CodeSequence"):
        valued = any(_stated(item, k) for k in _CODE_VALUES)
        return valued and _stated(item, "CodeMeaning") and _stated(item, "CodingSchemeDesignator")
    if keyword.endswith("IdentificationSequence") and keyword not in _IN_ITEMS:  # a person (PS3.3 table 10-1)
        where = _stated(item, "InstitutionName") or _stated(item, "InstitutionCodeSequence")
        return where and _stated(item, "PersonIdentificationCodeSequence")
    if keyword in _DESIGNATORS:
        is_universal, has_type = _stated(item, "UniversalEntityID"), _stated(item, "UniversalEntityIDType")
        return is_universal == has_type and (is_universal or _stated(item, "LocalNamespaceEntityID"))
    return all(_stated(item, needed) for needed in _IN_ITEMS.get(keyword, ()))


def _stated(dataset: Dataset, keyword: str) -> bool:
    """Whether there is anything in it; the element stays raw."""
    if keyword not in dataset:
        return False
    value = cast(object, dataset.get_item(keyword).value)
    return bool(value.strip(b" \0")) if isinstance(value, bytes) else bool(value)
