"""What DICOMweb searches: studies in pages, newest first, each page by a fixed number of queries whatever its length.

What is held stands as for Query/Retrieve (`holdings`): never a study that is held as doubtful, and of results only
those of the newest generation that stands.
"""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import ARRAY, BigInteger, ColumnElement, Row, Select, and_, any_, exists, func, literal, or_, select

from dicomnode.store.catalog.holdings import STANDING, HoldingsRows
from dicomnode.store.catalog.labels import Label, accession_key, patient_prefixes, unseal
from dicomnode.store.catalog.overview import of_patient
from dicomnode.store.catalog.tables import deliveries, instances, jobs, studies, study_labels
from dicomnode.store.records import Instance

#: Rows that are fetched at a time.
_AT_ONCE = 500
#: Of named studies: so many are looked up by their numbers. Of more, a page is full after some thousand rows.
_FEW = 5_000


@dataclass(frozen=True)
class NamedStudies:
    """Studies by what their labels say.

    Attributes:
        noted: the numbers under which the labels that say it were noted.
        known: up to which number labels were looked at: later ones may say it too.
        unlabelled: studies that had no label, which may match.
    """

    noted: frozenset[int]
    known: int
    unlabelled: frozenset[str]

    def may_be(self, noted: int | None) -> bool:
        """Whether a study may be one of them; `noted`: of its label, None where it has none."""
        return noted is None or noted > self.known or noted in self.noted


@dataclass(frozen=True)
class WebWanted:
    """Which studies may match: what an index or a column knows. The caller looks again at what it does not.

    Attributes:
        study_uids: one of these.
        patient_id: the whole Patient ID.
        accession_number: the whole number.
        dates: (first, last) of the Study Date, eight digits; "" leaves a side open.
        modalities: it has an image of one of these, or results that stand.
        series_uids, instance_uids: it has one of these.
        named: None: any; else only these.
    """

    study_uids: tuple[str, ...] = ()
    patient_id: str = ""
    accession_number: str = ""
    dates: tuple[str, str] = ("", "")
    modalities: tuple[str, ...] = ()
    series_uids: tuple[str, ...] = ()
    instance_uids: tuple[str, ...] = ()
    named: NamedStudies | None = None


@dataclass(frozen=True)
class WebStudy:
    """A study that may match. `by_images`: it has an image of one of the wanted modalities."""

    study_uid: str
    label: Label = field(repr=False)
    by_images: bool


@dataclass(frozen=True)
class WebFigures:
    """What a study holds.

    Attributes:
        path: of any of its images.
        series, instances: how many, of images.
        modalities: of its images.
        standing: the newest generation whose results stand.
    """

    study_uid: str
    path: str
    series: int
    instances: int
    modalities: tuple[str, ...]
    standing: int | None


