"""`dicomnode demo`: a node and a small PACS on this machine; a study goes in, its results come out."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from dicomnode.analysis.findings import Findings
from dicomnode.analysis.series.selection import find_files
from dicomnode.config import USUAL_OBJECTS, Config, DicomDestinationTable, load
from dicomnode.demo.pacs import StoragePeer
from dicomnode.errors import DicomnodeError, PeerError, UsageError
from dicomnode.network import association
from dicomnode.operations.analyze import make_folder, shipped_table
from dicomnode.operations.terminal import findings_table
from dicomnode.outbound import peers
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Delivery, Job
from dicomnode.store.results_folder import FINDINGS, OVERLAY, results_folder
from dicomnode.words.numerals import plural

_PACS_AE, _NODE_AE = "DEMOPACS", "DICOMNODE"
#: Far above what two cores need; only a demo that hangs meets it.
_PATIENCE_S = 900.0

_MADE_BY = "# Made by `dicomnode demo`. The repository's ae_config.toml explains every key."
_CONFIG = """\
{made_by}
[node]
ae_title = "{node_ae}"
host = "127.0.0.1"
port = {node_port}

[settle]
release_s = 1
quiet_s = 5
tick_s = 0.5

[analysis]
weights = {weights}
bundle = "{bundle}"
allow_demo_bundles = true   # a bundle trained on phantoms: every object made with it says so

