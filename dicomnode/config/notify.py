"""Who is told what became of a study: [[notify]]."""

import string
from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from dicomnode.config.fields import ConfigTable

Event = Literal["delivered", "failed", "refused", "held", "expiring", "certificate", "alert"]
EVENTS: tuple[Event, ...] = get_args(Event)
#: What every template may name. No patient data: a study is named by its UID.
SAFE_NAMES = frozenset({"event", "study_uid", "generation", "reason", "node", "at", "id"})
#: What a template may name where `patient_data = true`: attributes of the study's images.
PATIENT_NAMES = frozenset({"PatientName", "PatientID", "AccessionNumber", "StudyDate", "StudyDescription"})

SUBJECT = "dicomnode: study $event"
#: Of events of the node itself: those of the configuration speak of a study.
NODE_SUBJECT = "dicomnode: $event of $node"
OVER_SUBJECT = "dicomnode: alert of $node is over"
NODE_TEMPLATE = """$node, $at: $reason
Details: dicomnode check
"""
TEMPLATE = """$node: study $study_uid (generation $generation) is $event, $at.
$reason
Details: dicomnode jobs show $study_uid
"""


class NotifyTable(ConfigTable):
    """One receiver of notifications: an e-mail address or a webhook."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,32}$", description="give a name of letters, digits, '-' and '_'")
    kind: Literal["email", "webhook"] = Field(description="give 'email' or 'webhook'")
    events: tuple[Event, ...] = Field(
        ("failed", "held", "expiring", "certificate", "alert"),
        min_length=1,
        description=f"give some of {', '.join(EVENTS)}",
    )
    url: str = Field("", pattern=r"^$|^https?://", description="give the webhook's URL, with https:// if possible")
    to: tuple[str, ...] = Field((), description="give a list of e-mail addresses")
    sender: str = Field("", description="give the sender's e-mail address (From)")
    server: str = Field("", pattern=r"^$|^.+:\d{1,5}$", description="give the mail server as 'host:port'")
    security: Literal["tls", "starttls", "none"] = Field(
        "starttls", description="give 'tls', 'starttls', or 'none' (a relay on this machine)"
    )
    user: str = Field("", description="give the user name on the mail server, or '' for none")
    secret_file: Path | None = Field(
        None, description="give the file that holds the mail server's password or the webhook's signing key"
    )
    secret_env: str = Field("", description="give the environment variable that holds it, instead of the file")
    subject: str = Field(SUBJECT, min_length=1, description="give the e-mail's subject, with $names")
    template: str = Field(TEMPLATE, min_length=1, description="give the text, with $names")
    patient_data: bool = Field(
        False, description=f"give true to allow ${', $'.join(sorted(PATIENT_NAMES))} in subject and template"
    )
    timeout_s: float = Field(20, gt=0, description="give the seconds to wait for a response")
    retry_first_s: float = Field(10, gt=0, description="give the seconds before the first retry")
    retry_longest_s: float = Field(1800, gt=0, description="give the longest pause between attempts, in seconds")
    retry_for_s: float = Field(172_800, ge=0, description="give the seconds after which the message is dropped")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = ("url",) if self.kind == "webhook" else ("to", "sender", "server")
        missing = [key for key in needed if not getattr(self, key)]
        if missing:
            raise ValueError(f"{self.name!r}: kind = {self.kind!r} needs {', '.join(missing)}")
        if self.secret_file is not None and self.secret_env:
            raise ValueError(f"{self.name!r}: give secret_file or secret_env, not both")
        has_secret = self.secret_file is not None or bool(self.secret_env)
        if self.kind == "webhook" and not has_secret:
            raise ValueError(f"{self.name!r}: a webhook is signed: give secret_file or secret_env, which hold the key")
        if self.user and not has_secret:
            raise ValueError(f"{self.name!r}: user needs secret_file or secret_env, which hold the password")
        return self

    @model_validator(mode="after")
    def _known_names(self) -> Self:
        for key in ("subject", "template"):
            text = string.Template(getattr(self, key))
            if not text.is_valid():
                raise ValueError(
                    f"{self.name!r}: a '$' in {key} is not followed by a name; write '$$' for a dollar sign"
                )
            unknown = sorted(set(text.get_identifiers()) - SAFE_NAMES - PATIENT_NAMES)
            if unknown:
                known = ", ".join(sorted(SAFE_NAMES | PATIENT_NAMES))
                raise ValueError(f"{self.name!r}: {key} names ${unknown[0]}; known are {known}")
        if self.patient_names and not self.patient_data:
            raise ValueError(
                f"{self.name!r}: ${sorted(self.patient_names)[0]} is patient data; remove it, or set patient_data = "
                "true if every recipient may see it"
            )
        return self

    def resolved(self, folder: Path) -> Self:
        """Return the same with its path made absolute against `folder`."""
        return self if self.secret_file is None else self.model_copy(update={"secret_file": folder / self.secret_file})

    @property
    def patient_names(self) -> frozenset[str]:
        """The attributes of the images that the texts name."""
        names = {n for text in (self.subject, self.template) for n in string.Template(text).get_identifiers()}
        return PATIENT_NAMES & names
