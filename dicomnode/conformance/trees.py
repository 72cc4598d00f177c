"""The content trees of the structured documents: each kind of item, how often it is there, and what it may hold."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pydicom.dataset import Dataset

from dicomnode.conformance.created import CreatedObject
from dicomnode.conformance.sample import complete, sparse

_MOST, _LONGEST = 6, 60


@dataclass(frozen=True)
class ContentRow:
    """A kind of item. `level` counts from 0, the root; `count` is how many one parent has, such as "0-n"."""

    level: int
    relationship: str
    value_type: str
    concept: str
    count: str
    template: str
    values: str


@dataclass
class _Node:
    relationship: str
    value_type: str
    concept: str
    template: str = ""
    values: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    children: dict[tuple[str, str, str], "_Node"] = field(default_factory=dict)


def tree(one: CreatedObject) -> list[ContentRow]:
    """Return the content tree of a document, depth first, from a complete and a sparse sample."""
    documents = [one.made(complete()), one.made(sparse())]
    root = _node(documents[0])
    _take_in(root, documents)
    root.counts = [1]
    return list(_rows(root, 0))


def _node(item: Dataset) -> _Node:
    concepts = item.get("ConceptNameCodeSequence") or []
    return _Node(str(item.get("RelationshipType") or ""), str(item.ValueType), code(concepts[0]) if concepts else "")


def code(item: Dataset) -> str:
    """Return an item of a code sequence as (value, scheme, "meaning")."""
    return f'({item.CodeValue}, {item.CodingSchemeDesignator}, "{item.CodeMeaning}")'


def _take_in(node: _Node, items: Sequence[Dataset]) -> None:
    """Add what these items of one kind hold, their children too."""
    for item in items:
        templates = item.get("ContentTemplateSequence") or []
        node.template = node.template or (f"TID {templates[0].TemplateIdentifier}" if templates else "")
        node.values += _held(item)
    children = [(item, child) for item in items for child in item.get("ContentSequence") or ()]
    by_key: dict[tuple[str, str, str], list[tuple[int, Dataset]]] = {}
    for parent, child in children:
        made = _node(child)
        key = (made.relationship, made.value_type, made.concept)
        node.children.setdefault(key, made)
        by_key.setdefault(key, []).append((id(parent), child))
    for key, found in by_key.items():
        parents = [parent for parent, _ in found]
        node.children[key].counts += [parents.count(id(item)) for item in items]
        _take_in(node.children[key], [child for _, child in found])


def _held(item: Dataset) -> list[str]:
    match item.ValueType:
        case "CODE":
            return [code(item.ConceptCodeSequence[0])]
        case "NUM":
            measured = item.MeasuredValueSequence
            return [f"in {code(measured[0].MeasurementUnitsCodeSequence[0])}"] if measured else []
        case "IMAGE" | "COMPOSITE":
            return [str(item.ReferencedSOPSequence[0].ReferencedSOPClassUID.name)]
    return []


def _rows(node: _Node, level: int) -> Iterator[ContentRow]:
    values = list(dict.fromkeys(node.values))
    shown = ", ".join(values[:_MOST]) + (", …" if len(values) > _MOST else "")
    yield ContentRow(level, node.relationship, node.value_type, node.concept, _count(node.counts), node.template, shown)
    for child in node.children.values():
        yield from _rows(child, level + 1)


def _count(counts: Sequence[int]) -> str:
    least, most = min(counts), max(counts)
    first, last = "0" if least == 0 else "1", "1" if most == 1 else "n"
    return last if first == last else f"{first}-{last}"
