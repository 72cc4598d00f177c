"""The durable fetching of prior scans: on queues of its own, so that a slow PACS holds up nothing, so many an hour.

An attempt that failed in passing queues the next one, with a delay; nothing waits within a worker.
"""

import logging
import time

from dbos import DBOS

from dicomnode import logs
from dicomnode.config import Config, PriorsTable
from dicomnode.context import prefetch, priors, retrieval, worklist
from dicomnode.errors import PeerError, PeerRejectedError
from dicomnode.network import find
from dicomnode.retry import backoff_s
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.priors import Prior
from dicomnode.store.spool import Spool
from dicomnode.words.numerals import plural
from dicomnode.workflows.calls import enqueue, fetch_call
from dicomnode.workflows.queue import MOST_RECOVERIES
from dicomnode.workflows.worker import RETRIES, current

log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 10.0, 1800.0
#: In busy hours, what is fetched beforehand looks again so often.
_BUSY_PAUSE_S = 600.0


@DBOS.workflow(name="prefetch", max_recovery_attempts=MOST_RECOVERIES)
def prefetch_patient(order_key: str, asked_by: str) -> int:
    """Look for the prior scans of a patient on the worklist, and queue their fetching. Returns how many."""
    wanted = search_step(order_key)
    for study_uid in wanted:
        enqueue(fetch_call(study_uid, asked_by))
    return len(wanted)


@DBOS.step(name="search", **RETRIES)
def search_step(order_key: str) -> list[str]:
    """Return the UIDs of the scans to be fetched for an order's patient; none while the PACS does not answer."""
    work = current()
    config, order = work.config, work.catalog.order(order_key)
    if config.worklist is None or config.priors is None or order is None:
        return []
    patient = find.read(order.content)
    now = f"{worklist.today(config.worklist, time.time()):%Y%m%d} 240000"
    try:
        _, fetch = priors.want(config, work.catalog, work.digest, patient, now, order.study_uid)
    except (PeerError, PeerRejectedError) as e:
        log.warning("priors of a patient on the worklist could not be queried: %s", e)
        return []
    return fetch


@DBOS.workflow(name="fetch", max_recovery_attempts=MOST_RECOVERIES)
@logs.about_study
def fetch(study_uid: str, asked_by: str, attempt: int, waited: float) -> str:
    """Fetch a prior scan; where that fails in passing, queue the next attempt. Returns its state, or "again"."""
    how = fetch_step(study_uid, asked_by, waited)
    if how == "busy hours":
        enqueue(fetch_call(study_uid, asked_by, attempt=attempt + 1, waited=waited, pause=_BUSY_PAUSE_S))
    elif how == "again":
        pause = backoff_s(_FIRST_PAUSE_S, _LONGEST_PAUSE_S, attempt, seed=f"{study_uid} {asked_by}")
        enqueue(fetch_call(study_uid, asked_by, attempt=attempt + 1, waited=waited, pause=pause))
    return how


@DBOS.step(name="fetch", **RETRIES)
def fetch_step(study_uid: str, asked_by: str, waited: float) -> str:
    """One attempt. Returns the scan's state, "again" or "busy hours"."""
    work = current()
    table, prior = work.config.priors, work.catalog.prior(study_uid)
    if table is None or prior is None or not _is_wanted(work.catalog, prior):
        return "not wanted"
    if asked_by.startswith("prefetch/") and not prefetch.is_quiet(table, time.time()):
        return "busy hours"
    # Before the first image comes: nothing of what is fetched may be taken for a study that was sent here.
    work.catalog.mark_prior(study_uid, "fetching", prior.text)
    try:
        spool = Spool(work.config.storage.spool)
        done = retrieval.retrieve(work.config, table, work.catalog, spool, study_uid, prior.series_uids)
    except PeerRejectedError as e:
        log.error("the archive refused to send prior study %s: %s", study_uid, e)
        work.catalog.mark_prior(study_uid, "refused", str(e))
        return "refused"
    except PeerError as e:
        return _again(work.catalog, table, study_uid, str(e), waited)
    if done.failed and not done.completed:
        return _again(work.catalog, table, study_uid, f"none of {plural(done.failed, 'image')} could be sent", waited)
    text = (
        f"{done.failed} of {plural(done.failed + done.completed, 'image')} could not be sent" if done.failed else None
    )
    work.catalog.mark_prior(study_uid, "fetched", text)
    log.info("fetched prior study %s: %s", study_uid, plural(done.completed, "image"))
    return "fetched"


def _is_wanted(catalog: Catalog, prior: Prior) -> bool:
    study = catalog.study(prior.study_uid)
    if prior.state == "wanted" and study is not None and study.instances:
        # It came by itself meanwhile, and its results go where those of other studies go.
        catalog.forget_prior(prior.study_uid)
        return False
    return prior.state in ("wanted", "fetching")


def _again(catalog: Catalog, table: PriorsTable, study_uid: str, why: str, waited: float) -> str:
    if waited >= table.retry_for_s:
        log.error("could not fetch prior study %s within %.0f s: %s", study_uid, waited, why)
        catalog.mark_prior(study_uid, "failed", why)
        return "failed"
    log.warning("could not fetch prior study %s, will retry: %s", study_uid, why)
    catalog.mark_prior(study_uid, "fetching", why)
    return "again"


def stays_here(config: Config, catalog: Catalog, study_uid: str) -> bool:
    """Whether the results of this study go nowhere.

    It was fetched to compare with, or brought for a cohort, and nobody asked for them.
    """
    bulk = catalog.bulk(study_uid)
    if bulk is not None:
        return bulk.keep
    if config.priors is not None and config.priors.send_results:
        return False
    return catalog.is_prior(study_uid)
