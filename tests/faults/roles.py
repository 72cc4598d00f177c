"""The processes of the kill campaign. Each is started by fork from a server that has imported everything once."""

import ctypes
import os
import signal
import threading
import time
from pathlib import Path

import httpx
import pydicom
from pynetdicom import AE

from dicomnode import config, logs
from dicomnode.console import server
from dicomnode.network.tls import Security, TlsFiles, client_context
from dicomnode.service import audit, processes
from dicomnode.service.clock import Housekeeping
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.workflows.queue import Queue
from tests.helpers.web import http_client

#: Imported by the fork server, so that a worker starts in a tenth of the time of its imports.
PRELOAD = [
    "dicomnode.workflows.runtime",
    "dicomnode.models.build",
    "dicomnode.store.catalog.database",
    "dicomnode.console.server",
    "tests.faults.roles",
    "alembic.command",
]
#: A sender that lost its association tries again after so long.
_AGAIN_S = 0.3
_IN_ONE_REQUEST = 6
_STOWED = 'multipart/related; type="application/dicom"; boundary=b'
_PR_SET_PDEATHSIG = 1  # prctl(2)


def receive(path: Path, log: Path) -> None:
    """The receiving process."""
    processes.receive(_settings(path, log, "receiver"), threading.Event())


def receive_by_web(path: Path, log: Path) -> None:
    """The console's process, into which STOW-RS comes."""
    server.run(_settings(path, log, "console"), threading.Event())


def work(path: Path, log: Path) -> None:
    """A worker."""
    import torch

    torch.set_num_threads(1)
    processes.work(_settings(path, log, "worker"), 0, threading.Event())


def tick(path: Path, log: Path) -> None:
    """The clock."""
    settings = _settings(path, log, "clock")
    catalog = Catalog.open(settings.catalog_url, settings.storage.state)
    audit.begin(settings, catalog)
    Housekeeping(settings, catalog, Queue(settings)).start()
    audit.Sender(settings, catalog).start()
    threading.Event().wait()


def send(port: int, folder: Path, acknowledged: Path, log: Path, files: TlsFiles | None, token: str) -> None:
    """A scanner: sends the folder until every image has been answered with success, whatever happens meanwhile.

    Each acknowledged SOP Instance UID is a line of `acknowledged`. A killed scanner knows nothing: it begins again.
    With a token it sends by STOW-RS.
    """
    _output(log)
    paths = sorted(folder.glob("*.dcm"))
    while not (_post_all(port, paths, acknowledged, token) if token else _send_all(port, paths, acknowledged, files)):
        time.sleep(_AGAIN_S)


def _post_all(port: int, paths: list[Path], acknowledged: Path, token: str) -> bool:
    """Send a few images with each request: some are acknowledged before a kill, and some are not."""
    headers = {"Content-Type": _STOWED, "Authorization": f"Bearer {token}"}
    complete = True
    with acknowledged.open("a", buffering=1) as file, http_client(f"http://127.0.0.1:{port}", timeout=20) as client:
        for first in range(0, len(paths), _IN_ONE_REQUEST):
            parts = [path.read_bytes() for path in paths[first : first + _IN_ONE_REQUEST]]
            body = b"".join(b"--b\r\nContent-Type: application/dicom\r\n\r\n" + part + b"\r\n" for part in parts)
            try:
                answer = client.post("/dicom-web/studies", content=body + b"--b--\r\n", headers=headers)
            except httpx.TransportError:  # the console is gone
                return False
            stored = answer.json()["00081199"]["Value"] if answer.status_code in (200, 202) else []
            complete &= len(stored) == len(parts)
            for one in stored:
                file.write(f"{one['00081155']['Value'][0]}\n")
    return complete


def _send_all(port: int, paths: list[Path], acknowledged: Path, files: TlsFiles | None) -> bool:
    first = pydicom.dcmread(paths[0], stop_before_pixels=True)
    scanner = AE("SCANNER")
    scanner.acse_timeout = scanner.dimse_timeout = scanner.network_timeout = 20
    scanner.add_requested_context(first.SOPClassUID, first.file_meta.TransferSyntaxUID)
    secured = None if files is None else (client_context(Security(files)), "127.0.0.1")
    association = scanner.associate("127.0.0.1", port, ae_title="DICOMNODE", tls_args=secured)
    if not association.is_established:
        return False
    complete = True
    with acknowledged.open("a", buffering=1) as file:
        for path in paths:
            dataset = pydicom.dcmread(path)
            try:
                answer = association.send_c_store(dataset)
            except RuntimeError:  # the association is gone
                return False
            if "Status" not in answer or answer.Status != 0x0000:
                complete = False
                if not association.is_established:
                    return False
                continue
            file.write(f"{dataset.SOPInstanceUID}\n")
    association.release()
    return complete


def _settings(path: Path, log: Path, name: str) -> config.Config:
    _output(log)
    settings = config.load(path)
    logs.configure(settings.logging.level, name)
    return settings


def _output(log: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the campaign, which then ends its processes
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # and none survives it, however it ends
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
