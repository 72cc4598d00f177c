"""The page of studies that a person looks at: one query, however long it is and whatever is asked for.

To build the query takes the processor longer than to run it: each form of it is built once (`_page_query`), with the
values of a question bound to it.

A row is a study with its newest generation, also one that is still arriving. `jobs list` and the console show it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import (
    CTE,
    ColumnElement,
    Integer,
    Row,
    Select,
    Subquery,
    and_,
    bindparam,
    case,
    func,
    literal,
    or_,
    select,
    tuple_,
)

from dicomnode.store.catalog.database import Database
from dicomnode.store.catalog.labels import Label, accession_key, patient_prefixes, unsealed
from dicomnode.store.catalog.priors import FETCHED
from dicomnode.store.catalog.tables import (
    awaited,
    conflicts,
    deliveries,
    instances,
    jobs,
    patients,
    priors,
    routings,
    studies,
    study_labels,
    transitions,
)
from dicomnode.store.records import StudyState

#: In these states whose a study is stands only with its images: it has not settled, or names two patients.
_BY_IMAGES = ("receiving", "held")
#: In these a study does not stay for long, or somebody looks after it.
_FEW: frozenset[StudyState] = frozenset(("receiving", "queued", "running", "held", "failed", "cancelled"))
_RESULT = ("analysed", "refused", "routed", "ignored")
_ARRIVED = ("delivered", "committed")
_LOST = ("failed", "rejected")
#: Behind every hexadecimal digit.
_AFTER_HEX = "g"
_ESCAPE = "/"


@dataclass(frozen=True)
class Wanted:
    """Which studies are looked for: all that is given must hold; "" and () say nothing.

    Attributes:
        states: in one of these.
        patient_id: the whole Patient ID, whoever issued it.
        accession_number: the whole number.
        sender: the calling AE title that brought its images last.
        since: its last image came then or later, UTC seconds.
        text: digits and dots: a part of the Study Instance UID; else a part of the reason, in any case.
        study_uid: this one.
        generation: with `study_uid`: tell of this generation, not of the newest.
        after: begin behind this row of the page before: its (last_seen, study_uid).
        limit: not more rows than this.
    """

    states: tuple[StudyState, ...] = ()
    patient_id: str = ""
    accession_number: str = ""
    sender: str = ""
    since: float | None = None
    text: str = ""
    study_uid: str = ""
    generation: int | None = None
    after: tuple[float, str] | None = None
    limit: int = 50


@dataclass(frozen=True)
class StudyRow:
    """A study as a page shows it. Times are UTC seconds; None: not yet, or not known.

    Attributes:
        generation: the newest that has settled; 0: none has.
        state: of the study: `receiving`, or its newest job's.
        label: whose it is.
        called: the AE title of the node that the sender called.
        settled_at: its images were complete.
        started_at: its analysis began.
        analysed_at: it was analysed, refused, routed or ignored.
        delivered_at: the last object arrived.
        changed_at: the state or a reason changed.
        urgency: what a rule said: "stat", "routine", "research"; "" without rules.
        deliveries: planned.
        arrived: of these, stored or committed.
        lost: of these, rejected or given up.
        warnings: of these, stored with a warning.
        conflicts: SOP Instance UIDs that came again with other content.
        priors: prior scans that its analysis has asked for.
        priors_missing: of these, those that had not come.
        is_prior: the node fetched it itself, as a prior scan.
    """

    study_uid: str
    generation: int
    state: StudyState
    instances: int
    first_seen: float
    last_seen: float
    label: Label
    sender: str
    called: str
    reason: str
    settled_at: float | None
    started_at: float | None
    analysed_at: float | None
    delivered_at: float | None
    changed_at: float | None
    urgency: str
    deliveries: int
    arrived: int
    lost: int
    warnings: int
    conflicts: int
    priors: int
    priors_missing: int
    is_prior: bool


@dataclass(frozen=True)
class Transition:
    """A job has come to a state. Time: UTC seconds."""

    generation: int
    state: StudyState
    reason: str
    at: float


class Overview(Database):
    """The part of the catalogue that people look at."""

    def overview(self, wanted: Wanted) -> list[StudyRow]:
        """Return the studies that are looked for, the last image's the newest first."""
        values = self._values(wanted)
        query = _page_query(_Form.of(wanted, values))
        with self._read() as connection:
            return [self._row(row) for row in connection.execute(query, values)]

    def count_studies(self, since: float | None = None) -> dict[StudyState, int]:
        """Return how many studies there are in each state; `since`: of those whose last image came then or later."""
        query = select(studies.c.state, func.count()).group_by(studies.c.state)
        if since is not None:
            query = query.where(studies.c.last_seen >= since)
        with self._read() as connection:
            return {row.state: int(row[1]) for row in connection.execute(query)}

    def transitions(self, study_uid: str) -> list[Transition]:
        """Return the states that a study's jobs have come to, the first first."""
        query = select(transitions).where(transitions.c.study_uid == study_uid).order_by(transitions.c.id)
        with self._read() as connection:
            return [Transition(r.generation, r.state, r.reason or "", r.at) for r in connection.execute(query)]

    def awaited_states(self, study_uid: str) -> list[tuple[str, str]]:
        """Return (Study Instance UID, `awaited`, `missed` or `done`) of the prior scans that a study has asked for."""
        query = select(awaited.c.prior_uid, awaited.c.state).where(awaited.c.study_uid == study_uid)
        with self._read() as connection:
            return [(uid, state) for uid, state in connection.execute(query.order_by(awaited.c.prior_uid))]

    def _values(self, wanted: Wanted) -> dict[str, object]:
        """Return what is bound to the query of this form."""
        text = wanted.text
        found: dict[str, object] = {"limit": wanted.limit}
        if wanted.states:
            found["states"] = wanted.states
        for name in ("study_uid", "sender", "generation", "since"):
            if (value := getattr(wanted, name)) not in ("", None):
                found[name] = value
        if wanted.accession_number:
            found["accession_key"] = accession_key(self.patient_key, wanted.accession_number)
        if wanted.patient_id:
            for number, prefix in enumerate(patient_prefixes(self.patient_key, wanted.patient_id)):
                found |= {f"patient_{number}": prefix, f"behind_{number}": prefix + _AFTER_HEX}
        if text:
            found |= {"text": _part(text), "lower_text": _part(text.lower())}
        if wanted.after is not None:
            found |= dict(zip(("after_at", "after_uid"), wanted.after, strict=True))
        return found

    def _row(self, row: Row[*tuple[object, ...]]) -> StudyRow:
        values = dict(row._mapping)
        decision, sealed = values.pop("decision"), values.pop("sealed")
        urgency = json.loads(decision)["action"].get("priority", "") if decision else ""
        return StudyRow(label=unsealed(self.patient_key, values["study_uid"], sealed), urgency=urgency, **values)


