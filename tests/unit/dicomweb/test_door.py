"""Who is let in to DICOMweb, route by route; and that nothing which is asked makes the service fail."""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.routing import Route

from dicomnode import config
from dicomnode.console.application import application
from dicomnode.console.site import ConsoleSite
from dicomnode.dicomweb.service import PREFIX, ROUTES, WebRoute
from dicomnode.errors import UsageError
from dicomnode.operations import passwords, web_tokens
from dicomnode.reception.holdings import KEYS
from tests.unit.console.conftest import PASSWORD, Browser, client
from tests.unit.dicomweb.conftest import Filled

IDS = [f"{one.method} {one.path}" for one in ROUTES]


def path_of(route: WebRoute, filled: Filled) -> str:
    image = next(iter(filled.studies.values()))[0]
    named = {"study": image.StudyInstanceUID, "series": image.SeriesInstanceUID, "instance": image.SOPInstanceUID}
    return PREFIX + route.path.format(**named, frames="1", path="7FE00010")


def test_the_application_has_these_routes(app: Any) -> None:
    found = {(one.path, method) for one in app._inner.routes if isinstance(one, Route) for method in one.methods or ()}
    of_web = {(path, method) for path, method in found if path.startswith(PREFIX) and method != "HEAD"}
    assert of_web == {(PREFIX + one.path, one.method) for one in ROUTES}


def test_without_the_key_there_is_no_dicomweb(filled: Filled) -> None:
    folder = filled.config.storage.state.parent.parent
    (folder / "off.toml").write_text((folder / "ae_config.toml").read_text().replace("dicomweb = true", ""))
    site = ConsoleSite(config.load(folder / "off.toml"))
    with client(application(site)) as asking:
        assert asking.get("/dicom-web/studies").status_code == 404
    site.close()


@pytest.mark.parametrize("route", ROUTES, ids=IDS)
def test_nobody_is_let_in(route: WebRoute, filled: Filled, app: Any) -> None:
    path = path_of(route, filled)
    with client(app) as asking:
        for given_ in (
            {},
            {"Authorization": "Bearer x"},
            {"Authorization": "Basic cmVhZGVyOng="},
            {"Cookie": "dicomnode=x"},
        ):
            answer = asking.request(route.method, path, headers=given_)
            assert answer.status_code in (401, 429)
            assert answer.status_code == 429 or answer.headers["www-authenticate"].startswith("Bearer")
            assert "P-1" not in answer.text


@pytest.mark.parametrize("route", ROUTES, ids=IDS)
@pytest.mark.parametrize("role", ["reader", "operator", "administrator"])
def test_a_program_may_read_in_each_role_and_store_in_none(
    route: WebRoute, role: str, filled: Filled, program: Callable[..., httpx.Client]
) -> None:
    answer = program(role).request(route.method, path_of(route, filled))
    assert answer.status_code == (403 if route.method == "POST" else 200), answer.text


def test_a_researcher_gets_no_token_and_no_answer(filled: Filled, app: Any) -> None:
    with pytest.raises(UsageError, match="pseudonyms"):
        web_tokens.add(filled.config, "science", "researcher", "", 1.0)
    token = web_tokens.token_hash("t")
    filled.catalog.add_console_token("science", token, "researcher", "", 1.0)
    with client(app) as asking:
        for route in ROUTES:
            answer = asking.request(route.method, path_of(route, filled), headers={"Authorization": "Bearer t"})
            assert answer.status_code == 403


@pytest.fixture
def browser(filled: Filled, app: Any) -> Iterator[Browser]:
    filled.catalog.add_console_user("reader", "reader", passwords.hashed(PASSWORD), 1.0)
    with client(app) as asking:
        found = Browser(asking)
        assert found.log_in("reader").status_code == 303
        yield found


