"""The receiver: C-ECHO and C-STORE as SCP (PS3.4 annexes A and B). It runs in a process of its own.

Here: who may come in, how many, and how it ends. What happens to an image: `dicomnode.reception.c_store`.
"""

import ipaddress
import logging
import math
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.events import EventHandlerType
from pynetdicom.pdu_primitives import A_ASSOCIATE

from dicomnode import logs
from dicomnode.errors import SpoolError
from dicomnode.metrics import counters
from dicomnode.network import commitment, contexts, tls
from dicomnode.network.association import Peer
from dicomnode.network.association_request import (
    APPLICATION_CONTEXT_NOT_SUPPORTED,
    CALLED_AE_NOT_RECOGNISED,
    CALLING_AE_NOT_RECOGNISED,
    PROTOCOL_VERSION_NOT_SUPPORTED,
    Rejection,
)
from dicomnode.network.commands import StoreRequest
from dicomnode.network.identities import CertificateIdentity
from dicomnode.network.tls import TlsFiles
from dicomnode.network.tls_socket import TlsSocket
from dicomnode.network.transport import DicomServer
from dicomnode.network.upper_layer import LONGEST_PDU, UpperLayer
from dicomnode.reception import audited, query_retrieve_scp
from dicomnode.reception.admission import Admission, CallerLimits
from dicomnode.reception.c_store import Reception
from dicomnode.reception.commitment_scp import Reports
from dicomnode.reception.holdings import QueryHoldings
from dicomnode.reception.quarantine import Quarantine
from dicomnode.reception.query_retrieve_scp import MovingEntity, RetrieveProvider
from dicomnode.store import process_names
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.spool import Spool

log = logging.getLogger(__name__)

# A-ASSOCIATE-RJ: result, source, reason (PS3.8 table 9-21). Both pass: a sender may try again.
_TEMPORARY_CONGESTION: Rejection = (2, 3, 1)
_LOCAL_LIMIT_EXCEEDED: Rejection = (2, 3, 2)
#: Connections of one address that may wait for their association, beside the number that may have one.
_MORE_WAITING = 50
#: Why an association is rejected, by what the caller hears.
REJECTIONS: dict[Rejection, str] = {
    APPLICATION_CONTEXT_NOT_SUPPORTED: "application context not supported",
    PROTOCOL_VERSION_NOT_SUPPORTED: "protocol version not supported",
    CALLING_AE_NOT_RECOGNISED: "calling AE title or address not recognised",
    CALLED_AE_NOT_RECOGNISED: "called AE title not recognised",
    _TEMPORARY_CONGESTION: "too many associations a minute",
    _LOCAL_LIMIT_EXCEEDED: "local limit exceeded",
}
#: Refused presentation contexts that a line of the log names.
_MOST_NAMED = 20
#: As monitoring names them.
_REASON: dict[tuple[int, int, int], counters.Refusal] = {
    CALLING_AE_NOT_RECOGNISED: "caller",
    CALLED_AE_NOT_RECOGNISED: "called title",
    _TEMPORARY_CONGESTION: "rate",
    _LOCAL_LIMIT_EXCEEDED: "limit or disk",
}
_POLL_S = 0.05
#: Associations that were aborted end within this, and so does a report under way, or they are left to the next start.
_ENDING_S = 2.0


@dataclass(frozen=True)
class PermittedCaller:
    """A peer that may call: its AE title ("*" = any), and its address (`192.0.2.7`, `192.0.2.0/24`; empty = any).

    `max_associations` at once and `per_minute` new ones; 0: as its address may have.
    `certificates`: its certificate has to show one of these.
    `replaces`: its objects take the place of others with the same SOP Instance UID.
    """

    ae_title: str
    address: str = ""
    certificates: tuple[CertificateIdentity, ...] = ()
    max_associations: int = 0
    per_minute: int = 0
    replaces: bool = False

    def admits(self, ae_title: str, address: str, shown: frozenset[CertificateIdentity] = frozenset()) -> bool:
        """Say whether this caller is meant; an AE title is no authentication: with an address, it does not suffice."""
        if self.ae_title not in ("*", ae_title.strip()):
            return False
        if self.certificates and shown.isdisjoint(self.certificates):
            return False
        return not self.address or ipaddress.ip_address(address) in ipaddress.ip_network(self.address, strict=False)


def admitting(
    callers: Iterable[PermittedCaller], ae_title: str, address: str, shown: frozenset[CertificateIdentity] = frozenset()
) -> PermittedCaller | None:
    """Return which of these is calling, or None. `shown`: what its verified certificate shows.

    An AE title to which certificates belong has to be proved by one of them: that any AE title may call from this
    address does not suffice.
    """
    callers = tuple(callers)
    named = [caller for caller in callers if caller.ae_title == ae_title.strip() and caller.certificates]
    return next((caller for caller in named or callers if caller.admits(ae_title, address, shown)), None)


