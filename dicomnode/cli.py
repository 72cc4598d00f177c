"""The `dicomnode` command. Each command imports what it needs, so that `--help` answers at once."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from dicomnode import __version__
from dicomnode.errors import DicomnodeError, UsageError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from dicomnode.config import Config
    from dicomnode.dimse.sender import Destination

app = typer.Typer(
    help="A DICOM node that reads systemic-sclerosis lung disease from chest CT. Research use only.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
jobs_app = typer.Typer(help="What the node has received, analysed and delivered.", no_args_is_help=True)
app.add_typer(jobs_app, name="jobs")
weights_app = typer.Typer(help="Other people's networks that segment lungs and lobes.", no_args_is_help=True)
app.add_typer(weights_app, name="weights")

DEFAULT_CONFIG = Path("ae_config.toml")
ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Supervised = Annotated[bool, typer.Option("--supervised", hidden=True)]


def main() -> None:
    """The entry point, and the one place where errors become messages and exit statuses."""
    try:
        app(prog_name="dicomnode")
    except DicomnodeError as e:
        fail(e)


def fail(error: DicomnodeError) -> NoReturn:
    """Print the message and leave with the error's exit status."""
    print(f"dicomnode: {error}", file=sys.stderr)  # noqa: T201
    raise SystemExit(error.exit_code)


def _version(show: bool) -> None:
    if show:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    _show: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A DICOM node that reads systemic-sclerosis lung disease from chest CT. Research use only."""


@app.command()
def demo(
    given: Annotated[Path | None, typer.Option("--input", help="Send this folder's DICOM files instead.")] = None,
    pacs: Annotated[str | None, typer.Option(help="Send results to a real PACS: AET@HOST:PORT.")] = None,
    out: Annotated[Path, typer.Option(help="The folder that everything goes to.")] = Path("demo-out"),
) -> None:
    """Show the whole way: a study goes in over DICOM, its results arrive in a PACS.

    Example: dicomnode demo --input ~/scans/case-7
    """
    from dicomnode import demo as show

    raise SystemExit(show.run(out, given, pacs))


@app.command()
def serve(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the node: receive, analyse, deliver.

    Example: dicomnode serve --config ae_config.toml
    """
    from dicomnode import processes, service

    settings = _configure(config, "serve")
    service.serve(settings, config, processes.stopper(supervised=False))


@app.command()
def work(
    config: ConfigOption = DEFAULT_CONFIG,
    index: Annotated[int, typer.Option(help="Tells the workers of one machine apart; keep it over restarts.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:1, for this worker; else the configuration's.")] = "",
    supervised: Supervised = False,
) -> None:
    """Run one worker alone, beside a node that `serve` runs here or elsewhere.

    Example: dicomnode work --config ae_config.toml --index 1 --device cuda:1
    """
    from dicomnode import processes

    settings = _configure(config, f"worker-{index}")
    if device:
        settings = settings.on_device(device)
    processes.work(settings, index, processes.stopper(supervised=supervised))


@app.command(hidden=True)
def receive(config: ConfigOption = DEFAULT_CONFIG, supervised: Supervised = False) -> None:
    """Run the receiving process alone (`serve` starts it)."""
    from dicomnode import processes

    settings = _configure(config, "receiver")
    processes.receive(settings, processes.stopper(supervised=supervised))


