"""The kill campaign: processes of a running node are killed at random moments while studies arrive.

    python -m tests.faults.campaign --kills 300 --seed 7 --database both --audit --out /tmp/campaign

With `--stow` the scanners send by STOW-RS, and the receiver is the console's process.

Killed with SIGKILL: the receiver, the worker, the clock, the senders, and the database server where it is PostgreSQL.
At the end: every acknowledged image must be there as it was sent, and every study's results must be in the PACS, each
object once, byte for byte what an undisturbed run makes of the same files. With `--audit`, every acknowledged image and
every delivered object must also be in the audit trail.
"""

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from dicomnode import config
from dicomnode.analysis.findings import Findings
from dicomnode.analysis.pipeline import analyse
from dicomnode.audit import trail
from dicomnode.audit.messages import AuditPeer
from dicomnode.demo.pacs import StoragePeer
from dicomnode.models.build import method
from dicomnode.network.tls import ReloadingContext
from dicomnode.operations import web_tokens
from dicomnode.reception.spooled import digest, split
from dicomnode.results import encode, reader_flags
from dicomnode.service.processes import prepare_folders
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.results_folder import results_folder
from tests.faults import roles
from tests.faults.studies import make_study, study_uid
from tests.helpers.certificates import Authority, fingerprint, toml
from tests.helpers.databases import PostgreSQL
from tests.helpers.ports import free_port
from tests.helpers.prerequisites import check_or_exit, data_folder

#: How often each is hit. The database is among them only where it is a server.
WEIGHTS = {"receiver": 35, "worker": 25, "sender": 25, "clock": 5, "database": 10}
#: Studies under way at the same time.
AT_ONCE = 3
#: Every third slice: 27 images, sent and analysed in a second between two kills.
EVERY = 3
#: What every scanner sends, in the test data.
SCAN = "chest_tiny_cip/ct-64Dicom"
_ENDED = ("delivered", "committed")