[[destination]]
name = "pacs"
ae_title = {pacs_ae}
host = {pacs_host}
port = {pacs_port}
retry_first_s = 2
retry_for_s = 60
"""


@dataclass(frozen=True)
class Outcome:
    """How one study ended."""

    job: Job
    findings: Findings | None
    deliveries: tuple[Delivery, ...]


def run(out: Path, given: Path | None, pacs: str | None) -> int:
    """Run the demo in `out` (what an earlier demo left there is replaced). Returns the exit status.

    0: every expected object arrived; 1: something failed or is missing; 3: no study had anything to analyse.
    """
    console = Console(markup=False, emoji=False)  # what stands in headers is no mark-up
    peer = (
        DicomDestinationTable(name="pacs", ae_title=_PACS_AE, host="127.0.0.1", port=1)
        if pacs is None
        else peers.parse(pacs)
    )
    if given is not None and not given.is_dir():
        raise UsageError(f"{given}: no such folder")
    if given is not None and given.resolve().is_relative_to(out.resolve()):
        raise UsageError(
            f"--input {given} is inside --out {out}, which is cleared first: give another folder for --out"
        )
    _clear(out)
    files = association.sendable(find_files(given)) if given is not None else None
    standing = StoragePeer(_PACS_AE, "127.0.0.1", 0, out / "pacs") if pacs is None else None
    if standing is not None:
        peer = peer.model_copy(update={"port": standing.start()})
    config = _configure(out / "ae_config.toml", peer)
    node = _start_node(out)
    try:
        with _bars(console) as bars:
            outcomes = _drive(bars, config, node, files, out)
    finally:
        _stop_node(node)
        if standing is not None:
            standing.stop()
    return _report(console, outcomes, config, out, standing is not None)


def _clear(out: Path) -> None:
    make_folder(out)
    path = out / "ae_config.toml"
    is_ours = path.is_file() and path.read_text("utf-8", "replace").startswith(_MADE_BY)
    if not is_ours and any(p.name != "pacs" for p in out.iterdir()):
        # Perhaps a node's own folder, with its spool.
        raise UsageError(f"--out {out}: this folder is not empty and not from a demo; give a new or empty one")
    for name in ("pacs", "study", "var"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in (FINDINGS, OVERLAY, "node.log"):
        (out / name).unlink(missing_ok=True)
    (out / "pacs").mkdir()


def _configure(path: Path, peer: DicomDestinationTable) -> Config:
    table = shipped_table()
    text = _CONFIG.format(
        made_by=_MADE_BY,
        node_ae=_NODE_AE,
        node_port=_free_port(),
        weights=json.dumps(str(table.weights)),
        bundle=table.bundle,
        pacs_ae=json.dumps(peer.ae_title),
        pacs_host=json.dumps(peer.host),
        pacs_port=peer.port,
    )
    path.write_text(text, encoding="utf-8")
    return load(path)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
    return port


def _start_node(out: Path) -> subprocess.Popen[bytes]:
    with (out / "node.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "dicomnode", "serve", "--config", str(out / "ae_config.toml")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def _stop_node(node: subprocess.Popen[bytes]) -> None:
    node.terminate()
    try:
        node.wait(60)
    except subprocess.TimeoutExpired:
        node.kill()
        node.wait()


def _bars(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", justify="left"),
        BarColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        console=console,
    )


def _drive(
    bars: Progress, config: Config, node: subprocess.Popen[bytes], files: Sequence[Path] | None, out: Path
) -> list[Outcome]:
    if files is None:
        task = bars.add_task("making a synthetic chest CT", total=None, note="")
        from dicomnode.demo import study as demo_study  # noqa: PLC0415  (a second that who gives a folder need not wait)

        files = demo_study.write(out / "study")
        bars.update(task, total=1, completed=1, note=plural(len(files), "image"))
    if not files:
        raise UsageError("no DICOM files to send")
    task = bars.add_task("starting the node", total=None, note="")
    target = association.Peer("node", _NODE_AE, config.node.host, config.node.port, "DEMOSCANNER")
    _wait_for_node(target, node)
    bars.update(task, total=1, completed=1, note=f"{_NODE_AE}@{config.node.host}:{config.node.port}")
    task = bars.add_task("sending", total=len(files), note="C-STORE")
    sent = association.send(target, files, lambda _path, _sent: bars.advance(task))
    bars.update(task, note=f"{len(sent)} of {len(files)} stored")
    return _follow(bars, config, node)


def _wait_for_node(target: association.Peer, node: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        _must_run(node)
        try:
            association.echo(target)
        except PeerError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def _must_run(node: subprocess.Popen[bytes]) -> None:
    if node.poll() is not None:
        raise DicomnodeError(f"the node ended with exit status {node.returncode}: see node.log")


def _follow(bars: Progress, config: Config, node: subprocess.Popen[bytes]) -> list[Outcome]:
    """Watch the catalogue until every study has ended."""
    tasks: dict[str, TaskID] = {}
    deadline = time.monotonic() + _PATIENCE_S
    with closing(Catalog.open(config.catalog_url, config.storage.state)) as catalog:
        while time.monotonic() < deadline:
            _must_run(node)
            studies = catalog.studies(limit=1000)
            for study in studies:
                if study.study_uid not in tasks:
                    tasks[study.study_uid] = bars.add_task(f"study …{study.study_uid[-8:]}", total=None, note="")
                bars.update(tasks[study.study_uid], note=f"{plural(study.instances, 'image')}, {study.state}")
            if studies and all(s.state in ("delivered", "refused", "failed", "held", "cancelled") for s in studies):
                for task in tasks.values():
                    bars.update(task, total=1, completed=1)
                return [_outcome(catalog, config, s.study_uid, s.generation) for s in studies]
            time.sleep(0.2)
    raise DicomnodeError(f"the studies did not end within {_PATIENCE_S:.0f} s: see node.log")


def _outcome(catalog: Catalog, config: Config, study_uid: str, generation: int) -> Outcome:
    path = results_folder(config.storage.results, study_uid, generation) / FINDINGS
    findings = Findings.from_json(path.read_text("utf-8")) if path.exists() else None
    job = catalog.job(study_uid, generation)
    if job is None:
        raise DicomnodeError(f"study {study_uid} has ended without a job: see node.log")
    return Outcome(job, findings, tuple(catalog.deliveries(study_uid, generation)))


def _report(console: Console, outcomes: list[Outcome], config: Config, out: Path, own_pacs: bool) -> int:
    arrived = True
    analysed = [o for o in outcomes if o.findings is not None and o.findings.status == "analysed"]
    for outcome in sorted(outcomes, key=lambda o: o in analysed):
        console.rule(f"study {outcome.job.study_uid}: {outcome.job.state}", align="left")
        if outcome.job.state == "failed":
            console.print(outcome.job.reason or "")
            arrived = False
        if outcome.findings is not None:
            findings_table(console, outcome.findings)
        if outcome in analysed:
            arrived &= _objects(console, outcome, out / "pacs" if own_pacs else None)
    if not analysed:
        console.print("No study contained a suitable chest CT.")
        return 1 if not arrived else 3
    best = max(analysed, key=lambda o: o.findings.series.slices if o.findings and o.findings.series else 0)
    folder = results_folder(config.storage.results, best.job.study_uid, best.job.generation)
    for name in (FINDINGS, OVERLAY):
        shutil.copyfile(folder / name, out / name)
    console.print(f"The PACS holds {'all' if arrived else 'NOT all'} expected objects.")
    console.print(f"See {(out / OVERLAY).resolve()}", soft_wrap=True)
    return 0 if arrived else 1


def _objects(console: Console, outcome: Outcome, pacs: Path | None) -> bool:
    """Print what the PACS holds of one study. True if it holds all that was expected."""
    assert outcome.findings is not None
    table = Table("object", "SOP Instance UID", "in the PACS", title="Results", title_justify="left")
    found = {d.object: d for d in outcome.deliveries}
    # Its configuration asks for no attenuation maps.
    unless = {"attenuation", *(() if outcome.findings.risk is not None else ("risk",))}
    expected = [name for name in USUAL_OBJECTS if name not in unless]
    complete = True
    for name in expected:
        d = found.get(name)
        here = (
            d is not None
            and d.state == "delivered"
            and (pacs is None or (pacs / f"{d.sop_instance_uid}.dcm").is_file())
        )
        complete &= here
        table.add_row(name, d.sop_instance_uid if d else "-", "yes" if here else f"NO: {d.text if d else 'not made'}")
    console.print(table)
    return complete
