"""Several scans in one series: acquisitions, phases, a pair in inspiration and expiration, several multi-frame images.

A series is split only where its images lie over one another: the slices of one scan may well carry many acquisition
numbers and times (step and shoot), but no two of them lie at the same place, nor between one another off the grid.
"""

import hashlib
import itertools
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from pydicom import dcmread

from dicomnode.analysis.series import geometry
from dicomnode.analysis.series.geometry import SAME_POSITION_MM
from dicomnode.analysis.series.headers import ImageHeader, Series, identifier, string, strings

#: What tells scans apart, the clearest first.
KEYS = (
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "NominalPercentageOfCardiacPhase",
    "TriggerTime",
    "StackID",
    "ConvolutionKernel",
    "ImageType",
    "ImageComments",
    "AcquisitionTime",
    "AcquisitionDateTime",
    "ContentTime",
)
#: What only orders the images: where a position comes again, the next scan has begun.
ORDERS: dict[str, Callable[[str], float | str]] = {
    "AcquisitionDateTime": str,
    "AcquisitionTime": str,
    "ContentTime": str,
    "InstanceNumber": float,
}
#: Values that are safe and useful to show; others are counted (comments and times may tell of the patient).
SHOWN = frozenset(KEYS[:7])
#: 4D scans of the heart have up to 20 phases; more parts than this are no scans, but a value that differs by slice.
MOST_PARTS = 25
#: Ranges of positions that share more than this fraction of the shorter one lie over one another.
OVERLAP = 0.5
#: So many steps of the coarser one, where both are even by themselves and uneven together.
FEWEST_SHARED = 2.5
#: The table leaps where it moves by so many usual steps.
JUMP = 3.0
#: Fewer images are no scan.
FEWEST_SLICES = 3

#: Besides the pixels.
SAME_IN_COPIES = (
    "Rows",
    "Columns",
    "BitsStored",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "RescaleSlope",
    "RescaleIntercept",
)

Group = tuple[str, list[ImageHeader]]


def split(series: Series) -> tuple[Series, ...]:
    """Return the parts of a series, each to be judged by itself; the series alone where it is one scan.

    Identical copies of an image (same place, same pixels) are left out and counted. Reads pixels only of images that
    lie where another does.
    """
    images = _by_image(series.headers)
    found = [(name, part, copies) for label, headers in images for name, part, copies in _scans(label, headers)]
    return tuple(replace(series, headers=tuple(headers), part=name, copies=copies) for name, headers, copies in found)


def _by_image(headers: Sequence[ImageHeader]) -> list[Group]:
    """Make each multi-frame image a part of its own: a segmentation refers to one such image.

    A concatenation is one image that was sent in several files (PS3.3 C.7.6.16.2.2.4).
    """
    groups: dict[str, list[ImageHeader]] = {}
    for h in headers:
        groups.setdefault(_image(h), []).append(h)
    return [("", list(headers))] if len(groups) == 1 else list(groups.items())


def _image(header: ImageHeader) -> str:
    if header.frame_number is None:
        return ""
    whole = string(header.dataset, "ConcatenationUID")
    return f"concatenation {whole}" if whole else f"multi-frame image {string(header.dataset, 'SOPInstanceUID')}"


def _scans(label: str, headers: list[ImageHeader]) -> list[tuple[str, list[ImageHeader], int]]:
    if _positions(headers) is None:
        return [(label, headers, 0)]
    found = []
    for name, group in _by_keys(label, headers):
        kept = _without_copies(group)
        copies = len(group) - len(kept)
        for part, run in _runs(name, kept):
            found.append((part, run, copies))
            copies = 0
    return found


