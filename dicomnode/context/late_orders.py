"""Orders that the RIS lists only after a study's results have gone out: the study is reported again, with its order."""

import logging
from pathlib import Path

from dicomnode import logs
from dicomnode.config import Config
from dicomnode.context import order
from dicomnode.errors import DicomnodeError
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.results_folder import results_folder

log = logging.getLogger(__name__)

#: Longer than `late_days` may be: an order is remembered for as long as it could be taken up twice.
_KEPT_S = 60 * 86_400.0


def take_up(config: Config, catalog: Catalog, now: float) -> list[str]:
    """Let the studies settle once more whose order has appeared; returns their UIDs.

    Each order is taken up once: where its new version is not linked after all, that stands.

    Raises:
        SpoolError: the catalogue failed.
    """
    table = config.worklist
    if table is None or not table.late_orders:
        return []
    catalog.forget_late_orders(now - _KEPT_S)
    reopened = []
    for study in catalog.with_results(now - table.late_days * 86_400):
        folder = results_folder(config.storage.results, study.study_uid, study.generation)
        image = next((Path(one.path) for one in catalog.instances(study.study_uid)), None)
        if image is None or catalog.is_prior(study.study_uid):
            continue
        try:
            found = order.appeared(catalog, image, folder)
        except DicomnodeError:
            raise
        except Exception as error:  # noqa: BLE001  (one image that cannot be read takes no other study's order away)
            logs.log_unexpected(log, error, "study %s: its order cannot be looked for", study.study_uid)
            continue
        if found is not None and catalog.reopen_for_order(study.study_uid, found.key, now):
            reopened.append(study.study_uid)
    return reopened
