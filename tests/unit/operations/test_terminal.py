"""Findings on a terminal."""

from dataclasses import replace
from io import StringIO

from rich.console import Console

from dicomnode.analysis.findings import Findings, Horizon
from dicomnode.operations.terminal import findings_table
from tests.helpers import report_cases as cases


def shown(findings: Findings) -> str:
    text = StringIO()
    findings_table(Console(file=text, width=200, markup=False), findings)
    return text.getvalue()


def test_numbers_look_as_in_the_reports() -> None:
    """A trace is no nothing, and nobody survives or dies for certain."""
    risk = replace(cases.risk(), horizons=(Horizon(1, 0.0004, 0.0001, 0.002), Horizon(5, 0.9996, 0.6, 0.9999)))
    trace = replace(cases.quantities(), laa950_percent=0.01, haa_percent=99.97)
    text = shown(replace(cases.analysed(predicted=risk), quantities={"lungs": trace, "right": trace, "left": trace}))
    assert "<1 %" in text and "60 to >99 %" in text and "<0.1" in text and ">99.9" in text
    assert " 0.0" not in text and "100.0" not in text and "0.0 %" not in text
    assert "-800 " in text and "meaningless for a patient" in text
