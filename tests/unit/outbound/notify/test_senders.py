"""E-mail and webhook against servers of this machine: what goes out, and what is made of each answer."""

import hashlib
import hmac
import json
from collections.abc import Iterator
from email import message_from_string
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicomnode.cli import app
from dicomnode.config import Config, NotifyTable
from dicomnode.errors import ConfigurationError, PeerError, PeerRejectedError
from dicomnode.operations import checks
from dicomnode.outbound.notify import mail, webhook
from dicomnode.outbound.notify.message import Message
from dicomnode.outbound.notify.sending import send
from dicomnode.store.records import Event
from tests.helpers.ports import free_port
from tests.helpers.receivers import MailServer, Webhook

TOLD = Message("abc.it", "dicomnode: study failed", "Grüße\n", {"event": "failed", "study_uid": "1.2.3", "id": "abc"})


@pytest.fixture
def server() -> Iterator[MailServer]:
    running = MailServer()
    yield running
    running.close()


@pytest.fixture
def hook() -> Iterator[Webhook]:
    running = Webhook()
    yield running
    running.close()


def email(server: str, **more: object) -> NotifyTable:
    return NotifyTable(
        name="it", kind="email", to=("a@b.example", "c@d.example"), sender="node@b.example", server=server,
        **{"security": "none", "timeout_s": 20, **more},  # type: ignore[arg-type]
    )  # fmt: skip


def signed(url: str, key: Path, **more: object) -> NotifyTable:
    return NotifyTable(name="ris", kind="webhook", url=url, secret_file=key, timeout_s=20, **more)  # type: ignore[arg-type]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    (tmp_path / "key").write_text("a secret\n")
    return tmp_path / "key"


def test_an_email(server: MailServer) -> None:
    mail.send(email(server.address), TOLD)
    mail.send(email(server.address), TOLD)
    first, second = (message_from_string(m) for m in server.mails)
    assert (first["From"], first["To"]) == ("node@b.example", "a@b.example, c@d.example")
    assert first["Subject"] == TOLD.subject
    assert first["Message-ID"] == second["Message-ID"] == "<abc.it@b.example>"
    assert first.get_payload(decode=True).decode().strip() == "Grüße"  # type: ignore[union-attr]
    assert [r.strip("<>") for r in server.recipients[:2]] == ["a@b.example", "c@d.example"]


def test_a_user_and_a_password(server: MailServer, key: Path) -> None:
    mail.send(email(server.address, user="node", secret_file=key), TOLD)
    assert len(server.logins) == 1
    assert len(server.mails) == 1


@pytest.mark.parametrize(
    ("command", "answer", "error", "says"),
    [
        ("", "421 too busy", PeerError, "421"),
        ("MAIL", "451 greylisted", PeerError, "451"),
        ("MAIL", "550 no such sender <secret>", PeerRejectedError, "550"),
        ("RCPT", "450 later", PeerError, "every address with code 450"),
        ("RCPT", "550 who?", PeerRejectedError, "every address with code 550"),
        (".", "552 too much", PeerRejectedError, "552"),
        ("DATA", None, PeerError, "cannot be reached"),
        ("", None, PeerError, "cannot be reached"),
        ("AUTH", "535 no", PeerRejectedError, "535"),
    ],
)
def test_what_a_mail_server_may_say(
    server: MailServer, key: Path, command: str, answer: str | None, error: type[Exception], says: str
) -> None:
    server.answers[command] = answer
    more = {"user": "node", "secret_file": key} if command == "AUTH" else {}
    with pytest.raises(error, match=says) as caught:
        mail.send(email(server.address, **more), TOLD)
    assert "secret" not in str(caught.value)
    assert server.mails == []


def test_no_encryption_where_it_is_asked_for(server: MailServer) -> None:
    with pytest.raises(PeerRejectedError, match="does not offer security = 'starttls'"):
        mail.send(email(server.address, security="starttls"), TOLD)
    with pytest.raises((PeerError, PeerRejectedError)):
        mail.send(email(server.address, security="tls"), TOLD)
    assert server.mails == []


def test_no_mail_server() -> None:
    with pytest.raises(PeerError, match="cannot be reached"):
        mail.send(email(f"127.0.0.1:{free_port()}"), TOLD)


