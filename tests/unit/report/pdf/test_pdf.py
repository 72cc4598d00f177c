"""The report as a PDF: tagged, searchable, two pages, whole, the same bytes every time; and as a DICOM object."""

import dataclasses
import io
import warnings
from collections.abc import Iterator
from itertools import combinations
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pypdf
import pypdfium2
import pytest
from hypothesis import example, given, settings
from pydicom.tag import Tag

from dicomnode.analysis.findings import Findings, Flag, VolumeMl
from dicomnode.report.page import style, views
from dicomnode.report.pdf import document, pictures
from dicomnode.report.pdf.typesetting import pdf_bytes
from dicomnode.report.wording import DEMO
from tests.helpers import report_cases as cases
from tests.helpers.odd_words import GE, WORDS
from tests.unit.report.page.test_fit import days_before
from tests.unit.report.page.test_summary import lungs, volume

VIEWS = views.choose(volume(), lungs())
FULL = cases.analysed(predicted=cases.risk(), change=cases.changed(731), trend=cases.scanned_before(5, 731))


def made(findings: Findings, **header: object) -> pypdf.PdfReader:
    image = cases.synthetic(1)[0]
    for keyword, value in header.items():
        setattr(image, keyword, value)
    shown = None if findings.status == "refused" else VIEWS
    return pypdf.PdfReader(io.BytesIO(pdf_bytes(findings, cases.CONTEXT, cases.reread(image), shown)))


def text(pdf: pypdf.PdfReader) -> str:
    return " ".join(" ".join(page.extract_text() for page in pdf.pages).split())


@pytest.fixture(scope="module")
def full() -> pypdf.PdfReader:
    return made(FULL)


def tags(element: Any) -> Iterator[str]:
    """The structure types of a tree, in reading order."""
    element = element.get_object()
    if "/S" in element:
        yield str(element["/S"])
    children = element.get("/K", [])
    for child in children if isinstance(children, list) else [children]:
        if isinstance(child.get_object(), pypdf.generic.DictionaryObject):
            yield from tags(child)


def test_it_is_tagged_titled_and_has_two_pages(full: pypdf.PdfReader) -> None:
    root: Any = full.trailer["/Root"]
    assert len(full.pages) == 2
    assert root["/MarkInfo"]["/Marked"]
    assert root["/Lang"] == "en"
    assert full.metadata is not None
    assert full.metadata.title == "Chest CT: lung measurements and mortality risk"
    found = list(tags(root["/StructTreeRoot"]))
    assert {"/H1", "/H2", "/Table", "/TH", "/TD", "/Figure"} <= set(found)
    assert b"pdfuaid" in root["/Metadata"].get_data()


def test_it_says_everything(full: pypdf.PdfReader) -> None:
    said = text(full)
    assert f"{DEMO} Chest CT" in said
    for words in (
        "Müller Änne", "PAT-0001", "ACC0001", "2026-01-01",  # who and when
        "slices are 4.0 mm apart, more than 1.5 mm", "no contrast agent was recorded",
        "4321", "Upper third of the lungs", "-796",  # of the core
        "Dense tissue (above -250 HU) inside the outlines: 76 ml.", "at least 12 ml", "Skewness", "2.00 5.00",
        "within 5 years 30 % 15 to 60 %", "Spread of 5 models, not the certainty of the risk",
        "Compared with the study of 2025-01-01", "+2.5 points", "Different scanner: was A, now B.", "Chong 2011",
        "2021-01-01*", "2026-01-01 (this scan)",
        "Easthausen 2020", "Hoffman 2014", "Cheng 2019", "multi-ethnic (MESA)",
        "example-bundle 1.2.3", "kernel B60f", "Segmentation: classical 1", "Not a medical device",
    ):  # fmt: skip
        assert words in said, words
    assert "ab" * 32 in said.replace(" ", "")


def test_no_flag_is_left_out_and_clinical_ones_come_first() -> None:
    flags = (
        Flag("priors-late", "warning", "Prior scans did not arrive in time."),
        *(Flag("lossy", "warning", f"Doubt number {k}, which takes some words to say in full.") for k in range(30)),
        Flag("cut-off-base", "error", "The base is missing."),
    )
    said = text(made(dataclasses.replace(FULL, flags=flags)))
    places = [
        said.index(w) for w in ("The base is missing", "Doubt number 0,", "Doubt number 29,", "Prior scans did not")
    ]
    assert places == sorted(places)
    assert all(f"Doubt number {k}," in said for k in range(30))


