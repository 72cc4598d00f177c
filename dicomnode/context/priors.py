"""A patient's prior scans at the PACS: which ones there are, which are fetched, and how long a study waits for them.

study received ── C-FIND ──> analysed before with this method: nothing to do
                             here, but analysed with another one: it settles once more
                             else: wanted ── `fetching` ──> our receiver ──> analysed as a study of its own
the study itself is put off until they have ended, for `priors.wait_s` at most, then goes out and says what lacks
one that comes later lets the study settle once more: the new version names the old one as its predecessor
"""

import json
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pydicom.dataset import Dataset

from dicomnode import logs
from dicomnode.analysis.series.headers import plain, read_source
from dicomnode.config import Config, PriorsTable
from dicomnode.context.prior_findings import newest_findings
from dicomnode.errors import DicomnodeError, PeerError, PeerRejectedError
from dicomnode.files import write_whole
from dicomnode.logs import is_uid
from dicomnode.network import find, pacs_queries
from dicomnode.network.matching import text
from dicomnode.retry import backoff_s
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.priors import Prior
from dicomnode.store.identity import same_patient, whose
from dicomnode.store.results_folder import PRIORS, results_folder

log = logging.getLogger(__name__)

_IN_PROGRESS = ("receiving", "queued", "running")
_RESULT = ("analysed", "delivered", "committed")
_DAY = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01]) ")
_MOST_STUDIES, _MOST_SERIES = 500, 500
_DAYS_A_YEAR = 365.25
#: A study that waits looks again after so many seconds: seldom enough for the database, often enough for a reader.
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S, _GROWTH = 1.0, 30.0, 1.25


@dataclass(frozen=True)
class ArchivedScan:
    """A prior scan as the PACS lists it: `studied_at` is "YYYYMMDD HHMMSS"."""

    study_uid: str
    studied_at: str
    series_uids: tuple[str, ...]


@dataclass(frozen=True)
class PriorsWait:
    """How a study stands towards its prior scans.

    Attributes:
        pause_s: look again after so many seconds; 0 where it need not wait, or has waited long enough.
        wanted: UIDs of the scans to be fetched now.
    """

    pause_s: float
    wanted: tuple[str, ...] = ()


# Which scans


def search(table: PriorsTable, patient: Dataset, before: str, but: str) -> list[ArchivedScan]:
    """Return the prior chest CTs that the PACS lists for a patient, the latest first, at most `priors.most`.

    Args:
        config: the node's.
        table: its [priors].
        patient: undecoded data set of an image or of an order: its patient's ID, issuer and character set.
        before: "YYYYMMDD HHMMSS"; a scan of this moment or later is no prior scan, or two could wait for each other.
        but: UID of the study itself.

    Raises:
        PeerError, PeerRejectedError: the PACS did not answer, refused, or lists more than can be looked through: of a
            list that was cut short, nobody knows which scan is the latest.
    """
    mine = whose(patient)
    modality = table.modalities[0] if len(table.modalities) == 1 else ""
    last = datetime.strptime(before[:8], "%Y%m%d").date()
    first = last - timedelta(days=table.years * _DAYS_A_YEAR)
    question = pacs_queries.studies(patient, first, last, modality)
    if question is None:
        return []
    found = [find.read(a) for a in _find(table, question, _MOST_STUDIES, "studies of a patient")]
    dated = sorted(((_studied_at(s), s) for s in found if same_patient(whose(s), mine)), key=lambda x: x[0])
    scans: list[ArchivedScan] = []
    for studied_at, study in reversed(dated):
        uid = str(study.get("StudyInstanceUID") or "")
        if len(scans) == table.most or uid == but or not is_uid(uid) or studied_at >= before:
            continue
        listed = [find.read(a) for a in _find(table, pacs_queries.series(uid), _MOST_SERIES, f"series of {uid}")]
        chosen = suitable(text(study, "StudyDescription"), listed, table)
        if chosen:
            scans.append(ArchivedScan(uid, studied_at, chosen))
    return scans


def suitable(study_description: str, series: Sequence[Dataset], table: PriorsTable) -> tuple[str, ...]:
    """Return the UIDs of the series to fetch.

    They are of a wanted modality, with a word for the chest in any of their descriptions.
    """
    chosen = []
    for one in series:
        keywords = ("SeriesDescription", "BodyPartExamined", "ProtocolName")
        words = plain(" ".join([study_description, *(str(one.get(k) or "") for k in keywords)]))
        wanted = any(matches(p, words) for p in table.body_parts)
        refused = any(matches(p, words) for p in table.description_exclude)
        uid = str(one.get("SeriesInstanceUID") or "")
        if str(one.get("Modality") or "") in table.modalities and wanted and not refused and is_uid(uid):
            chosen.append(uid)
    return tuple(chosen)


def matches(pattern: str, words: str) -> bool:
    """Whether a pattern of the configuration is found in words (`headers.plain`)."""
    return re.search(pattern, words) is not None


def _find(table: PriorsTable, question: Dataset, most: int, what: str) -> tuple[bytes, ...]:
    found = find.find(table.peer, find.STUDY_ROOT_FIND, question, within_s=table.timeout_s, most=most)
    if not found.is_complete:
        raise PeerRejectedError(f"{table.peer} lists more than {most} {what}: see whether it matches all keys")
    return found.answers


def _studied_at(study: Dataset) -> str:
    day, moment = str(study.get("StudyDate") or ""), str(study.get("StudyTime") or "")
    return f"{day} {moment.partition('.')[0]}"


# What is fetched


