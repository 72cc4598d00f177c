"""The models that a worker serves, and their change without a restart.

Before each study the bundle's folder is looked at. `training promote` puts another bundle in its place; from then on
new studies are read with that one, and it stands in their reports. A bundle that does not load takes nobody's place.
"""

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dicomnode import methods
from dicomnode.analysis.pipeline import Method
from dicomnode.config import AnalysisTable
from dicomnode.errors import DicomnodeError

if TYPE_CHECKING:
    from dicomnode.analysis.bundle import Bundle

log = logging.getLogger(__name__)

#: Which file `model.toml` is, and when it was written: None if there is none.
_Mark = tuple[str, int] | None


@dataclass(frozen=True)
class Serving:
    """What reads a study: the method, and the candidate that runs unseen beside its bundle."""

    method: Method
    shadow: "Bundle | None"


class Models:
    """The configured models, loaded and checked."""

    def __init__(self, table: AnalysisTable) -> None:
        """Raises WeightsError, BundleError: what is configured cannot be served."""
        self._table = table
        self._marks = self._look()
        self._serving = Serving(methods.method(table), methods.model_bundle(table, table.shadow_bundle))

    def current(self) -> Serving:
        """The models as they are in the weights folder now; those from before where a new one does not load."""
        marks = self._look()
        if marks != self._marks:
            self._marks = marks
            self._serving = self._reloaded()
        return self._serving

    def _look(self) -> tuple[_Mark, _Mark]:
        return self._mark(self._table.bundle), self._mark(self._table.shadow_bundle)

    def _mark(self, name: str) -> _Mark:
        try:
            manifest = (self._table.weights / name / "model.toml").resolve(strict=True)
            return str(manifest), manifest.stat().st_mtime_ns
        except OSError:
            return None

    def _reloaded(self) -> Serving:
        table, before = self._table, self._serving
        try:
            bundle = methods.model_bundle(table)
        except DicomnodeError as error:
            log.error(
                "the bundle %s has changed and does not load: the one from before serves on: %s", table.bundle, error
            )
            bundle = before.method.bundle
        try:
            shadow = methods.model_bundle(table, table.shadow_bundle)
        except DicomnodeError as error:
            log.error("the candidate %s has changed and does not load: none runs: %s", table.shadow_bundle, error)
            shadow = None
        if bundle is not None:
            log.info("bundle %s %s serves, sha256 %s", bundle.name, bundle.version, bundle.sha256)
        return Serving(replace(before.method, bundle=bundle), shadow)
