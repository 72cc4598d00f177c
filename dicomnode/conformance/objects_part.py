"""The annexes about what the node makes: IODs, content trees, codes, and what is taken over from the images."""

from collections.abc import Sequence
from typing import Final

from pydicom.datadict import dictionary_description, dictionary_VR, tag_for_keyword
from pydicom.sr.coding import Code
from pydicom.uid import UID

from dicomnode.conformance import attributes, sample, trees
from dicomnode.conformance.attributes import AttributeRow, ObjectContents
from dicomnode.conformance.created import CREATED, CreatedObject
from dicomnode.conformance.document import DocumentSection, DocumentTable, bullets
from dicomnode.conformance.network_tables import name_of
from dicomnode.report import codes
from dicomnode.report.attributes import CARRIED, TYPE_2

_COLUMNS: Final = ("Attribute", "Tag", "VR", "Type", "Presence", "Source", "Value")
_LEGEND: Final = bullets(
    [
        "**Type**: of the standard's module; empty where the standard gives none (DIMSE-N messages).",
        f"**Presence**: {attributes.ALWAYS} (with a value), {attributes.VALUE_NOT_ALWAYS} (value not always present), "
        f"{attributes.NOT_ALWAYS} (attribute not always present), {attributes.EMPTY}; within the item that holds it.",
        f"**Source**: {sample.SOURCE}; {sample.ORDER} (the worklist's, where the images name none); {sample.ANALYSIS} "
        f"(what was found, by which algorithm); {sample.CONFIGURATION}; {sample.TIME} (when the result was made, told "
        f"in the source's time zone); {sample.RELEASE} (of this software); {sample.VERSION} (the result that this one "
        f"replaces); {attributes.GENERATED_UID} (derived by SHA-256 from what the object is about, 2.25 root: the same "
        f"input gives the same object); {sample.DRAWN}; {attributes.FIXED}, with the value.",
    ]
)


def all_contents() -> list[tuple[CreatedObject, ObjectContents]]:
    """Return every object with what it holds."""
    return [(one, attributes.contents(one)) for one in CREATED]


def sent(objects: Sequence[tuple[CreatedObject, ObjectContents]]) -> list[tuple[UID, UID]]:
    """Return SOP class and transfer syntax of the composite objects."""
    return [(UID(held.sop_class), held.transfer_syntax) for one, held in objects if one.kind is not None]


def created_table(objects: Sequence[tuple[CreatedObject, ObjectContents]]) -> DocumentTable:
    """Return the objects by name, SOP class and occasion."""
    rows = []
    for one, held in objects:
        series = "" if one.kind is None else f"{one.kind.series_number}, `{one.kind.label}`"
        rows.append((one.title, name_of(held.sop_class), held.sop_class, series, one.when))
    return DocumentTable("created", ("Object", "SOP class", "UID", "Series Number, label", "When"), tuple(rows))


def iods(objects: Sequence[tuple[CreatedObject, ObjectContents]]) -> DocumentSection:
    """Return annex A.A."""
    shared = _shared(objects)
    text = (
        "All composite objects take patient, study and order over from the source images, byte for byte, under the "
        "source's own Specific Character Set (the modules Patient, Clinical Trial Subject, General Study, Patient "
        "Study, Clinical Trial Study). What an object has in another way stands in its own section."
    )
    table = DocumentTable("taken over", _COLUMNS, tuple(map(_cells, shared)))
    sections = [DocumentSection("A.A.1", "Attributes that all composite objects share", (text, table))]
    for one, held in objects:
        blocks: list[str | DocumentTable] = [f"Made {one.when}. {_extra(one, held)}"]
        own = {name.replace("-", " ") or "attributes of no module above": rows for name, rows in held.modules.items()}
        differing = tuple(row for row in held.carried if row not in shared)
        for title, rows in [*own.items(), *([("taken over in another way", differing)] if differing else ())]:
            blocks += [f"*{title}*", DocumentTable(f"{one.title}: {title}", _COLUMNS, tuple(map(_cells, rows)))]
        sections.append(DocumentSection(f"A.A.{len(sections) + 1}", one.title, tuple(blocks)))
    return DocumentSection("A.A", "Information object definitions", (_LEGEND, created_table(objects)), tuple(sections))


