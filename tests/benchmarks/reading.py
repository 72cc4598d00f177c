"""The pages that people look at, with 100,000 studies and 400,000 images, on SQLite and PostgreSQL.

    python -m tests.benchmarks.reading [--studies 100000] [--users 20] [--save RUN.json] [--before RUN.json]

Measured: every list and search of `jobs list`, and the catalogue's part of `/metrics`, asked by many users at once
(threads of one process, each of which waits a second between two pages) while images come in over C-STORE; the 95th
percentile, and the processor's time for one page. And how long an image takes to be received without users and with.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median, quantiles

from sqlalchemy import insert, text

from dicomnode.dicomweb.holdings import WebHoldings
from dicomnode.dicomweb.names import StudyNames
from dicomnode.dicomweb.query import parse
from dicomnode.dicomweb.search import search
from dicomnode.registry_format.identity import patient_hash
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.labels import Label, _seal, accession_key
from dicomnode.store.catalog.overview import Wanted
from dicomnode.store.catalog.tables import associations, deliveries, instances, jobs, patients, studies, study_labels
from dicomnode.store.catalog.tables import transitions as transitions_table
from dicomnode.store.records import Instance, StudyState
from tests.benchmarks import received
from tests.benchmarks.catalog import _delivery
from tests.benchmarks.receive import SCAN
from tests.helpers.databases import PostgreSQL
from tests.helpers.prerequisites import check_or_exit

_BATCH = 2000
_NOW = 1_800_000_000.0
_TIMES = ("queued", "running", "analysed", "delivered")
LIMIT_MS = 100.0
#: Receiving may be slower by so much with users.
LIMIT_SLOWER = 0.05
Ask = Callable[[], object]
#: So long images come in without users, before and after.
_QUIET_S = 15.0
_FAMILIES = ("Adler", "Brandt", "Costa", "Dubois", "Eriksson", "Fischer", "Garcia", "Huber", "Meyer", "Novak", "Zimmer")
_GIVEN = ["Anna", "Ben", "Clara", "David", "Eva", "Finn", "Greta", "Hugo", "Ida", "Jan", "Kim", "Lea"]


def state_of(n: int) -> StudyState:
    """Nearly all are delivered; some fail, a few are on their way."""
    if n < 20:
        return "receiving"
    if n < 60:
        return "queued"
    return "failed" if n % 500 == 0 else "delivered"


def sender_of(n: int) -> str:
    """Two scanners send nearly everything, one sends once a week."""
    return "CT_RARE" if n % 5000 == 7 else f"CT_{n % 2}"


def name_of(patient: int) -> str:
    """Of eleven families, each with a number that one patient has; some in three scripts."""
    name = f"{_FAMILIES[patient % 11]}{patient}^{_GIVEN[patient % 12]}{patient % 5}"
    return f"{name}=山田^太郎{patient}=やまだ^たろう" if patient % 50 == 0 else name


def fill(catalog: Catalog, count: int) -> None:
    """Studies with four images, three deliveries, a label and a history each; four studies to a patient."""
    key = catalog.patient_key
    with catalog._engine.begin() as connection:
        connection.execute(insert(associations), [_association(n) for n in range(3)])
    for first in range(0, count, _BATCH):
        numbers = range(first, min(first + _BATCH, count))
        settled = [n for n in numbers if state_of(n) != "receiving"]
        with catalog._engine.begin() as connection:
            connection.execute(insert(studies), [_study(n) for n in numbers])
            hashes = {n: key.keyed(patient_hash(f"P{n // 4}".encode(), b"")) for n in numbers}
            connection.execute(insert(instances), [_instance(n, i, hashes[n]) for n in numbers for i in range(4)])
            sealed = [_label(catalog, n) for n in numbers]
            connection.execute(insert(study_labels), sealed)
            if settled:
                connection.execute(
                    insert(patients), [{"study_uid": f"1.2.{n}", "patient_hash": hashes[n]} for n in settled]
                )
                connection.execute(insert(jobs), [_job(n) for n in settled])
                planned = [_delivery(n, o) for n in settled for o in ("seg", "risk", "summary")]
                connection.execute(insert(deliveries), planned)
                connection.execute(insert(transitions_table), [_changed(n, at) for n in settled for at in range(4)])


def _association(n: int) -> dict[str, object]:
    return {
        "receiver_run": "r",
        "calling_ae": f"CT_{n}",
        "called_ae": "DICOMNODE",
        "address": "10.0.0.1",
        "opened_at": _NOW,
        "closed_at": _NOW,
        "closed": "released",
    }


def _study(n: int) -> dict[str, object]:
    state = state_of(n)
    return {
        "study_uid": f"1.2.{n}",
        "generation": 0 if state == "receiving" else 1,
        "state": state,
        "first_seen": _NOW - n,
        "last_seen": _NOW - n,
        "instances": 4,
    }


def _job(n: int) -> dict[str, object]:
    reason = f"no suitable series {n}" if state_of(n) == "failed" else None
    return {
        "study_uid": f"1.2.{n}",
        "generation": 1,
        "state": state_of(n),
        "reason": reason,
        "created_at": _NOW - n,
        "updated_at": _NOW - n,
    }


def _instance(n: int, i: int, hashed: str) -> dict[str, object]:
    uid = f"1.2.{n}.{i}"
    return vars(
        Instance(uid, "1.9", f"1.2.{n}", f"1.2.{n}.9", f"/spool/{uid}", "0" * 64, 500_000, _NOW - n, 1 + n % 3, hashed)
    )


def _label(catalog: Catalog, n: int) -> dict[str, object]:
    key, uid = catalog.patient_key, f"1.2.{n}"
    return {
        "study_uid": uid,
        "generation": 1,
        "seen_at": _NOW - n,
        "sender": sender_of(n),
        "called": "DICOMNODE",
        "accession_key": accession_key(key, f"A{n}"),
        "sealed": _seal(key, uid, Label(f"P{n // 4}", "", f"A{n}", "20260101", "CT Thorax", name_of(n // 4))),
        "noted": n + 1,
    }


def _changed(n: int, at: int) -> dict[str, object]:
    return {
        "study_uid": f"1.2.{n}",
        "generation": 1,
        "state": _TIMES[at],
        "reason": None,
        "at": _NOW - n + at,
    }


def questions(count: int) -> dict[str, Wanted]:
    """What people ask."""
    return {
        "the newest 50": Wanted(),
        "the newest 200": Wanted(limit=200),
        "page 1000": Wanted(after=(_NOW - count // 2, f"1.2.{count // 2}")),
        "failed": Wanted(states=("failed",)),
        "arriving or queued": Wanted(states=("receiving", "queued")),
        "a patient": Wanted(patient_id=f"P{count // 8}"),
        "an accession number": Wanted(accession_number=f"A{count // 2}"),
        "a sender": Wanted(sender="CT_1"),
        "a rare sender": Wanted(sender="CT_RARE"),
        "failed of a sender": Wanted(sender="CT_0", states=("failed",)),
        "failed of a rare sender": Wanted(sender="CT_RARE", states=("failed",)),
        "the last hour": Wanted(since=_NOW - 3600),
        "a part of the reason": Wanted(text="suitable series"),
        "a part of the reason, rare": Wanted(text=f"series {count // 1000 * 500}"),
        "a text that is nowhere": Wanted(text="xyzzy"),
        "a part of a UID": Wanted(text=f".{count // 2}"),
        "one study": Wanted(study_uid=f"1.2.{count // 2}"),
    }


def asks(reading: Catalog, count: int) -> dict[str, Ask]:
    """What is measured: the pages, and the figures."""
    found: dict[str, Ask] = {
        name: lambda wanted=wanted: reading.overview(wanted)  # type: ignore[misc]
        for name, wanted in questions(count).items()
    }

    def figures() -> None:
        for one in (
            reading.count_studies, reading.queued_by_priority, reading.open_deliveries, reading.audit_waiting_count,
        ):  # fmt: skip
            one()
        reading.workers("alive")
        reading.steps_after(reading.newest_step() - 500, 5000)

    return {**found, **searches(reading, count), "the figures of /metrics": figures}


def searches(reading: Catalog, count: int) -> dict[str, Ask]:
    """What viewers ask of DICOMweb by what is sealed; the spool is empty, so no header is read for an answer."""
    holdings = WebHoldings(lambda: reading, Path("/nowhere"), StudyNames())
    holdings.names.look(reading)
    one = name_of(count // 8)
    asked = {
        "QIDO: a whole name": {"PatientName": one},
        "QIDO: beginning of a name": {"PatientName": f"{one[:-3]}*"},
        "QIDO: a common beginning": {"PatientName": "m*"},
        "QIDO: a part of a name": {"PatientName": f"*{one[2:9].lower()}*"},
        "QIDO: a common part": {"PatientName": "*an*"},
        "QIDO: odd wild cards": {"PatientName": "?a*e?*1*"},
        "QIDO: another script": {"PatientName": "山田^*"},
        "QIDO: nobody's name": {"PatientName": "xyzzy*"},
        "QIDO: part of an ID": {"PatientID": f"*{count // 8}*"},
        "QIDO: part of an accession number": {"AccessionNumber": f"*{count // 2}*"},
        "QIDO: a description": {"StudyDescription": "*thorax*"},
    }

    def ask(keys: dict[str, str]) -> Ask:
        return lambda: search(holdings, parse("STUDY", keys.items(), {}), "http://node/dicom-web")

    return {name: ask(keys) for name, keys in asked.items()}


def by_users(asked: dict[str, Ask], users: int, rounds: int) -> dict[str, list[float]]:
    """Let so many users ask everything; milliseconds by question."""
    taken: dict[str, list[float]] = {name: [] for name in asked}

    def user(number: int) -> None:
        names = list(asked)
        for turn in range(rounds * len(names)):
            name = names[(turn + number * 5) % len(names)]
            begun = time.perf_counter()
            asked[name]()
            taken[name].append(1000 * (time.perf_counter() - begun))
            time.sleep(1.0)  # a person looks at the page for longer than that

    with ThreadPoolExecutor(users) as pool:
        list(pool.map(user, range(users)))
    return taken


def alone(ask: Ask, times: int = 10) -> float:
    """Median of the processor's time in this process, milliseconds."""
    taken = []
    for _ in range(times):
        begun = time.process_time()
        ask()
        taken.append(1000 * (time.process_time() - begun))
    return median(taken)


