"""DICOM TLS with real peers: DCMTK's tools, openssl and Orthanc, both directions and every service."""

import io
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from dicomnode.errors import PeerError
from dicomnode.network import find, move
from dicomnode.network.association import Peer, echo, send
from dicomnode.network.identities import identity
from dicomnode.network.tls import Security, TlsFiles
from dicomnode.reception import c_get
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.spool import Spool
from tests.helpers.answering import Answering
from tests.helpers.certificates import Authority, fingerprint, self_signed, server_context, toml
from tests.helpers.ct_files import ct_series, write
from tests.helpers.ports import free_port
from tests.helpers.processes import listens
from tests.helpers.running import Node, Orthanc
from tests.helpers.step_servers import MppsServer, UpsServer
from tests.helpers.waiting import until

FindPeer = Callable[[str, str], str]
Run = Callable[..., subprocess.CompletedProcess[str]]
STUDY = "chest_tiny_cip/ct-64Dicom"


@dataclass(frozen=True)
class Certificates:
    """Everybody's, of one CA; RSA keys, as `dicomnode tls` makes them."""

    authority: Authority
    node: TlsFiles
    scanner: TlsFiles
    reader: TlsFiles
    orthanc: TlsFiles
    archive: TlsFiles


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    authority = Authority(tmp_path_factory.mktemp("hospital"), "rsa")
    return Certificates(authority, *map(authority.files, ("node", "scanner", "reader", "orthanc", "archive")))


def by(files: TlsFiles) -> list[str]:
    """DCMTK's options for a certificate and its CA."""
    return ["+tls", str(files.key), str(files.certificate), "+cf", str(files.ca_file)]


@contextmanager
def storescp(program: str, folder: Path, files: TlsFiles, port: int) -> Iterator[Path]:
    """DCMTK's storescp behind TLS, once it listens: a destination."""
    folder.mkdir(exist_ok=True)
    command = [program, *by(files), "-od", str(folder), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until("storescp listens", lambda: listens(process.pid, port), 30)
        yield folder
    finally:
        process.terminate()
        process.wait(240)


@dataclass(frozen=True)
class Ward:
    """A node that speaks TLS with an Orthanc, a RIS and the servers of steps; the archive is for a test to start."""

    node: Node
    orthanc: Orthanc
    ris: Answering
    ups: UpsServer
    mpps: MppsServer
    tls_port: int
    archive_port: int
    move_port: int

    def address(self, calling: str = "SCANNER") -> list[str]:
        return ["-aet", calling, "-aec", "DICOMNODE", "127.0.0.1", str(self.tls_port)]

    def pacs(self, files: TlsFiles) -> Peer:
        return Peer("pacs", "ORTHANC", "127.0.0.1", self.orthanc.port, "DICOMNODE", security=Security(files))


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory, known: Certificates, peer: FindPeer) -> Iterator[Ward]:
    program = peer("Orthanc", "orthanc")
    tls_port, archive_port, move_port = free_port(), free_port(), free_port()
    modality = {"AET": "DICOMNODE", "Host": "127.0.0.1", "Port": tls_port, "AllowStorageCommitment": True}
    settings = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(known.orthanc.certificate),
        "DicomTlsPrivateKey": str(known.orthanc.key),
        "DicomTlsTrustedCertificates": str(known.orthanc.ca_file),
        "DicomTlsRemoteCertificateRequired": True,
        "DicomModalities": {"dicomnode": {**modality, "UseDicomTls": True}},
    }
    orthanc = Orthanc(tmp_path_factory.mktemp("orthanc-tls"), program, settings)
    archive = (
        f'[[destination]]\nname = "archive"\nae_title = "ARCHIVE"\nhost = "127.0.0.1"\nport = {archive_port}\n'
        'retry_first_s = 1\nretry_longest_s = 1\ntls = true\nobjects = ["summary"]\n'
        f'certificates = ["{fingerprint(known.archive.certificate)}"]\n'
    )
    callers = "".join(
        f'[[node.callers]]\nae_title = "{title}"\ncertificates = ["{fingerprint(files.certificate)}"]\n{more}\n'
        for title, files, more in (
            ("SCANNER", known.scanner, ""),
            ("READER", known.reader, f'query = true\ntls = true\nmove_to = "localhost:{move_port}"'),
            ("ORTHANC", known.orthanc, "query = true"),
        )
    )
    secured = server_context(known.archive)
    ris, ups, mpps = Answering(tls=secured), UpsServer(free_port()), MppsServer(free_port())
    more = f'tls = true\ncertificates = ["{fingerprint(known.archive.certificate)}"]\nevery_s = 1\n'
    worklist = f'[worklist]\nae_title = "ARCHIVE"\nhost = "127.0.0.1"\nport = {ris.port}\n{more}'
    steps = ups.table(f"{more}create = false\n") + mpps.table(more) + worklist
    destinations = orthanc.destination("tls = true\ncommitment = true\n") + archive + callers + steps + toml(known.node)
    node = Node(tmp_path_factory.mktemp("node-tls"), destinations, "radiomics = false", f"tls_port = {tls_port}")
    try:
        ups.start(secured)
        mpps.start(secured)
        node.start()
        yield Ward(node, orthanc, ris, ups, mpps, tls_port, archive_port, move_port)
        assert node.stop() == 0, node.log()[-4000:]
    finally:
        orthanc.stop()
        ris.close()
        ups.stop()
        mpps.stop()


