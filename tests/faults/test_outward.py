"""Results out of DICOM: a FHIR server and an HL7 receiver that are away, refuse, or see their sender killed."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from fhir.resources.R4B.bundle import Bundle

from dicomnode.network.association import Peer, send
from dicomnode.operations import jobs
from dicomnode.report.wording import DEMO
from tests.faults.station import Station, running
from tests.faults.studies import make_study, study_uid
from tests.helpers.outward_servers import FhirStore, MllpReceiver
from tests.helpers.ports import free_port
from tests.helpers.result_folders import PDF, write_result
from tests.helpers.running import ROOT, Node
from tests.helpers.serial_scans import scan
from tests.helpers.waiting import until

UID = study_uid("a")
QUICK = "retry_first_s = 0.2\nretry_longest_s = 0.4\ntimeout_s = 20\n"


def tables(fhir_url: str, hl7_port: int) -> str:
    return (
        f'[[destination]]\nname = "ehr"\nkind = "fhir"\nurl = "{fhir_url}"\n{QUICK}'
        f'[[destination]]\nname = "ris"\nkind = "hl7"\nhost = "127.0.0.1"\nport = {hl7_port}\n{QUICK}'
    )


@pytest.fixture
def files(data: Path, tmp_path: Path) -> list[Path]:
    return make_study(data / "chest_tiny_cip" / "ct-64Dicom", tmp_path / "study", "a", every=4)


@pytest.fixture
def receivers() -> Iterator[tuple[FhirStore, MllpReceiver]]:
    """Both, not yet there."""
    found = FhirStore(free_port()), MllpReceiver(free_port())
    yield found
    for one in found:
        one.stop()


def test_both_away_get_everything_once_when_they_are_back(
    files: list[Path],
    tmp_path: Path,
    receivers: tuple[FhirStore, MllpReceiver],
    caplog: pytest.LogCaptureFixture,
) -> None:
    ehr, ris = receivers
    caplog.set_level(logging.INFO)
    station = Station(tmp_path / "node", tables(ehr.url, ris.port))
    with running(station):
        station.start_worker()
        station.send(files)
        station.settle(UID)
        station.ended(UID, 1, "analysed")

        def tried() -> bool:
            return all(d.attempts >= 2 for d in station.catalog.deliveries(UID, 1))

        until("some attempts of both", tried, 60)
        ehr.start()
        ris.start()
        shown = station.ended(UID, 1, "delivered")
        assert {(d["destination"], d["object"], d["state"]) for d in shown["deliveries"]} == {
            ("ehr", "report", "delivered"),
            ("ris", "report", "delivered"),
        }
        [report] = ehr.of("DiagnosticReport")
        assert len(ehr.came) == len(ris.came) == 1
        assert len(report["result"]) == len(ehr.of("Observation"))
        [message] = ris.held.values()
        assert f"|{UID}|" in message
        assert report["subject"]["identifier"]["value"] == "TEST-a"
        assert "TEST-a" in message
    assert "TEST-a" not in caplog.text
    assert not [path for _, path, _ in ehr.requests if path != "/fhir"]


def test_a_refusal_for_good_waits_for_a_person(
    files: list[Path], tmp_path: Path, receivers: tuple[FhirStore, MllpReceiver]
) -> None:
    ehr, ris = receivers
    ehr.answers = lambda: (422, b"TEST-a is unknown here")
    ris.acknowledges = lambda _message: ("AR", "200")
    ehr.start()
    ris.start()
    station = Station(tmp_path / "node", tables(ehr.url, ris.port))
    with running(station):
        station.start_worker()
        station.send(files)
        station.settle(UID)
        station.ended(UID, 1, "failed")

        def both() -> bool:
            return {d.state for d in station.catalog.deliveries(UID, 1)} == {"rejected"}

        until("both refused", both, 30)
        texts = {d.destination: d.text or "" for d in station.catalog.deliveries(UID, 1)}
        assert "422" in texts["ehr"]
        assert "AR with error 200" in texts["ris"]
        assert "TEST-a" not in " ".join(texts.values())
        ehr.answers = lambda: None
        ris.acknowledges = lambda _message: ("AA", "")
        jobs.retry(station.config, UID, None)
        station.ended(UID, 1, "delivered")
        assert len(ehr.came) == len(ris.came) == 1


@pytest.mark.slow
def test_killed_in_mid_send_both_have_it_once(tmp_path: Path, receivers: tuple[FhirStore, MllpReceiver]) -> None:
    """The worker dies when a receiver holds the result and has not said so: it is sent again, and changes nothing."""
    ehr, ris = receivers
    node = Node(tmp_path / "node", tables(ehr.url, ris.port), "radiomics = false")

    def kill_once() -> Callable[[], None]:
        killed: list[int] = []

        def kill() -> None:
            if not killed:
                killed.append(node.child("work").pid)
                os.kill(killed[0], signal.SIGKILL)

        return kill

    ehr.before_answer = kill_once()
    ehr.start()
    node.start()
    try:
        one = scan(tmp_path / "scan", "outward", 0.4, "20260201", PatientID="OUT-1")
        send(Peer("node", "DICOMNODE", "127.0.0.1", node.port), sorted(one.folder.iterdir()))
        until("sent again after a kill", lambda: len(ehr.came) >= 2, 180)
        ris.before_answer = kill_once()
        ris.start()
        assert node.ended(one.study_uid) == "delivered"
        assert len(ehr.came) >= 2
        assert len(ris.came) >= 2
        assert len(set(ehr.came)) == len(set(ris.came)) == len(ehr.of("DiagnosticReport")) == len(ris.held) == 1
        _says_that_it_is_synthetic(ehr, *ris.held.values())
        assert "OUT-1" not in node.log()
    finally:
        node.stop()


def _says_that_it_is_synthetic(ehr: FhirStore, message: str) -> None:
    for kind in ("DiagnosticReport", "Observation", "Device"):
        resources = ehr.of(kind)
        assert resources
        for resource in resources:
            assert DEMO in (resource.get("conclusion") or "".join(note["text"] for note in resource["note"]))
            assert resource["status"] != "final"
    entries = [{"resource": resource} for resource in ehr.resources.values()]
    Bundle.model_validate({"resourceType": "Bundle", "type": "collection", "entry": entries})
    segments = message.split("\r")
    assert any("Probability of all-cause death" in segment for segment in segments)
    for segment, following in pairwise(segments):
        if segment.startswith("OBX") and segment.split("|")[2] == "NM":
            assert following == f"NTE|1|L|{DEMO}"


@pytest.mark.parametrize("to", ["ehr", "ris"])
def test_a_sender_that_is_killed_and_started_again_changes_nothing(
    to: str, tmp_path: Path, receivers: tuple[FhirStore, MllpReceiver]
) -> None:
    """`dicomnode send`, killed when the receiver holds the result and has not said so."""
    ehr, ris = receivers
    (tmp_path / "ae_config.toml").write_text(tables(ehr.url, ris.port))
    path = write_result(tmp_path / "g1", pdf=PDF)
    command = [sys.executable, "-m", "dicomnode", "send", to, str(path), "--config", str(tmp_path / "ae_config.toml")]
    sender: list[subprocess.Popen[bytes]] = []
    came = ehr.came if to == "ehr" else ris.came
    for one in receivers:
        one.before_answer = lambda: sender.pop().kill() if sender else None
        one.start()
    killed = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    sender.append(killed)
    assert killed.wait(300) == -signal.SIGKILL
    assert len(came) == 1
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr
    assert len(came) == 2
    assert len(set(came)) == 1
    assert len(ehr.of("DiagnosticReport")) + len(ris.held) == 1
