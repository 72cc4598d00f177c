"""Bodies in parts, cut anywhere: the same parts, and never more in memory than a piece."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.dicomweb.multipart import MultipartError, MultipartReader

B = "b0undary"


def read(body: bytes, cuts: list[int], boundary: str = B) -> tuple[list[tuple[str, bytes]], bool]:
    reader = MultipartReader(boundary)
    found: list[tuple[str, bytes]] = []
    content, kind, inside = b"", "", False
    edges = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(edges):
        for piece in reader.feed(body[start:end]):
            if piece.kind == "begin":
                assert not inside
                content, kind, inside = b"", piece.field("content-type"), True
            elif piece.kind == "data":
                assert inside and piece.data
                content += piece.data
            else:
                found.append((kind, content))
                inside = False
    return found, reader.ended


def written(parts: list[tuple[str, bytes]], preamble: bytes = b"", closed: bool = True) -> bytes:
    body = preamble
    for kind, content in parts:
        head = f"Content-Type: {kind}\r\n".encode() if kind else b""
        body += f"--{B}\r\n".encode() + head + b"\r\n" + content + b"\r\n"
    return body + (f"--{B}--\r\n".encode() if closed else b"")


# A boundary within the content would be one.
contents = (st.binary(max_size=60) | st.sampled_from([b"\r\n", b"\r\n--", b"\r\n--b0undar", b"-", b"\r"])).filter(
    lambda content: b"--b0undary" not in content
)


@given(st.lists(st.tuples(st.sampled_from(["application/dicom", ""]), contents), max_size=4), st.lists(st.integers(0)))
def test_parts_come_whole_however_the_body_is_cut(parts: list[tuple[str, bytes]], cuts: list[int]) -> None:
    assert read(written(parts), cuts) == (parts, True)
    assert read(written(parts, b"for nobody\r\n") + b"epilogue", cuts) == (parts, True)
    found, ended = read(written(parts, closed=False), cuts)
    assert not ended and found == parts[: len(found)]


@given(st.binary(max_size=200), st.lists(st.integers(0)))
def test_whatever_comes_is_read_or_refused(body: bytes, cuts: list[int]) -> None:
    try:
        read(body, cuts)
    except MultipartError as error:
        assert repr(body) not in str(error)


def test_bounds() -> None:
    for body in (b"x" * 9000, f"--{B}\r\n".encode() + b"A" * 9000, f"--{B} words\r\n\r\n".encode()):
        with pytest.raises(MultipartError):
            read(body, [])
    for boundary in ("", "x" * 71, "ü", "a\r\nb"):
        with pytest.raises(MultipartError):
            MultipartReader(boundary)
    reader = MultipartReader(B)
    list(reader.feed(f"--{B}\r\n\r\n".encode()))
    for _ in range(100):
        assert sum(len(piece.data) for piece in reader.feed(b"z" * 100_000)) > 90_000
        assert len(reader._left) < 100