def measure(
    database: str, url: str, folder: Path, studies_: int, users: int, rounds: int, before_: dict[str, float]
) -> tuple[bool, dict[str, float]]:
    """Print the figures of one database; returns whether they are within the limits, and the processor's times.

    `before_`: those of an earlier run of the same size, shown beside them.
    """
    catalog = Catalog.open(url, folder)
    fill(catalog, studies_)
    if database == "postgresql":
        # As the server does by itself within minutes.
        with catalog._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ANALYZE"))
    reading = Catalog.reading(url, folder)
    asked = asks(reading, studies_)
    for one in asked.values():
        one()
    processor = {name: alone(one) for name, one in asked.items()}
    good = True
    seconds = 0.8 * rounds * len(asked)
    scans = received.scans(folder / "scans", round((seconds + 2 * _QUIET_S) / received.PAUSE_S))
    server = "" if database == "sqlite" else url
    with received.receiver(folder, server) as port, ThreadPoolExecutor(1) as sender:
        received.received(port, scans, 1.0)  # the first one warms it
        before = received.received(port, scans, _QUIET_S)
        meanwhile = sender.submit(received.received, port, scans, seconds)
        taken = by_users(asked, users, rounds)
        with_users = meanwhile.result()
        after = received.received(port, scans, _QUIET_S)
    for name, each in taken.items():
        p95 = quantiles(each, n=20)[-1]
        good &= p95 <= LIMIT_MS
        figures = f"median {median(each):6.1f} ms  p95 {p95:6.1f} ms  processor {processor[name]:5.1f} ms"
        if name in before_:
            figures += f" (before {before_[name]:5.1f} ms)"
        print(f"{database:10}  {name:32}  {figures}", flush=True)
    quiet, busy = median([*before, *after]), median(with_users)
    slower = 100 * (busy / quiet - 1)
    counts = f"of {len(before) + len(after)} and {len(with_users)} times {received.IMAGES} images"
    print(
        f"{database:10}  receiving an image: {quiet:.2f} ms, with users {busy:.2f} ms ({slower:+.0f} %), {counts}",
        flush=True,
    )
    reading.close()
    catalog.close()
    return good and busy <= quiet * (1 + LIMIT_SLOWER), processor


