"""Prior scans that the node has asked the PACS for, and the studies that wait for them. Times are UTC seconds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import select

from dicomnode.store.catalog.database import Database
from dicomnode.store.catalog.tables import awaited, priors, studies
from dicomnode.store.records import Study

#: `wanted` → `fetching` → `fetched`; or `refused` by the PACS for good, or `failed` after many attempts.
PriorState = Literal["wanted", "fetching", "fetched", "refused", "failed"]
#: `missed`: the study's result went out without it.
AwaitedState = Literal["awaited", "missed", "done"]
#: What was fetched and has not come is asked for again after so long.
_AGAIN_S = 3600.0
#: Of studies that the node has fetched itself.
FETCHED: tuple[PriorState, ...] = ("fetching", "fetched")
#: States of a study whose results are made.
RESULT = ("analysed", "delivered", "committed")


@dataclass(frozen=True)
class Prior:
    """A prior scan at the PACS.

    Attributes:
        patient_hash: of the patient for whose sake it is fetched.
        method: digest of the method with which it shall be analysed.
        series_uids: what is fetched of it.
        text: what went wrong, if anything did; no patient data.
    """

    study_uid: str
    patient_hash: str
    method: str
    series_uids: tuple[str, ...]
    state: PriorState
    text: str | None
    asked_at: float


class Priors(Database):
    """The prior scans' part of the catalogue."""

    def want_prior(self, prior: Prior) -> None:
        """Note that it is wanted, unless it is already so, or was fetched for this method a short while ago."""
        values = {**vars(prior), "series_uids": "\\".join(prior.series_uids)}
        row = self._insert(priors).values(values)
        lost = (priors.c.state == "fetched") & (priors.c.asked_at < prior.asked_at - _AGAIN_S)
        again = (priors.c.method != prior.method) | priors.c.state.in_(("refused", "failed")) | lost
        with self._write() as connection:
            connection.execute(row.on_conflict_do_update(index_elements=["study_uid"], set_=values, where=again))

    def mark_prior(self, study_uid: str, state: PriorState, text: str | None = None) -> None:
        """Note how its fetching stands."""
        mine = priors.c.study_uid == study_uid
        with self._write() as connection:
            connection.execute(priors.update().where(mine).values(state=state, text=text))

    def forget_prior(self, study_uid: str) -> None:
        """Forget a prior scan that is no longer wanted."""
        with self._write() as connection:
            connection.execute(priors.delete().where(priors.c.study_uid == study_uid))

    def prior(self, study_uid: str) -> Prior | None:
        """None if it was never asked for."""
        with self._read() as connection:
            row = connection.execute(select(priors).where(priors.c.study_uid == study_uid)).one_or_none()
        if row is None:
            return None
        return Prior(**{**row._mapping, "series_uids": tuple(row.series_uids.split("\\"))})

    def is_prior(self, study_uid: str) -> bool:
        """Whether the node fetched this study itself: one that came unasked is nobody's prior scan only."""
        found = self.prior(study_uid)
        return found is not None and found.state in FETCHED

    # Who waits

    def await_priors(self, study_uid: str, prior_uids: Sequence[str]) -> None:
        """Note for which prior scans a study waits."""
        row = self._insert(awaited).on_conflict_do_nothing()
        with self._write() as connection:
            for prior_uid in prior_uids:
                connection.execute(row, {"study_uid": study_uid, "prior_uid": prior_uid, "state": "awaited"})

    def awaited(self, study_uid: str) -> list[str]:
        """Return the UIDs of the prior scans that a study waits or has waited for."""
        query = select(awaited.c.prior_uid).where(awaited.c.study_uid == study_uid).order_by(awaited.c.prior_uid)
        with self._read() as connection:
            return list(connection.execute(query).scalars())

    def mark_awaited(self, study_uid: str, prior_uid: str, state: AwaitedState) -> None:
        """Note whether the study's result was made with this prior scan."""
        mine = (awaited.c.study_uid == study_uid) & (awaited.c.prior_uid == prior_uid)
        with self._write() as connection:
            connection.execute(awaited.update().where(mine).values(state=state))

    def reopen_for_late_priors(self) -> list[str]:
        """Let the studies whose result went out without a prior scan that has come by now settle once more.

        Returns their UIDs.
        """
        prior = studies.alias()
        late = (
            select(awaited.c.study_uid, awaited.c.prior_uid)
            .join(prior, prior.c.study_uid == awaited.c.prior_uid)
            .join(studies, studies.c.study_uid == awaited.c.study_uid)
            .where((awaited.c.state == "missed") & prior.c.state.in_(RESULT) & studies.c.state.in_(RESULT))
        )
        reopened = []
        with self._write() as connection:
            for study_uid, prior_uid in connection.execute(late).all():
                mine = (awaited.c.study_uid == study_uid) & (awaited.c.prior_uid == prior_uid)
                connection.execute(awaited.update().where(mine).values(state="done"))
                here = (studies.c.study_uid == study_uid) & studies.c.state.in_(RESULT) & (studies.c.instances > 0)
                if connection.execute(studies.update().where(here).values(state="receiving")).rowcount:
                    reopened.append(study_uid)
        return reopened

    def with_results(self, since: float) -> list[Study]:
        """Return the studies whose results are made, with images that came after this time."""
        chosen = studies.c.state.in_(RESULT) & (studies.c.last_seen >= since) & (studies.c.instances > 0)
        with self._read() as connection:
            rows = connection.execute(select(studies).where(chosen).order_by(studies.c.last_seen))
            return [Study(**row._mapping) for row in rows]

    def reopen(self, study_uid: str) -> bool:
        """Let a study whose images are here, and whose job has ended, settle once more; False where that is not so."""
        ended = studies.c.state.in_((*RESULT, "refused", "failed"))
        here = (studies.c.study_uid == study_uid) & ended & (studies.c.instances > 0)
        with self._write() as connection:
            return connection.execute(studies.update().where(here).values(state="receiving")).rowcount == 1
