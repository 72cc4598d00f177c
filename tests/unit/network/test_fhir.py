"""A FHIR transaction against a server that answers as the test says: stored, passing, or for good."""

import json
import ssl
from pathlib import Path

import pytest

from dicomnode.errors import PeerError, PeerRejectedError
from dicomnode.network import fhir
from tests.helpers.certificates import Authority
from tests.helpers.outward_servers import FhirStore

REPORT = {"resourceType": "DiagnosticReport", "identifier": [{"value": "a"}, {"value": "b"}]}
ENTRY = {"resource": REPORT, "request": {"method": "PUT", "url": "DiagnosticReport?identifier=s|a"}}
TRANSACTION = json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": [ENTRY]}).encode()
SECRET = "Müller^PAT-0001"


@pytest.fixture
def store() -> FhirStore:
    return FhirStore().start()


def respond(statuses: list[object]) -> bytes:
    entries = [{"response": {"status": status}} for status in statuses]
    return json.dumps({"resourceType": "Bundle", "type": "transaction-response", "entry": entries}).encode()


def server(store: FhirStore, **more: object) -> fhir.FhirServer:
    return fhir.FhirServer("ehr", store.url, timeout_s=2, **more)  # type: ignore[arg-type]


def test_it_is_stored_once_however_often_it_is_sent(store: FhirStore) -> None:
    fhir.submit(server(store), TRANSACTION, 1)
    fhir.submit(server(store), TRANSACTION, 1)
    assert store.of("DiagnosticReport") == [REPORT]
    assert {(method, path) for method, path, _ in store.requests} == {("POST", "/fhir")}
    store.stop()


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504])
def test_what_passes(store: FhirStore, status: int) -> None:
    store.answers = lambda: (status, SECRET.encode())
    with pytest.raises(PeerError, match=f"HTTP status {status}") as caught:
        fhir.submit(server(store), TRANSACTION, 1)
    assert "PAT" not in str(caught.value)
    store.stop()


@pytest.mark.parametrize(
    ("status", "cure"),
    [(301, "redirects"), (400, "log"), (401, "token"), (403, "allow"), (404, "url"), (412, "all but one"), (422, "log"),
     (501, "transactions")],
)  # fmt: skip
def test_what_does_not_pass(store: FhirStore, status: int, cure: str) -> None:
    store.answers = lambda: (status, SECRET.encode())
    with pytest.raises(PeerRejectedError, match=cure) as caught:
        fhir.submit(server(store), TRANSACTION, 1)
    assert "PAT" not in str(caught.value)
    store.stop()


@pytest.mark.parametrize(
    "body",
    [b"", b"[" * 100_000, b"<html>", b"null", b"[]", b'{"resourceType": "Bundle"}', respond([]),
     respond(["200", "200"]), respond([None]), respond(["ok"]),
     b'{"resourceType":"Bundle","type":"transaction-response","entry":[7]}'],
)  # fmt: skip
def test_an_answer_of_another_form_confirms_nothing(store: FhirStore, body: bytes) -> None:
    store.answers = lambda: (200, body)
    with pytest.raises(PeerError, match="not known whether it stored"):
        fhir.submit(server(store), TRANSACTION, 1)
    store.stop()


def test_an_entry_that_was_refused_counts(store: FhirStore) -> None:
    store.answers = lambda: (200, respond(["422 Unprocessable Entity"]))
    with pytest.raises(PeerRejectedError, match="a resource of the result"):
        fhir.submit(server(store), TRANSACTION, 1)
    store.answers = lambda: (200, respond(["503"]))
    with pytest.raises(PeerError, match="a resource of the result"):
        fhir.submit(server(store), TRANSACTION, 1)
    store.stop()


def test_an_answer_without_end_is_cut(store: FhirStore) -> None:
    store.answers = lambda: (200, b" " * (2 << 20))
    with pytest.raises(PeerError, match="more than 1 MB"):
        fhir.submit(server(store), TRANSACTION, 1)
    store.stop()


def test_a_sign_of_life(store: FhirStore) -> None:
    assert fhir.echo(server(store)) > 0
    assert store.requests[-1][:2] == ("GET", "/fhir/metadata")
    store.stop()
    with pytest.raises(PeerError, match="no connection"):
        fhir.echo(server(store))


def test_the_token_goes_by_tls_to_the_trusted_server_only(tmp_path: Path) -> None:
    ours, other = Authority(tmp_path / "ours"), Authority(tmp_path / "other")
    files = ours.files("ehr")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)
    store = FhirStore(context=context).start()
    (tmp_path / "token").write_text("a-token\n")
    token = f"file:{tmp_path / 'token'}"
    fhir.submit(server(store, token=token, ca_file=str(ours.certificate)), TRANSACTION, 1)
    assert store.requests[-1][2]["Authorization"] == "Bearer a-token"
    count = len(store.requests)
    with pytest.raises(PeerError, match="no connection"):
        fhir.submit(server(store, token=token, ca_file=str(other.certificate)), TRANSACTION, 1)
    assert len(store.requests) == count
    store.stop()