def earlier(path: Path, size: dict[str, int]) -> dict[str, dict[str, float]]:
    """Return the processor's times of an earlier run, by database and page.

    Raises:
        ValueError: it was of another size: what differs would not be the code alone.
    """
    kept = json.loads(path.read_text("utf-8"))
    if kept["size"] != size:
        raise ValueError(f"{path} was measured with {kept['size']}, this is {size}: measure both alike")
    found: dict[str, dict[str, float]] = kept["processor_ms"]
    return found


def main() -> int:
    """The command line; exit status 1 where a page takes longer than it may, or receiving is slowed down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--studies", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--database", action="append", choices=("sqlite", "postgresql"))
    parser.add_argument("--save", type=Path, help="keep the processor's times here")
    parser.add_argument("--before", type=Path, help="show those of an earlier run of the same size beside them")
    given = parser.parse_args()
    size = {"studies": given.studies, "users": given.users, "cores": os.cpu_count() or 0}
    try:
        before = {} if given.before is None else earlier(given.before, size)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    processor: dict[str, dict[str, float]] = {}
    check_or_exit([SCAN], programs=[("initdb", "postgresql"), ("storescu", "dcmtk")])
    print(f"{given.studies} studies, {given.users} users, {os.cpu_count()} cores, load before {os.getloadavg()[0]:.1f}")
    good = True
    for database in given.database or ("sqlite", "postgresql"):
        with tempfile.TemporaryDirectory(prefix="dicomnode-bench-") as temporary:
            folder = Path(temporary)
            server = PostgreSQL(folder / "pg").start() if database == "postgresql" else None
            lite = f"sqlite:///{folder}/catalog.sqlite"
            url = lite if server is None else server.url.replace("://", "+psycopg://", 1)
            try:
                within, processor[database] = measure(
                    database, url, folder, given.studies, given.users, given.rounds, before.get(database, {})
                )
                good &= within
            finally:
                if server is not None:
                    server.stop()
    if given.save is not None:
        given.save.write_text(json.dumps({"size": size, "processor_ms": processor}, indent=2) + "\n")
    print(f"load after {os.getloadavg()[0]:.1f}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
