"""Whatever is asked of the HTTP interface, the node does not fail: schemathesis, by the interface's description.

More of it: DICOMNODE_EXAMPLES=500 (of each operation; usually a few).
"""

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from starlette.routing import Route

from dicomnode.console.accounts import _hash
from dicomnode.monitoring import server
from dicomnode.operations import passwords, web_tokens
from tests.helpers.http_description import FORM, MONITORING, description
from tests.unit.console.conftest import URL, InProcess
from tests.unit.dicomweb.conftest import Filled

EXAMPLES = int(os.environ.get("DICOMNODE_EXAMPLES", "2"))
SESSION = "a-session-of-an-administrator"
COOKIE = {"Cookie": f"dicomnode={SESSION}"}


@dataclass
class Interface:
    """What is asked, by whom, and how it is described."""

    filled: Filled
    pages: httpx.Client
    monitoring: httpx.Client
    routes: list[Any]
    operations: list[Any]
    token: str

    def ask(self, case: Any) -> httpx.Response:
        given_ = case.as_transport_kwargs(base_url=URL)
        if case.path in MONITORING:
            return self.monitoring.request(given_["method"], given_["url"], params=given_["params"])
        headers = {name: str(value).encode("latin-1", "replace") for name, value in given_["headers"].items()}
        if case.path.startswith("/dicom-web"):
            headers["Authorization"] = f"Bearer {self.token}".encode()
        else:
            headers["Cookie"] = COOKIE["Cookie"].encode()
        content = given_.get("data")
        if isinstance(content, dict):
            headers["Content-Type"] = FORM.encode()
            content = urlencode({name: str(value) for name, value in content.items()}, errors="replace").encode()
        return self.pages.request(
            given_["method"], given_["url"], params=given_["params"], headers=headers, content=content or b""
        )


@pytest.fixture(scope="module")
def interface(filled: Filled, app: Any) -> Iterator[Interface]:
    usual, passwords._hasher = passwords._hasher, passwords.PasswordHasher(1, 64, 1)
    filled.catalog.add_console_user("anna", "administrator", passwords.hashed("correct horse battery"), 1.0)
    listening = filled.config.monitoring.model_copy(update={"port": 9108})
    pages = server.MonitoringPages(filled.config.model_copy(update={"monitoring": listening}))
    token = web_tokens.add(filled.config, "odd", "operator", "ANYBODY", 1.0)
    with (
        httpx.Client(transport=InProcess(app), base_url=URL) as asking,
        httpx.Client(transport=InProcess(server.application(pages)), base_url=URL) as monitoring,
    ):
        routes = [*app._inner.routes, *server.application(pages).routes]
        made = Interface(filled, asking, monitoring, routes, [], token)
        log_in(filled)
        study = next(iter(filled.studies))
        key = filled.site.keys.key(study)
        page = asking.get(f"/study/{key}/cancel", headers=COOKIE)
        (csrf,) = set(re.findall(r'name="csrf" value="(\w+)"', page.text))
        image = filled.studies[study][0]
        known = {"study": [key, study], "series": [str(image.SeriesInstanceUID)], "path": ["7FE00010"]}
        known |= {"instance": [str(image.SOPInstanceUID)], "frames": ["1", "1,2"], "csrf": [csrf], "number": ["0"]}
        known |= {"plane": ["axial", "coronal"], "kind": ["image", "map"], "limit": ["1"], "offset": ["1"]}
        known |= {"seen": re.findall(r'name="seen" value="([^"]+)"', page.text), "after": [key], "after_at": ["100.0"]}
        schema = schemathesis.openapi.from_dict(description(known))
        made.operations = [found.ok() for found in schema.get_all_operations()]
        yield made
    pages.close()
    passwords._hasher = usual
    passwords._nobody.clear()


def log_in(filled: Filled) -> None:
    now = time.time()
    filled.catalog.end_console_session(_hash(SESSION))
    filled.catalog.begin_console_session(_hash(SESSION), "anna", now, (0.0, 0.0))


def test_every_route_is_described(interface: Interface) -> None:
    there = {(one.path, method) for one in interface.routes if isinstance(one, Route) for method in one.methods or ()}
    there = {(path, method) for path, method in there if method != "HEAD" and not path.startswith("/static/")}
    assert {(one.path, one.method.upper()) for one in interface.operations} == there


def test_whatever_is_asked_is_answered(interface: Interface) -> None:
    statuses: set[int] = set()
    for operation in interface.operations:
        wrong = any(True for _ in operation.iter_parameters()) or bool(operation.body)
        modes = (GenerationMode.POSITIVE, *([GenerationMode.NEGATIVE] if wrong else []))

        @settings(
            max_examples=EXAMPLES, database=None, deadline=None, derandomize=EXAMPLES < 50,
            suppress_health_check=list(HealthCheck), phases=(Phase.generate,),
        )  # fmt: skip
        @given(case=st.one_of([operation.as_strategy(generation_mode=mode) for mode in modes]))
        def try_it(case: Any) -> None:
            answer = interface.ask(case)
            statuses.add(answer.status_code)
            ready = case.path == "/ready" and answer.status_code == 503
            assert answer.status_code < 500 or ready, (case.as_curl_command(), answer.text[:500])
            if case.path == "/logout":
                log_in(interface.filled)

        try_it()
    assert {200, 303, 400, 404} <= statuses, "nothing but refusals was tried"