class WebHoldingsRows(HoldingsRows):
    """The part of the catalogue that answers DICOMweb."""

    def web_studies(self, wanted: WebWanted) -> Iterator[WebStudy]:
        """Yield the studies that may match, newest image first, by one query for each of some hundreds.

        No transaction is open while the caller looks at a study: the files that it reads may take longer than a server
        lets one idle, or than another's checkpoint should wait.
        """
        named = wanted.named
        if named is None or len(named.noted) + len(named.unlabelled) > _FEW:
            yield from self._web_in_order(wanted)
            return
        # Few: their UIDs are looked up, and nothing else is read.
        uids = self._newest_first(named)
        if wanted.study_uids:
            uids = [uid for uid in uids if uid in wanted.study_uids]
        for first in range(0, len(uids), _AT_ONCE):
            yield from self._web_in_order(replace(wanted, study_uids=tuple(uids[first : first + _AT_ONCE])))

    def _web_in_order(self, wanted: WebWanted) -> Iterator[WebStudy]:
        last: Row[Any] | None = None
        while True:
            query = self._web_page(wanted)
            if last is not None:
                at = studies.c.last_seen
                # The first condition alone is what an index begins at.
                behind = or_(at < last.last_seen, studies.c.study_uid < last.study_uid)
                query = query.where(at <= last.last_seen, behind)
            with self._read() as connection:
                rows = connection.execute(query).all()
            for last in rows:
                if wanted.named is None or wanted.named.may_be(last.noted):
                    label = unseal(self.patient_key, last.study_uid, last.sealed)
                    yield WebStudy(last.study_uid, label, bool(last.by_images))
            if len(rows) < _AT_ONCE:
                return

    def _newest_first(self, named: NamedStudies) -> list[str]:
        """Return the UIDs of these few studies, the last image's the newest first."""
        columns = (studies.c.last_seen, studies.c.study_uid)
        labelled = select(*columns).join(study_labels, study_labels.c.study_uid == studies.c.study_uid)
        queries = [labelled.where(study_labels.c.noted > named.known)]
        if named.noted:
            queries.append(labelled.where(self._is_one_of(study_labels.c.noted, named.noted)))
        if named.unlabelled:
            queries.append(select(*columns).where(studies.c.study_uid.in_(named.unlabelled)))
        found: set[tuple[float, str]] = set()
        with self._read() as connection:
            for query in queries:
                found.update((row[0], row[1]) for row in connection.execute(query))
        return [uid for _, uid in sorted(found, reverse=True)]

    def _is_one_of(self, column: ColumnElement[int], numbers: Collection[int]) -> ColumnElement[bool]:
        """Compare with many numbers as one value: to bind each by itself takes longer than to look all of them up."""
        if self._is_sqlite:
            values = func.json_each(json.dumps(list(numbers))).table_valued("value")
            return column.in_(select(values.c.value))
        return column == any_(literal(list(numbers), ARRAY(BigInteger)))

    def _web_page(self, wanted: WebWanted) -> Select[Any]:
        kept = wanted.modalities
        by_images = _has(instances.c.modality.in_(kept)) if kept else literal(value=True)
        return (
            select(
                studies.c.study_uid,
                studies.c.last_seen,
                study_labels.c.sealed,
                study_labels.c.noted,
                by_images.label("by_images"),
            )
            .join_from(studies, study_labels, study_labels.c.study_uid == studies.c.study_uid, isouter=True)
            .where(_is_held(), *self._web_conditions(wanted))
            .order_by(studies.c.last_seen.desc(), studies.c.study_uid.desc())
            .limit(_AT_ONCE)
        )

    def web_figures(self, study_uids: Collection[str]) -> dict[str, WebFigures]:
        """Return what these studies hold, by one query."""
        distinct = instances.c.modality.distinct()
        named = func.group_concat(distinct) if self._is_sqlite else func.string_agg(distinct, ",")
        query = (
            select(
                instances.c.study_uid,
                func.min(instances.c.path),
                func.count(instances.c.series_uid.distinct()),
                func.count(),
                named,
                _standing(),
            )
            .where(instances.c.study_uid.in_(study_uids))
            .group_by(instances.c.study_uid)
        )
        with self._read() as connection:
            rows = [
                WebFigures(a, b, c, d, tuple((e or "").split(",")), f) for a, b, c, d, e, f in connection.execute(query)
            ]
        return {row.study_uid: row for row in rows}

    def web_instances(self, study_uids: Collection[str]) -> list[Instance]:
        """Return the images of these studies that are held, by study, series and SOP Instance UID; by one query."""
        by = (instances.c.study_uid, instances.c.series_uid, instances.c.sop_instance_uid)
        query = select(instances).join(studies, studies.c.study_uid == instances.c.study_uid)
        query = query.where(_is_held() & instances.c.study_uid.in_(study_uids)).order_by(*by)
        with self._read() as connection:
            return [Instance(**row._mapping) for row in connection.execute(query)]

    def web_standing(self, study_uids: Collection[str]) -> dict[str, int]:
        """Return the newest generation whose results stand, of those of these studies that are held and have one."""
        query = (
            select(jobs.c.study_uid, func.max(jobs.c.generation))
            .join(studies, studies.c.study_uid == jobs.c.study_uid)
            .where(_is_held() & jobs.c.study_uid.in_(study_uids) & jobs.c.state.in_(STANDING))
            .group_by(jobs.c.study_uid)
        )
        with self._read() as connection:
            return {uid: int(generation) for uid, generation in connection.execute(query)}

    def _web_conditions(self, wanted: WebWanted) -> Iterator[ColumnElement[bool]]:
        unlabelled = study_labels.c.study_uid.is_(None)
        if wanted.study_uids:
            yield studies.c.study_uid.in_(wanted.study_uids)
        if wanted.patient_id:
            yield studies.c.study_uid.in_(of_patient(patient_prefixes(self.patient_key, wanted.patient_id)))
        if wanted.accession_number:
            key = accession_key(self.patient_key, wanted.accession_number)
            yield or_(study_labels.c.accession_key == key, unlabelled)
        first, last = wanted.dates
        if first or last:
            # Without a date it may only be that a label of an earlier version has none.
            within = and_(study_labels.c.study_date >= first, study_labels.c.study_date <= (last or "9"))
            yield or_(within, study_labels.c.study_date == "", unlabelled)
        if wanted.modalities:
            yield or_(_has(instances.c.modality.in_(wanted.modalities)), _standing(studies.c.study_uid).is_not(None))
        if wanted.series_uids:
            yield _has(instances.c.series_uid.in_(wanted.series_uids))
        if wanted.instance_uids:
            sent = deliveries.c.sop_instance_uid.in_(wanted.instance_uids)
            ours = select(deliveries.c.study_uid).where(sent)
            images = select(instances.c.study_uid).where(instances.c.sop_instance_uid.in_(wanted.instance_uids))
            yield or_(studies.c.study_uid.in_(images), studies.c.study_uid.in_(ours))


def _is_held() -> ColumnElement[bool]:
    return (studies.c.instances > 0) & (studies.c.state != "held")


def _has(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where((instances.c.study_uid == studies.c.study_uid) & condition)


def _standing(study_uid: ColumnElement[str] = instances.c.study_uid) -> ColumnElement[int]:
    query: Select[tuple[int]] = select(func.max(jobs.c.generation))
    return query.where((jobs.c.study_uid == study_uid) & jobs.c.state.in_(STANDING)).scalar_subquery()