@app.command()
def check(
    config: ConfigOption = DEFAULT_CONFIG,
    deep: Annotated[bool, typer.Option("--deep", help="Also read every received file and compare its digest.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check the configuration, the folders, the disk, the weights and the peers.

    Exit status: 0 all is well, 1 something would not work, 2 the configuration itself is wrong.
    """
    from dicomnode import checks

    results = checks.run(_load(config), deep=deep)
    if as_json:
        typer.echo(json.dumps([{"what": r.what, "ok": r.ok, "text": r.text} for r in results], indent=2))
    else:
        _table(["", "what", ""], [["ok" if r.ok else "FAILED", r.what, r.text] for r in results])
    raise SystemExit(0 if all(r.ok for r in results) else 1)


@app.command()
def echo(
    peer: Annotated[
        str, typer.Argument(metavar="PEER", help="A destination's name from the configuration, or AET@HOST:PORT.")
    ],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Ask a peer for a sign of life (C-ECHO).

    Example: dicomnode echo ORTHANC@127.0.0.1:4242
    """
    from dicomnode.dimse import sender

    seconds = sender.echo(_peer(peer, config))
    typer.echo(f"{peer} answered in {1000 * seconds:.0f} ms")


@app.command()
def send(
    peer: Annotated[
        str, typer.Argument(metavar="PEER", help="A destination's name from the configuration, or AET@HOST:PORT.")
    ],
    files: Annotated[list[Path], typer.Argument(metavar="FILES", help="DICOM files and folders.", exists=True)],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Send DICOM files to a peer (C-STORE).

    Example: dicomnode send DICOMNODE@127.0.0.1:11112 ~/scans/case-7
    """
    from rich.progress import Progress

    from dicomnode.analysis.series import find_files
    from dicomnode.dimse import sender

    paths = [p for f in files for p in (find_files(f) if f.is_dir() else [f])]
    if not paths:
        raise UsageError(f"{', '.join(map(str, files))}: there are no files to send")
    with Progress(disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("sending", total=len(paths))
        sent = sender.send(_peer(peer, config), paths, lambda _path, _sent: bar.advance(task))
    typer.echo(f"{peer} stored {len(sent)} of {len(paths)} objects")


@app.command()
def analyze(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="A folder of DICOM files, or one file.")],
    out: Annotated[Path, typer.Option(help="The folder for the results.")],
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Take the table [analysis] of this file; else what is shipped."),
    ] = None,
    earlier: Annotated[
        list[Path] | None,
        typer.Option(help="findings.json of another scan of the same patient, to tell the change; repeat for more."),
    ] = None,
) -> None:
    """Analyse a study without network and database.

    Exit status: 0 analysed, 3 refused (findings.json says why), 2 wrong usage.

    Example: dicomnode analyze ~/scans/case-7 --out case-7-results
    """
    from dicomnode import offline

    if not source.exists():
        raise UsageError(f"{source}: there is no such file or folder")
    raise SystemExit(offline.run(source, out, None if config is None else _load(config).analysis, earlier or ()))


@app.command()
def explain(
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder of DICOM files, or one file.")],
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Take the rules of this file; else the defaults.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell which series would be analysed, and why not the others.

    Exit status: 0 a series is suitable, 3 none is.

    Example: dicomnode explain ~/scans/case-7
    """
    from dataclasses import asdict

    from dicomnode import explain as explaining
    from dicomnode.analysis.rules import DEFAULT

    if not source.exists():
        raise UsageError(f"{source}: there is no such file or folder")
    found = explaining.explain(source, DEFAULT if config is None else _load(config).analysis.selection.rules)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2, ensure_ascii=False))
    else:
        _table(
            ["series", "modality", "slices", "step, mm", "kernel", "covers, mm", "decision"],
            [
                [
                    f"{r.series_uid} {r.part}".strip(),
                    r.modality,
                    str(r.slices),
                    "-" if r.step_mm is None else f"{r.step_mm:.2f}",
                    r.kernel or "-",
                    "-" if r.coverage_mm is None else f"{r.coverage_mm:.0f}",
                    r.decision,
                ]
                for r in found.rows
            ],
        )
        for flag in found.flags:
            typer.echo(flag)
    raise SystemExit(0 if any(r.chosen for r in found.rows) else 3)


@jobs_app.command("list")
def jobs_list(
    config: ConfigOption = DEFAULT_CONFIG,
    state: Annotated[str | None, typer.Option(help="Only the jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the jobs, the newest first."""
    from dicomnode import jobs

    rows = jobs.overview(_load(config), state, limit)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    _table(
        ["study", "gen.", "state", "images", "last image", "delivered", "reason", "flags"],
        [
            [
                r["study_uid"],
                str(r["generation"]),
                r["state"],
                str(r["instances"]),
                r["last_seen"],
                r["delivered"],
                r["reason"],
                r["flags"],
            ]
            for r in rows
        ],
    )


StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="Study Instance UID.")]
GenerationOption = Annotated[int | None, typer.Option(help="The generation; else the latest.")]


@jobs_app.command("show")
def jobs_show(
    study_uid: StudyArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    generation: GenerationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one job: its state, its series, its deliveries."""
    from dicomnode import jobs

    shown = jobs.details(_load(config), study_uid, generation)
    if as_json:
        typer.echo(json.dumps(shown, indent=2))
        return
    _table(["", ""], [[k, str(v)] for k, v in shown.items() if not isinstance(v, list)])
    if shown["series"]:
        _table(
            ["series", "modality", "slices", "what was decided"], [list(map(str, s.values())) for s in shown["series"]]
        )
    if shown["deliveries"]:
        _table(
            ["destination", "object", "state", "attempts", "status", "what it said"],
            [list(map(str, d.values())) for d in shown["deliveries"]],
        )
    if shown["conflicts"]:
        _table(
            ["came with other content", "SHA-256 (its name in the quarantine)", "received"],
            [list(map(str, c.values())) for c in shown["conflicts"]],
        )


@jobs_app.command("retry")
def jobs_retry(
    study_uid: StudyArgument, config: ConfigOption = DEFAULT_CONFIG, generation: GenerationOption = None
) -> None:
    """Run a failed, refused or cancelled job again; where only deliveries failed, try them again.

    What a destination has accepted is not sent twice.
    """
    from dicomnode import jobs

    typer.echo(jobs.retry(_load(config), study_uid, generation))


@jobs_app.command("cancel")
def jobs_cancel(
    study_uid: StudyArgument, config: ConfigOption = DEFAULT_CONFIG, generation: GenerationOption = None
) -> None:
    """Cancel a job that has not ended; what it received is kept."""
    from dicomnode import jobs

    typer.echo(jobs.cancel(_load(config), study_uid, generation))


@weights_app.command("list")
def weights_list(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """List the known weights, and the digests of those that are installed."""
    from dicomnode import weights

    here = weights.installed(_load(config).analysis.weights)
    _table(
        ["name", "file", "finds", "installed, sha256"],
        [[k.name, k.file, k.what, here[k.file].sha256 if k.file in here else "no"] for k in weights.KNOWN],
    )


@weights_app.command("fetch")
def weights_fetch(
    names: Annotated[list[str], typer.Argument(help="R231, LTRCLobes, R231CovidWeb.")],
    config: ConfigOption = DEFAULT_CONFIG,
    mirror: Annotated[str | None, typer.Option(help="A URL of a folder with the same files.")] = None,
) -> None:
    """Download weights into the weights folder; a download that was cut off goes on.

    Example: dicomnode weights fetch R231 --mirror https://files.hospital.example/lungmask
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    from dicomnode import weights

    settings = _load(config)
    wanted = [weights.find(name) for name in names]
    with Progress(
        "{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), disable=not sys.stderr.isatty()
    ) as bar:
        for known in wanted:
            show = partial(_advance, bar, bar.add_task(known.name, total=None))
            address = settings.weights.mirror if mirror is None else mirror
            done = weights.fetch(known, settings.analysis.weights, address, show)
            typer.echo(f"{known.name} is installed: {done.path}, sha256 {done.sha256}")


@weights_app.command("install")
def weights_install(
    files: Annotated[list[Path], typer.Argument(help="Weights files under their published names.", exists=True)],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Install files that were carried here, where there is no internet.

    Example: dicomnode weights install /media/usb/unet_r231-d5d2fc3d.pth
    """
    from dicomnode import weights

    folder = _load(config).analysis.weights
    for file in files:
        done = weights.install(file, folder)
        typer.echo(f"{done.path} is installed, sha256 {done.sha256}")


@weights_app.command("verify")
def weights_verify(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Compare installed weights and bundles with their digests, and recompute the bundles' golden cases.

    Exit status: 0 all is well (or nothing is installed), 4 something is not what was installed.
    """
    from dicomnode import weights

    verdicts = list(weights.verify(_load(config).analysis.weights))
    _table(["", "what", ""], [["ok" if v.ok else "FAILED", v.name, v.text] for v in verdicts])
    raise SystemExit(0 if all(v.ok for v in verdicts) else 4)


def _advance(bar: "Progress", task: "TaskID", have: int, total: int | None) -> None:
    bar.update(task, completed=have, total=total)


def _load(path: Path) -> "Config":
    from dicomnode import config

    return config.load(path)


def _configure(path: Path, process: str) -> "Config":
    from dicomnode import logs

    settings = _load(path)
    logs.configure(settings.logging.level, process)
    return settings


def _peer(text: str, path: Path) -> "Destination":
    from dicomnode.peers import find

    return find(text, path)


def _table(columns: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 200, markup=False).print(table)
