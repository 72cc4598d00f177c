"""`dicomnode analyze` as a person sees it."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicomnode.cli import app
from dicomnode.config import AnalysisTable
from dicomnode.config.analysis import SelectionTable
from dicomnode.operations import analyze
from tests.helpers.ct_files import ct_series, write


def test_what_stands_in_a_header_is_no_mark_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(ct_series(ConvolutionKernel="[/B] :x:")[:2], tmp_path / "in")
    table = AnalysisTable(radiomics=False, selection=SelectionTable(kernels=("lung",)))
    assert analyze.run(tmp_path / "in", tmp_path / "out", table) == 3
    assert {"[/B]", ":x:"} <= set(capsys.readouterr().out.split())


@pytest.mark.parametrize("option", ["--prior", "--earlier"])
def test_findings_of_prior_scans_are_named_by_either_option(tmp_path: Path, option: str) -> None:
    write(ct_series()[:2], tmp_path / "in")
    command = ["analyze", str(tmp_path / "in"), "--out", str(tmp_path / "out"), option, str(tmp_path / "none.json")]
    done = CliRunner().invoke(app, command)
    assert str(done.exception) == f"--prior {tmp_path / 'none.json'} cannot be read: No such file or directory"
    assert "--earlier" not in CliRunner().invoke(app, ["analyze", "--help"]).stdout