def want(
    config: Config, catalog: Catalog, method: str, patient: Dataset, before: str, study_uid: str
) -> tuple[list[str], list[str]]:
    """Look for prior scans, and note those that are to be fetched.

    Returns:
        The UIDs of the scans that are not yet here as findings of this method, and of those the ones to be fetched.

    Raises:
        PeerError, PeerRejectedError: the PACS did not answer, or refused.
        SpoolError: the catalogue failed.
    """
    assert config.priors is not None
    coming, fetch = [], []
    mine, now = catalog.patient_key.whose(patient), time.time()
    for scan in search(config.priors, patient, before, study_uid):
        if _is_known(config, catalog, scan.study_uid, method):
            continue
        study = catalog.study(scan.study_uid)
        wanted = Prior(scan.study_uid, mine, method, scan.series_uids, "wanted", None, now)
        if study is not None and study.instances:
            if study.state in _RESULT:
                log.info("prior study %s is present and is analysed again with the current method", scan.study_uid)
                catalog.want_prior(wanted)
                catalog.mark_prior(scan.study_uid, "fetched")
                catalog.reopen(scan.study_uid)
            elif study.state not in _IN_PROGRESS:
                continue  # failed, held, cancelled: a person decides
        else:
            catalog.want_prior(wanted)
            noted = catalog.prior(scan.study_uid)
            if noted is not None and noted.state == "wanted":
                fetch.append(scan.study_uid)
        coming.append(scan.study_uid)
    return coming, fetch


def _is_known(config: Config, catalog: Catalog, study_uid: str, method: str) -> bool:
    """Whether it was analysed with this method, or fetched for it and refused."""
    findings = newest_findings(catalog, config, study_uid)
    if findings is not None:
        return findings.algorithm_digest == method
    study, noted = catalog.study(study_uid), catalog.prior(study_uid)
    refused = study is not None and study.state == "refused"
    return refused and (noted is None or noted.method == method)


# How a study stands towards its prior scans


def look(
    config: Config, catalog: Catalog, method: str, study_uid: str, generation: int, attempt: int, waited: float
) -> PriorsWait:
    """Return what a study has to wait for.

    Where it need not wait, or must not any longer, the doubts are noted for its report.

    The PACS is asked at the first attempt, and again while it has not answered. `waited`: seconds since then.

    Raises:
        SpoolError: the catalogue failed.
    """
    table, job = config.priors, catalog.job(study_uid, generation)
    if table is None or not table.on_receipt or job is None or job.state not in ("queued", "running"):
        return PriorsWait(0.0)
    if catalog.is_prior(study_uid):
        return PriorsWait(0.0)
    wanted: list[str] = []
    is_unknown = may_answer = False
    if attempt == 1 or not catalog.awaited(study_uid):
        try:
            wanted = _want_for(config, catalog, method, study_uid)
        except (PeerError, PeerRejectedError) as e:
            is_unknown, may_answer = True, isinstance(e, PeerError)
            log.warning("priors of study %s could not be queried: %s", study_uid, e)
        except DicomnodeError:
            raise
        except Exception as e:  # noqa: BLE001  (whatever a PACS answers, the study goes on)
            is_unknown = True
            logs.log_unexpected(log, e, "priors of study %s could not be queried", study_uid)
    coming = [uid for uid in catalog.awaited(study_uid) if _is_coming(catalog, uid)]
    left = table.wait_s - waited
    if left > 0 and (coming or may_answer):
        pause = backoff_s(_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S, attempt, study_uid, growth=_GROWTH)
        return PriorsWait(min(pause, left), tuple(wanted))
    _note(config, catalog, study_uid, generation, is_unknown)
    return PriorsWait(0.0, tuple(wanted))


def _want_for(config: Config, catalog: Catalog, method: str, study_uid: str) -> list[str]:
    image = next((i for i in catalog.instances(study_uid) if i.modality == "CT"), None)
    if image is None:
        return []
    try:
        before = _studied_at(read_source(Path(image.path)))
    except Exception as error:  # noqa: BLE001  (whatever a damaged header provokes: the analysis says so)
        logs.log_unexpected(log, error, "study %s: no priors are looked for", study_uid)
        return []
    if not _DAY.match(before):
        return []  # without its own date, nothing is earlier
    # Read once more: what has been looked at is decoded.
    header = read_source(Path(image.path))
    coming, fetch = want(config, catalog, method, header, before, study_uid)
    catalog.await_priors(study_uid, coming)
    return fetch


def _is_coming(catalog: Catalog, prior_uid: str) -> bool:
    noted, study = catalog.prior(prior_uid), catalog.study(prior_uid)
    is_under_way = study is not None and study.state in _IN_PROGRESS
    if noted is None:  # it came by itself
        return is_under_way
    if noted.state in ("wanted", "fetching"):
        return True
    return noted.state == "fetched" and (study is None or is_under_way)


def _note(config: Config, catalog: Catalog, study_uid: str, generation: int, is_unknown: bool) -> None:
    """Which of the awaited scans the result is made without, and what of that its reader must know."""
    codes = {"priors-unknown"} if is_unknown else set()
    same = set(catalog.other_studies(study_uid))
    for uid in catalog.awaited(study_uid):
        noted, study = catalog.prior(uid), catalog.study(uid)
        ended = study is not None and study.state not in _IN_PROGRESS
        catalog.mark_awaited(study_uid, uid, "done" if ended else "missed")
        if ended and uid not in same:
            codes.add("prior-other-patient")
        elif not ended:
            codes.add("prior-not-retrieved" if noted is not None and noted.text else "priors-late")
    write_whole(
        results_folder(config.storage.results, study_uid, generation) / PRIORS, json.dumps(sorted(codes)).encode()
    )


def doubts(folder: Path) -> tuple[str, ...]:
    """Return the codes (of `surroundings.FLAGS`) that `look` has noted in the generation's results folder."""
    noted = folder / PRIORS
    return tuple(json.loads(noted.read_text("utf-8"))) if noted.is_file() else ()
