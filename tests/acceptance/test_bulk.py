"""A cohort from a real PACS (Orthanc) and old studies from a folder, each command killed twice: each study once.

`DICOMNODE_COHORT=200` asks for 200 studies instead of the short form's.
"""

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.acceptance.ris import Peer
from tests.helpers.ct_files import ct_series, write
from tests.helpers.running import ROOT, Node, Orthanc
from tests.helpers.waiting import until

COHORT = int(os.environ.get("DICOMNODE_COHORT", "6"))
SLICES = 5
#: Slow enough that a kill meets the command at its work.
SLOWLY = "14400/h"


@dataclass(frozen=True)
class Made:
    study_uid: str
    patient_id: str
    accession: str
    day: str
    folder: Path


def make(folder: Path, number: int, patient: str = "", **attributes: object) -> Made:
    """A CT of a few slices, which no analysis takes for a chest: it is refused in a moment."""
    day = f"{date(2020, 1, 1) + timedelta(days=number):%Y%m%d}"
    patient, accession = patient or f"R{number:04}", f"A{number:04}"
    frames = np.random.default_rng(number).integers(0, 2000, (SLICES, 8, 8)).astype(np.int16)
    values = {"PatientID": patient, "AccessionNumber": accession, "StudyDate": day, "StudyTime": "101500"} | attributes
    images = ct_series(frames, **values)
    write(images, folder)
    return Made(str(images[0].StudyInstanceUID), patient, accession, str(values["StudyDate"]), folder)


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory, peer: Peer) -> Iterator[Orthanc]:
    running = Orthanc(tmp_path_factory.mktemp("pacs"), peer("Orthanc", "orthanc"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, pacs: Orthanc) -> Iterator[Node]:
    table = f'[priors]\nae_title = "{pacs.ae_title}"\nhost = "127.0.0.1"\nport = {pacs.port}\non_receipt = false\n'
    running = Node(
        tmp_path_factory.mktemp("bulk") / "node", pacs.destination(), "radiomics = false\n" + table, bundle=""
    )
    text = running.config_path.read_text("utf-8")
    running.config_path.write_text(text.replace("minimum_free_gb = 0.1", "minimum_free_gb = 0.1\nlow_free_gb = 0.1"))
    running.start()
    known = {"AET": "DICOMNODE", "Host": "127.0.0.1", "Port": running.port, "Timeout": 20}
    pacs.client.put("/modalities/dicomnode", json=known).raise_for_status()
    yield running
    assert running.stop() == 0, running.log()[-4000:]


def begun(node: Node, *arguments: str | Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "dicomnode", *map(str, arguments), "--config", str(node.config_path)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)


def noted(node: Node, command: str) -> Any:
    """What a command has noted of its work; None before that."""
    for path in (node.config.storage.state / command).glob("[0-9a-f]*.json*"):
        # Of a retrieval the last line of each row counts; the last line may be on its way.
        kept = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line.endswith("}")]
        rows = {row["row"]: row for one in kept for row in one.get("rows", ())}
        return {**kept[-1], "rows": list(rows.values())} if kept else None
    return None


def killed(node: Node, done: Any, *arguments: str | Path) -> None:
    process = begun(node, *arguments)
    try:
        until("so much of it", done, 120)
        assert process.poll() is None, "it has ended before it was killed"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def once(node: Node, studies: list[Made]) -> None:
    """Each study is here with all its images, and was analysed once."""
    uids = {one.study_uid for one in studies}

    def ended() -> bool:
        states = node.jobs()
        return all(states.get(uid) == "refused" for uid in uids)

    until("every study analysed", ended, 60 + COHORT)
    rows = json.loads(node.cli("jobs", "list", "--limit", "100000", "--json").stdout)
    found = {row["study_uid"]: (row["generation"], row["instances"]) for row in rows if row["study_uid"] in uids}
    assert found == dict.fromkeys(uids, (1, SLICES))