class WatchfulPacs(StoragePeer):
    """A PACS that notices when an object comes again with other content."""

    def __init__(self, folder: Path, security: ReloadingContext | None) -> None:
        super().__init__("PACS", "127.0.0.1", free_port(), folder, security=security)
        self.came: Counter[str] = Counter()
        self.changed: set[str] = set()

    def _store(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        path = self._path(uid)
        before = path.read_bytes() if path.exists() else None
        status = super()._store(event)
        self.came[uid] += 1
        if before is not None and before != path.read_bytes():
            self.changed.add(uid)
        return status


@dataclass
class Verdict:
    """What the campaign found; `faults` is empty when all is well."""

    kills: Counter[str] = field(default_factory=Counter)
    studies: int = 0
    acknowledged: int = 0
    generations: int = 0
    objects: int = 0
    replaced: int = 0
    sent_twice: int = 0
    seconds: float = 0.0
    events: int = 0
    events_twice: int = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        hits = ", ".join(f"{role} {n}" for role, n in sorted(self.kills.items()))
        lines = [
            f"{sum(self.kills.values())} SIGKILLs ({hits}) in {self.seconds:.0f} s",
            f"{self.studies} studies in {self.generations} generations, {self.acknowledged} acknowledged images",
            f"{self.objects} objects in the PACS, each once; {self.replaced} of them are earlier results that a newer "
            f"generation has replaced; {self.sent_twice} came more than once, with the same bytes",
            *([f"{self.events} audit events, {self.events_twice} of them sent twice"] if self.events else []),
            *(f"FAULT: {fault}" for fault in self.faults),
            "verdict: " + ("nothing lost, nothing doubled, nothing changed" if not self.faults else "FAILED"),
        ]
        return "\n".join(lines)


class Campaign:
    """One campaign on one database, of at most `most` studies. `say` gets the history, line by line."""

    def __init__(
        self,
        folder: Path,
        source: Path,
        seed: int,
        *,
        postgresql: bool,
        tls: bool = False,
        pause_s: float,
        say: Callable[[str], None],
        most: int = 10_000,
        audit: bool = False,
        stow: bool = False,
    ) -> None:
        self.folder, self.source, self.say = folder, source, say
        self.random = random.Random(seed)
        self.pause_s, self.most, self.audit, self.stow = pause_s, most, audit, stow
        self.verdict = Verdict()
        self.began = time.monotonic()
        hospital = Authority(folder / "tls") if tls else None
        names = ("node", "scanner", "pacs")
        node, scanner, pacs = (None if hospital is None else hospital.files(name) for name in names)
        self.tls, self.scanner = node, scanner
        self.pacs = WatchfulPacs(folder / "pacs", None if pacs is None else ReloadingContext(pacs, server=True))
        self.database = PostgreSQL(folder / "postgresql").start() if postgresql else None
        self.port = free_port()
        self.path = folder / "ae_config.toml"
        self.path.write_text(self._toml())
        self.config = config.load(self.path)
        prepare_folders(self.config)
        self.token = web_tokens.add(self.config, "scanner", "reader", "SCANNER", time.time()) if stow else ""
        self.fork = multiprocessing.get_context("forkserver")
        self.fork.set_forkserver_preload(roles.PRELOAD)
        self.processes: dict[str, BaseProcess] = {}
        self.numbers = itertools.count(1)
        self.sending: dict[str, BaseProcess] = {}
        self.names: list[str] = []

    def _toml(self) -> str:
        url = "" if self.database is None else self.database.url
        listening = f"port = {self.port}"
        secured = certificates = console = ""
        if self.stow:
            listening = ""
            console = f"[console]\nenabled = true\ndicomweb = true\nport = {self.port}\n"
        if self.tls is not None and self.scanner is not None:
            listening = f"plain = false\ntls_port = {self.port}"
            proof = f'certificates = ["{fingerprint(self.scanner.certificate)}"]'
            certificates = toml(self.tls) + f'[[node.callers]]\nae_title = "SCANNER"\n{proof}\n'
            secured = "tls = true"
        return f"""
[node]
{listening}
[settle]
release_s = 0.3
quiet_s = 20
tick_s = 0.25
[storage]
minimum_free_gb = 0.1
database_url = {json.dumps(url)}
[analysis]
radiomics = false
[[destination]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = {self.pacs.port}
retry_first_s = 0.3
retry_longest_s = 2
{secured}
{certificates}
{console}
[audit]
to = "{"file" if self.audit else "off"}"
file = "audit.log"
"""

    def run(self, kills: int) -> Verdict:
        """Kill `kills` times while studies arrive, let all come to its end, judge."""
        self.pacs.start()
        try:
            for role in ("receiver", "worker", "clock"):
                self._start(role)
            for _ in range(kills):
                self._feed()
                time.sleep(self.random.uniform(0.1, 2 * self.pause_s))
                self._kill()
            self.say("no more kills: waiting for what is under way")
            self._finish()
            self._judge()
        finally:
            for process in [*self.processes.values(), *self.sending.values()]:
                process.kill()
                process.join()
            self.pacs.stop()
            if self.database is not None:
                self.database.stop()
        self.verdict.seconds = time.monotonic() - self.began
        return self.verdict

    # Processes

    def _start(self, role: str) -> None:
        receive = roles.receive_by_web if self.stow else roles.receive
        target = {"receiver": receive, "worker": roles.work, "clock": roles.tick}[role]
        process = self.fork.Process(target=target, args=(self.path, self.folder / f"{role}.log"), name=role)
        process.start()
        self.processes[role] = process

    def _start_sender(self, name: str) -> None:
        scans, log = self.folder / "scans" / name, self.folder / "sender.log"
        arguments = (self.port, scans, self._acknowledged(name), log, self.scanner, self.token)
        process = self.fork.Process(target=roles.send, args=arguments, name=name)
        process.start()
        self.sending[name] = process

    def _acknowledged(self, name: str) -> Path:
        return self.folder / "scans" / f"{name}.acknowledged"

    def _feed(self) -> None:
        """Bring in the next study when there is room; start again whoever has ended by himself."""
        for name, process in list(self.sending.items()):
            if not process.is_alive():
                process.join()
                del self.sending[name]
                if process.exitcode != 0:
                    self._start_sender(name)
        for role, process in list(self.processes.items()):
            if not process.is_alive():
                self.say(f"{self._at()} {role} ended by itself with {process.exitcode}, and is started again")
                self._start(role)
        if len(self.names) < self.most and len(self.sending) < AT_ONCE and self._unfinished() < 2 * AT_ONCE:
            name = f"{next(self.numbers):03}"
            make_study(self.source, self.folder / "scans" / name, name, EVERY)
            self.names.append(name)
            self._start_sender(name)

    def _unfinished(self) -> int:
        return len(self.names) - len({d.name for d in self.pacs.folder.glob("*.dcm")}) // 3

    def _kill(self) -> None:
        """Kill one that lives; one that ended by itself in this moment does not count."""
        while True:
            alive = {name: process for name, process in self.sending.items() if process.is_alive()}
            absent = {"database"} if self.database is None else set()
            absent |= set() if alive else {"sender"}
            weights = {role: weight for role, weight in WEIGHTS.items() if role not in absent}
            (role,) = self.random.choices(list(weights), list(weights.values()))
            name = self.random.choice(sorted(alive)) if role == "sender" else role
            if role == "database" and self.database is not None:
                self._kill_database(self.database)
                return
            if self._hit(role, name, alive[name] if role == "sender" else self.processes[role]):
                return

    def _kill_database(self, database: PostgreSQL) -> None:
        database.kill()
        self.verdict.kills["database"] += 1
        self._told("database", 0)
        time.sleep(self.random.uniform(0, 0.5))
        database.start()

    def _hit(self, role: str, name: str, process: BaseProcess) -> bool:
        assert process.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        killed = process.exitcode == -signal.SIGKILL
        if killed:
            self.verdict.kills[role] += 1
            self._told(role, process.pid)
        if role != "sender":
            self._start(role)
        elif process.exitcode != 0:
            self._start_sender(name)
        else:
            del self.sending[name]
        return killed

    def _told(self, role: str, pid: int) -> None:
        number = sum(self.verdict.kills.values())
        self.say(
            f"{self._at()} kill {number:3}: {role} {pid or ''} with {len(self.names)} studies begun, "
            f"{sum(self.pacs.came.values())} objects at the PACS"
        )

    def _at(self) -> str:
        return f"{time.monotonic() - self.began:7.1f} s"

    def _finish(self, patience_s: float = 240) -> None:
        catalog = Catalog.open(self.config.catalog_url, self.config.storage.state)
        deadline = time.monotonic() + patience_s
        states: dict[str, Any] = {}
        try:
            while time.monotonic() < deadline:
                for name, process in list(self.sending.items()):
                    if not process.is_alive():
                        process.join()
                        del self.sending[name]
                states = {name: catalog.study(study_uid(name)) for name in self.names}
                ended = not self.sending and all(s is not None and s.state in _ENDED for s in states.values())
                if ended and self._is_told(catalog):
                    return
                time.sleep(0.5)
            left = {name: s.state if s else "unknown" for name, s in states.items() if not s or s.state not in _ENDED}
            self.verdict.faults.append(f"not at an end after {patience_s:.0f} s: {left}, sending {list(self.sending)}")
        finally:
            catalog.close()

    def _is_told(self, catalog: Catalog) -> bool:
        """Whether the audit trail has nothing left to tell."""
        if not self.audit:
            return True
        with catalog._read() as connection:
            is_open = connection.exec_driver_sql("SELECT count(*) FROM associations WHERE closed IS NULL").scalar_one()
        if is_open or catalog.audit_backlog()[0]:
            return False
        # What a killed worker has delivered is told by the clock, after minutes.
        for uid, generation, destination in catalog.sent_untold(time.time() - 5):
            trail.begin(self.config.audit.source("DICOMNODE"))
            catalog.tell_sent(uid, generation, destination, AuditPeer("PACS", "127.0.0.1"), time.time())
            trail.begin(None)
        return not catalog.sent_untold(time.time()) and not catalog.audit_backlog()[0]

    # Judgement

    def _judge(self) -> None:
        catalog = Catalog.open(self.config.catalog_url, self.config.storage.state)
        try:
            self._judge_images(catalog)
            expected: dict[str, str] = {}
            for name in self.names:
                expected |= self._judge_results(catalog, name)
            held = {path.stem for path in self.pacs.folder.glob("*.dcm")}
            for uid in sorted(held - expected.keys()):
                self.verdict.faults.append(f"the PACS holds {uid}, which no generation of a study has delivered")
            for uid in sorted(self.pacs.changed):
                self.verdict.faults.append(f"{uid} came a second time with other content")
            if self.audit:
                self._judge_audit(catalog)
            self.verdict.objects = len(held)
            self.verdict.replaced = len(held & expected.keys() - self._newest(catalog))
            self.verdict.sent_twice = sum(1 for n in self.pacs.came.values() if n > 1)
            self.verdict.studies = len(self.names)
        finally:
            catalog.close()

    def _newest(self, catalog: Catalog) -> set[str]:
        studies = [catalog.study(study_uid(name)) for name in self.names]
        newest = [d for s in studies if s is not None for d in catalog.deliveries(s.study_uid, s.generation)]
        return {d.sop_instance_uid for d in newest}

    def _judge_images(self, catalog: Catalog) -> None:
        for name in self.names:
            path = self._acknowledged(name)
            # A line that was cut off by a kill was not acknowledged in whole, and is sent again.
            told = set(path.read_text().split("\n")[:-1]) if path.exists() else set()
            held = {i.sop_instance_uid: i for i in catalog.instances(study_uid(name))}
            self.verdict.acknowledged += len(told)
            for uid in sorted(told):
                if uid not in held:
                    self.verdict.faults.append(f"study {name}: acknowledged image {uid} is not in the catalogue")
                elif digest(Path(held[uid].path)) != held[uid].sha256:
                    self.verdict.faults.append(f"study {name}: the file of acknowledged image {uid} is damaged")

    def _judge_audit(self, catalog: Catalog) -> None:
        """Every acknowledged image and every delivered object is in the trail, and no event is missing."""
        lines = (self.folder / "audit.log").read_text(encoding="utf-8").splitlines()
        events = {line.split('sequenceId="')[1].split('"')[0]: line for line in lines}
        self.verdict.events, self.verdict.events_twice = len(events), len(lines) - len(events)
        told: Counter[tuple[str, str]] = Counter()
        for line in events.values():
            message = ET.fromstring(line[line.index("<AuditMessage") :])
            if message.find("EventIdentification/EventID").attrib["csd-code"] != "110104":  # type: ignore[union-attr]
                continue
            ours = [p for p in message.iter("ActiveParticipant") if p.attrib["UserID"] == "AETITLE=DICOMNODE"]
            is_incoming = ours[0].find("RoleIDCode").attrib["csd-code"] == "110152"  # type: ignore[union-attr]
            uid = next(message.iter("ParticipantObjectIdentification")).attrib["ParticipantObjectID"]
            count = sum(int(c.attrib["NumberOfInstances"]) for c in message.iter("SOPClass"))
            told["in" if is_incoming else "out", uid] += count
        for name in self.names:
            uid = study_uid(name)
            path = self._acknowledged(name)
            acknowledged = len(set(path.read_text().split("\n")[:-1])) if path.exists() else 0
            study = catalog.study(uid)
            generations = range(1, 1 + (study.generation if study else 0))
            sent = {
                (d.sop_instance_uid, d.generation)
                for g in generations
                for d in catalog.deliveries(uid, g)
                if d.state in _ENDED and d.status is not None and not (d.text or "").startswith("unchanged")
            }
            for direction, least in (("in", acknowledged), ("out", len(sent))):
                if told[direction, uid] < least:
                    self.verdict.faults.append(
                        f"study {name}: {told[direction, uid]} of {least} instances ({direction}) are told"
                    )

    def _judge_results(self, catalog: Catalog, name: str) -> dict[str, str]:
        """Compare a study's newest results with an undisturbed run; all objects that its generations delivered."""
        uid = study_uid(name)
        study = catalog.study(uid)
        if study is None:
            self.verdict.faults.append(f"study {name} is not in the catalogue")
            return {}
        self.verdict.generations += study.generation
        delivered: dict[str, str] = {}
        for generation in range(1, study.generation + 1):
            for d in catalog.deliveries(uid, generation):
                if d.state in _ENDED:
                    delivered[d.sop_instance_uid] = d.object
        for object_name, content in self._undisturbed(catalog, name, study.generation).items():
            planned = [d for d in catalog.deliveries(uid, study.generation) if d.object == object_name]
            path = self.pacs.folder / f"{planned[0].sop_instance_uid}.dcm" if planned else None
            if path is None or not path.exists():
                self.verdict.faults.append(f"study {name}: the PACS does not hold its {object_name}")
            elif split(path.read_bytes())[1] != content:
                self.verdict.faults.append(f"study {name}: its {object_name} differs from that of an undisturbed run")
        return delivered

    def _undisturbed(self, catalog: Catalog, name: str, generation: int) -> dict[str, bytes]:
        """The results of the files that were sent, made here and now; the circumstances are those of the job."""
        uid, out = study_uid(name), self.folder / "undisturbed" / name
        analysis = analyse(sorted((self.folder / "scans" / name).glob("*.dcm")), method(self.config.analysis))
        first, before = self._circumstances(catalog, uid, generation, analysis.findings)
        # A receiver killed between the last image and the release leaves open whether more was to come: that is told.
        noted = reader_flags.of_reception(results_folder(self.config.storage.results, uid, first))
        doubts = [flag for flag in noted if flag.code == "transfer-broken-off"]
        analysis = replace(analysis, findings=reader_flags.noted(analysis.findings, (), reception=doubts))
        if doubts and not self._was_broken_off(catalog):
            self.verdict.faults.append(f"study {name}: said to be broken off, and no association was")
        job = catalog.job(uid, first)
        assert job is not None
        highest = analysis.findings.highest_series_number
        previous, number = before[0] if before else None, 1 + len({f.version for f in before})
        context = encode.context(job.created_at, self.config.node.ae_title, previous, None, highest, number)
        objects = encode.encode(encode.AnalysisCheckpoint.of(analysis), context, out, with_pdf=False)
        made = {o.name: split(o.path.read_bytes())[1] for o in objects}
        shutil.rmtree(out)
        return made

    def _was_broken_off(self, catalog: Catalog) -> bool:
        with catalog._read() as connection:
            ended = "SELECT count(*) FROM associations WHERE closed IN ('aborted', 'lost')"
            return bool(connection.exec_driver_sql(ended).scalar_one())

    def _circumstances(
        self, catalog: Catalog, uid: str, generation: int, found: Findings
    ) -> tuple[int, list[Findings]]:
        """The generation that first came to this result, and the earlier results that were sent, the newest first."""
        known: dict[int, Findings] = {}
        for g in range(1, generation + 1):
            path = results_folder(self.config.storage.results, uid, g) / "findings.json"
            if path.exists():
                known[g] = Findings.from_json(path.read_text())
        first = min((g for g, f in known.items() if f.input_digest == found.input_digest), default=generation)
        sent = [g for g in range(first - 1, 0, -1) if any(d.state in _ENDED for d in catalog.deliveries(uid, g))]
        return first, [known[g] for g in sent if g in known]


def main() -> int:
    """The command line. Exit status 0: nothing lost, nothing doubled."""
    parser = argparse.ArgumentParser(
        description="Kill the processes of a node at random moments; see whether it minds."
    )
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pause", type=float, default=1.5, help="seconds between two kills, on average")
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--audit", action="store_true", help="keep an audit trail, and judge it too")
    parser.add_argument("--tls", action="store_true", help="scanners, node and PACS speak TLS")
    parser.add_argument("--stow", action="store_true", help="scanners send by STOW-RS")
    parser.add_argument("--out", type=Path, default=None, help="keep everything here; else a temporary folder")
    given = parser.parse_args()
    if given.stow and given.tls:
        parser.error("--stow goes without --tls: the console's HTTPS has tests of its own")
    databases = ["sqlite", "postgresql"] if given.database == "both" else [given.database]
    check_or_exit([SCAN], [("initdb", "postgresql")] if "postgresql" in databases else [])
    if given.out is not None and (taken := [d for d in databases if (given.out / d).exists()]):
        parser.error(f"--out {given.out} holds another campaign's {', '.join(taken)}: give a new folder")
    source = data_folder() / SCAN
    bad = 0
    with tempfile.TemporaryDirectory(prefix="dicomnode-faults-") as temporary:
        for database in databases:
            folder = (given.out or Path(temporary)) / database
            folder.mkdir(parents=True)
            print(f"{database}: {given.kills // len(databases)} kills, seed {given.seed}", flush=True)
            campaign = Campaign(
                folder,
                source,
                given.seed,
                postgresql=database == "postgresql",
                tls=given.tls,
                pause_s=given.pause,
                say=lambda line: print(line, flush=True),
                audit=given.audit,
                stow=given.stow,
            )
            verdict = campaign.run(given.kills // len(databases))
            print(f"{database}: {verdict}", flush=True)
            bad += len(verdict.faults)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
