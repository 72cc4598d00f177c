"""The report's PDF: tagged (PDF/UA-1), with real text and the fonts embedded, the same bytes for the same findings."""

import json
from dataclasses import asdict
from functools import cache
from importlib import resources

import typst
from pydicom.dataset import Dataset

from dicomnode.analysis.findings import Findings
from dicomnode.report import letters
from dicomnode.report.context import Context
from dicomnode.report.page.views import Views
from dicomnode.report.pdf import pictures
from dicomnode.report.pdf.content import Pictures, content


def pdf_bytes(findings: Findings, context: Context, header: Dataset | None = None, views: Views | None = None) -> bytes:
    """Return the report as a PDF.

    The encapsulated object holds exactly these bytes (`document.pdf_of`).

    Args:
        findings: of the study, also of a refused one.
        context: the result's circumstances; its time is the PDF's.
        header: of an image of the study, for patient and order; without it the PDF names nobody. It is not changed.
        views: the slices to show; without them there are no pictures.
    """
    shown = Pictures(
        slices="" if views is None else pictures.slices(views),
        trend=pictures.trend(findings) if findings.trend else "",
        looked="" if views is None else pictures.looked(findings, views),
    )
    data = asdict(content(findings, context, header, shown))
    data["fonts"] = [family for family in letters.fonts() if family != letters.ARABIC]
    compiler = typst.Compiler(
        input=_template(), font_paths=_fonts(), ignore_system_fonts=True, sys_inputs={"data": json.dumps(data)}
    )
    made = compiler.compile(format="pdf", pdf_standards=["ua-1"], timestamp=round(context.created.timestamp()))
    assert isinstance(made, bytes)
    return made


def _template() -> bytes:
    return resources.files("dicomnode.report.pdf").joinpath("template.typ").read_bytes()


@cache
def _fonts() -> typst.Fonts:
    # Only fonts that come with our dependencies: the report looks the same on every machine.
    return typst.Fonts(include_system_fonts=False, include_embedded_fonts=False, font_paths=letters.font_folders())
