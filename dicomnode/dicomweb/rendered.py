"""Rendered resources and thumbnails (PS3.18 10.4.1.1.3, 10.4.1.1.4): pictures, and documents as they are read."""

from collections.abc import Iterator, Sequence
from html import escape
from itertools import islice
from typing import Final

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from starlette.responses import Response

from dicomnode.dicomweb import files, picture
from dicomnode.dicomweb.answers import Part, in_parts
from dicomnode.dicomweb.media import ANY, MediaRange
from dicomnode.dicomweb.picture import JPEG, PNG, Rendering
from dicomnode.dicomweb.problems import not_acceptable, not_found
from dicomnode.reception.holdings import Held

HTML, PDF = "text/html", "application/pdf"
_IMAGE = "image/*"
#: Frames of one answer.
_MOST_FRAMES: Final = 2_000
#: Of a report: content items, and how deep.
_MOST_ITEMS, _DEEPEST = 5_000, 30


def rendered(
    held: Sequence[Held], accept: Sequence[MediaRange], how: Rendering, numbers: Sequence[int] = ()
) -> Response:
    """Return objects rendered: those that are no images are left out where there are several.

    Args:
        held: the objects.
        accept: what the client takes.
        how: as asked for.
        numbers: of the frames of the one object; none: all.

    Raises:
        WebError: 404: there is no such frame; 406: this cannot be rendered, or not as it is accepted.
    """
    # A few bytes may claim two thousand million frames: no more are counted than are given.
    frames = list(islice(((one, number) for one in held for number in _numbers(one, numbers)), _MOST_FRAMES + 1))
    if len(frames) > _MOST_FRAMES:
        raise not_acceptable(f"it has more than {_MOST_FRAMES} frames: ask for its series or instances")
    if not frames:
        if len(held) == 1 and not numbers:
            return _document(held[0], accept)
        raise not_acceptable("nothing of it is an image")
    for wanted in accept:
        kind = {ANY: JPEG, _IMAGE: JPEG, JPEG: JPEG, PNG: PNG}.get(wanted.kind)
        if kind is None:
            continue
        if len(frames) == 1 and wanted.name != "multipart/related":
            one, number = frames[0]
            return Response(picture.draw(files.whole(one), number, kind, how), media_type=kind)
        if wanted.in_parts:
            return in_parts(kind, _parts(frames, kind, how))
    raise not_acceptable(f"pictures are given as {JPEG} or {PNG}, several in multipart/related")


def thumbnail(
    held: Sequence[Held], accept: Sequence[MediaRange], how: Rendering, numbers: Sequence[int] = ()
) -> Response:
    """Return one small picture that stands for the objects: of the one in their middle, its middle frame.

    Raises:
        WebError: 404: none is an image; 406.
    """
    images = [one for one in held if _frames_of(one)]
    if not images:
        raise not_found()
    one = images[len(images) // 2]
    number = numbers[0] if numbers else (_frames_of(one) + 1) // 2
    if not 1 <= number <= _frames_of(one):
        raise not_found()
    for wanted in accept:
        kind = {ANY: JPEG, _IMAGE: JPEG, JPEG: JPEG, PNG: PNG}.get(wanted.name)
        if kind is not None:
            return Response(picture.draw(files.whole(one), number, kind, how), media_type=kind)
    raise not_acceptable(f"thumbnails are given as {JPEG} or {PNG}")


def _frames_of(one: Held) -> int:
    return files.frame_count(files.read_head(one.path, _COUNTING))


_COUNTING: Final = (0x00280008, 0x00280010, 0x00280011)


def _numbers(one: Held, numbers: Sequence[int]) -> Sequence[int]:
    count = _frames_of(one)
    if numbers and not all(1 <= number <= count for number in numbers):
        raise not_found()
    return numbers or range(1, count + 1)


def _parts(frames: Sequence[tuple[Held, int]], kind: str, how: Rendering) -> Iterator[Part]:
    last, dataset = None, None
    for one, number in frames:
        if dataset is None or one is not last:
            last, dataset = one, files.whole(one)
        yield kind, [picture.draw(dataset, number, kind, how)]


def _document(one: Held, accept: Sequence[MediaRange]) -> Response:
    dataset = files.whole(one)
    with files.reading():
        if str(dataset.get("MIMETypeOfEncapsulatedDocument") or "") == PDF and "EncapsulatedDocument" in dataset:
            kind, content = PDF, bytes(dataset.EncapsulatedDocument)
        elif "ContentSequence" in dataset:
            kind, content = HTML, page(dataset).encode()
        else:
            raise not_acceptable("this object cannot be rendered")
    if any(wanted.kind in (kind, ANY, f"{kind.partition('/')[0]}/*") for wanted in accept):
        return Response(content, media_type=kind)
    raise not_acceptable(f"this object is rendered as {kind}")


def page(dataset: Dataset) -> str:
    """Return a structured report as an HTML page: its content items, each within its container."""
    left = [_MOST_ITEMS]
    items = _items(dataset, left, 0)
    cut = "" if left[0] > 0 else "<p>The report is longer than is shown here.</p>"
    title = escape(_code(dataset, "ConceptNameCodeSequence") or "Structured report")
    whose = " · ".join(escape(str(dataset.get(k))) for k in ("PatientID", "PatientName", "StudyDate") if dataset.get(k))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Structured report</title></head>'
        f"<body><h1>{title}</h1><p>{whose}</p>{items}{cut}</body></html>"
    )


def _items(parent: Dataset, left: list[int], depth: int) -> str:
    children = parent.get("ContentSequence") or ()
    if not children or depth > _DEEPEST:
        return ""
    lines = []
    for child in children:
        if left[0] <= 0:
            break
        left[0] -= 1
        name, value = escape(_code(child, "ConceptNameCodeSequence")), escape(_value(child))
        text = f"<b>{name}</b>: {value}" if name and value else f"<b>{name}</b>" if name else value
        lines.append(f"<li>{text}{_items(child, left, depth + 1)}</li>")
    return f"<ul>{''.join(lines)}</ul>"


def _code(item: Dataset, keyword: str) -> str:
    sequence = item.get(keyword)
    if not sequence:
        return ""
    code = Code(str(sequence[0].get("CodeValue") or ""), "-", str(sequence[0].get("CodeMeaning") or ""))
    return code.meaning or code.value


def _value(item: Dataset) -> str:
    measured = item.get("MeasuredValueSequence")
    if measured:
        unit = measured[0].get("MeasurementUnitsCodeSequence")
        name = str(unit[0].get("CodeValue") or "") if unit else ""
        return f"{measured[0].get('NumericValue')} {'' if name == '1' else name}".strip()
    if item.get("ConceptCodeSequence"):
        return _code(item, "ConceptCodeSequence")
    for keyword in ("TextValue", "PersonName", "Date", "Time", "DateTime", "UID"):
        if item.get(keyword):
            return str(item.get(keyword))
    referenced = item.get("ReferencedSOPSequence")
    return str(referenced[0].get("ReferencedSOPInstanceUID") or "") if referenced else ""