def test_a_session_reads_from_our_pages_alone_and_stores_nothing(browser: Browser) -> None:
    assert browser.get("/dicom-web/studies").status_code == 200
    assert browser.get("/dicom-web/studies", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 401
    assert browser.client.post("/dicom-web/studies", content=b"x").status_code == 403


def test_a_token_is_kept_as_a_hash_shown_once_and_ends_at_once(
    filled: Filled, app: Any, program: Callable[..., httpx.Client]
) -> None:
    asking = program()
    token = asking.headers["Authorization"].removeprefix("Bearer ")
    assert len(token) > 40
    content = b"".join(path.read_bytes() for path in filled.config.storage.state.glob("*.sqlite*"))
    assert token.encode() not in content and web_tokens.token_hash(token).encode() in content
    (found,) = [one for one in web_tokens.tokens(filled.config) if one.name.startswith("program-")]
    assert token not in repr(found) and web_tokens.token_hash(token) not in repr(found)
    assert asking.get("/dicom-web/studies").status_code == 200
    web_tokens.remove(filled.config, found.name)
    assert asking.get("/dicom-web/studies").status_code in (401, 429)


@pytest.mark.parametrize(
    ("name", "role", "store_as"),
    [
        ("a b", "reader", ""),
        ("", "reader", ""),
        ("a", "researcher", ""),
        ("a", "reader", "x" * 17),
        ("a", "reader", "\n"),
    ],
)
def test_what_is_no_token_is_not_made(filled: Filled, name: str, role: str, store_as: str) -> None:
    with pytest.raises(UsageError):
        web_tokens.add(filled.config, name, role, store_as, 1.0)
    assert web_tokens.tokens(filled.config) == [] or name not in {one.name for one in web_tokens.tokens(filled.config)}


def test_a_program_stores_as_whatever_may_call(filled: Filled) -> None:
    web_tokens.add(filled.config, "gateway", "reader", " CT ROOM 1 ", 1.0)
    noted = len(filled.catalog.audit_waiting(10_000))
    with pytest.raises(UsageError, match="already"):
        web_tokens.add(filled.config, "gateway", "reader", "", 1.0)
    (found,) = [one for one in web_tokens.tokens(filled.config) if one.name == "gateway"]
    assert found.calling_ae == "CT ROOM 1"
    with pytest.raises(UsageError, match="no token"):
        web_tokens.remove(filled.config, "nobody")
    # What was not done is not in the trail.
    assert len(filled.catalog.audit_waiting(10_000)) == noted
    web_tokens.remove(filled.config, "gateway")


def test_tokens_are_not_guessed_at_leisure(filled: Filled, app: Any) -> None:
    with client(app) as asking:
        asked = [asking.get("/dicom-web/studies", headers={"Authorization": f"Bearer {n}"}) for n in range(40)]
    assert asked[-1].status_code == 429 and int(asked[-1].headers["retry-after"]) > 0


_words = st.text(max_size=12) | st.sampled_from(
    [
        "*",
        "P-1",
        "20260101-20260131",
        "-",
        "all",
        "1.2.3",
        "99999999999",
        "-1",
        "1,2",
        "a,b,c",
        "0,0,0,0,0,0",
        "1e400",
        "\\",
    ]
)
_names = st.sampled_from(
    ["limit", "offset", "includefield", "fuzzymatching", "accept", "window", "viewport", "quality", "annotation",
     *(keyword for level in KEYS.values() for keyword in level)]
) | _words  # fmt: skip
_accepts = st.sampled_from(
    ["*/*", "image/png", "image/jpeg", "image/*", "application/dicom", "application/dicom+json", "text/html",
     "multipart/related", 'multipart/related; type="application/octet-stream"; transfer-syntax=*',
     'multipart/related; type="image/jls"', 'multipart/related; type="application/dicom"; transfer-syntax=*']
) | st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=30)  # fmt: skip


@pytest.fixture
def asking(program: Callable[..., httpx.Client]) -> httpx.Client:
    return program(store_as="ANY")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_asked_is_answered(data: st.DataObject, filled: Filled, asking: httpx.Client) -> None:
    route = data.draw(st.sampled_from(ROUTES))
    objects = [one for of_study in filled.studies.values() for one in of_study]
    image = data.draw(st.sampled_from(objects))
    known = {"study": str(image.StudyInstanceUID), "series": str(image.SeriesInstanceUID)}
    known |= {"instance": str(image.SOPInstanceUID), "frames": "1", "path": "7FE00010"}
    filled_in = {name: quote(data.draw(st.just(value) | _words) or "x", safe="") for name, value in known.items()}
    parameters = data.draw(st.lists(st.tuples(_names, _words), max_size=4))
    headers = {"Accept": data.draw(_accepts).encode("latin-1")}
    body: dict[str, Any] = {}
    if route.method == "POST":
        headers["Content-Type"] = data.draw(
            st.sampled_from([b'multipart/related; type="application/dicom"; boundary=b', b"application/dicom", b"x"])
        )
        body["content"] = data.draw(st.sampled_from([b"--b\r\n\r\n", b"", b"--b--"])) + data.draw(
            st.binary(max_size=300)
        )
    url = PREFIX + route.path.format(**filled_in)
    answer = asking.request(route.method, url, params=parameters, headers=headers, **body)
    assert answer.status_code < 500, (url, parameters, headers, answer.text)


def test_a_client_that_names_no_port_is_told_the_one_that_answers(web: httpx.Client) -> None:
    found = web.get("/dicom-web/studies", headers={"Host": "localhost"}).json()
    assert found[0]["00081190"]["Value"][0].startswith("http://localhost:8480/dicom-web/studies/")