def test_a_signed_webhook(hook: Webhook, key: Path) -> None:
    webhook.send(signed(hook.url, key), TOLD)
    ((headers, body),) = hook.came
    expected = hmac.new(b"a secret", headers["x-dicomnode-timestamp"].encode() + b"." + body, hashlib.sha256)
    assert headers["x-dicomnode-signature"] == f"sha256={expected.hexdigest()}"
    assert headers["idempotency-key"] == "abc.it"
    assert json.loads(body) == {"event": "failed", "study_uid": "1.2.3", "id": "abc", "text": "Grüße\n"}


@pytest.mark.parametrize(
    ("status", "error"),
    [(500, PeerError), (503, PeerError), (429, PeerError), (408, PeerError), (404, PeerRejectedError),
     (401, PeerRejectedError), (302, PeerRejectedError)],
)  # fmt: skip
def test_what_a_webhook_may_say(hook: Webhook, key: Path, status: int, error: type[Exception]) -> None:
    hook.status = status
    with pytest.raises(error, match=f"answered {status}"):
        webhook.send(signed(hook.url, key), TOLD)
    assert len(hook.came) == 1  # a redirection is not followed


def test_no_webhook(key: Path) -> None:
    with pytest.raises(PeerError, match="cannot be reached"):
        webhook.send(signed(f"http://127.0.0.1:{free_port()}/", key), TOLD)


def test_the_key_from_the_environment(hook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    to = NotifyTable(name="ris", kind="webhook", url=hook.url, secret_env="TEST_HOOK_KEY")
    monkeypatch.delenv("TEST_HOOK_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="TEST_HOOK_KEY is empty"):
        webhook.send(to, TOLD)
    monkeypatch.setenv("TEST_HOOK_KEY", "k")
    webhook.send(to, TOLD)
    assert len(hook.came) == 1


def test_check_asks_them(server: MailServer, hook: Webhook, key: Path, tmp_path: Path) -> None:
    gone = signed(f"http://127.0.0.1:{free_port()}/", key).model_copy(update={"name": "gone"})
    keyless = signed(hook.url, tmp_path / "none").model_copy(update={"name": "keyless"})
    found = {
        r.what: (r.ok, r.text)
        for r in checks._notified(Config(notify=(email(server.address), signed(hook.url, key), gone, keyless)))
    }
    assert {name: ok for name, (ok, _) in found.items()} == {
        "notify it": True, "notify ris": True, "notify gone": False, "notify keyless": False,
    }  # fmt: skip
    assert "no connection" in found["notify gone"][1]
    assert "cannot be read" in found["notify keyless"][1]
    assert server.mails == []
    assert hook.came == []


def test_a_mail_that_is_a_test_says_so(server: MailServer) -> None:
    event = Event("e", "1.2", 1, "failed", "this is a test", 0.0)
    send(Config(), email(server.address), event, None, is_test=True)
    (mail,) = server.mails
    assert "Subject: TEST: " in str(mail)
    assert "This is a test of dicomnode's notifications" in str(mail)


def test_the_test_message(hook: Webhook, key: Path, tmp_path: Path) -> None:
    path = tmp_path / "ae_config.toml"
    path.write_text(
        f'[[notify]]\nname = "ris"\nkind = "webhook"\nurl = "{hook.url}"\nsecret_file = "{key.name}"\n',
        encoding="utf-8",
    )
    done = CliRunner().invoke(app, ["notify", "test", "ris", "-c", str(path)])
    assert done.exit_code == 0, done.output
    ((_, body),) = hook.came
    told = json.loads(body)
    assert told["reason"] == "this is a test"
    assert told["test"] == "true"
    assert told["text"].startswith("This is a test of dicomnode's notifications: nothing has happened.")
    assert told["id"] in done.output
    hook.status = 404
    refused = CliRunner().invoke(app, ["notify", "test", "ris", "-c", str(path)])
    assert isinstance(refused.exception, PeerRejectedError)
    unknown = CliRunner().invoke(app, ["notify", "test", "rsi", "-c", str(path)])
    assert "known: ris" in str(unknown.exception)