def _are_few(wanted: Wanted) -> bool:
    return bool(wanted.states) and not set(wanted.states) - _FEW


def of_patient(prefixes: Sequence[str]) -> Select[tuple[str]]:
    """Select the UIDs of a patient's studies: those that have settled, and by their images those that have not."""
    return _of_patient([(literal(one), literal(one + _AFTER_HEX)) for one in prefixes])


def _of_patient(ranges: Sequence[tuple[ColumnElement[str], ColumnElement[str]]]) -> Select[tuple[str]]:
    def begins(column: ColumnElement[str]) -> ColumnElement[bool]:
        return or_(*(and_(column >= first, column < behind) for first, behind in ranges))

    settled = select(patients.c.study_uid).where(begins(patients.c.patient_hash))
    arriving = (
        select(instances.c.study_uid)
        .join(studies, studies.c.study_uid == instances.c.study_uid)
        .where(studies.c.state.in_(_BY_IMAGES) & begins(instances.c.patient_hash))
    )
    both = settled.union(arriving).subquery()
    return select(both.c.study_uid)


def _part(text: str) -> str:
    """Return the pattern of what holds this text."""
    for letter in (_ESCAPE, "%", "_"):
        text = text.replace(letter, _ESCAPE + letter)
    return f"%{text}%"


@dataclass(frozen=True)
class _Form:
    """A question without its values: what is asked for.

    Attributes:
        names: of the values that are bound.
        are_few: it asks for states in which few studies are.
        is_uid: the text is a part of a UID.
    """

    names: frozenset[str]
    are_few: bool
    is_uid: bool

    @classmethod
    def of(cls, wanted: Wanted, values: Mapping[str, object]) -> "_Form":
        return cls(frozenset(values), _are_few(wanted), not wanted.text.strip("0123456789."))


@lru_cache(maxsize=256)
def _page_query(form: _Form) -> Select[*tuple[object, ...]]:
    return _with_all(_page(form))


def _page(form: _Form) -> CTE:
    # By its sender a study is found in the labels, which hold the same time: an index leads through them in order.
    by_sender = "sender" in form.names and not form.are_few
    at = study_labels.c.seen_at if by_sender else studies.c.last_seen
    generation = bindparam("generation", type_=Integer) if "generation" in form.names else studies.c.generation
    columns = (
        *(c for c in studies.c if c.name != "generation"),
        generation.label("generation"),
        study_labels.c.sender,
        study_labels.c.called,
        study_labels.c.sealed,
        at.label("at"),
    )
    mine = study_labels.c.study_uid == studies.c.study_uid
    query = select(*columns).join_from(studies, study_labels, mine, isouter=not by_sender)
    return (
        query.where(*_conditions(form, at))
        .order_by(at.desc(), studies.c.study_uid.desc())
        .limit(bindparam("limit", type_=Integer))
        .cte("page")
    )