@pytest.mark.parametrize(
    ("name", "charset", "shown"),
    [
        ("Yamada^Tarou=山田^太郎", ["", "ISO 2022 IR 87"], "Yamada Tarou, 山田 太郎"),
        ("محمد^علي", "ISO_IR 192", "محمد"),
        ('#import "x" *[bold]* $x$ @y <z>', "ISO_IR 192", '#import "x" *[bold]* $x$ @y <z>'),
    ],
)
def test_names_are_text_in_their_own_letters(name: str, charset: str | list[str], shown: str) -> None:
    said = text(made(cases.analysed(), SpecificCharacterSet=charset, PatientName=name, StudyDescription="x"))
    # An extractor may give letters that are written from right to left in the order in which they are drawn.
    assert shown in said or shown[::-1] in said


@pytest.mark.parametrize("keyword", ["PatientID", "PatientName"])
def test_a_long_identifier_stays_on_the_page_and_whole(keyword: str) -> None:
    value = "".join(f"W{k:03}" for k in range(16))
    page = made(cases.analysed(), **{keyword: value}).pages[0]
    ends: list[float] = []

    def seen(words: str, _cm: object, matrix: list[float], font: object, size: float) -> None:
        ends.append(matrix[4] + len(words.strip()) * size * 0.4)  # no letter of these fonts is narrower

    said = page.extract_text(visitor_text=seen)
    assert value in said.replace("\n", "").replace(" ", "")
    assert max(ends) < float(page.mediabox.width)


def letters_of(pdf: bytes) -> Iterator[tuple[float, float, float, float]]:
    """The box of each letter that is seen, in points from the lower left corner."""
    read = pypdfium2.PdfDocument(pdf)
    for page in read:
        words = page.get_textpage()
        for k in range(words.count_chars()):
            if words.get_text_range(k, 1).strip():
                yield words.get_charbox(k)


@settings(deadline=None, max_examples=6)
@given(WORDS, WORDS)
@example(GE, "W" * 64)
@example("W" * 300, "山" * 64)
@example("ക്ഷത്രിയ" * 30, "محمدعلي" * 9)
def test_every_letter_stands_within_the_margins(told: str, who: str) -> None:
    image = cases.synthetic(1)[0]
    image.SpecificCharacterSet = "ISO_IR 192"
    named = "".join(c for c in who if c.isprintable() and c not in "\\^=")[:64]
    for keyword in ("PatientName", "PatientID", "AccessionNumber", "StudyDescription"):
        setattr(image, keyword, named)
    flags = (Flag("scanner", "warning", told), Flag("contrast", "info", told))
    findings = dataclasses.replace(
        FULL,
        flags=flags,
        series=dataclasses.replace(FULL.series, kernel=told, manufacturer=who),
        change=dataclasses.replace(FULL.change, flags=flags[:1]),
        risk=dataclasses.replace(FULL.risk, bundle=told, interval=told),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of odd values
        pdf = pdf_bytes(findings, cases.CONTEXT, cases.reread(image))
    boxes = list(letters_of(pdf))
    assert len(boxes) > 1000
    millimetre = 72 / 25.4
    assert min(left for left, *_ in boxes) > 13 * millimetre
    assert max(right for _, _, right, _ in boxes) < (210 - 13) * millimetre
    assert min(bottom for _, bottom, *_ in boxes) > 0
    assert max(top for *_, top in boxes) < 297 * millimetre


@pytest.mark.parametrize("name", ["สมชาย ใจดี", "राम कुमार", "ہے پاکستان"])
def test_names_of_other_scripts_are_drawn_and_can_be_copied(name: str) -> None:
    image = cases.synthetic(1)[0]
    image.SpecificCharacterSet, image.PatientName = "ISO_IR 192", name
    pdf = pdf_bytes(cases.analysed(), cases.CONTEXT, cases.reread(image))
    said = "".join(p.get_textpage().get_text_range() for p in pypdfium2.PdfDocument(pdf))
    assert "no font" not in said
    assert set(name) <= set(said)
    fonts = {str(font["/BaseFont"]) for page in pypdf.PdfReader(io.BytesIO(pdf)).pages for font in fonts_of(page)}
    assert any("Noto" in font for font in fonts), fonts


def fonts_of(page: Any) -> list[Any]:
    return [font.get_object() for font in page["/Resources"]["/Font"].values()]


@pytest.mark.parametrize(
    "days", [(0.0,), (1.0,), (400.0,), (0.0, 0.0), tuple(15 * 365.25 - 540 * k for k in range(10))]
)
def test_labels_of_the_trend_have_room(days: tuple[float, ...]) -> None:
    """Nothing over another label, and no label on the axis."""
    drawn = ElementTree.fromstring(pictures.trend(days_before(*days)))
    for panel in drawn:
        boxes = []
        for label in panel.iter("{http://www.w3.org/2000/svg}text"):
            wide = style.extent(str(label.text), 9 * 72 / 100)[0]
            left = float(label.attrib["x"]) - (wide / 2 if label.attrib["text-anchor"] == "middle" else 0)
            boxes.append((left, float(label.attrib["y"]) - 8, left + wide, float(label.attrib["y"]) + 2))
        for a, b in combinations(boxes, 2):
            assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1]), (a, b)
        assert all(left > 24 for left, top, *_ in boxes if 12 < top < 88)
        assert all(left >= 0 and right <= 240 for left, _, right, _ in boxes)


