"""The committed statement is the code's; every object that the node makes is in it; statuses are those that count."""

import json
import re
from typing import get_args

import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from dicomnode.config import ObjectName
from dicomnode.conformance import statement
from dicomnode.conformance.created import CREATED
from dicomnode.conformance.document import DocumentSection, DocumentTable
from dicomnode.conformance.network_tables import name_of
from dicomnode.conformance.sample import complete
from dicomnode.network import association, find, move, ups
from dicomnode.network.statuses import PeerStatus, every_other, taken
from dicomnode.reception import c_store
from dicomnode.report import codes, context
from dicomnode.report.attributes import CARRIED
from dicomnode.report.context import Kind
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def sections() -> list[DocumentSection]:
    return statement.build()


def test_the_committed_statement_is_the_codes(sections: list[DocumentSection]) -> None:
    made = statement.markdown(sections).splitlines()
    committed = (ROOT / statement.COMMITTED).read_text("utf-8").splitlines()
    different = [f"{number}: {line[:160]}" for number, line in enumerate(made, 1) if line not in set(committed)]
    assert made == committed, (
        f"{statement.COMMITTED} is not what the code says: run `{statement.COMMAND}` in the repository's root and look "
        f"at the difference. First lines that are new: {different[:5]}"
    )


def test_every_kind_of_object_is_in_the_statement() -> None:
    kinds = {value.name for value in vars(context).values() if isinstance(value, Kind)}
    stated = {one.kind.name for one in CREATED if one.kind is not None}
    assert kinds == stated, "a kind of `report/context.py` needs its entry in `conformance/created.py` (CREATED)"
    named = [one.config_name for one in CREATED if one.config_name is not None]
    assert sorted(named) == sorted(get_args(ObjectName)), "`config.ObjectName` and CREATED differ"


def test_what_goes_to_some_destinations_alone_is_stated_with_its_syntax(sections: list[DocumentSection]) -> None:
    sent = {row[0]: row[2] for row in statement.table(sections, "contexts: SENDER SCU Storage (PS3.4 annex B)").rows}
    assert "Deflated" in sent["Segmentation Storage"]
    assert sent["Label Map Segmentation Storage"].startswith("RLE Lossless (")
    assert "," not in sent["Label Map Segmentation Storage"]


def test_a_key_that_not_every_destination_has_names_the_kinds(sections: list[DocumentSection]) -> None:
    keys = [row[0] for row in statement.table(sections, "configuration").rows]
    assert len(keys) == len(set(keys))
    assert {"`destination.url` (stow)", "`destination.url` (fhir)", "`destination.port` (dicom, hl7)"} <= set(keys)
    assert "`destination.name`" in keys


def test_no_two_tables_have_one_name(sections: list[DocumentSection]) -> None:
    tables = [b for one in sections for s in one.walk() for b in s.blocks if isinstance(b, DocumentTable)]
    repeated = {"services"}  # N.1.1 and N.5.1
    names = [table.name for table in tables if table.name not in repeated]
    assert len(names) == len(set(names)) > 80
    assert all(table.rows for table in tables)


def test_the_order_is_annex_n(sections: list[DocumentSection]) -> None:
    numbers = [section.number for section in sections]
    assert numbers == [*(f"N.{n}" for n in range(9)), *(f"A.{letter}" for letter in "ABCDE")]


def test_json_holds_the_same_tables(sections: list[DocumentSection]) -> None:
    read = json.loads(statement.as_json(sections))
    storage = read[7]["sections"][2]["tables"]["storage_scp"]
    assert {
        "SOP class": "CT Image Storage",
        "UID": "1.2.840.10008.5.1.4.1.1.2",
        "Transfer syntaxes": "Set B",
    } in storage


