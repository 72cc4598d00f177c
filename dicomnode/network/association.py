"""The sender: C-ECHO and C-STORE as SCU (PS3.4 annexes A and B).

What the peer answered decides, never what was sent: `STATUSES` and `FAILURES` say how.
"""

import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import dcmread, read_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, MediaStorageDirectoryStorage
from pynetdicom import _config, evt
from pynetdicom.association import Association
from pynetdicom.events import EventHandlerType
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext, build_context

from dicomnode import logs
from dicomnode.errors import AssociationRejectedError, ConfigurationError, PeerError, PeerRejectedError
from dicomnode.network import tls
from dicomnode.network.contexts import VERIFICATION
from dicomnode.network.statuses import PeerStatus, Taken, every_other, taken
from dicomnode.network.tls import Security
from dicomnode.network.tls_socket import TlsSocket
from dicomnode.network.transport import RequestorEntity, RequestorSocket, disable_nagle

log = logging.getLogger(__name__)

# A file that goes as it is goes from the disk in pieces, never decoded: pynetdicom's documented switch, for paths only.
_config.STORE_SEND_CHUNKED_DATASET = True

#: PS3.8 section 9.3.2.2: context IDs are the odd numbers from 1 to 255.
_MOST_CONTEXTS = 128
_CONVERTIBLE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
#: Of a C-STORE. 0x0110 says no more than «failed»: peers give it when their database is down.
STATUSES: tuple[PeerStatus, ...] = (
    PeerStatus(0x0000, "stored", "PS3.4 table B.2-1", "success"),
    PeerStatus(0xB000, "stored with coercion, or elements discarded", "PS3.4 table B.2-1", "warning", last=0xBFFF),
    *(PeerStatus(status, "stored, a general warning", "PS3.7 annex C.4", "warning") for status in (1, 0x0107, 0x0116)),
    PeerStatus(0xA700, "out of resources", "PS3.4 table B.2-1", "passing", last=0xA7FF),
    PeerStatus(0x0110, "processing failure", "PS3.7 annex C.5", "passing"),
    PeerStatus(0x0210, "duplicate message ID", "PS3.7 annex C.5", "passing"),
    PeerStatus(0x0213, "resource limitation", "PS3.7 annex C.5", "passing"),
    every_other("permanent", "every other status: 0xA9xx, 0xCxxx, 0x0122, 0x0124 and so on"),
)
#: Failures without a status, of every service: what happened, source, taken as.
FAILURES: tuple[tuple[str, str, Taken], ...] = (
    ("no connection, A-ABORT, silence", "PS3.8", "passing"),
    (
        "no TLS connection: the certificate has expired, is not trusted or not the expected one",
        "PS3.15 B.12",
        "passing",
    ),
    ("A-ASSOCIATE-RJ, result 2 (transient)", "PS3.8 table 9-21", "passing"),
    ("A-ASSOCIATE-RJ, result 1 (permanent)", "PS3.8 table 9-21", "permanent"),
    ("SOP class or transfer syntax not accepted", "PS3.8 table 9-18", "permanent"),
)
_TRANSIENT = 2  # A-ASSOCIATE-RJ, result
#: A-ASSOCIATE-RJ (source, reason) in words and with the cure, PS3.8 table 9-21.
_REJECTIONS = {
    (1, 2): "it does not know the application context",
    (1, 3): "it does not know the calling AE title {calling}: register it there with this machine's address",
    (1, 7): "its AE title is not {called}: correct the destination's ae_title",
    (2, 2): "it does not support this protocol version",
    (3, 1): "temporary congestion",
    (3, 2): "too many associations at present",
}