def test_one_lung_is_no_pair_with_a_lung_of_nothing() -> None:
    both = cases.analysed()
    one = dataclasses.replace(
        both,
        quantities={k: q for k, q in both.quantities.items() if k != "right"},
        lungs=dataclasses.replace(both.lungs, volume_ml=VolumeMl(2321.0, 2321.0, 0.0)),
    )
    said = text(made(one))
    assert "Left lung 2321" in said
    assert "Both lungs" not in said and "Right lung 0" not in said


def test_a_refusal_says_why_and_has_no_number() -> None:
    pdf = made(cases.refused())
    said = text(pdf)
    assert len(pdf.pages) == 1
    assert "Chest CT: not analysed" in said
    assert "Series 1.2.3.9 (no modality, 2 images): the images state no modality" in said
    assert "no doubts" not in said and "HAA" not in said
    assert "Check the images first" not in said, "a heading with nothing below it"
    assert "1 image)" in said


def test_without_a_header_nobody_is_named() -> None:
    said = text(pypdf.PdfReader(io.BytesIO(pdf_bytes(FULL, cases.CONTEXT))))
    assert "Patient" not in said.replace("22 patients", "").replace("patients", "")
    assert "4321" in said


def test_the_same_findings_make_the_same_bytes_and_other_ones_another_object() -> None:
    first, second = (pdf_bytes(FULL, cases.CONTEXT, cases.synthetic(1)[0], VIEWS) for _ in range(2))
    assert first == second
    objects = [cases.to_bytes(document.encode(cases.synthetic(1)[0], first, FULL, cases.CONTEXT)) for _ in range(2)]
    assert objects[0] == objects[1]
    other = dataclasses.replace(FULL, input_digest="other")
    uids = {document.encode(cases.synthetic(1)[0], first, f, cases.CONTEXT).SOPInstanceUID for f in (FULL, other)}
    assert len(uids) == 2


def test_the_object_holds_the_pdf_and_the_study(full: pypdf.PdfReader) -> None:
    header = cases.synthetic(1)[0]
    pdf = pdf_bytes(FULL, cases.CONTEXT, header, VIEWS)
    report = cases.reread(document.encode(header, pdf, FULL, cases.CONTEXT))
    assert document.pdf_of(report) == pdf
    assert pdf.startswith(b"%PDF-")
    assert (report.Modality, report.MIMETypeOfEncapsulatedDocument) == ("DOC", "application/pdf")
    assert (report.BurnedInAnnotation, report.SeriesNumber) == ("YES", 9007)
    assert report.get_item(Tag("PatientName")).value == "Müller^Änne ".encode()
    assert report.StudyInstanceUID == "1.2.3"
    assert DEMO in report.SeriesDescription
    assert len(full.pages) == 2
    assert np.size(report.SourceInstanceSequence) == 1
