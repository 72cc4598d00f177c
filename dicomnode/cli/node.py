"""The node: run it, check it, test its peers."""

import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dicomnode.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption, TlsOption, configure, find_peer, load, table
from dicomnode.errors import UsageError

app = typer.Typer()
log = logging.getLogger(__name__)

Supervised = Annotated[bool, typer.Option("--supervised", hidden=True)]


@app.command()
def demo(
    given: Annotated[
        Path | None, typer.Option("--input", help="Send this folder's DICOM files, not a synthetic CT.")
    ] = None,
    pacs: Annotated[str | None, typer.Option(help="Send the results to a real PACS: AET@HOST:PORT.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for all output.")] = Path("demo-out"),
) -> None:
    """Run the full pipeline on this machine.

    A study is sent to a node over DICOM, and its results arrive in a small PACS.

    Example: dicomnode demo --input ~/scans/case-7
    """
    from dicomnode.demo import run

    raise SystemExit(run.run(out, given, pacs))


@app.command()
def serve(config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the node: receive, analyse and deliver studies.

    Example: dicomnode serve --config ae_config.toml
    """
    from dicomnode.operations import exposure
    from dicomnode.service import processes, supervisor

    config = configure(config_file, "serve")
    for one in exposure.find(config, config_file):
        log.warning("NOT SAFE (%s): %s", one.what, one.text)
    if not config.storage.state.exists():
        from dicomnode.models import segmenters

        if better := segmenters.first_choice(config.analysis):
            log.info("segmenter %s: %s", config.analysis.segmenter, better)
    supervisor.serve(config, config_file, processes.stopper(supervised=False))


@app.command()
def work(
    config_file: ConfigOption = DEFAULT_CONFIG,
    index: Annotated[int, typer.Option(help="Number of this worker on its machine; keep it across restarts.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:1 for this worker. Default: as configured.")] = "",
    supervised: Supervised = False,
) -> None:
    """Run a single worker for a running node.

    The node itself is run by `serve`, on this machine or another.

    Example: dicomnode work --config ae_config.toml --index 1 --device cuda:1
    """
    from dicomnode.service import processes

    config = configure(config_file, f"worker-{index}")
    if device:
        config = config.on_device(device)
    processes.work(config, index, processes.stopper(supervised=supervised))


@app.command(hidden=True)
def receive(config_file: ConfigOption = DEFAULT_CONFIG, supervised: Supervised = False) -> None:
    """Run a single receiver process (`serve` starts it)."""
    from dicomnode.service import processes

    config = configure(config_file, "receiver")
    processes.receive(config, processes.stopper(supervised=supervised))


@app.command()
def check(
    config_file: ConfigOption = DEFAULT_CONFIG,
    deep: Annotated[bool, typer.Option("--deep", help="Also read every received file and verify its digest.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="A warning counts as a failed check.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check configuration, folders, disk, weights, peers, and what is left open to others.

    Exit status: 0 no problem found (warnings aside), 1 a check failed, 2 usage or configuration error.

    Example: dicomnode check --config ae_config.toml --deep
    """
    from dicomnode.operations import checks

    results = checks.run(load(config_file), deep=deep, file=config_file)
    if as_json:
        typer.echo(json.dumps([asdict(r) for r in results], indent=2))
    else:
        words = ["FAILED" if not r.ok else "WARNING" if r.warning else "ok" for r in results]
        rows = [[word, r.what, r.text] for word, r in zip(words, results, strict=True)]
        table(["", "what", ""], rows, red=[word != "ok" for word in words])
    raise SystemExit(0 if all(r.ok and not (strict and r.warning) for r in results) else 1)


@app.command()
def echo(
    peer: Annotated[str, typer.Argument(metavar="PEER", help="Name of a configured destination, or AET@HOST:PORT.")],
    config_file: ConfigOption = DEFAULT_CONFIG,
    tls: TlsOption = False,
) -> None:
    """Test the connection to a peer.

    By C-ECHO, or by an empty QIDO-RS query if it is a DICOMweb server.

    Example: dicomnode echo ORTHANC@127.0.0.1:4242
    """
    seconds = find_peer(peer, config_file, tls=tls).echo()
    typer.echo(f"{peer} answered in {1000 * seconds:.0f} ms")


@app.command()
def send(
    peer: Annotated[str, typer.Argument(metavar="PEER", help="Name of a configured destination, or AET@HOST:PORT.")],
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES", help="DICOM files or folders; other files in a folder are skipped.", exists=True
        ),
    ],
    config_file: ConfigOption = DEFAULT_CONFIG,
    tls: TlsOption = False,
) -> None:
    """Send DICOM files to a peer (C-STORE or STOW-RS).

    Example: dicomnode send DICOMNODE@127.0.0.1:11112 ~/scans/case-7
    """
    from rich.progress import Progress

    from dicomnode.analysis.series.selection import find_files
    from dicomnode.network.association import sendable

    paths = [p for f in files for p in (sendable(find_files(f)) if f.is_dir() else [f])]
    if not paths:
        raise UsageError(f"{', '.join(map(str, files))}: no DICOM files to send")
    with Progress(disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("sending", total=len(paths))
        sent = find_peer(peer, config_file, tls=tls).send(paths, lambda _path, _sent: bar.advance(task))
    typer.echo(f"{peer} stored {len(sent)} of {len(paths)} objects")
