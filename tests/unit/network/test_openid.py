"""The node as the client of an OpenID provider: what it asks, and what it takes for an answer."""

import hashlib
import hmac
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import ANY
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey

from dicomnode.errors import PeerError, PeerRejectedError
from dicomnode.network.openid import Begun, OpenIdClient, claim
from dicomnode.network.openid_provider import OpenIdProvider, is_private
from tests.helpers.openid_provider import CLIENT, SECRET, Provider, provider, segment

BEGUN = Begun("the-state", "the-nonce", "the-verifier-" + "v" * 43)
BACK = "https://node.example/login/provider/back"
WANTED = ("groups", "preferred_username")


@pytest.fixture(scope="module")
def running() -> Iterator[Provider]:
    with provider() as made:
        yield made


@pytest.fixture
def theirs(running: Provider, monkeypatch: pytest.MonkeyPatch) -> Provider:
    running.__init__(int(running.issuer.rpartition(":")[2]))  # type: ignore[misc]
    running.nonce = BEGUN.nonce
    monkeypatch.setenv("OIDC_SECRET", SECRET)
    return running


def client(theirs: Provider, clock: Callable[[], float] = time.time, **more: Any) -> OpenIdClient:
    given = {"secret": "env:OIDC_SECRET", "redirect_uri": BACK, "scopes": ("openid", "profile"), **more}
    return OpenIdClient(OpenIdProvider(theirs.issuer, CLIENT, **given), clock)


def log_in(theirs: Provider, code: str = "the-code", issuer: str | None = None) -> Any:
    return client(theirs).claims(code, BEGUN, issuer, WANTED)


def test_a_browser_is_sent_with_state_nonce_and_the_hash_of_the_verifier(theirs: Provider) -> None:
    url = urlsplit(client(theirs, ask_again=True).login_url(BEGUN))
    asked = {name: value for name, (value,) in parse_qs(url.query).items()}
    challenge = urlsafe_b64encode(hashlib.sha256(BEGUN.verifier.encode()).digest()).rstrip(b"=").decode()
    assert f"{url.scheme}://{url.netloc}{url.path}" == f"{theirs.issuer}/auth"
    assert asked == {
        "response_type": "code", "client_id": CLIENT, "redirect_uri": BACK, "scope": "openid profile",
        "state": BEGUN.state, "nonce": BEGUN.nonce, "code_challenge": challenge, "code_challenge_method": "S256",
        "prompt": "login",
    }  # fmt: skip


def test_a_code_becomes_claims_and_the_verifier_goes_with_it(theirs: Provider) -> None:
    assert log_in(theirs)["groups"] == ["ct-operators"]
    _path, form, headers = next(one for one in theirs.asked if one[0] == "/token")
    user, _, secret = b64decode(headers["authorization"].removeprefix("Basic ")).decode().partition(":")
    assert (unquote(user), unquote(secret)) == (CLIENT, SECRET) and SECRET not in str(form)
    assert form == {
        "grant_type": "authorization_code", "code": "the-code", "redirect_uri": BACK, "code_verifier": BEGUN.verifier,
    }  # fmt: skip


def test_the_secret_goes_in_the_body_where_the_provider_wants_it_so_and_not_at_all_where_there_is_none(
    theirs: Provider,
) -> None:
    theirs.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    log_in(theirs)
    client(theirs, secret="").claims("the-code", BEGUN, None, WANTED)
    forms = [form for path, form, _ in theirs.asked if path == "/token"]
    assert [one.get("client_secret") for one in forms] == [SECRET, None]
    assert {one["client_id"] for one in forms} == {CLIENT}


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"exp": int(time.time()) - 120}, "exp|expired"),
        ({"iat": int(time.time()) + 600}, "iat|for this login"),
        ({"nbf": int(time.time()) + 600}, "nbf|for this login"),
        ({"aud": "another"}, "aud"),
        ({"aud": [CLIENT, "another"], "azp": "another"}, "azp"),
        ({"iss": "http://127.0.0.1:1"}, "iss"),
        ({"nonce": "another"}, "nonce"),
        ({"nonce": None}, "nonce"),
        ({"exp": None}, "exp"),
        ({"sub": None}, "sub"),
        ({"sub": 7}, "names nobody|sub"),
        ({"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}, "at_hash"),
    ],
)
def test_a_token_for_somebody_or_something_else_is_refused(theirs: Provider, more: dict[str, Any], why: str) -> None:
    theirs.more = more
    with pytest.raises(PeerRejectedError, match=why):
        log_in(theirs)