@dataclass(frozen=True)
class Peer:
    """A DICOM peer, and all that a connection to it depends on.

    Whoever calls a peer has its record from the configuration and goes through `connect`: these two are the only
    places to change for what concerns every outgoing connection, such as TLS.

    Attributes:
        name: what people call it.
        ae_title: the peer's; `calling_ae` is ours.
        connect_timeout_s: wait for the TCP connection; `acse_timeout_s` for the answer to an association request;
            `dimse_timeout_s` for the answer to one object (a PACS may take long); `network_timeout_s` for any byte.
        max_pdu: largest PDU we accept, bytes; 0 = no limit.
        preferred_syntax: the UID of the uncompressed syntax that uncompressed files shall go in where the peer takes
            it; by default, a file goes in its own where the peer takes that. Compressed files go as they are.
        security: TLS, or None.
    """

    name: str
    ae_title: str
    host: str
    port: int
    calling_ae: str = "DICOMNODE"
    connect_timeout_s: float = 10.0
    acse_timeout_s: float = 30.0
    dimse_timeout_s: float = 120.0
    network_timeout_s: float = 120.0
    max_pdu: int = 0
    preferred_syntax: str | None = None
    security: Security | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.ae_title} at {self.host}:{self.port})"


@dataclass(frozen=True)
class Sent:
    """One object that the peer has stored, and the status it gave."""

    sop_instance_uid: str
    status: int
    outcome: Literal["stored", "warning"]


@dataclass(frozen=True)
class _File:
    path: Path
    sop_class_uid: UID
    sop_instance_uid: str
    transfer_syntax: UID


def echo(destination: Peer) -> float:
    """C-ECHO: seconds from the connection to the release.

    Raises:
        PeerError: no connection, transient rejection, no answer.
        PeerRejectedError: the peer refused the association or the verification for good.
    """
    started = time.perf_counter()
    with associated(destination, [build_context(VERIFICATION, list(_CONVERTIBLE))]) as association:
        answer = association.send_c_echo()
        if "Status" not in answer:
            raise PeerError(f"{destination} did not answer the C-ECHO within {destination.dimse_timeout_s:g} s")
        if answer.Status != 0:
            raise PeerRejectedError(f"{destination} answered the C-ECHO with status 0x{answer.Status:04X}")
    return time.perf_counter() - started


def refused(destination: Peer, services: Sequence[UID]) -> list[UID]:
    """Return those of the SOP classes that the peer does not accept; it is asked by an association alone.

    Raises:
        PeerError: no connection, transient rejection, no answer.
        PeerRejectedError: the peer refused the association for good.
    """
    contexts = [build_context(service, list(_CONVERTIBLE)) for service in (VERIFICATION, *services)]
    with associated(destination, contexts) as association:
        accepted = {context.abstract_syntax for context in association.accepted_contexts}
    return [service for service in services if service not in accepted]


def send(destination: Peer, paths: Sequence[Path], on_result: Callable[[Path, Sent], None] | None = None) -> list[Sent]:
    """Store files at a peer, in their order, and return what the peer has stored.

    The first failure ends it; what was stored before has been told to `on_result`, one call for each object.

    Raises:
        PeerError: a failure in passing.
        PeerRejectedError: a refusal for good, or a path that is no DICOM file.
    """
    sent: list[Sent] = []
    for batch in _batches([_read_meta(path) for path in paths], destination):
        contexts = [build_context(sop_class, syntax) for sop_class, syntax in _proposals(batch, destination)]
        with associated(destination, contexts) as association:
            for number, file in enumerate(batch):
                result = _store(association, destination, file, number % 0xFFFF + 1)
                sent.append(result)
                if on_result is not None:
                    on_result(file.path, result)
    return sent


def sendable(paths: Iterable[Path]) -> list[Path]:
    """Those that are DICOM objects: a folder from a CD holds other files too, and a DICOMDIR, which nobody stores."""
    found = []
    for path in paths:
        try:
            is_object = _read_meta(path).sop_class_uid != MediaStorageDirectoryStorage
        except PeerRejectedError:
            continue
        if is_object:
            found.append(path)
    return found


def _read_meta(path: Path) -> _File:
    try:
        meta: FileMetaDataset = read_file_meta_info(path)
        return _File(path, meta.MediaStorageSOPClassUID, str(meta.MediaStorageSOPInstanceUID), meta.TransferSyntaxUID)
    except (OSError, InvalidDicomError, AttributeError) as error:
        raise PeerRejectedError(f"cannot send {path}: not a readable DICOM file ({type(error).__name__})") from error


