"""One frame as a person looks at it: windowed, in its true proportions, cut and fitted (PS3.18 8.3.5.1)."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from dicomnode.dicomweb import files
from dicomnode.dicomweb.problems import WebError, busy, not_acceptable

JPEG: Final = "image/jpeg"
PNG: Final = "image/png"
_FORMATS: Final = {JPEG: "JPEG", PNG: "PNG"}
_MOST_PIXELS: Final = 4096
#: Of a frame that is drawn: each takes some ten bytes meanwhile, and a few kilobytes may hold a thousand million.
_MOST_DRAWN: Final = 100_000_000
_QUALITY, _THUMBNAIL = 90, 128
#: Frames that are drawn at once; each waits its turn for so long.
_AT_ONCE, _WAIT_S = 3, 20.0
_turn = threading.BoundedSemaphore(_AT_ONCE)
_FUNCTIONS: Final = ("linear", "linear-exact", "sigmoid")


@dataclass(frozen=True)
class Rendering:
    """How a frame is drawn.

    Attributes:
        window: (centre, width) in the image's own unit, such as HU; None: what the image asks for.
        function: of the window.
        size: (columns, rows) that it has to fit into; None: as it is.
        part: (column, row, columns, rows) of it that is shown; None: all. Negative lengths turn it over.
        quality: of a JPEG, 1 to 100.
    """

    window: tuple[float, float] | None = None
    function: str = "linear"
    size: tuple[int, int] | None = None
    part: tuple[float, float, float, float] | None = None
    quality: int = _QUALITY


def parse(parameters: Mapping[str, str], *, thumbnail: bool = False) -> Rendering:
    """Return what the parameters of a rendered resource ask for.

    Raises:
        WebError: 400: a value is none.
    """
    window, function = None, "linear"
    if given := parameters.get("window", ""):
        center, width, function = [*given.split(","), "linear"][:3] if given.count(",") == 1 else _three(given)
        function = function.strip().lower()
        window = (_number("window", center), _number("window", width))
        if function not in _FUNCTIONS or window[1] < 1e-6:
            raise WebError(400, f"window is CENTER,WIDTH,FUNCTION with a width above 0; functions: {_FUNCTIONS}")
    size, part = ((_THUMBNAIL, _THUMBNAIL) if thumbnail else None), None
    if given := parameters.get("viewport", ""):
        numbers = given.split(",")
        if len(numbers) not in (2, 6):
            raise WebError(400, "viewport is WIDTH,HEIGHT or WIDTH,HEIGHT,X,Y,WIDTH,HEIGHT")
        size = (_side(numbers[0]), _side(numbers[1]))
        if len(numbers) == 6:
            x, y, w, h = (_number("viewport", one) if one.strip() else 0.0 for one in numbers[2:])
            part = (x, y, w, h)
    quality = _QUALITY
    if given := parameters.get("quality", ""):
        quality = round(_number("quality", given))
        if not 1 <= quality <= 100:
            raise WebError(400, "quality is a number from 1 to 100")
    return Rendering(window, function, size, part, quality)


def _three(given: str) -> list[str]:
    parts = given.split(",")
    if len(parts) != 3:
        raise WebError(400, "window is CENTER,WIDTH,FUNCTION")
    return parts


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) <= 1e9:
        raise WebError(400, f"{name} has a part that is no number")
    return value


def _side(text: str) -> int:
    value = _number("viewport", text)
    if not 1 <= value <= _MOST_PIXELS:
        raise WebError(400, f"viewport has from 1 to {_MOST_PIXELS} pixels on a side")
    return int(value)


@contextmanager
def turn() -> Iterator[None]:
    """Wait until few others are drawing.

    Raises:
        WebError: 503: it took too long.
    """
    if not _turn.acquire(timeout=_WAIT_S):
        raise busy()
    try:
        yield
    finally:
        _turn.release()


def draw(dataset: Dataset, number: int, kind: str, how: Rendering) -> bytes:
    """Return a frame as a file of a media type.

    Args:
        dataset: the image.
        number: of the frame, from 1.
        kind: JPEG or PNG.
        how: as asked for.

    Raises:
        WebError: 404: there is no such frame; 406: it cannot be decoded; 503: too many are drawn.
    """
    with turn():
        with files.reading():
            if int(dataset.get("Rows") or 0) * int(dataset.get("Columns") or 0) > _MOST_DRAWN:
                raise not_acceptable("the image is too large to be drawn: ask for its frames")
        stored, facts = files.frame(dataset, number, raw=False)
        with files.reading():
            shown = _fitted(
                Image.fromarray(_grey_or_colours(dataset, number, stored, facts, how)), dataset, number, how
            )
            written = BytesIO()
            options: dict[str, Any] = {"quality": how.quality} if kind == JPEG else {}
            shown.save(written, _FORMATS[kind], **options)
            return written.getvalue()


def _grey_or_colours(
    dataset: Dataset, number: int, stored: NDArray[Any], facts: Mapping[str, object], how: Rendering
) -> NDArray[np.uint8]:
    meaning = str(facts.get("photometric_interpretation") or dataset.get("PhotometricInterpretation") or "")
    if meaning == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
        if stored.dtype != np.uint8:
            stored = (stored >> 8).astype(np.uint8)
        return stored
    if stored.ndim == 3:
        bits = int(dataset.get("BitsStored") or 8)
        return stored.astype(np.uint8) if bits <= 8 else (stored >> (bits - 8)).astype(np.uint8)
    values = _rescaled(dataset, number, stored)
    center, width, function = _window(dataset, number, values, how)
    grey = windowed(values, center, width, function)
    inverse = meaning == "MONOCHROME1" or str(dataset.get("PresentationLUTShape") or "") == "INVERSE"
    return 255 - grey if inverse else grey


def windowed(
    values: NDArray[np.floating[Any]], center: float, width: float, function: str = "linear"
) -> NDArray[np.uint8]:
    """Return values as grey from 0 to 255 (PS3.3 C.11.2.1.2, C.11.2.1.3)."""
    if function == "sigmoid":
        grey = 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -60, 60)))
    elif function == "linear-exact" or width <= 1:
        grey = (values - center) / width + 0.5
    else:
        grey = (values - (center - 0.5)) / (width - 1) + 0.5
    return np.rint(np.clip(grey, 0, 1) * 255).astype(np.uint8)


def _rescaled(dataset: Dataset, number: int, stored: NDArray[Any]) -> NDArray[np.float32]:
    slope = _first(_stated(dataset, number, "PixelValueTransformationSequence", "RescaleSlope"), 1.0)
    intercept = _first(_stated(dataset, number, "PixelValueTransformationSequence", "RescaleIntercept"), 0.0)
    return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def _window(dataset: Dataset, number: int, values: NDArray[np.float32], how: Rendering) -> tuple[float, float, str]:
    if how.window is not None:
        return *how.window, how.function
    center = _first(_stated(dataset, number, "FrameVOILUTSequence", "WindowCenter"), float("nan"))
    width = _first(_stated(dataset, number, "FrameVOILUTSequence", "WindowWidth"), float("nan"))
    function = str(_stated(dataset, number, "FrameVOILUTSequence", "VOILUTFunction") or "LINEAR")
    if np.isfinite(center) and np.isfinite(width) and width >= 1e-6:
        named = function.lower().replace("_", "-")
        return center, width, named if named in _FUNCTIONS else "linear"
    low, high = float(values.min()), float(values.max())
    return (low + high) / 2, max(high - low, 1e-3), "linear-exact"


def _stated(dataset: Dataset, number: int, group: str, keyword: str) -> object:
    """Return a value of the image, of all its frames, or of this one (PS3.3 C.7.6.16)."""
    if keyword in dataset:
        return dataset.get(keyword)
    places = [
        (dataset.get("PerFrameFunctionalGroupsSequence"), number - 1),
        (dataset.get("SharedFunctionalGroupsSequence"), 0),
    ]
    for sequence, at in places:
        with suppress(TypeError, IndexError, AttributeError):
            found = sequence[at].get(group)
            if found:
                return found[0].get(keyword)
    return None


def _first(value: object, usual: float) -> float:
    """Return the first number of a value that may have several; `usual` where it is none."""
    try:
        first = value if isinstance(value, int | float | str) else next(iter(value))  # type: ignore[call-overload]
        return float(first)
    except (TypeError, ValueError, StopIteration):
        return usual


def _fitted(shown: Image.Image, dataset: Dataset, number: int, how: Rendering) -> Image.Image:
    if how.part is not None:
        shown = _cut(shown, how.part)
    columns, rows = shown.size
    true = rows * _tallness(dataset, number)
    scale = 1.0
    if how.size is not None:
        scale = min(how.size[0] / columns, how.size[1] / true)
    elif max(columns, true) > _MOST_PIXELS:
        scale = _MOST_PIXELS / max(columns, true)
    size = (max(1, round(columns * scale)), max(1, round(true * scale)))
    return shown if size == shown.size else shown.resize(size, Image.Resampling.BILINEAR)


def _cut(shown: Image.Image, part: tuple[float, float, float, float]) -> Image.Image:
    x, y, w, h = part
    w, h = w or shown.size[0], h or shown.size[1]
    if w < 0:
        shown = shown.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if h < 0:
        shown = shown.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    left, top = min(max(0, int(x)), shown.size[0] - 1), min(max(0, int(y)), shown.size[1] - 1)
    right, bottom = min(shown.size[0], int(left + abs(w))), min(shown.size[1], int(top + abs(h)))
    return shown.crop((left, top, max(right, left + 1), max(bottom, top + 1)))


def _tallness(dataset: Dataset, number: int) -> float:
    """Return how much further apart rows are than columns."""
    for keyword in ("PixelSpacing", "PixelAspectRatio", "ImagerPixelSpacing"):
        found = _stated(dataset, number, "PixelMeasuresSequence", keyword)
        with suppress(TypeError, ValueError, ZeroDivisionError):
            rows, columns = (float(one) for one in found)  # type: ignore[attr-defined]
            if rows > 0 and columns > 0 and 0.05 < rows / columns < 20:
                return rows / columns
    return 1.0