@pytest.mark.parametrize(
    ("name", "attribute", "expected"),
    [
        ("Segmentation: segmentation image", "Segmentation Type", ("CS", "1", "ALWAYS", "fixed", "BINARY")),
        ("Segmentation: image pixel", "Rows", ("US", "1", "ALWAYS", "source image", "")),
        ("Segmentation: image pixel", "Pixel Data", ("OB", "1C", "ALWAYS", "source image, analysis", "")),
        ("Segmentation: general equipment", "Software Versions", ("LO", "3", "ALWAYS", "release", "")),
        ("Segmentation: general equipment", "Station Name", ("SH", "3", "ANAP", "configuration", "")),
        ("Segmentation: sop common", "SOP Instance UID", ("UI", "1", "ALWAYS", "generated UID", "")),
        ("Measurement report: sr document general", "Verification Flag", ("CS", "1", "ALWAYS", "fixed", "UNVERIFIED")),
        ("Label map: segmentation image", "Segmentation Type", ("CS", "1", "ALWAYS", "fixed", "LABELMAP")),
        ("Areas by attenuation: image pixel", "Pixel Data", ("OB", "1C", "ALWAYS", "source image, analysis", "")),
        ("Report as PDF: encapsulated document", "Burned In Annotation", ("CS", "1", "ALWAYS", "fixed", "YES")),
        ("taken over", "Patient's Name", ("PN", "2", "VNAP", "source image", "")),
        ("taken over", "Accession Number", ("SH", "2", "VNAP", "source image, order", "")),
    ],
)
def test_where_values_come_from(
    sections: list[DocumentSection], name: str, attribute: str, expected: tuple[str, ...]
) -> None:
    (row,) = (row for row in statement.table(sections, name).rows if row[0] == attribute)
    assert row[2:] == expected


def test_all_that_is_taken_over_is_listed(sections: list[DocumentSection]) -> None:
    listed = {row[1] for row in statement.table(sections, "taken over").rows}
    tags = {f"({tag_of(keyword) >> 16:04X},{tag_of(keyword) & 0xFFFF:04X})" for keyword in CARRIED}
    assert tags <= listed


def tag_of(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    return tag


def test_nothing_is_private_or_beyond_its_iod() -> None:
    text = (ROOT / statement.COMMITTED).read_text("utf-8")
    said = re.findall(
        r"Standard Extended attributes \(of no module of the IOD\): (.+?)\. Private attributes: (.+?)\.", text
    )
    assert len(said) == sum(one.kind is not None for one in CREATED)
    assert set(said) == {("none", "none")}


def test_every_private_code_stands_in_a_tree_or_names_a_segment(sections: list[DocumentSection]) -> None:
    trees = [s for one in sections for s in one.walk() if s.number.startswith("A.B.")]
    text = " ".join(section.markdown() for section in trees)
    rows = statement.table(sections, "Areas by attenuation: segmentation image").rows
    segments = {value for row in rows if row[0] == ">>Code Value" for value in row[-1].split(", ")}
    missing = [
        code.value
        for code in codes.PRIVATE
        if f"({code.value}, {codes.SCHEME}" not in text and code.value not in segments
    ]
    assert missing == []


# Statuses


def test_the_first_row_that_covers_a_status_counts() -> None:
    rows = (
        PeerStatus(0xA700, "", "", "passing", last=0xA7FF),
        PeerStatus(0xA710, "", "", "warning"),
        every_other("permanent"),
    )
    assert [taken(rows, status) for status in (0xA6FF, 0xA700, 0xA710, 0xA7FF, 0xA800)] == [
        "permanent", "passing", "passing", "passing", "permanent",
    ]  # fmt: skip


@pytest.mark.parametrize("statuses", [association.STATUSES, find.STATUSES, move.STATUSES, ups.STATUSES])
def test_every_status_is_taken_as_something(statuses: tuple[PeerStatus, ...]) -> None:
    assert {taken(statuses, status) for status in range(0x10000)} == {one.taken_as for one in statuses}


def test_a_storing_peers_answers() -> None:
    expected = {
        0: "success",
        1: "warning",
        0xB007: "warning",
        0xA701: "passing",
        0x0110: "passing",
        0xC000: "permanent",
    }
    assert {status: taken(association.STATUSES, status) for status in expected} == expected


def test_what_the_receiver_answers_is_in_its_table() -> None:
    constants = {c_store.SUCCESS, c_store.OUT_OF_RESOURCES, c_store.DOES_NOT_MATCH, c_store.CANNOT_UNDERSTAND}
    assert {one.status for one in c_store.ANSWERS} == constants | {c_store.UID_TAKEN}


def test_objects_are_the_same_each_time() -> None:
    def made() -> list[Dataset]:
        return [one.made(complete(parts=False)) for one in CREATED[:3]]

    assert made() == made()
    assert all(name_of(str(one.SOPClassUID)).endswith("Storage") for one in made())