def _conditions(form: _Form, at: ColumnElement[float]) -> Iterator[ColumnElement[bool]]:
    names = form.names
    if "states" in names:
        yield studies.c.state.in_(bindparam("states", expanding=True))
    if "study_uid" in names:
        yield studies.c.study_uid == bindparam("study_uid")
    if "sender" in names:
        # Few studies are in some states: their index is the shorter way, and this one is kept from being taken.
        sender = func.coalesce(study_labels.c.sender, "") if form.are_few else study_labels.c.sender
        yield sender == bindparam("sender")
    if "accession_key" in names:
        numbered = study_labels.c.accession_key == bindparam("accession_key")
        yield studies.c.study_uid.in_(select(study_labels.c.study_uid).where(numbered))
    if "patient_0" in names:
        count = sum(name.startswith("patient_") for name in names)
        yield studies.c.study_uid.in_(
            _of_patient([(bindparam(f"patient_{n}"), bindparam(f"behind_{n}")) for n in range(count)])
        )
    if "since" in names:
        yield at >= bindparam("since")
    if "text" in names:
        yield _says(is_uid=form.is_uid)
    if "after_at" in names:
        yield at <= bindparam("after_at")
        yield or_(at < bindparam("after_at"), studies.c.study_uid < bindparam("after_uid"))


def _says(*, is_uid: bool) -> ColumnElement[bool]:
    if is_uid:
        return studies.c.study_uid.like(bindparam("text"), escape=_ESCAPE)
    # Few jobs have a reason, and an index knows which.
    # SQLite knows the two cases of ASCII only: other letters are found as they are written.
    like = jobs.c.reason.is_not(None) & or_(
        func.lower(jobs.c.reason).like(bindparam("lower_text"), escape=_ESCAPE),
        jobs.c.reason.like(bindparam("text"), escape=_ESCAPE),
    )
    return tuple_(studies.c.study_uid, studies.c.generation).in_(
        select(jobs.c.study_uid, jobs.c.generation).where(like)
    )


def _with_all(page: CTE) -> Select[*tuple[object, ...]]:
    """Add what belongs to each row of the page."""
    sent = _sent(page)
    mine = (transitions.c.study_uid == page.c.study_uid) & (transitions.c.generation == page.c.generation)
    asked = select(func.count()).where(awaited.c.study_uid == page.c.study_uid)
    fetched = select(priors.c.study_uid).where((priors.c.study_uid == page.c.study_uid) & priors.c.state.in_(FETCHED))
    again = select(func.count()).where(conflicts.c.study_uid == page.c.study_uid)
    return (
        select(
            page.c.study_uid,
            page.c.generation,
            page.c.state,
            page.c.instances,
            page.c.first_seen,
            page.c.last_seen,
            page.c.sealed,
            func.coalesce(page.c.sender, "").label("sender"),
            func.coalesce(page.c.called, "").label("called"),
            func.coalesce(jobs.c.reason, "").label("reason"),
            jobs.c.created_at.label("settled_at"),
            jobs.c.updated_at.label("changed_at"),
            select(func.max(transitions.c.at))
            .where(mine & (transitions.c.state == "running"))
            .scalar_subquery()
            .label("started_at"),
            select(func.max(transitions.c.at))
            .where(mine & transitions.c.state.in_(_RESULT))
            .scalar_subquery()
            .label("analysed_at"),
            routings.c.decision,
            sent.c.delivered_at,
            *(func.coalesce(sent.c[name], 0).label(name) for name in ("deliveries", "arrived", "lost", "warnings")),
            again.scalar_subquery().label("conflicts"),
            asked.scalar_subquery().label("priors"),
            asked.where(awaited.c.state != "done").scalar_subquery().label("priors_missing"),
            fetched.exists().label("is_prior"),
        )
        .select_from(page)
        .outerjoin(jobs, (jobs.c.study_uid == page.c.study_uid) & (jobs.c.generation == page.c.generation))
        .outerjoin(routings, (routings.c.study_uid == page.c.study_uid) & (routings.c.generation == page.c.generation))
        .outerjoin(sent, (sent.c.study_uid == page.c.study_uid) & (sent.c.generation == page.c.generation))
        .order_by(page.c.at.desc(), page.c.study_uid.desc())
    )


def _sent(page: CTE) -> Subquery:
    """Return how the deliveries of the page's studies stand, one row for each."""
    state = deliveries.c.state
    # An outer join from the page: SQLite would begin an inner one with all deliveries that there are.
    mine = (deliveries.c.study_uid == page.c.study_uid) & (deliveries.c.generation == page.c.generation)
    return (
        select(
            page.c.study_uid,
            page.c.generation,
            func.count(state).label("deliveries"),
            func.sum(case((state.in_(_ARRIVED), 1), else_=0)).label("arrived"),
            func.sum(case((state.in_(_LOST), 1), else_=0)).label("lost"),
            func.sum(case((deliveries.c.text == "warning", 1), else_=0)).label("warnings"),
            func.max(case((state.in_(_ARRIVED), deliveries.c.updated_at))).label("delivered_at"),
        )
        .select_from(page)
        .outerjoin(deliveries, mine)
        .group_by(page.c.study_uid, page.c.generation)
        .subquery("sent")
    )
