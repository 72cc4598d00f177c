import pytest
from pydicom import uid
from pydicom.pixels import get_decoder
from pydicom.uid import AllTransferSyntaxes
from pynetdicom import AllStoragePresentationContexts
from pynetdicom.presentation import build_context

from dicomnode.network import contexts


@pytest.mark.parametrize("syntax", contexts.COMPRESSED, ids=lambda syntax: syntax.name)
def test_every_compressed_syntax_can_be_decoded_here(syntax: uid.UID) -> None:
    assert get_decoder(syntax).is_available


def test_each_class_once_and_each_syntax_once() -> None:
    classes = [context.abstract_syntax for context in contexts.accepted()]
    assert len(classes) == len(set(classes)) <= 128
    syntaxes = contexts.UNCOMPRESSED + contexts.COMPRESSED
    assert len(syntaxes) == len(set(syntaxes))
    assert set(syntaxes) <= set(AllTransferSyntaxes)


def test_preference_is_uncompressed_then_lossless_then_lossy() -> None:
    image = next(one for one in contexts.accepted() if one.abstract_syntax == uid.CTImageStorage)
    order = image.transfer_syntax
    assert order[0] == uid.ExplicitVRLittleEndian
    lossy = [uid.JPEGLSNearLossless, uid.HTJ2K, uid.JPEG2000, uid.JPEGExtended12Bit, uid.JPEGBaseline8Bit]
    assert order[-len(lossy) :] == lossy


def test_documents_offer_no_pixel_compression() -> None:
    report = next(one for one in contexts.accepted() if one.abstract_syntax == uid.Comprehensive3DSRStorage)
    assert not any(syntax.is_compressed and not syntax.is_deflated for syntax in report.transfer_syntax)


RTSTRUCT, CHEST_CAD = "1.2.840.10008.5.1.4.1.1.481.3", "1.2.840.10008.5.1.4.1.1.88.65"
PRIVATE, TO_COME = "1.3.12.2.1107.5.9.1", "1.2.840.10008.5.1.4.1.1.999.1"


@pytest.mark.parametrize("sop_class", [RTSTRUCT, CHEST_CAD, TO_COME, "1.2.840.10008.5.1.4.38.1", uid.CTImageStorage])
def test_every_storage_class_of_the_standard_is_taken(sop_class: str) -> None:
    [context] = contexts.negotiable([sop_class])
    assert context.abstract_syntax == sop_class
    assert uid.ImplicitVRLittleEndian in context.transfer_syntax


def test_pynetdicom_knows_no_storage_class_that_is_refused() -> None:
    known = [str(one.abstract_syntax) for one in AllStoragePresentationContexts]
    assert [one for one in known if not contexts.is_storage(one)] == []


def test_a_private_class_is_taken_where_it_is_configured() -> None:
    assert contexts.negotiable([PRIVATE, "1.2.840.10008.1.20.2", contexts.STORAGE_COMMITMENT]) == []
    assert [one.abstract_syntax for one in contexts.negotiable([PRIVATE], (PRIVATE,))] == [PRIVATE]


BELOW_THE_ROOT = [
    f"1.2.840.10008.5.1.4.1.1.{number}"
    for number in ("200.4", "200.5", "200.6", "201.1.1", "201.2", "201.3", "201.4", "201.5", "201.6")
]


@pytest.mark.parametrize("sop_class", BELOW_THE_ROOT)
def test_what_stores_nothing_is_no_storage_though_it_is_below_the_root(sop_class: str) -> None:
    assert contexts.negotiable([sop_class]) == []
    assert contexts.is_storage("1.2.840.10008.5.1.4.1.1.201.1")  # Inventory Storage
    assert contexts.is_storage("1.2.840.10008.5.1.4.1.1.200.3")  # Protocol Approval Storage


def test_every_class_that_is_taken_has_storage_in_its_name() -> None:
    assert [one for one in contexts.storage_classes() if one.name and "Storage" not in one.name] == []
    assert len(contexts.storage_classes()) > 190


def test_a_query_of_the_standard_does_not_become_storage_by_configuration() -> None:
    study_root = "1.2.840.10008.5.1.4.1.2.2.1"
    assert contexts.negotiable([study_root], (study_root,)) == []


def test_an_association_pays_for_what_it_asks_for() -> None:
    asked = [uid.CTImageStorage, uid.CTImageStorage, contexts.VERIFICATION]
    assert len(contexts.negotiable(asked)) == 2


def test_refusals_are_named_once_a_class() -> None:
    asked = [
        build_context(PRIVATE), build_context(uid.CTImageStorage, ["1.2.3.4"]), build_context(PRIVATE, ["1.2.3"]),
        build_context(RTSTRUCT, ["1.2.3.4"]), build_context(RTSTRUCT),
    ]  # fmt: skip
    offered = contexts.negotiable(str(one.abstract_syntax) for one in asked)
    assert contexts.refusals(asked, offered) == [
        PRIVATE,
        f"CT Image Storage ({uid.CTImageStorage}) in 1.2.3.4",
    ]