def _by_keys(label: str, headers: list[ImageHeader]) -> list[Group]:
    """Split by the first key whose values separate images that lie over one another; then each group again."""
    for keyword in KEYS:
        groups = _group(headers, keyword)
        if 1 < len(groups) <= MOST_PARTS and _lie_over_one_another(headers, list(groups.values())):
            parts = [
                (_join(label, _name(keyword, value, i, len(groups))), group)
                for i, (value, group) in enumerate(sorted(groups.items()), start=1)
            ]
            return [part for name, group in parts for part in _by_keys(name, group)]
    return [(label, headers)]


def _group(headers: Iterable[ImageHeader], keyword: str) -> dict[str, list[ImageHeader]]:
    groups: dict[str, list[ImageHeader]] = {}
    for h in headers:
        groups.setdefault("/".join(strings(h.dataset, keyword)), []).append(h)
    return groups


def _lie_over_one_another(headers: Sequence[ImageHeader], groups: Sequence[Sequence[ImageHeader]]) -> bool:
    ranges = sorted((min(p), max(p)) for g in groups if (p := _positions(g)) is not None and len(p) > 1)
    for (low, high), (next_low, next_high) in itertools.pairwise(ranges):
        shorter = min(high - low, next_high - next_low)
        if shorter > 0 and min(high, next_high) - next_low > OVERLAP * shorter:
            return True
    return _repeats(headers) > sum(_repeats(g) for g in groups) or _interleave(headers, groups)


def _interleave(headers: Sequence[ImageHeader], groups: Sequence[Sequence[ImageHeader]]) -> bool:
    """Whether groups that are even by themselves overlap, and are uneven together: passes off one another's grid.

    Neighbours in step and shoot may overlap by a slice or two.
    """
    whole, stacks = _stack(headers), [_stack(g) for g in groups]
    if whole is None or whole.uniform or not all(_is_even(s) for s in stacks):
        return False
    ranges = sorted((min(p), max(p), s.step_mm) for s in stacks if s is not None and (p := s.positions_mm))
    return any(
        high - next_low > FEWEST_SHARED * max(step, next_step)
        for (_, high, step), (next_low, _, next_step) in itertools.pairwise(ranges)
    )


def _passes(label: str, headers: list[ImageHeader]) -> list[Group]:
    """Split an uneven stack where the table turns or goes back, in order of time or number.

    Only into scans that are even by themselves: one odd position among the others is no turn.
    """
    whole = _stack(headers)
    if whole is None or whole.uniform:
        return [(label, headers)]
    for keyword, convert in ORDERS.items():
        try:
            keyed = [(convert(string(h.dataset, keyword)), i) for i, h in enumerate(headers)]
        except ValueError:
            continue
        if any(value == "" for value, _ in keyed) or len({value for value, _ in keyed}) < len(keyed):
            continue
        runs = _turns([headers[i] for _, i in sorted(keyed)], [whole.positions_mm[i] for _, i in sorted(keyed)])
        if 1 < len(runs) <= MOST_PARTS and all(_is_even(_stack(run)) for run in runs) and _interleave(headers, runs):
            return [(_join(label, f"{keyword}: {n} of {len(runs)}"), run) for n, run in enumerate(runs, start=1)]
    return [(label, headers)]


def _turns(headers: Sequence[ImageHeader], positions: Sequence[float]) -> list[list[ImageHeader]]:
    """Cut a sequence of images where the table turns, or leaps."""
    moves = np.diff(positions)
    leap = JUMP * float(np.median(abs(moves)))
    runs = [[headers[0]]]
    direction = 0.0
    for h, moved in zip(headers[1:], moves, strict=True):
        if moved * direction < 0 or abs(moved) > leap:
            runs.append([])
            direction = 0.0
        else:
            direction = float(moved)
        runs[-1].append(h)
    return runs


def _is_even(stack: geometry.SliceStack | None) -> bool:
    return stack is not None and len(stack.positions_mm) >= FEWEST_SLICES and stack.uniform and not stack.repeats


def _stack(headers: Sequence[ImageHeader]) -> geometry.SliceStack | None:
    planes = [geometry.plane(h.dataset) for h in headers]
    known = [p for p in planes if p is not None]
    return geometry.stack(known) if known and len(known) == len(planes) else None


