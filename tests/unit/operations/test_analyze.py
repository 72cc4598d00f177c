"""`dicomnode analyze` as a person sees it."""

from pathlib import Path

import pytest

from dicomnode.config import AnalysisTable
from dicomnode.config.analysis import SelectionTable
from dicomnode.operations import analyze
from tests.helpers.ct_files import ct_series, write


def test_what_stands_in_a_header_is_no_mark_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(ct_series(ConvolutionKernel="[/B] :x:")[:2], tmp_path / "in")
    table = AnalysisTable(radiomics=False, selection=SelectionTable(kernels=("lung",)))
    assert analyze.run(tmp_path / "in", tmp_path / "out", table) == 3
    assert {"[/B]", ":x:"} <= set(capsys.readouterr().out.split())