def _proposals(files: Sequence[_File], destination: Peer) -> dict[tuple[UID, UID], None]:
    """(SOP class, transfer syntax) for each context: one syntax in each, so that the peer says yes or no to each."""
    wanted: dict[tuple[UID, UID], None] = {}
    for file in files:
        for syntax in syntaxes(file.transfer_syntax, destination.preferred_syntax):
            wanted[file.sop_class_uid, syntax] = None
    return wanted


def syntaxes(own: UID, preferred_syntax: str | None = None) -> list[UID]:
    """Return what a file may go in, the best first. `own`: its own; `preferred_syntax`: of the peer's record."""
    if own not in _CONVERTIBLE:
        return [own]
    preferred = [UID(preferred_syntax)] if preferred_syntax else []
    return list(dict.fromkeys([*preferred, own, *_CONVERTIBLE]))


def _batches(files: Sequence[_File], destination: Peer) -> Iterator[list[_File]]:
    """Yield the files in their order, cut where an association would need more than 128 contexts."""
    batch: list[_File] = []
    proposed: set[tuple[UID, UID]] = set()
    for file in files:
        more = proposed | _proposals([file], destination).keys()
        if len(more) > _MOST_CONTEXTS:
            yield batch
            batch, more = [], set(_proposals([file], destination))
        batch.append(file)
        proposed = more
    if batch:
        yield batch


def _store(association: Association, destination: Peer, file: _File, message_id: int) -> Sent:
    syntax = _agreed_syntax(association, destination, file)
    if not association.is_established:
        raise PeerError(f"{destination} closed the association before {logs.uid(file.sop_instance_uid)} was sent")
    if syntax == file.transfer_syntax:
        answer = association.send_c_store(file.path, msg_id=message_id)
    else:
        answer = association.send_c_store(_converted(file.path, syntax), msg_id=message_id)
    if "Status" not in answer:
        raise PeerError(
            f"{destination} did not answer for {logs.uid(file.sop_instance_uid)}: aborted, or no response within "
            f"{destination.dimse_timeout_s:g} s"
        )
    return _judge(destination, file, int(answer.Status), str(answer.get("ErrorComment", "")))


def _converted(path: Path, syntax: UID) -> Dataset:
    """Return the file in the other uncompressed syntax, read back: pynetdicom sends a data set as it was read."""
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    converted = BytesIO()
    dataset.save_as(converted, implicit_vr=syntax.is_implicit_VR, little_endian=True)
    converted.seek(0)
    return dcmread(converted)


def _agreed_syntax(association: Association, destination: Peer, file: _File) -> UID:
    accepted = {
        context.transfer_syntax[0]
        for context in association.accepted_contexts
        if context.abstract_syntax == file.sop_class_uid
    }
    for syntax in syntaxes(file.transfer_syntax, destination.preferred_syntax):
        if syntax in accepted:
            return syntax
    raise PeerRejectedError(
        f"{destination} does not accept {file.sop_class_uid.name} in {file.transfer_syntax.name}: "
        "enable it there, or remove the object from this destination"
    )


def is_passing(status: int) -> bool:
    """Whether an object that was refused with this status may be taken later (`STATUSES`)."""
    return taken(STATUSES, status) == "passing"


def _judge(destination: Peer, file: _File, status: int, comment: str) -> Sent:
    how = taken(STATUSES, status)
    if how == "success":
        return Sent(file.sop_instance_uid, status, "stored")
    if how == "warning":
        log.warning("%s stored %s with warning 0x%04X", destination, logs.uid(file.sop_instance_uid), status)
        return Sent(file.sop_instance_uid, status, "warning")
    # The comment is the peer's free text and may name a patient.
    log.debug("%s, status 0x%04X: %s", destination, status, comment)
    what = f"{file.sop_class_uid.name} {logs.uid(file.sop_instance_uid)}"
    text = f"{destination} refused {what} with status 0x{status:04X}"
    if how == "passing":
        raise PeerError(f"{text}: temporarily unable to store")
    raise PeerRejectedError(f"{text}: see its log for the reason")


