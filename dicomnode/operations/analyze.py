"""`dicomnode analyze`: the node's analysis and reports on a folder, with no network and no database."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from dicomnode.analysis.findings import Findings
from dicomnode.analysis.pipeline import analyse
from dicomnode.analysis.series.selection import find_files
from dicomnode.config import AnalysisTable
from dicomnode.errors import UsageError
from dicomnode.files import write_whole
from dicomnode.models.build import method
from dicomnode.operations.terminal import findings_table
from dicomnode.results import encode

#: What lies in the repository and is right for a first look: a demo bundle, which marks every object that it touches.
SHIPPED = AnalysisTable(
    weights=Path(__file__).resolve().parents[2] / "weights", bundle="demo-synthetic", allow_demo_bundles=True
)


def run(source: Path, out: Path, table: AnalysisTable | None, earlier: Sequence[Path] = ()) -> int:
    """Analyse `source` into `out` and print what was found. Returns the exit status: 0 analysed, 3 refused.

    Args:
        source: a file or a folder of DICOM files.
        out: folder of what is written.
        table: the configuration's [analysis]; None for the defaults.
        earlier: findings.json of the patient's other scans, to tell the change since the latest one before this.
    """
    console = Console(markup=False, emoji=False)  # what stands in headers is no mark-up
    before = [_read(path) for path in earlier]
    make_folder(out)
    for name in ("seg.dcm", "measurements.dcm", "risk.dcm", "summary.dcm", "overlay.png"):
        # An earlier run's results must not be taken for this one's.
        (out / name).unlink(missing_ok=True)
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
        how = method(table or SHIPPED)
        analysis = analyse(files, how, lambda stage, _: bar.update(task, description=stage), before)
        if analysis.findings.status == "refused":
            findings = analysis.findings
            write_whole(out / "findings.json", findings.to_json().encode())
        else:
            bar.update(task, description="encode")
            encode.encode(encode.AnalysisCheckpoint.of(analysis), encode.context(time.time()), out)
            findings = Findings.from_json((out / "findings.json").read_text("utf-8"))
    findings_table(console, findings)
    if before and findings.status == "analysed" and findings.change is None:
        text = "no change is told: none of the --earlier findings is of an analysed study with a date before this one's"
        console.print(text, highlight=False)
    console.print(f"written to {out}", highlight=False)
    return 0 if findings.status == "analysed" else 3


def make_folder(folder: Path) -> None:
    """Make the folder that `--out` names where it is missing. Raises UsageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {folder}: this folder cannot be made ({error.strerror})") from None


def _read(path: Path) -> Findings:
    try:
        return Findings.from_json(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"--earlier {path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"--earlier {path} is no findings.json that dicomnode wrote") from None