@pytest.fixture
def run(peer: FindPeer) -> Run:
    def start(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [peer(program, "dcmtk"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)

    return start


@pytest.mark.slow
def test_a_study_comes_and_its_results_leave_by_tls(
    ward: Ward, known: Certificates, data: Path, run: Run, peer: FindPeer, tmp_path: Path
) -> None:
    """The archive shows an expired certificate at first: its delivery waits, and goes on by itself."""
    folder = data / STUDY
    uid = str(pydicom.dcmread(next(folder.glob("*.dcm")), stop_before_pixels=True).StudyInstanceUID)

    def archived() -> dict[str, str]:
        (found,) = [d for d in ward.node.show(uid)["deliveries"] if d["destination"] == "archive"]
        return {key: str(value) for key, value in found.items()}

    late = known.authority.expired("archive-late")
    with storescp(peer("storescp", "dcmtk"), tmp_path / "archive", late, ward.archive_port):
        sent = run("storescu", *by(known.scanner), "+sd", "+sp", "*.dcm", *ward.address(), folder)
        assert sent.returncode == 0, sent.stderr
        until("the failed attempt to the archive", lambda: ward.node.jobs().get(uid) == "analysed", 180)
        until("the reason", lambda: "its certificate has expired" in str(archived()), 60)
        assert archived()["state"] == "pending"
    with storescp(peer("storescp", "dcmtk"), tmp_path / "archive", known.archive, ward.archive_port) as kept:
        # Orthanc has committed by a report over TLS, and the archive has stored.
        until("delivered and committed", lambda: ward.node.jobs().get(uid) == "committed", 60)
        assert len(list(kept.iterdir())) == 1
    objects = [pydicom.dcmread(io.BytesIO(one)) for one in ward.orthanc.study(uid)]
    assert Counter(one.Modality for one in objects) == {"SEG": 1, "SR": 2, "OT": 1}


@pytest.mark.parametrize("profile", ["--profile-bcp195", "--profile-bcp195-nd", "--profile-bcp195-ex"])
def test_modern_profiles_are_accepted(ward: Ward, known: Certificates, run: Run, profile: str) -> None:
    done = run("echoscu", *by(known.scanner), profile, *ward.address())
    assert done.returncode == 0, done.stderr


def test_the_old_aes_profile_is_refused(ward: Ward, known: Certificates, run: Run) -> None:
    assert run("echoscu", *by(known.scanner), "--profile-aes", *ward.address()).returncode != 0
    refused(ward, "cipher suite of BCP 195", "TLS version from 1.2 on")


def test_tls_1_1_is_refused(ward: Ward, known: Certificates, peer: FindPeer) -> None:
    command = [peer("openssl", "openssl"), "s_client", "-connect", f"127.0.0.1:{ward.tls_port}", "-tls1_1"]
    command += ["-cipher", "ALL:@SECLEVEL=0", "-cert", str(known.scanner.certificate), "-key", str(known.scanner.key)]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=240, check=False)
    assert "Cipher is (NONE)" in done.stdout, done.stdout
    refused(ward, "it offers no TLS version from 1.2 on")


def refused(ward: Ward, *words: str) -> None:
    """The node's log has a line about one of these."""

    def told() -> bool:
        return any(w in line for line in ward.node.log().splitlines() if "TLS: refused" in line for w in words)

    until(f"told: {words}", told, 20)


def test_who_shows_the_wrong_certificate_is_refused_with_a_reason(
    ward: Ward, known: Certificates, run: Run, tmp_path: Path
) -> None:
    foreign = replace(Authority(tmp_path / "elsewhere").files("scanner"), ca_file=known.authority.certificate)
    lonely = replace(self_signed(tmp_path), ca_file=known.authority.certificate)
    for files, words in (
        (known.authority.expired("scanner-late"), "its certificate has expired"),
        (foreign, "from a CA that is not in tls.ca_file"),
        (lonely, "self-signed"),
    ):
        assert run("echoscu", *by(files), *ward.address()).returncode != 0
        refused(ward, words)
    assert run("echoscu", "+tla", "-ic", *ward.address()).returncode != 0
    refused(ward, "it showed no certificate")
    assert run("echoscu", *ward.address()).returncode != 0
    refused(ward, "it does not speak TLS on this port")
    plain = ["-aet", "SCANNER", "-aec", "DICOMNODE", "127.0.0.1", str(ward.node.port)]
    assert run("echoscu", *by(known.scanner), *plain).returncode != 0
    refused(ward, "it speaks TLS on the port without")


def test_an_ae_title_needs_its_own_certificate(ward: Ward, known: Certificates, run: Run) -> None:
    assert run("echoscu", *by(known.scanner), *ward.address()).returncode == 0
    assert run("echoscu", *by(known.reader), *ward.address("READER")).returncode == 0
    assert run("echoscu", *by(known.reader), *ward.address("SCANNER")).returncode != 0
    plain = ["-aet", "SCANNER", "-aec", "DICOMNODE", "127.0.0.1", str(ward.node.port)]
    assert run("echoscu", *plain).returncode != 0
    refused(ward, "does not prove SCANNER")


@pytest.fixture(scope="module")
def study(ward: Ward, known: Certificates, peer: FindPeer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small study that the node has received."""
    folder = tmp_path_factory.mktemp("small")
    images = ct_series()
    write(images, folder)
    command = [peer("storescu", "dcmtk"), *by(known.scanner), "+sd", *ward.address(), str(folder)]
    subprocess.run(command, check=True, timeout=240, capture_output=True)
    return str(images[0].StudyInstanceUID)


def test_query_and_retrieve_by_tls(
    ward: Ward, known: Certificates, study: str, run: Run, peer: FindPeer, tmp_path: Path
) -> None:
    keys = ["-S", "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}"]
    found = run("findscu", *by(known.reader), *keys, *ward.address("READER"))
    assert found.returncode == 0 and study in found.stdout + found.stderr
    # DCMTK's movescu has no TLS: ours asks, DCMTK's storescp and Orthanc are moved to, and Orthanc asks by itself.
    reader = Peer("node", "DICOMNODE", "127.0.0.1", ward.tls_port, "READER", security=Security(known.reader))
    asked = Dataset()
    asked.QueryRetrieveLevel, asked.StudyInstanceUID = "STUDY", study
    with storescp(peer("storescp", "dcmtk"), tmp_path / "moved", known.reader, ward.move_port) as kept:
        moved = move.move(reader, asked, "READER")
        assert (moved.completed, moved.failed) == (len(ct_series()), 0)
        assert len(list(kept.iterdir())) == moved.completed
    query = {"Level": "Study", "Query": {"StudyInstanceUID": study}}
    client = ward.orthanc.client
    made = client.post("/modalities/dicomnode/query", json=query).raise_for_status().json()["ID"]
    assert len(client.get(f"/queries/{made}/answers").raise_for_status().json()) == 1
    client.post(f"/queries/{made}/answers/0/retrieve", content="ORTHANC").raise_for_status()
    until("Orthanc has it", lambda: len(ward.orthanc.study(study)) >= len(ct_series()), 30)


def test_orthanc_is_asked_and_moves_by_tls(ward: Ward, known: Certificates, tmp_path: Path) -> None:
    """As `[priors]` does it: C-FIND and C-MOVE of the PACS, whose C-STOREs come to our TLS port."""
    images = ct_series(StudyInstanceUID="1.2.826.0.1.77", PatientID="MOVED")
    for number, one in enumerate(images):
        one.SeriesInstanceUID = "1.2.826.0.1.77.1"
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.77.1.{number + 1}"
    pacs = ward.pacs(known.node)
    assert len(send(pacs, write(images, tmp_path))) == len(images)
    asked = Dataset()
    asked.QueryRetrieveLevel, asked.StudyInstanceUID = "STUDY", "1.2.826.0.1.77"
    found = find.find(pacs, find.STUDY_ROOT_FIND, asked, within_s=30, most=10)
    assert len(found.answers) == 1
    wanted = move.series("1.2.826.0.1.77", ["1.2.826.0.1.77.1"])
    assert move.move(pacs, wanted, "DICOMNODE").failed == 0
    until("the images are here", lambda: "1.2.826.0.1.77" in ward.node.jobs(), 30)
    spool, catalog = Spool(tmp_path / "spool"), Catalog.open(f"sqlite:///{tmp_path / 'catalog.db'}", tmp_path)
    got = c_get.get(pacs, wanted, spool, catalog, minimum_free_bytes=0, quarantine_bytes=10**6, largest=10**7)
    assert (got.completed, len(catalog.instances("1.2.826.0.1.77"))) == (len(images), len(images))
    catalog.close()
    answered = ward.orthanc.client.post("/modalities/dicomnode/echo", json={})
    assert answered.status_code == 200


def test_worklist_and_steps_by_tls(ward: Ward, study: str) -> None:
    """The study holds too little to be analysed: its steps end all the same."""
    until("the worklist was asked", lambda: ward.ris.asked, 30)
    ward.ups.schedule("1.2.826.0.1.78", study)
    until("the task has ended", lambda: ward.ups.state("1.2.826.0.1.78") in ("COMPLETED", "CANCELED"), 60)

    def ended() -> list[str]:
        mine = (one for one in ward.mpps.steps.values() if study in str(one.ScheduledStepAttributesSequence[0]))
        return [str(one.PerformedProcedureStepStatus) for one in mine if one.get("PerformedProcedureStepEndDate")]

    assert until("the step has ended", ended, 60) == ["DISCONTINUED"]
    assert not ward.ups.broken and not ward.mpps.broken


def test_our_side_checks_the_peer(known: Certificates, peer: FindPeer, tmp_path: Path) -> None:
    """DCMTK's storescp with the right certificate, and with a wrong, foreign, self-signed or expired one."""
    program = peer("storescp", "dcmtk")
    other = Authority(tmp_path / "elsewhere")
    for number, (files, expected, words) in enumerate(
        [
            (known.archive, (), ""),
            (known.archive, (identity(fingerprint(known.archive.certificate)),), ""),
            (known.archive, (identity(fingerprint(known.scanner.certificate)),), "none of those in `certificates`"),
            (known.authority.files("misnamed", hosts=("other.example",)), (), "does not name the configured address"),
            (replace(other.files("pacs"), ca_file=known.authority.certificate), (), "a CA that is not in tls.ca_file"),
            (replace(self_signed(tmp_path), ca_file=known.authority.certificate), (), "self-signed"),
            (known.authority.expired("pacs-late"), (), "its certificate has expired"),
        ]
    ):
        port = free_port()
        called = Peer("pacs", "PACS", "127.0.0.1", port, "NODE", 5, 5, 5, 5, security=Security(known.node, expected))
        with storescp(program, tmp_path / str(number), files, port):
            assert words in answer_of(called), files
            assert bool(words) == (answer_of(called) != ANSWERED)


ANSWERED = "answered"


def answer_of(called: Peer) -> str:
    """Why a peer that listens does not answer an echo, or that it does."""

    def ask() -> str:
        try:
            echo(called)
        except PeerError as error:
            return "" if "Connection refused" in str(error) else str(error)
        return ANSWERED

    return until("an answer", ask, 30)


def test_a_peer_without_tls(known: Certificates, peer: FindPeer, tmp_path: Path) -> None:
    port = free_port()
    process = subprocess.Popen([peer("storescp", "dcmtk"), "-od", str(tmp_path), str(port)], stderr=subprocess.DEVNULL)
    called = Peer("pacs", "PACS", "127.0.0.1", port, "NODE", 3, 3, 3, 3, security=Security(known.node))
    try:
        assert "TLS" in answer_of(called)
        assert echo(replace(called, security=None)) > 0
    finally:
        process.terminate()
        process.wait(240)