def replacing(caller: PermittedCaller | None, ae_title: str, address: str) -> str:
    """Name a caller whose objects replace what has their UIDs; else ""."""
    if caller is None or not caller.replaces:
        return ""
    return f"caller {logs.printable(ae_title.strip())} at {address}"


def has_space(spool: Spool, minimum_free_bytes: int) -> bool:
    """Whether anything new may come."""
    try:
        return spool.free_bytes() >= minimum_free_bytes
    except SpoolError:
        log.exception("the spool is not accessible")
        return False


@dataclass(frozen=True)
class ReceiverSettings:
    """How the receiver listens.

    Attributes:
        host: address to bind; "" is every address of the machine.
        port: 0 takes a free one; `tls_port` too, None = no TLS.
        plain: whether to listen on `port`, without TLS.
        tls: the files of TLS.
        check_called_ae: refuse peers that call another AE title than `ae_title` and `more_ae_titles`.
        callers: who may call; empty = everyone.
        max_associations: more are refused. Connections that have not asked for an association don't count.
        max_per_address: how many of them one address may have; 0: four fifths.
        per_minute: new associations that one address may open in a minute.
        max_pdu: largest PDU that peers may send, bytes, at most `LONGEST_PDU`.
        network_timeout_s: an association that says nothing for so long is aborted.
        acse_timeout_s: wait for the peer's side of opening and closing an association.
        dimse_timeout_s: wait for a DIMSE message that is due.
        minimum_free_bytes: below it, nothing new is accepted.
        quarantine_bytes: refused objects are kept up to this; the oldest go first.
        largest_object_bytes: a larger object is refused.
        share_port: other receiving processes listen on the same port.
        report_to: callers whose storage commitment reports go on an association of our own.
        queriers: who may query and retrieve; empty = nobody.
        move_to: peers that C-MOVE may send to.
        results: the folder of the results, which queries find beside the images.
        private_storage: SOP Class UIDs outside the standard that are stored too.
    """

    ae_title: str
    host: str = ""
    port: int = 11112
    check_called_ae: bool = True
    callers: tuple[PermittedCaller, ...] = ()
    max_associations: int = 64
    max_per_address: int = 0
    per_minute: int = 6000
    max_pdu: int = LONGEST_PDU
    network_timeout_s: float = 60.0
    acse_timeout_s: float = 30.0
    dimse_timeout_s: float = 30.0
    minimum_free_bytes: int = 5_000_000_000
    quarantine_bytes: int = 5_000_000_000
    largest_object_bytes: int = 4_000_000_000
    share_port: bool = False
    report_to: tuple[Peer, ...] = ()
    queriers: tuple[PermittedCaller, ...] = ()
    move_to: tuple[Peer, ...] = ()
    results: Path | None = None
    private_storage: tuple[str, ...] = ()
    more_ae_titles: tuple[str, ...] = ()
    plain: bool = True
    tls_port: int | None = None
    tls: TlsFiles | None = None

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports to listen on."""
        plain = (self.port,) if self.plain else ()
        return plain if self.tls_port is None else (*plain, self.tls_port)

    @property
    def per_address(self) -> CallerLimits:
        """Return what one address may have."""
        return CallerLimits(self.max_per_address or -(-self.max_associations * 4 // 5), self.per_minute)

    def limits(self, caller: PermittedCaller | None) -> CallerLimits:
        """Return what a caller may have, one AE title at one address."""
        mine, usual = caller or PermittedCaller("*"), self.per_address
        return CallerLimits(mine.max_associations or usual.at_once, mine.per_minute or usual.per_minute)


class Receiver:
    """Listens from `start` to `stop`. Associations that store nothing (C-ECHO) leave no row in the catalogue."""

    def __init__(self, settings: ReceiverSettings, spool: Spool, catalog: Catalog) -> None:
        self._settings = settings
        self._spool = spool
        self._catalog = catalog
        self._run = process_names.current()
        self._rows: dict[Association, int] = {}
        self._admission = Admission(settings.max_associations, settings.per_address)
        self._quarantine = Quarantine(spool, settings.quarantine_bytes)
        self._servers: list[DicomServer] = []
        self._entity = _entity(settings)
        self._reports = Reports(catalog, settings.report_to)
        self._counting, self._refused_contexts = threading.Lock(), 0

    def start(self, opened: Mapping[int, socket.socket] | None = None) -> int:
        """Listen; returns the port, that without TLS if there are two (`ports`).

        `opened`: sockets that listen already, by port (`network.early`).

        Raises:
            SpoolError: the address cannot be bound (in use, not this machine's, no right to a port below 1024).
            ConfigurationError: the files of TLS cannot be used.
        """
        settings = self._settings
        holdings = QueryHoldings(self._catalog, settings.results)
        retrieval = RetrieveProvider(settings.ae_title, holdings, settings.move_to)
        security = None if settings.tls is None else tls.ReloadingContext(settings.tls, server=True)
        if security is not None and settings.tls_port is not None:
            security.current()
        handlers = [(evt.EVT_REQUESTED, self._requested), *self._reports.handlers, *retrieval.handlers]
        if settings.plain:
            self._servers.append(self._listening(settings.port, handlers, None, opened or {}))
        if settings.tls_port is not None:
            self._servers.append(self._listening(settings.tls_port, handlers, security, opened or {}))
        self._reports.start()
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(_POLL_S,), name="dicom-accept", daemon=True).start()
            with_tls = "" if server.security is None else ", with TLS"
            log.info("listening as %s on port %d%s", settings.ae_title, server.server_address[1], with_tls)
        return self.ports[0]

    @property
    def ports(self) -> list[int]:
        """The ports that it listens on, that of TLS last."""
        return [int(server.server_address[1]) for server in self._servers]

    def _listening(
        self,
        port: int,
        handlers: list[EventHandlerType],
        security: tls.ReloadingContext | None,
        opened: Mapping[int, socket.socket],
    ) -> DicomServer:
        settings = self._settings
        try:
            return DicomServer(
                self._entity,
                (settings.host or "0.0.0.0", port),  # noqa: S104 - "" says: every address
                settings.ae_title,
                [],  # each association is given the contexts that it asks for (`_negotiate`)
                open_timeout_s=settings.acse_timeout_s,
                network_timeout_s=settings.network_timeout_s,
                waiting=settings.max_associations + _MORE_WAITING,
                begin=self._begin,
                ended=self._ended,
                evt_handlers=handlers,
                share_port=settings.share_port,
                security=security,
                opened=opened.get(port),
            )
        except OSError as error:
            self._close()
            where, key = f"{settings.host or '*'}:{port}", "port" if security is None else "tls_port"
            raise SpoolError(f"cannot listen on {where}: {error.strerror}; change [node] host or {key}") from error

    def _close(self) -> None:
        for server in self._servers:
            server.server_close()
        self._servers.clear()

    def stop(self, grace_s: float, hurry: Callable[[], bool] = lambda: True) -> None:
        """Accept nothing new; running associations may finish, for `grace_s` once there is `hurry`, then are aborted.

        Takes at most `grace_s` and four seconds from then on.
        """
        if not self._servers:
            return
        for server in self._servers:
            server.shutdown()
        self._servers.clear()
        deadline = math.inf
        while self._running() and time.monotonic() < deadline:
            if deadline == math.inf and hurry():
                deadline = time.monotonic() + grace_s
            time.sleep(_POLL_S)
        for association in self._running():
            association.abort()
        # Their ends are still to be written to the catalogue.
        deadline = time.monotonic() + _ENDING_S
        while (self._running() or self._rows) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        self._reports.stop(_ENDING_S)

    def _running(self) -> list[Association]:
        return [one for one in self._entity.active_associations if one.is_acceptor]

    # Association

    def _requested(self, event: evt.Event) -> None:
        """Refuses an A-ASSOCIATE-RQ before contexts are negotiated."""
        association = event.assoc
        rejection = self._rejection(association)
        if rejection is not None:
            counters.association_refused(_REASON.get(rejection, "against PS3.8"))
            audited.refused(
                _request(association).calling_ae_title,
                association.requestor.address,
                REJECTIONS.get(rejection, "request against PS3.8"),
            )
            association.acse.send_reject(*rejection)
            association.kill()
            return
        counters.association_accepted()
        if isinstance(association._server, DicomServer):
            association._server.settle(association)
        self._negotiate(association)

    def _negotiate(self, association: Association) -> None:
        """Set what an association may negotiate; name once what of its request is refused.

        A sender whose object may not be sent often leaves out the rest of the study too, and says so to nobody.
        """
        requested = _request(association).presentation_context_definition_list
        calling, address = _request(association).calling_ae_title, association.requestor.address
        asked = [str(one.abstract_syntax) for one in requested]
        offered = contexts.negotiable(asked, self._settings.private_storage)
        if admitting(self._settings.queriers, calling, address, _shown(association)) is not None:
            offered = query_retrieve_scp.offered(offered)
        offered.append(commitment.context())
        association.acceptor.supported_contexts = offered
        refused = contexts.refusals(requested, offered)
        if refused:
            with self._counting:
                self._refused_contexts += len(refused)
                so_far = self._refused_contexts
            log.warning(
                "%s at %s offers %d SOP classes that are not taken (%d since the start): %s",
                logs.printable(calling.strip()), address, len(refused), so_far, "; ".join(refused[:_MOST_NAMED]),
            )  # fmt: skip

    def _rejection(self, association: Association) -> Rejection | None:
        request, address = _request(association), association.requestor.address
        calling, called = (
            logs.printable(request.calling_ae_title.strip()),
            logs.printable(request.called_ae_title.strip()),
        )
        settings, provider = self._settings, association.dul
        if isinstance(provider, UpperLayer) and provider.refusal is not None:
            log.warning(
                "rejected %s at %s: its request is against PS3.8, reason %s", calling, address, provider.refusal
            )
            return provider.refusal
        ours = (settings.ae_title, *settings.more_ae_titles)
        if settings.check_called_ae and called not in ours:
            log.warning("rejected %s at %s: called %s, but this is %s", calling, address, called, " and ".join(ours))
            return CALLED_AE_NOT_RECOGNISED
        shown = _shown(association)
        caller = admitting(settings.callers, calling, address, shown)
        if settings.callers and caller is None:
            if admitting([replace(one, certificates=()) for one in settings.callers], calling, address) is not None:
                log.warning(
                    "TLS: refused %s: its certificate, or the lack of one, does not prove %s (node.callers)",
                    address,
                    calling,
                )
            else:
                log.warning("rejected %s at %s: not in node.callers", calling, address)
            return CALLING_AE_NOT_RECOGNISED
        if not self._has_space():
            log.error("rejected %s at %s: free disk space is below storage.minimum_free_gb", calling, address)
            return _LOCAL_LIMIT_EXCEEDED
        refused = self._admission.admit(association, calling, address, settings.limits(caller))
        if refused is not None:
            log.warning("rejected %s at %s: %s", calling, address, refused.text)
            return _TEMPORARY_CONGESTION if refused.is_rate else _LOCAL_LIMIT_EXCEEDED
        return None

    def _has_space(self) -> bool:
        return has_space(self._spool, self._settings.minimum_free_bytes)

    def _ended(self, association: Association) -> None:
        if not self._admission.leave(association):
            return
        association_id = self._rows.get(association)
        how: Literal["released", "aborted"] = "released" if association.is_released else "aborted"
        counters.association_ended(how)
        calling = logs.printable(association.requestor.ae_title.strip())
        with logs.about(association=association_id):
            log.info("association with %s at %s %s", calling, association.requestor.address, how)
        if association_id is None:
            return
        try:
            self._catalog.end_association(association_id, how, time.time())
        except SpoolError:
            # It stays open in the catalogue until this process ends: the settle rule then waits for the silence.
            log.exception("cannot record the end of association %d", association_id)
        finally:
            del self._rows[association]

    def _association_id(self, association: Association) -> int:
        """Return the association's row, made at its first C-STORE: monitoring by C-ECHO would fill the table."""
        found = self._rows.get(association)
        if found is None:
            requestor, called_ae = association.requestor, _request(association).called_ae_title.strip()
            found = self._catalog.begin_association(
                self._run, requestor.ae_title, called_ae, requestor.address, time.time()
            )
            self._rows[association] = found
        return found

    def _begin(self, association: Association, request: StoreRequest) -> Reception:
        context = association._accepted_cx[request.context_id]
        return Reception(
            request,
            str(context.abstract_syntax),
            UID(context.transfer_syntax[0]),
            self._spool,
            self._catalog,
            quarantine=self._quarantine,
            largest=self._settings.largest_object_bytes,
            has_space=self._has_space,
            association_id=lambda: self._association_id(association),
            replacing=self._replacing(association),
        )

    def _replacing(self, association: Association) -> str:
        """Name the caller if its objects replace what has their UIDs; else ""."""
        calling, address = _request(association).calling_ae_title, association.requestor.address
        caller = admitting(self._settings.callers, calling, address, _shown(association))
        return replacing(caller, calling, address)


def _request(association: Association) -> A_ASSOCIATE:
    """Return the A-ASSOCIATE request, which has come before any of our handlers is called."""
    request = association.requestor.primitive
    assert request is not None
    return request


def _shown(association: Association) -> frozenset[CertificateIdentity]:
    """Return what the peer's certificate shows; nothing without TLS."""
    transport = association.dul.socket
    connection = None if transport is None else transport.socket
    return connection.identities if isinstance(connection, TlsSocket) else frozenset()


def _entity(settings: ReceiverSettings) -> MovingEntity:
    entity = MovingEntity(settings.ae_title)
    # pynetdicom counts connections that have not yet asked for anything: five half-open ones would lock everybody out.
    entity.maximum_associations = 1_000_000
    entity.maximum_pdu_size = settings.max_pdu
    entity.network_timeout = settings.network_timeout_s
    entity.acse_timeout = settings.acse_timeout_s
    entity.dimse_timeout = settings.dimse_timeout_s
    return entity