def forged(kind: str, theirs: Provider) -> Callable[[dict[str, Any]], str]:
    other = ECKey.generate_key("P-256", {"kid": "first"})

    def changed(claims: dict[str, Any]) -> str:
        head, _, sign = theirs.signed(claims).split(".")
        return f"{head}.{segment({**claims, 'groups': ['ct-administrators']})}.{sign}"

    def by_public_key(claims: dict[str, Any]) -> str:
        told = f"{segment({'alg': 'HS256', 'kid': 'first'})}.{segment(claims)}"
        sign = hmac.new(theirs.key.as_pem(private=False), told.encode(), hashlib.sha256).digest()
        return f"{told}.{urlsafe_b64encode(sign).rstrip(b'=').decode()}"

    return {
        "not signed": theirs.unsigned,
        "not signed, with a name": lambda claims: f"{segment({'alg': 'none', 'kid': 'first'})}.{segment(claims)}.",
        "of another key": lambda claims: theirs.signed(claims, other),
        "of a key that nobody knows": lambda claims: theirs.signed(claims, ECKey.generate_key("P-256", {"kid": "x"})),
        "changed": changed,
        "signed with the public key": by_public_key,
        "with a key of its own": lambda claims: theirs.signed(claims, other, {"jwk": other.as_dict(private=False)}),
        "with what we do not know": lambda claims: theirs.signed(claims).replace(
            theirs.signed(claims).split(".")[0], segment({"alg": "ES256", "kid": "first", "crit": ["x"], "x": 1})
        ),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "not signed", "not signed, with a name", "of another key", "of a key that nobody knows", "changed",
        "signed with the public key", "with a key of its own", "with what we do not know",
    ],
)  # fmt: skip
def test_a_forged_token_is_refused(theirs: Provider, kind: str) -> None:
    theirs.sign = forged(kind, theirs)
    with pytest.raises(PeerRejectedError, match="signed"):
        log_in(theirs)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_nonsense_is_refused_in_words(theirs: Provider, data: st.DataObject) -> None:
    odd = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=5,
    )
    name = data.draw(
        st.sampled_from(["iss", "sub", "aud", "exp", "iat", "nonce", "azp", "at_hash", "auth_time", "amr"])
    )
    theirs.more = {name: data.draw(odd)}
    head = data.draw(st.dictionaries(st.sampled_from(["alg", "kid", "crit", "b64", "typ"]), odd, max_size=2))
    token = theirs.signed(theirs.claims())
    if data.draw(st.booleans()):
        token = ".".join([segment({"alg": "ES256", **head}), *token.split(".")[1:]])
    ours = client(theirs)
    ours._told, ours._keys = (time.time(), ANY), (time.time(), [theirs.key.as_dict(private=False)])
    try:
        found = ours._checked(token, BEGUN.nonce, "access")
    except PeerRejectedError as error:
        assert len(str(error)) < 200
    else:
        assert found["sub"] and found["nonce"] == BEGUN.nonce
    assert theirs.asked == []


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/keys", "/token"])
@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"[]", b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe", b"null", b"{}", b" " * 300_000]
)
def test_what_is_no_answer_of_a_provider_is_refused(theirs: Provider, path: str, content: bytes) -> None:
    theirs.instead = {path: content}
    with pytest.raises((PeerError, PeerRejectedError)):
        log_in(theirs)


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "http://127.0.0.1:1"},
        {"authorization_endpoint": "http://login.example/auth"},
        {"token_endpoint": "file:///etc/passwd"},
        {"token_endpoint": None},
        {"jwks_uri": ["x"]},
        {"userinfo_endpoint": "http://[::1/"},
        {"authorization_endpoint": "https://login.example/\r\nSet-Cookie: x"},
    ],
)
def test_a_provider_that_leads_elsewhere_is_refused(theirs: Provider, metadata: dict[str, Any]) -> None:
    theirs.metadata = metadata
    with pytest.raises(PeerError):
        client(theirs).login_url(BEGUN)


