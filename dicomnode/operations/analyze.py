"""`dicomnode analyze`: the node's analysis and reports on a folder, with no network and no database."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

import dicomnode
from dicomnode.analysis.findings import Findings, Reason, RejectedSeries
from dicomnode.analysis.series.selection import find_files
from dicomnode.config import OBJECTS, AnalysisTable
from dicomnode.errors import UsageError
from dicomnode.files import FOLDER_MODE, parse_toml, shipped, write_whole
from dicomnode.operations.terminal import findings_table
from dicomnode.results import encode
from dicomnode.store.results_folder import FINDINGS, OVERLAY, report_file

if TYPE_CHECKING:
    from dicomnode.analysis.pipeline import Method


def shipped_table() -> AnalysisTable:
    """Return the settings for a first look, with the shipped bundle, which marks every object it touches.

    Raises:
        FileNotFoundError: this installation has no such bundle.
    """
    return AnalysisTable(weights=shipped("weights"), bundle="demo-synthetic", allow_demo_bundles=True)


def refused(out: Path, why: str) -> int:
    """Leave the findings of a study that broke a limit, and print them. Returns the exit status, 3."""
    reason = Reason("too-large", f"The study is too large: {why}.")
    findings = Findings(
        "refused", None, (RejectedSeries("", "", 0, (reason,)),), software_version=dicomnode.__version__
    )
    write_whole(out / FINDINGS, findings.to_json().encode())
    findings_table(Console(markup=False, emoji=False), findings)
    return 3


def run(
    source: Path,
    out: Path,
    table: AnalysisTable | None,
    priors: Sequence[Path] = (),
    memory_bytes: int | None = None,
    covariates: Path | None = None,
    *,
    attenuation_maps: bool = False,
) -> int:
    """Analyse `source` into `out` and print what was found. Returns the exit status: 0 analysed, 3 refused.

    Args:
        source: a file or a folder of DICOM files.
        out: folder for the results.
        table: the configuration's [analysis]; None for the defaults.
        priors: findings.json of the patient's other scans, for the change since the latest one before this.
        memory_bytes: what the analysis may use.
        covariates: TOML with what the bundle takes of the patient beside the image, `name = value`; None for nothing.
        attenuation_maps: whether the areas by attenuation are wanted as a segmentation of their own.
    """
    console = Console(markup=False, emoji=False)  # what stands in headers is no mark-up
    before = [_read(path) for path in priors]
    given = {} if covariates is None else _covariates(covariates)
    make_folder(out)
    # Here, because it takes a second, and who used the command wrongly should not wait for it.
    from dicomnode.analysis.pipeline import analyse  # noqa: PLC0415
    from dicomnode.models.build import method  # noqa: PLC0415

    # An earlier run's results must not be taken for this one's.
    for path in (*(report_file(out, name) for name in OBJECTS), out / OVERLAY):
        path.unlink(missing_ok=True)
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task("preparing", total=None)
        files = find_files(source) if source.is_dir() else [source]
        how = method(table or shipped_table())
        if covariates is not None:
            _check_known(covariates, given, how)
            how = replace(how, covariates=given)

        def show(stage: str, share: float) -> None:
            bar.update(task, description=f"{stage} {100 * share:.0f} %" if share else stage)

        analysis = analyse(files, how, show, before, memory_bytes)
        if analysis.findings.status == "refused":
            findings = analysis.findings
            write_whole(out / FINDINGS, findings.to_json().encode())
        else:
            bar.update(task, description="encode")
            highest = analysis.findings.highest_series_number
            how_made = encode.context(time.time(), highest_series_number=highest)
            checkpoint = encode.AnalysisCheckpoint.of(analysis, attenuation_maps=attenuation_maps)
            encode.encode(checkpoint, how_made, out)
            findings = Findings.from_json((out / FINDINGS).read_text("utf-8"))
    findings_table(console, findings)
    if before and findings.status == "analysed" and findings.change is None:
        text = "no change reported: none of the --prior files is an analysed study dated before this one"
        console.print(text, highlight=False)
    console.print(f"results written to {out}", highlight=False)
    return 0 if findings.status == "analysed" else 3


def _covariates(path: Path) -> dict[str, float | str]:
    try:
        stored = parse_toml(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"--covariates {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"--covariates {path} is not TOML: {error}") from None
    for name, value in stored.items():
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise UsageError(f"--covariates {path}: {name}: write a number, or a category in quotes")
    return stored


def _check_known(path: Path, given: Mapping[str, float | str], how: "Method") -> None:
    declared = () if how.bundle is None else how.bundle.manifest.covariates
    names = [one.name for one in declared]
    if odd := sorted(set(given) - set(names)):
        takes = ", ".join(f"{one.name} ({one.described})" for one in declared) or "none"
        raise UsageError(f"--covariates {path}: the bundle does not take {', '.join(odd)}; it takes: {takes}")


def make_folder(folder: Path) -> None:
    """Make the folder that `--out` names where it is missing. Raises UsageError."""
    try:
        folder.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {folder}: cannot create this folder ({error.strerror})") from None


def _read(path: Path) -> Findings:
    try:
        return Findings.from_json(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"--prior {path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"--prior {path} is not a findings.json written by dicomnode") from None