def _runs(label: str, headers: list[ImageHeader]) -> list[Group]:
    """Split into whole scans, one after another in time or by number: a position that comes again begins the next.

    They must be of like length: one odd image among the others is no scan.
    """
    times = _most_at_one_position(headers)
    if times == 1:
        return _passes(label, headers)
    for keyword, convert in ORDERS.items():
        try:
            keyed = [(convert(string(h.dataset, keyword)), i) for i, h in enumerate(headers)]
        except ValueError:
            continue
        if any(value == "" for value, _ in keyed) or len({value for value, _ in keyed}) == 1:
            continue
        runs = _cut([headers[i] for _, i in sorted(keyed)])
        if len(runs) == times and min(map(len, runs)) > OVERLAP * max(map(len, runs)):
            return [(_join(label, f"{keyword}: {n} of {len(runs)}"), run) for n, run in enumerate(runs, start=1)]
    return [(label, headers)]


def _cut(headers: Sequence[ImageHeader]) -> list[list[ImageHeader]]:
    places = _places(headers)
    runs: list[list[ImageHeader]] = [[]]
    seen: set[int] = set()
    for h, place in zip(headers, places, strict=True):
        if place in seen:
            runs.append([])
            seen = set()
        seen.add(place)
        runs[-1].append(h)
    return runs


def _without_copies(headers: list[ImageHeader]) -> list[ImageHeader]:
    places = _places(headers)
    shared = {place for place, images in Counter(places).items() if images > 1}
    seen: set[tuple[int, bytes]] = set()
    kept = []
    for h, place in zip(headers, places, strict=True):
        if place in shared and (digest := _digest(h)):
            if (place, digest) in seen:
                continue
            seen.add((place, digest))
        kept.append(h)
    return kept


def _digest(header: ImageHeader) -> bytes:
    """Of all that makes the image; empty where it cannot be read, or is a frame: then nothing is the same as it."""
    if header.frame_number is not None:
        return b""
    try:
        with warnings.catch_warnings():
            # As in `headers`: odd values are judged later.
            warnings.filterwarnings("ignore", module=r"pydicom\.")
            stored = dcmread(header.path, force=True).get_item("PixelData")  # raw: nothing of it is decoded
    except Exception:  # noqa: BLE001 - whatever a damaged file provokes in the parser: the judgement is made elsewhere
        return b""
    if stored is None or not isinstance(stored.value, bytes):
        return b""
    found = hashlib.sha256(stored.value)
    found.update(header.dataset.file_meta.TransferSyntaxUID.encode())
    for keyword in SAME_IN_COPIES:
        found.update(f"{keyword}={identifier(header.dataset, keyword)!r}".encode())
    return found.digest()


def _positions(headers: Sequence[ImageHeader]) -> tuple[float, ...] | None:
    stack = _stack(headers)
    return None if stack is None else stack.positions_mm


def _places(headers: Sequence[ImageHeader]) -> list[int]:
    """Return a number for each image: the same for images at the same position."""
    positions = np.array(_positions(headers))
    order = np.argsort(positions, kind="stable")
    numbers = np.empty(len(headers), int)
    numbers[order] = np.concatenate([[0], np.cumsum(np.diff(positions[order]) >= SAME_POSITION_MM)])
    return [int(n) for n in numbers]


def _repeats(headers: Sequence[ImageHeader]) -> int:
    return len(headers) - len(set(_places(headers)))


def _most_at_one_position(headers: Sequence[ImageHeader]) -> int:
    return int(np.bincount(_places(headers)).max())


def _name(keyword: str, value: str, number: int, of: int) -> str:
    return f"{keyword} {value or 'missing'}" if keyword in SHOWN else f"{keyword}: {number} of {of}"


def _join(label: str, name: str) -> str:
    return f"{label}, {name}" if label else name
