"""The models that a worker serves, and their change without a restart.

Before each study the bundle's folder is looked at. `training promote` puts another bundle in its place; from then on
new studies are read with that one, and it stands in their reports. A bundle that does not load takes nobody's place.
"""

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dicomnode import methods
from dicomnode.analysis.pipeline import Method
from dicomnode.config import AnalysisTable, Config
from dicomnode.errors import ConfigurationError, DicomnodeError
from dicomnode.routing.rules import DEFAULT_PROFILE

if TYPE_CHECKING:
    from dicomnode.analysis.bundle import Bundle

log = logging.getLogger(__name__)

#: Which file `model.toml` is, and when it was written: None if there is none.
_Mark = tuple[str, int] | None


@dataclass(frozen=True)
class _Served:
    """A profile's method, and the bundle's folder as it was when the bundle was loaded from it."""

    table: AnalysisTable
    mark: _Mark
    method: Method


class Models:
    """The configured models: a method for each profile that a rule names, and the candidate in the shadow."""

    def __init__(self, config: Config) -> None:
        """Raises WeightsError, BundleError, ConfigurationError: what is configured cannot be served."""
        table = config.analysis
        self._table = table
        self._shadow_mark = _mark(table, table.shadow_bundle)
        self._shadow = methods.model_bundle(table, table.shadow_bundle)
        default = _Served(table, _mark(table, table.bundle), methods.method(table))
        self._served = {DEFAULT_PROFILE: default}
        for name, method in methods.profiles(config, default.method).items():
            profile = config.analysis_of(name)
            self._served[name] = _Served(profile, _mark(profile, profile.bundle), method)

    def method(self, profile: str | None = None) -> Method:
        """A profile's method, with the bundle that lies in the weights folder now, or the last one that loaded.

        Raises:
            ConfigurationError: this worker knows no profile of that name.
        """
        name = profile or DEFAULT_PROFILE
        if name not in self._served:
            raise ConfigurationError(f"no worker has loaded the profile {name!r}: configure it and start them again")
        served = self._served[name]
        mark = _mark(served.table, served.table.bundle)
        if mark != served.mark:
            served = replace(served, mark=mark, method=_with_new_bundle(served))
            self._served[name] = served
        return served.method

    def shadow(self) -> "Bundle | None":
        """The candidate that runs unseen beside the default profile's bundle; None where there is none that loads."""
        mark = _mark(self._table, self._table.shadow_bundle)
        if mark != self._shadow_mark:
            self._shadow_mark = mark
            try:
                self._shadow = methods.model_bundle(self._table, self._table.shadow_bundle)
            except DicomnodeError as error:
                log.error("the candidate %s has changed and does not load: none runs: %s", mark, error)
                self._shadow = None
        return self._shadow


def _mark(table: AnalysisTable, name: str) -> _Mark:
    try:
        manifest = (table.weights / name / "model.toml").resolve(strict=True)
        return str(manifest), manifest.stat().st_mtime_ns
    except OSError:
        return None


def _with_new_bundle(served: _Served) -> Method:
    """The method with the bundle as it is now, or unchanged where that one does not load."""
    name = served.table.bundle
    try:
        bundle = methods.model_bundle(served.table)
    except DicomnodeError as error:
        log.error("the bundle %s has changed and does not load: the one from before serves on: %s", name, error)
        return served.method
    if bundle is not None:
        log.info("bundle %s %s serves, sha256 %s", bundle.name, bundle.version, bundle.sha256)
    return replace(served.method, bundle=bundle)