@contextmanager
def associated(
    destination: Peer,
    contexts: list[PresentationContext],
    handlers: Sequence[EventHandlerType] = (),
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
) -> Iterator[Association]:
    """Yield an established association, released at the end and aborted where something failed.

    `roles`: SOP classes for which we are the provider (PS3.7 D.3.3.4).

    Raises:
        PeerError: no connection, transient rejection, no answer.
        PeerRejectedError: the peer refused the association or every context for good.
    """
    association = connect(destination, contexts, handlers, roles)
    if not association.is_established:
        raise _failure(destination, contexts, association)
    try:
        yield association
    except BaseException:
        if association.is_established:
            association.abort()
        raise
    association.release()


def connect(
    destination: Peer,
    contexts: list[PresentationContext],
    handlers: Sequence[EventHandlerType] = (),
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
) -> Association:
    """Request an association: the one way out of the node (see `Peer`). Returns it whether established or not.

    For `associated`, and for pynetdicom's C-MOVE, which judges for itself.

    Raises:
        PeerError: the host name is not known, or our certificate for TLS cannot be used.
    """
    try:
        secured = (tls.client_context(destination.security), destination.host) if destination.security else None
    except ConfigurationError as error:
        # It passes: a delivery waits until somebody has corrected the file.
        raise PeerError(f"{destination}: no TLS connection: {error}") from None
    entity = RequestorEntity(destination.calling_ae)
    entity.connection_timeout = destination.connect_timeout_s
    entity.acse_timeout = destination.acse_timeout_s
    entity.dimse_timeout = destination.dimse_timeout_s
    entity.network_timeout = destination.network_timeout_s
    try:
        return entity.associate(
            destination.host,
            destination.port,
            contexts,
            destination.ae_title,
            max_pdu=destination.max_pdu,
            ext_neg=list(roles),
            tls_args=secured,
            evt_handlers=[(evt.EVT_CONN_OPEN, _connected), *handlers],
        )
    except socket.gaierror as error:
        raise PeerError(f"{destination}: unknown host name ({error.strerror}); correct host or DNS") from error


def _failure(
    destination: Peer, contexts: list[PresentationContext], association: Association
) -> PeerError | PeerRejectedError:
    """Why there is no association."""
    if association.is_rejected:
        return _rejection(destination, association)
    answer = association.acceptor.primitive
    if answer is not None and answer.result == 0:  # pynetdicom aborts an association without any accepted context
        names = (f"{UID(str(one.abstract_syntax)).name} in {one.transfer_syntax[0].name}" for one in contexts)
        return AssociationRejectedError(f"{destination} accepts none of: {', '.join(names)}; enable it there")
    transport = association.dul.socket
    failure = transport.failure if isinstance(transport, RequestorSocket) else None
    if destination.security is not None and isinstance(failure, ssl.SSLError | ConnectionResetError):
        return PeerError(f"{destination}: no TLS connection: {tls.explain(failure)}")
    if failure is not None:
        why = failure.strerror or "timed out"
        whether = "it is running" if destination.security is None else "it is running and speaks TLS on this port"
        return PeerError(f"{destination}: no connection ({why}); check host, port and firewall, and whether {whether}")
    return PeerError(
        f"{destination} closed the connection or did not answer the association request within "
        f"{destination.acse_timeout_s:g} s; see its log"
    )


def _connected(event: evt.Event) -> None:
    # Nagle's algorithm holds each small packet back: 38-55 images/s instead of 208-233.
    disable_nagle(event.assoc)
    wrapped = event.assoc.dul.socket
    if wrapped is not None and isinstance(wrapped.socket, TlsSocket):
        wrapped.socket.settimeout(event.assoc.network_timeout)


def _rejection(destination: Peer, association: Association) -> PeerError | PeerRejectedError:
    answer = association.acceptor.primitive
    assert answer is not None
    assert answer.result_source is not None
    assert answer.diagnostic is not None
    words = _REJECTIONS.get((int(answer.result_source), int(answer.diagnostic)), "no reason given: see its log")
    text = words.format(calling=destination.calling_ae, called=destination.ae_title)
    message = f"{destination} rejected the association: {text}"
    return PeerError(message) if answer.result == _TRANSIENT else AssociationRejectedError(message)