def test_a_cohort_is_fetched_each_study_once_though_the_command_is_killed_twice(
    pacs: Orthanc, node: Node, tmp_path: Path
) -> None:
    began = time.monotonic()
    studies = [make(tmp_path / "cohort" / str(n), n) for n in range(COHORT)]
    twins = [make(tmp_path / "twins" / str(n), 5000 + n, "TWIN", StudyDate="20210505") for n in range(2)]
    report = make(tmp_path / "report", 6000, Modality="SR")
    for path in sorted(tmp_path.rglob("*.dcm")):
        pacs.client.post("/instances", content=path.read_bytes()).raise_for_status()
    rows = [
        *((m.patient_id, f"{m.day[6:]}.{m.day[4:6]}.{m.day[:4]}", "") for m in studies[::2]),
        *(("", "", m.accession) for m in studies[1::2]),
        ("NOBODY", "2020-01-01", ""),
        ("TWIN", "2021-05-05", ""),
        (studies[0].patient_id, "", studies[0].accession),
        ("SOMEBODY", "", studies[1].accession),
        ("", "", report.accession),
        (twins[1].patient_id, "", twins[1].accession),
    ]
    asked = tmp_path / "cohort.csv"
    text = "\r\n".join(";".join(row) for row in [("Patient ID", "Date", "Accession"), *rows])
    asked.write_text("\ufeff" + text, "utf-8")

    def fetched(count: int) -> Any:
        def look() -> bool:
            found = noted(node, "retrieve")
            return found is not None and sum(one["state"] == "retrieved" for one in found["rows"]) >= count

        return look

    for share in (0.25, 0.6):
        killed(node, fetched(max(1, int(share * COHORT))), "retrieve", asked, "--rate", SLOWLY)
    done = node.cli("retrieve", asked, "--rate", "0")
    assert done.returncode == 3, done.stderr
    whole = [*studies, twins[1]]
    with (tmp_path / "cohort.report.csv").open(newline="", encoding="utf-8") as file:
        told = list(csv.DictReader(file))
    assert [int(one["row"]) for one in told] == list(range(2, len(rows) + 2))
    states = Counter(one["state"] for one in told)
    # Orthanc matches by all keys: of an accession number and somebody else's Patient ID it lists nothing.
    assert states == {"retrieved": COHORT + 1, "not-found": 2, "ambiguous": 1, "duplicate": 1, "no-series": 1}
    here = {one["study_uid"]: one for one in told if one["state"] == "retrieved"}
    assert here.keys() == {one.study_uid for one in whole}
    assert {(one["images_expected"], one["images_retrieved"]) for one in here.values()} == {(str(SLICES),) * 2}
    (twin,) = (one for one in told if one["state"] == "ambiguous")
    assert twin["found"] == "2" and all(one.study_uid in twin["reason"] for one in twins)
    as_json = json.loads((tmp_path / "cohort.report.json").read_text("utf-8"))
    assert as_json["states"] == dict(sorted(states.items())) and len(as_json["report"]) == len(rows)
    assert not any(one.patient_id in (tmp_path / "cohort.report.csv").read_text("utf-8") for one in whole)
    once(node, whole)
    again = node.cli("retrieve", asked, "--rate", "0", "--json")
    assert json.loads(again.stdout)["states"] == as_json["states"]
    once(node, whole)
    for one in whole[:1]:
        assert node.show(one.study_uid)["deliveries"] == []  # kept: nobody asked for the results
    print(f"{COHORT} studies by list, killed twice: {time.monotonic() - began:.0f} s, {dict(states)}")


def test_a_folder_comes_in_each_study_once_though_the_command_is_killed_twice(node: Node, tmp_path: Path) -> None:
    source = tmp_path / "archive"
    studies = [make(source / str(n), 9000 + n) for n in range(6)]
    (source / "notes.txt").write_text("no image")

    def looks() -> dict[str, tuple[str, int, int]]:
        files = [path for path in sorted(source.rglob("*")) if path.is_file()]
        return {
            str(p): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns, p.stat().st_mode) for p in files
        }

    before = looks()

    def come(count: int) -> Any:
        def look() -> bool:
            found = noted(node, "import")
            return found is not None and len(found["studies"]) >= count

        return look

    for count in (2, 4):
        killed(node, come(count), "import", source, "--rate", "20/s")
    done = node.cli("import", source, "--rate", "0", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["studies"] == report["present"] + report["imported"] == len(studies)
    assert report["present"] >= 4 and report["refused"] == []
    assert [Path(one["file"]).name for one in report["not_taken"]] == ["notes.txt"]
    assert looks() == before
    once(node, studies)
    again = json.loads(node.cli("import", source, "--json").stdout)
    assert (again["present"], again["stored"]) == (len(studies), 0)
