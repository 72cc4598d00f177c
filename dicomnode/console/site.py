"""What all pages share: configuration, catalogue, users, templates. One for the process."""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from dicomnode import __version__
from dicomnode.audit import messages, trail
from dicomnode.audit.messages import AuditPatient, AuditStudy
from dicomnode.config import Config
from dicomnode.console import glance
from dicomnode.console.accounts import Accounts, LoggedIn
from dicomnode.console.attempts import LoginAttempts
from dicomnode.console.peer_tests import PeerTests
from dicomnode.console.pseudonyms import ConsolePseudonyms
from dicomnode.console.roles import OPERATORS, READERS
from dicomnode.console.shared_look import SharedLook
from dicomnode.console.stacks import ScrollStacks
from dicomnode.console.study_keys import StudyKeys
from dicomnode.console.web_tokens import WebTokens
from dicomnode.dicomweb.names import StudyNames
from dicomnode.errors import SpoolError
from dicomnode.network.openid import OpenIdClient
from dicomnode.operations import looking
from dicomnode.operations.looking import Pages
from dicomnode.outbound.peers import known
from dicomnode.registry import shadow
from dicomnode.report import numbers
from dicomnode.store.catalog.catalog import Catalog

log = logging.getLogger(__name__)

_HERE = Path(__file__).parent
#: The candidate beside the served bundle changes with each scan, and needs no more than to be of today.
_SHADOW_FRESH_S = 300.0


@dataclass(frozen=True)
class Visit:
    """One request, as a page sees it.

    Attributes:
        params: of the path.
        query: of the URL.
        form: of the body.
        visitor: the token of a browser in which nobody is logged in.
        flow: what a login by the provider has left with the browser.
    """

    address: str
    params: Mapping[str, str]
    query: Mapping[str, str]
    form: Mapping[str, str]
    user: LoggedIn | None = None
    token: str = ""
    visitor: str = ""
    flow: str = ""

    @property
    def identifies(self) -> bool:
        """Whether whose a study is may be shown."""
        return self.user is not None and self.user.role in READERS

    @property
    def may_act(self) -> bool:
        """Whether studies may be changed."""
        return self.user is not None and self.user.role in OPERATORS

    def number(self, most: int) -> int:
        """Return the number in the path. Raises NotThereError: it is none, or larger than `most`."""
        given = self.params["number"]
        if not (given.isascii() and given.isdigit() and len(given) <= len(str(most)) and int(given) <= most):
            raise NotThereError
        return int(given)

    @property
    def name(self) -> str:
        """Who it is."""
        return "" if self.user is None else self.user.name


class NotThereError(Exception):
    """There is no such page, or no such study."""


class ConsoleSite:
    """The node as the console's pages see it. For several threads."""

    def __init__(self, config: Config) -> None:
        """Open the catalogue.

        Raises:
            SpoolError: it cannot be opened.
        """
        self.config = config
        #: To write sessions and audit messages; pages look by a connection that cannot write.
        self.catalog = Catalog.open(config.catalog_url, config.storage.state)
        source = config.audit.source(config.node.ae_title)
        trail.begin(source, None if source is None else self.catalog.audit)
        self.accounts = Accounts(config.console, self.catalog, LoginAttempts())
        oidc = config.console.oidc
        self.provider = None if oidc is None else OpenIdClient(oidc.provider)
        self.tokens = WebTokens(self.catalog)
        self.keys = StudyKeys(self.catalog.patient_key)
        self.pseudonyms = ConsolePseudonyms(config, self.catalog.patient_key)
        self.now = SharedLook(lambda: glance.glance(config, self.reading()), glance.FRESH_S)
        self.peers = PeerTests(known(config))
        #: Every risk of the registry is read for it.
        self.shadow = SharedLook(lambda: shadow.compare(self.reading().catalog.registry_risks()), _SHADOW_FRESH_S)
        self.stacks = ScrollStacks()
        #: What DICOMweb looks for by name.
        self.names = StudyNames()
        self._pages: Pages | None = None
        self._lock = threading.Lock()

    def reading(self) -> Pages:
        """Return catalogue and queue, open to be looked at. Raises SpoolError."""
        with self._lock:
            if self._pages is None or not self._pages.has_queue:
                before, self._pages = self._pages, Pages(self.config)  # the first worker makes the queue
                if before is not None:
                    before.close()
            return self._pages

    def look_at_names(self) -> None:
        """Read the labels of all studies, so that the first search waits for none of it."""
        try:
            self.names.look(self.reading().catalog)
        except SpoolError as error:
            log.info("names of studies are read with the first search: %s", error)

    def page(self, visit: Visit, template: str, status: int = 200, **values: Any) -> Response:
        """Return a page; `values` are escaped wherever the template shows them."""
        text = (
            _templates()
            .get_template(template)
            .render(
                version=__version__,
                node=self.config.node.ae_title,
                user=visit.user,
                csrf="" if visit.user is None else visit.user.csrf,
                identifies=visit.identifies,
                may_act=visit.may_act,
                **values,
            )
        )
        return HTMLResponse(text, status)

    def study_uid(self, visit: Visit) -> str:
        """Return the study that the path names. Raises NotThereError."""
        study_uid = self.keys.study_uid(visit.params["study"])
        if study_uid is None:
            raise NotThereError
        return study_uid

    def note_access(self, visit: Visit, study_uid: str, shown: Mapping[str, Any]) -> None:
        """Note in the audit trail that somebody looks at a study."""
        study = AuditStudy(study_uid, {}, str(shown.get("accession_number", "")) if visit.identifies else "")
        patient = AuditPatient(str(shown.get("patient_id", "")) if visit.identifies else "")
        who = f"{visit.name} (console)"
        trail.note(messages.accessed, time.time(), study, patient, user=who, address=visit.address)

    def note(
        self, visit: Visit, what: str, details: Mapping[str, str], outcome: messages.Outcome = messages.SUCCESS
    ) -> None:
        """Note that somebody uses, or would use, what not everybody may."""
        user, told = f"{visit.name} (console)", {**details, "address": visit.address}
        trail.note(messages.alert, time.time(), messages.RESTRICTED, what, told, user=user, outcome=outcome)

    def close(self) -> None:
        """Tell what waits to be told, and close every connection."""
        self.accounts.tell_refused(at_once=True)
        trail.begin(None)
        with self._lock:
            if self._pages is not None:
                self._pages.close()
        self.catalog.close()


@cache
def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    made.filters["local"] = looking.local
    made.filters["ago"] = ago
    # Numbers look as they do in the reports.
    made.filters |= {"whole": numbers.whole, "share": numbers.share, "probability": numbers.probability}
    made.globals["probability_range"] = numbers.probability_range
    return made


def ago(seconds: float) -> str:
    """Return a length of time as people say it."""
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{max(0.0, seconds):.0f} s"