def _shared(objects: Sequence[tuple[CreatedObject, ObjectContents]]) -> list[AttributeRow]:
    """Return what of patient and study all composite objects have alike."""
    composite = [held.carried for one, held in objects if one.kind is not None]
    return [row for row in composite[0] if all(row in other for other in composite)]


def _extra(one: CreatedObject, held: ObjectContents) -> str:
    if one.kind is None:
        return f"SOP class {name_of(held.sop_class)}."
    extended = ", ".join(row.name for row in held.extended) or "none"
    private = ", ".join(held.private) or "none"
    return f"Standard Extended attributes (of no module of the IOD): {extended}. Private attributes: {private}."


def _cells(row: AttributeRow) -> tuple[str, ...]:
    return row.name, row.tag, row.vr, row.type, row.presence, row.source, row.value


def structured_reports() -> DocumentSection:
    """Return annex A.B."""
    columns = ("Level", "Relationship", "Value type", "Concept", "Count", "Template", "Values")
    sections: list[DocumentSection] = []
    for one in CREATED:
        if one.has_tree:
            rows = (
                (">" * r.level, r.relationship, r.value_type, r.concept, r.count, r.template, r.values)
                for r in trees.tree(one)
            )
            table = DocumentTable(f"tree: {one.title}", columns, tuple(rows))
            sections.append(DocumentSection(f"A.B.{len(sections) + 1}", one.title, (table,)))
    text = (
        "The reports follow TID 1500 (Imaging Measurement Report), with TID 1411 for each lung, lobe and both lungs, "
        "and TID 1501 for the risk; the rejection note follows TID 2010. Count: how many items of this kind one parent "
        "has. Horizons of the risk are the bundle's; those of the table are an example. Who gets label maps gets a "
        "measurement report that refers to them, under UIDs of its own and else the same."
    )
    return DocumentSection("A.B", "Structured report content encoding", (text,), tuple(sections))


def mapping() -> DocumentSection:
    """Return annex A.D: which attributes of a source image stand in the objects, and as what."""
    rows = []
    for keyword in CARRIED:
        tag = tag_for_keyword(keyword)
        assert tag is not None
        lacking = "empty" if keyword in TYPE_2 else "left out"
        shown = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
        rows.append((dictionary_description(tag), shown, dictionary_VR(tag), "the same attribute", lacking))
    for name, to in _ORDER_MAPPING:
        rows.append((name, "", "", to, "the worklist's order, else left out"))
    columns = ("Source attribute", "Tag", "VR", "In the objects", "Where the source lacks it")
    return DocumentSection(
        "A.D",
        "Mapping of attributes",
        (
            "Values go byte for byte; none is converted to another character set. Private attributes of the source are "
            "not taken over. Of a value that breaks its VR see `analysis.selection.invalid_identity`.",
            DocumentTable("mapping", columns, tuple(rows)),
        ),
    )


_ORDER_MAPPING: Final = (
    ("Request Attributes Sequence", "the same sequence (images); Referenced Request Sequence (structured reports)"),
    ("Procedure Code Sequence, Requested Procedure Code Sequence", "Procedure reported (121058, DCM) of the reports"),
    ("Patient ID and Issuer of Patient ID", "input of the Tracking Unique Identifiers, hashed"),
    ("Series Instance UID, SOP Instance UIDs", "references: source images, evidence, Source Series for Segmentation"),
)


def code_sets() -> DocumentSection:
    """Return annex A.E."""
    private = tuple((code.value, code.scheme_designator, code.meaning) for code in codes.PRIVATE)
    standard = {
        (one.value, one.scheme_designator, one.meaning)
        for one in vars(codes).values()
        if isinstance(one, Code) and one.scheme_designator != codes.SCHEME
    }
    columns = ("Code value", "Coding scheme", "Code meaning")
    return DocumentSection(
        "A.E",
        "Code set usage",
        (
            f"Private coding scheme `{codes.SCHEME}`, UID {codes.SCHEME_UID}, version {codes.SCHEME_VERSION}; also in "
            "[private-codes.md](radiologist/private-codes.md). Codes of the standard and of other schemes follow.",
            DocumentTable("private codes", columns, private),
            DocumentTable("standard codes", columns, tuple(sorted(standard))),
        ),
    )
