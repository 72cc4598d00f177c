"""What a study costs is judged from its headers: a claim is refused before anything is made of it."""

import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from dicomnode.analysis.series import inflate
from dicomnode.analysis.series.headers import Unreadable, read_headers
from dicomnode.analysis.volume import size
from dicomnode.errors import RefusedError
from tests.helpers import report_cases as cases

META = b"\x02\x00\x10\x00UI\x16\x001.2.840.10008.1.2.1.99\x02\x00\x02\x00UI\x1a\x001.2.840.10008.5.1.4.1.1.2\0"


def bomb(path: Path, megabytes: int) -> Path:
    """A deflated CT of so many megabytes of zeros."""
    packing = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    content = packing.compress(b"\x08\x00\x18\x00UI\x06\x001.2.3\0")
    content += packing.compress(b"\xe0\x7f\x10\x00OW\0\0" + (megabytes << 20).to_bytes(4, "little"))
    for _ in range(megabytes):
        content += packing.compress(bytes(1 << 20))
    path.write_bytes(bytes(128) + b"DICM" + META + content + packing.flush())
    return path


def test_a_deflated_file_is_inflated_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inflate, "MOST_BYTES", 64 << 20)
    path = bomb(tmp_path / "a.dcm", 300)
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    try:
        _, (unreadable,) = read_headers([path])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(unreadable, Unreadable)
    assert unreadable.reason.code == "too-large"
    assert peak < 16 << 20
    with pytest.raises(inflate.InflatedTooLargeError):
        dcmread(path, stop_before_pixels=True)


def test_a_deflated_file_within_the_bound_is_read(tmp_path: Path) -> None:
    dataset = dcmread(bomb(tmp_path / "a.dcm", 2))
    assert dataset.SOPInstanceUID == "1.2.3"
    assert len(dataset.PixelData) == 2 << 20


@pytest.mark.parametrize("shape", [(30, 65535, 65535), (1 << 20, 512, 512)])
def test_a_claim_beyond_the_memory_is_refused(shape: tuple[int, ...]) -> None:
    for memory in (8 << 30, None):
        with pytest.raises(RefusedError, match=r"takes .* GB at least") as refusal:
            size.check(shape, memory)
        assert refusal.value.code == "too-large"


def test_a_large_chest_fits() -> None:
    size.check((1500, 512, 512), 8 << 30)
    size.check((600, 1024, 1024), None)


def test_pixels_that_are_not_the_image_of_the_header_are_refused(tmp_path: Path) -> None:
    from dicomnode.analysis.volume.decode import image

    dataset = cases.synthetic(1)[0]
    dataset.update({"Rows": 8, "Columns": 8, "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15})
    dataset.update({"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "PixelRepresentation": 1})
    dataset.add_new("PixelData", "OW", np.zeros((4, 8, 8), np.int16).tobytes())
    path = tmp_path / "long.dcm"
    path.write_bytes(cases.to_bytes(dataset))
    (header,), _ = read_headers([path])
    with pytest.raises(RefusedError) as refusal:
        image(header)
    assert refusal.value.code == "undecodable"