def test_the_issuer_in_the_answer_has_to_be_ours(theirs: Provider) -> None:
    with pytest.raises(PeerRejectedError, match="another issuer"):
        log_in(theirs, issuer="https://evil.example")
    assert log_in(theirs, issuer=theirs.issuer)["sub"] == "1"
    theirs.metadata = {"authorization_response_iss_parameter_supported": True}
    with pytest.raises(PeerRejectedError, match="another issuer"):
        log_in(theirs)


def test_an_error_of_the_provider_is_told_by_its_code_alone(theirs: Provider) -> None:
    theirs.instead = {"/token": (400, b'{"error": "invalid_grant", "error_description": "<b>Anna</b>"}')}
    with pytest.raises(PeerRejectedError, match=r"400 Bad Request: invalid_grant$"):
        log_in(theirs)
    theirs.instead = {"/token": (400, b'{"error": "<script>"}')}
    with pytest.raises(PeerRejectedError, match=r"400 Bad Request: an unknown reason$"):
        log_in(theirs)


def test_what_the_token_does_not_say_is_asked_for_and_has_to_be_of_the_same_user(theirs: Provider) -> None:
    theirs.user = {"sub": "1"}
    theirs.userinfo = {"sub": "1", "groups": ["ct-readers"], "preferred_username": "anna", "iss": "x"}
    found = log_in(theirs)
    assert (found["groups"], found["iss"]) == (["ct-readers"], theirs.issuer)
    theirs.userinfo["sub"] = "2"
    with pytest.raises(PeerRejectedError, match="of another one"):
        log_in(theirs)


def test_a_new_key_is_found_and_an_unknown_name_asks_no_more_often_than_it_may(theirs: Provider) -> None:
    now = [time.time()]
    ours = client(theirs, lambda: now[0])
    ours.claims("the-code", BEGUN, None, WANTED)
    theirs.key = ECKey.generate_key("P-256", {"kid": "second"})
    for _ in range(3):
        with pytest.raises(PeerRejectedError):
            ours.claims("the-code", BEGUN, None, WANTED)
    assert [path for path, *_ in theirs.asked].count("/keys") == 1
    now[0] += 31
    assert ours.claims("the-code", BEGUN, None, WANTED)["sub"] == "1"


def test_a_provider_that_is_away_is_not_asked_for_each_login(theirs: Provider) -> None:
    now = [time.time()]
    ours = client(theirs, lambda: now[0])
    theirs.instead = {"/.well-known/openid-configuration": (500, b"")}
    for _ in range(3):
        with pytest.raises(PeerError, match="500"):
            ours.login_url(BEGUN)
    assert len(theirs.asked) == 1
    theirs.instead, now[0] = {}, now[0] + 6
    assert ours.login_url(BEGUN).startswith(theirs.issuer)


def test_no_more_than_a_few_wait_for_the_provider(theirs: Provider) -> None:
    ours = client(theirs)
    for _ in range(4):
        ours._places.acquire()
    with pytest.raises(PeerError, match="too many people"):
        ours.claims("the-code", BEGUN, None, WANTED)
    assert theirs.asked == []


def test_a_claim_is_found_by_its_name_or_its_path() -> None:
    claims = {"realm_access": {"roles": ["a"]}, "https://x.example/groups": ["b"]}
    assert claim(claims, "realm_access.roles") == ["a"]
    assert claim(claims, "https://x.example/groups") == ["b"]
    assert claim(claims, "realm_access.roles.a") is None and claim(claims, "none") is None


@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("https://a.example/x", True),
        ("http://127.0.0.1:5/x", True),
        ("http://localhost", True),
        ("http://a.example", False),
        ("ftp://127.0.0.1", False),
        ("https://", False),
        ("http://[::1", False),
    ],
)
def test_what_is_read_by_nobody_else(url: str, private: bool) -> None:
    assert is_private(url) is private
