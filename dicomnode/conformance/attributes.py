"""What is in the objects down to the attribute: VR, type, presence, and where the value comes from.

Nothing of it is written down: each object is encoded from a complete sample, from a sparse one, and from variants of
the complete one. What is missing or empty in one of them is not always there; what changes with a variant comes from
what the variant changes; what changes with none is fixed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from typing import Final

from highdicom import _standard_utils as standard
from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID

from dicomnode.conformance.created import CreatedObject
from dicomnode.conformance.sample import DRAWN, VARIANTS, complete, sparse, terse
from dicomnode.report.attributes import CARRIED
from dicomnode.words.numerals import plural

Path = tuple[str, ...]
ALWAYS, NOT_ALWAYS, VALUE_NOT_ALWAYS, EMPTY = "ALWAYS", "ANAP", "VNAP", "EMPTY"
FIXED, GENERATED_UID = "fixed", "generated UID"
#: The tree has a section of its own.
_TREE: Final = "ContentSequence"
_LONGEST, _MOST = 64, 4


@dataclass
class Seen:
    """An attribute of an object: the values that its items have, and how many of them there could be.

    `parents`: how many data sets or items may hold it; `present`: how many do; `filled`: how many with a value.
    """

    vr: str
    values: list[str] = field(default_factory=list)
    present: int = 0
    filled: int = 0


@dataclass(frozen=True)
class AttributeRow:
    """One attribute of an object as the statement lists it. `path`: the sequences that it is in, then its keyword."""

    path: Path
    vr: str
    type: str
    presence: str
    source: str
    value: str

    @property
    def name(self) -> str:
        """Its name, with a ">" for each sequence that it is in."""
        tag = tag_for_keyword(self.path[-1])
        assert tag is not None, self.path
        return f"{'>' * (len(self.path) - 1)}{dictionary_description(tag)}"

    @property
    def tag(self) -> str:
        """Its tag as (gggg,eeee)."""
        tag = tag_for_keyword(self.path[-1])
        assert tag is not None, self.path
        return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


@dataclass(frozen=True)
class ObjectContents:
    """All attributes of an object by module, those that it takes over from the images apart, and what is extra.

    `transfer_syntax`: in which it is written; `extended`: attributes of no module of its IOD (Standard Extended);
    `private`: private ones.
    """

    sop_class: str
    transfer_syntax: UID
    modules: Mapping[str, tuple[AttributeRow, ...]]
    carried: tuple[AttributeRow, ...]
    extended: tuple[AttributeRow, ...]
    private: tuple[str, ...]


def contents(one: CreatedObject) -> ObjectContents:
    """Return what an object holds."""
    full, least = complete(parts=one.has_parts), sparse()
    first = one.made(full)
    others = {"sparse": least, "terse": terse(parts=one.has_parts)}
    encoded = {"complete": _walked(first)} | {name: _walked(one.made(other)) for name, other in others.items()}
    encoded |= {v.name: _walked(one.made(v.change(least if v.of_sparse else full))) for v in VARIANTS}
    sop_class = str(one.sop_class or first.SOPClassUID)
    paths = _in_order([*encoded.values()])
    rows = [_row(one, path, encoded, sop_class) for path in paths]
    is_composite = one.kind is not None
    carried = tuple(row for row in rows if is_composite and row.path[0] in CARRIED)
    own = [row for row in rows if row not in carried]
    modules: dict[str, list[AttributeRow]] = {}
    for row in own:
        modules.setdefault(_module_of(one, row.path[0], sop_class), []).append(row)
    order = [*_modules(one, sop_class), ""]
    ordered = {name: tuple(modules[name]) for name in order if name in modules}
    private = tuple(str(element.tag) for element in first.iterall() if element.tag.is_private)
    extended = ordered.get("", ()) if is_composite else ()
    return ObjectContents(sop_class, first.file_meta.TransferSyntaxUID, ordered, carried, extended, private)


def _walked(dataset: Dataset) -> dict[Path, Seen]:
    found: dict[Path, Seen] = {(): Seen("", present=1)}
    for path, element in _elements(dataset, ()):
        seen = found.setdefault(path, Seen(element.VR))
        seen.present += 1
        empty = element.is_empty or (element.VR == "SQ" and not element.value)
        seen.filled += not empty
        if element.VR == "SQ":
            seen.values.append(plural(len(element.value), "item"))
            # How many items might hold what is in them.
            found.setdefault((*path, ""), Seen("")).present += len(element.value)
        elif not empty:
            seen.values.append(_text(element))
    return found


def _elements(dataset: Dataset, above: Path) -> Iterator[tuple[Path, DataElement]]:
    for element in dataset:
        if not element.keyword:
            continue
        path = (*above, element.keyword)
        yield path, element
        if element.VR == "SQ" and element.keyword != _TREE:
            for item in element.value:
                yield from _elements(item, path)


def _text(element: DataElement) -> str:
    if isinstance(element.value, bytes):
        return f"{plural(len(element.value), 'byte')}, {sha256(element.value).hexdigest()[:8]}"
    if element.VM > 1:
        return "\\".join(map(str, element.value))
    return str(element.value)


def _in_order(walked: Sequence[Mapping[Path, Seen]]) -> list[Path]:
    """Return all paths, the tags of each level in their order."""
    paths = {path for one in walked for path in one if path and path[-1]}
    return sorted(paths, key=lambda path: [tag_for_keyword(keyword) or 0 for keyword in path])


def _row(one: CreatedObject, path: Path, encoded: Mapping[str, Mapping[Path, Seen]], sop_class: str) -> AttributeRow:
    first = encoded["complete"].get(path)
    seen = first or next(walked[path] for walked in encoded.values() if path in walked)
    source = one.sources.get(path[-1]) or _source(path, encoded, seen)
    value = _value(seen) if source == FIXED and seen.vr != "SQ" else ""
    return AttributeRow(path, seen.vr, _type(one, path, sop_class), _presence(path, encoded), source, value)


def _presence(path: Path, encoded: Mapping[str, Mapping[Path, Seen]]) -> str:
    """PS3.2 table N.7: always with a value; value not always; attribute not always; always empty."""
    parent = (*path[:-1], "") if len(path) > 1 else ()
    present = filled = True
    any_filled = False
    for walked in encoded.values():
        holders = walked[parent].present if parent in walked else 0
        seen = walked.get(path, Seen(""))
        present &= seen.present == holders
        filled &= seen.filled == holders
        any_filled |= seen.filled > 0
    if not any_filled:
        return EMPTY
    return ALWAYS if filled else VALUE_NOT_ALWAYS if present else NOT_ALWAYS


def _source(path: Path, encoded: Mapping[str, Mapping[Path, Seen]], seen: Seen) -> str:
    def values(name: str) -> list[str]:
        return encoded[name].get(path, Seen("")).values

    changed = [v.name for v in VARIANTS if values(v.name) != values("sparse" if v.of_sparse else "complete")]
    if seen.vr == "SQ":  # what is in its items tells
        return ""
    if seen.vr == "UI" and changed and all(value.startswith("2.25.") for value in seen.values):
        return GENERATED_UID
    if not changed and not seen.values:
        return ""
    return ", ".join(name for name in changed if name != DRAWN or len(changed) == 1) or FIXED


def _value(seen: Seen) -> str:
    values = list(dict.fromkeys(value for value in seen.values if not value.startswith("2.25.") or seen.vr == "UI"))
    shown = [value if len(value) <= _LONGEST else f"{value[: _LONGEST - 1]}…" for value in values[:_MOST]]
    return ", ".join(shown) + (", …" if len(values) > _MOST else "")


# The standard's modules


def _modules(one: CreatedObject, sop_class: str) -> list[str]:
    if one.modules:
        return list(one.modules)
    named = standard.get_sop_class_iod_map().get(sop_class)
    return [] if named is None else [str(module["key"]) for module in standard.get_iod_module_map()[named]]


def _module_of(one: CreatedObject, keyword: str, sop_class: str) -> str:
    """Return the first module of the IOD that has the attribute, "" where none has it."""
    return next((name for name in _modules(one, sop_class) if ((), keyword) in _types(name)), "")


def _type(one: CreatedObject, path: Path, sop_class: str) -> str:
    above, keyword = path[:-1], path[-1]
    for name in _modules(one, sop_class):
        if (above, keyword) in _types(name):
            return _types(name)[above, keyword]
    return ""


@cache
def _types(module: str) -> dict[tuple[Path, str], str]:
    entries = standard.get_module_attribute_map().get(module, [])
    return {(tuple(one["path"]), one["keyword"]): one["type"] or "" for one in entries}
