"""A message as e-mail (RFC 5321, 5322)."""

import logging
import smtplib
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any, BinaryIO, NoReturn

from dicomnode.config import NotifyTable
from dicomnode.errors import PeerError, PeerRejectedError
from dicomnode.network.bounded_http import Deadline
from dicomnode.outbound.notify.message import Message
from dicomnode.outbound.notify.secret import secret
from dicomnode.words.numerals import plural

log = logging.getLogger(__name__)

#: Of all that a mail server says in one conversation.
_MOST_REPLY_BYTES = 1 << 18
_MOST_TIMEOUTS = 6


def send(to: NotifyTable, message: Message) -> None:
    """Hand the message to the mail server. Its Message-ID is the same at each attempt.

    Raises:
        PeerError: no connection, no answer, or a refusal in passing (4yz).
        PeerRejectedError: a refusal for good (5yz), of the sender, of every address, or of user and password.
        ConfigurationError: the password is not there.
    """
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = to.sender, ", ".join(to.to), message.subject
    mail["Date"] = formatdate()
    mail["Message-ID"] = f"<{message.key}@{to.sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office reply
    mail.set_content(message.text, cte="quoted-printable")  # any server takes it, with or without 8BITMIME
    with _connected(to) as server, _judged(to):
        refused = server.send_message(mail)
    if refused:
        log.warning(
            "the mail server of %r refused %d of %s", to.name, len(refused), plural(len(to.to), "address", "addresses")
        )


def reachable(to: NotifyTable) -> None:
    """Whether the mail server takes us: connection, security, user. Sends nothing. Raises as `send`."""
    with _connected(to) as server, _judged(to):
        server.noop()


class _Replies:
    """A server's replies: so many bytes in all, and no more."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left = file, _MOST_REPLY_BYTES

    def readline(self, size: int) -> bytes:
        line = self._file.readline(size)
        self._left -= len(line)
        if self._left < 0:
            raise smtplib.SMTPServerDisconnected("it does not stop talking")
        return line

    def close(self) -> None:
        self._file.close()


class _Conversation(smtplib.SMTP):
    """Bounded in time by `deadline`, and in the size of what the server says."""

    def __init__(self, deadline: Deadline, host: str, port: int, timeout_s: float, **more: Any) -> None:
        self._deadline = deadline
        super().__init__(host, port, timeout=timeout_s, **more)

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None:
            assert self.sock is not None
            self.file = _Replies(self.sock.makefile("rb"))
        return super().getreply()


class _Mail(_Conversation):
    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        made = socket.create_connection((host, port), timeout)
        self._deadline.watch(made)
        return made


class _MailOverTls(_Conversation, smtplib.SMTP_SSL):
    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        made = socket.create_connection((host, port), timeout)
        self._deadline.watch(made)  # before TLS begins: a handshake may be slow too
        return self.context.wrap_socket(made, server_hostname=host)


@contextmanager
def _connected(to: NotifyTable) -> Iterator[smtplib.SMTP]:
    # A conversation has about ten replies, each of which may take as long as the time-out allows once or twice.
    with Deadline(_MOST_TIMEOUTS * to.timeout_s) as deadline:
        yield from _talking(to, deadline)


def _talking(to: NotifyTable, deadline: Deadline) -> Iterator[smtplib.SMTP]:
    host, _, port = to.server.rpartition(":")
    password = secret(to).decode() if to.user else ""
    with _judged(to):
        if to.security == "tls":
            context = ssl.create_default_context()
            server: smtplib.SMTP = _MailOverTls(deadline, host.strip("[]"), int(port), to.timeout_s, context=context)
        else:
            server = _Mail(deadline, host.strip("[]"), int(port), to.timeout_s)
    try:
        with _judged(to):
            if to.security == "starttls":
                server.starttls(context=ssl.create_default_context())
            if to.user:
                server.login(to.user, password)
        yield server
    finally:
        server.close()


@contextmanager
def _judged(to: NotifyTable) -> Iterator[None]:
    """Raise errors of smtplib as ours.

    Their texts are the server's and may quote what we sent: only the codes are told.
    """
    try:
        yield
    except smtplib.SMTPRecipientsRefused as e:
        codes = sorted({code for code, _ in e.recipients.values()})
        _refused(to, max(codes), "refuses every address")
    except smtplib.SMTPResponseException as e:
        _refused(to, e.smtp_code, "refuses")
    except (smtplib.SMTPNotSupportedError, ssl.SSLError) as e:
        raise PeerRejectedError(
            f"the mail server of {to.name!r} does not offer security = {to.security!r} as asked ({type(e).__name__})"
        ) from None
    except (OSError, smtplib.SMTPException) as e:
        raise PeerError(f"the mail server of {to.name!r} cannot be reached ({type(e).__name__})") from None


def _refused(to: NotifyTable, code: int, what: str) -> NoReturn:
    text = f"the mail server of {to.name!r} {what} with code {code}"
    raise (PeerRejectedError(f"{text}: see its log") if code >= 500 else PeerError(text)) from None
