"""A compressed frame is decoded only where it is no larger than its data set says."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

from dicomnode.dicomweb import codestream, files
from dicomnode.dicomweb.problems import WebError
from dicomnode.reception.holdings import Held
from tests.helpers.ct_files import ct_series, write

LARGE = 20_000


def compressed(syntax: str) -> tuple[Dataset, bytes]:
    (image,) = ct_series(np.arange(4096, dtype=np.int16).reshape(1, 64, 64))
    image.compress(syntax, generate_instance_uid=False)
    return image, get_frame(image.PixelData, 0, number_of_frames=1)


def bomb(syntax: str) -> Dataset:
    """An image whose frame claims to be 20,000 by 20,000."""
    image, frame = compressed(syntax)
    changed = bytearray(frame)
    if syntax == JPEG2000Lossless:
        at = frame.index(b"\xff\x4f\xff\x51")
        changed[at + 8 : at + 16] = LARGE.to_bytes(4, "big") * 2
    else:
        at = frame.index(b"\xff\xf7")
        changed[at + 5 : at + 9] = LARGE.to_bytes(2, "big") * 2
    image.PixelData = encapsulate([bytes(changed)])
    assert codestream.samples(bytes(changed)) == LARGE * LARGE
    return image


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_a_frame_that_claims_to_be_larger_is_not_decoded(syntax: str, tmp_path: Path) -> None:
    image, frame = compressed(syntax)
    assert codestream.samples(frame) == 4096
    assert np.array_equal(files.frame(image, 1, raw=True)[0].ravel(), np.arange(4096))
    large = bomb(syntax)
    (path,) = write([large], tmp_path)
    held = Held("1.2", "1.3", "1.4", "1.5", "CT", path)
    for way in (
        lambda: files.frame(large, 1, raw=False),
        lambda: files.pixels(large, 1),
        lambda: files.explicit(held),
    ):
        with pytest.raises(WebError, match="pixels are not what it says"):
            way()


def test_what_stands_in_front_of_a_frame_header_hides_it_from_nobody() -> None:
    header = b"\xff\xc0\x00\x0b\x08\x00\x02\x00\x03\x01\x01\x11\x00"
    for before in (b"", b"\xff", b"junk", b"\xff\xe0\x00\x04\xff\xda", b"\xff\xd0", b"\xff\x00"):
        assert codestream.samples(b"\xff\xd8" + before + header) == 6


@given(st.binary(max_size=80), st.sampled_from([b"", b"\xff\xd8", b"\xff\xd8\xff\xe0\x00\x00", b"\xff\x4f\xff\x51"]))
def test_whatever_a_frame_holds_it_is_read_to_its_end(content: bytes, start: bytes) -> None:
    assert codestream.samples(start + content) >= 0
