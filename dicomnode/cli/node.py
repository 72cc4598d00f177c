"""The node: run it, check it, test its peers."""

import json
import logging
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dicomnode.cli.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    TlsOption,
    configure,
    find_peer,
    load,
    table,
)
from dicomnode.errors import UsageError
from dicomnode.processes import imports
from dicomnode.words.numerals import plural

app = typer.Typer()
log = logging.getLogger(__name__)

#: So long `serve` waits for its first receiver at most, seconds.
_FIRST_S = 10.0

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
    from dicomnode.network import early
    from dicomnode.service import child, signals

    stop, reload = signals.stopper(supervised=False), signals.reloader()
    # Before all else: until it is open nobody can call, and what follows takes seconds.
    first = child.receiver(config_file, 0, early.open_ports(config_file))
    first.start(unheard=True)
    try:
        config = configure(config_file, "serve")
        is_new = not config.storage.state.exists()
        first.listen()
        # What is read below takes seconds of the cores: not before the port is open.
        first.tells_before(time.monotonic() + _FIRST_S, stop)
        with imports():
            from dicomnode.operations import exposure
            from dicomnode.service import supervisor

        for one in exposure.find(config, config_file):
            log.warning("NOT SAFE (%s): %s", one.what, one.text)
        if is_new:
            from dicomnode.models import segmenters

            if better := segmenters.first_choice(config.analysis):
                log.info("segmenter %s: %s", config.analysis.segmenter, better)
    except BaseException:
        first.abandon()
        raise
    supervisor.serve(config, config_file, stop, reload, first)
    signals.leave()


@app.command()
def reload(config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """Let the running node take up its changed configuration, without closing its port.

    A file that is wrong changes nothing. The folders and the database of [storage] change by a restart only.

    Example: dicomnode reload --config ae_config.toml
    """
    from dicomnode.service import reloading

    pid = reloading.ask(load(config_file))
    typer.echo(f"asked process {pid} to reload; its log says what became of it")


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
    with imports():
        from dicomnode.service import processes, signals

    config = configure(config_file, f"worker-{index}")
    if device:
        config = config.on_device(device)
    processes.work(config, index, signals.stopper(supervised=supervised))
    signals.leave()


@app.command(hidden=True)
def receive(
    config_file: ConfigOption = DEFAULT_CONFIG,
    supervised: Supervised = False,
    ready: Annotated[int | None, typer.Option("--ready", hidden=True)] = None,
    opened: Annotated[str, typer.Option("--opened", hidden=True)] = "",
) -> None:
    """Run a single receiver process (`serve` starts it)."""
    with imports():
        from dicomnode.service import processes, signals

    config = configure(config_file, "receiver")
    hurry = signals.SignalRequest()
    processes.receive(config, signals.stopper(supervised=supervised, hurry=hurry), ready, hurry.is_made, opened)
    signals.leave()


@app.command(hidden=True)
def monitor(config_file: ConfigOption = DEFAULT_CONFIG, supervised: Supervised = False) -> None:
    """Answer a monitoring system (`serve` starts it)."""
    from dicomnode.metrics import counters

    counters.stay_apart()
    from dicomnode.monitoring import server
    from dicomnode.service import signals

    config = configure(config_file, "monitoring")
    server.run(config, signals.stopper(supervised=supervised))


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
    typer.echo(f"{peer} stored {len(sent)} of {plural(len(paths), 'object')}")
