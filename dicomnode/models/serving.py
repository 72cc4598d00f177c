"""The models that a worker serves, and their change without a restart.

Before each study the bundle's folder is looked at. `training promote` puts another bundle in its place; from then on
new studies are read with that one, and it stands in their reports. A bundle that does not load takes nobody's place.
"""

import logging
import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dicomnode import logs
from dicomnode.analysis.pipeline import Method
from dicomnode.audit import messages, trail
from dicomnode.config import AnalysisTable, Config
from dicomnode.errors import ConfigurationError, DicomnodeError
from dicomnode.models import build
from dicomnode.routing.rules import DEFAULT_PROFILE

if TYPE_CHECKING:
    from dicomnode.analysis.risk.bundle import Bundle

log = logging.getLogger(__name__)

#: Which folder the bundle's is, and each file's name, size and time of writing; None if there is no such folder.
_Mark = tuple[str, tuple[tuple[str, int, int], ...]] | None


@dataclass(frozen=True)
class _Served:
    """A profile's method, and the bundle's folder as it was when it was last looked at."""

    table: AnalysisTable
    mark: _Mark
    method: Method


class Models:
    """The configured models: a method for each profile that a rule names, and the candidate in the shadow."""

    def __init__(self, config: Config) -> None:
        """Raise WeightsError, BundleError, ConfigurationError: what is configured cannot be served."""
        table = config.analysis
        self._table = table
        self._shadow_mark: _Mark = None
        self._shadow: Bundle | None = None
        self._load_shadow(_mark(table, table.shadow_bundle))
        default = _Served(table, _mark(table, table.bundle), build.method(table))
        self._served = {DEFAULT_PROFILE: default}
        for name, method in build.profiles(config, default.method).items():
            profile = config.analysis_of(name)
            self._served[name] = _Served(profile, _mark(profile, profile.bundle), method)

    def method(self, profile: str | None = None) -> Method:
        """Return a profile's method, with the bundle that lies in the weights folder now, or the last one that loaded.

        Raises:
            ConfigurationError: this worker knows no profile of that name.
        """
        name = profile or DEFAULT_PROFILE
        if name not in self._served:
            raise ConfigurationError(f"no worker has loaded the profile {name!r}: configure it and restart the workers")
        served = self._served[name]
        mark = _mark(served.table, served.table.bundle)
        if mark != served.mark:
            served = replace(served, mark=mark, method=_with_new_bundle(served))
            self._served[name] = served
        return served.method

    @property
    def profiles(self) -> tuple[str, ...]:
        """The names of the profiles that have a method here, the default one first."""
        return tuple(self._served)

    def shadow(self) -> "Bundle | None":
        """Return the candidate that runs unseen beside the default profile's bundle; None where none loads."""
        mark = _mark(self._table, self._table.shadow_bundle)
        if mark != self._shadow_mark:
            self._load_shadow(mark)
        return self._shadow

    def _load_shadow(self, mark: _Mark) -> None:
        """Nobody waits for the candidate's word: where it does not load, neither a start nor a study is stopped."""
        self._shadow_mark, self._shadow = mark, None
        name = self._table.shadow_bundle
        try:
            self._shadow = build.model_bundle(self._table, name)
        except DicomnodeError as error:
            log.error("shadow bundle %s does not load and will not run: %s", name, error)
        except Exception as error:  # noqa: BLE001  (as above)
            logs.log_unexpected(log, error, "shadow bundle %s does not load and will not run", name)


def _mark(table: AnalysisTable, name: str) -> _Mark:
    """While a bundle is being copied, `model.toml` may come first: every file tells whether to look again."""
    if not name:
        return None
    try:
        folder = (table.weights / name).resolve(strict=True)
        with os.scandir(folder) as entries:
            files = sorted((e.name, (s := e.stat()).st_size, s.st_mtime_ns) for e in entries)
    except OSError:
        return None
    return str(folder), tuple(files)


def _with_new_bundle(served: _Served) -> Method:
    """Return the method with the bundle as it is now, or unchanged where that one does not load."""
    name = served.table.bundle
    try:
        bundle = build.model_bundle(served.table)
    except DicomnodeError as error:
        log.error("the changed bundle %s does not load; still serving the previous one: %s", name, error)
        return served.method
    except Exception as error:  # noqa: BLE001  (no study fails because somebody copies files)
        logs.log_unexpected(log, error, "the changed bundle %s does not load; still serving the previous one", name)
        return served.method
    if bundle is not None:
        log.info("now serving bundle %s %s, sha256 %s", bundle.name, bundle.version, bundle.sha256)
        details = {"version": bundle.version, "sha256": bundle.sha256}
        trail.note(messages.alert, time.time(), messages.SOFTWARE_CONFIGURATION, f"bundle {bundle.name}", details)
    return replace(served.method, bundle=bundle)
