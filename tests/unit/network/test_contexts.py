import pytest
from pydicom import uid
from pydicom.pixels import get_decoder
from pydicom.uid import AllTransferSyntaxes

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
