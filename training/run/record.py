"""`run.json`: what is needed to repeat a run, and which of its steps are done."""

import json
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import dicomnode
from dicomnode.errors import UsageError
from training.data import former_names
from training.files import write_json

FORMAT = 1
_LIBRARIES = (
    *("numpy", "scipy", "pandas", "pyarrow", "torch", "torchvision", "lifelines", "scikit-learn"),
    *("SimpleITK", "pyradiomics"),
)


class Record:
    """The content of a run folder's `run.json`, on disk after every change."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        fixed: Mapping[str, Any],
        free: Sequence[str] = (),
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        """Open the record of a run folder, or begin one.

        Args:
            folder: the run folder.
            settings: all settings, as plain values.
            fixed: what may not change between the starts of one run: settings and digests of the input.
            free: names in `fixed`, such as "settings.deep.workers", that may change all the same; "*" is any key.
            defaults: of `fixed`, by the same keys, for what a run begun by an older version does not have.

        Raises:
            UsageError: the folder holds another run.
        """
        self._path = folder / "run.json"
        content: dict[str, Any] = {"format": FORMAT, "fixed": dict(fixed), "starts": [], "steps": {}, "warnings": []}
        if self._path.is_file():
            content = json.loads(self._path.read_text(encoding="utf-8"))
            _rename_keys(content["fixed"])
            _fill_in(content["fixed"], json.loads(json.dumps(defaults or {})))
            if other := _difference(content["fixed"], json.loads(json.dumps(fixed)), free):
                raise UsageError(f"{folder} contains a run with a different {other}: choose a new run folder (out)")
        self.content = content
        self.content |= {"settings": dict(settings), "code": code(), "software": software()}
        self.content["starts"].append(
            {"at": _now(), "code": self.content["code"], "software": self.content["software"]}
        )
        self._save()

    def put(self, **facts: object) -> None:
        """Write facts down, by their key."""
        self.content |= facts
        self._save()

    def warn(self, text: str) -> None:
        """Write a warning down, once."""
        if text not in self.content["warnings"]:
            self.content["warnings"].append(text)
            self._save()

    def step(self, name: str, key: str, output: Path, work: Callable[[], None]) -> None:
        """Do a step, unless it was done with the same key and its output is there."""
        steps = self.content["steps"]
        if steps.get(name, {}).get("state") == "done" and steps[name]["key"] == key and output.exists():
            return
        steps[name] = {"state": "running", "key": key, "began": _now()}
        self._save()
        start = time.monotonic()
        work()
        steps[name] |= {"state": "done", "seconds": round(time.monotonic() - start, 1), "ended": _now()}
        self._save()

    def _save(self) -> None:
        write_json(self._path, self.content)


def _rename_keys(fixed: Mapping[str, Any]) -> None:
    """Give the settings of a run that an older version began the names of today."""
    if deep := fixed["settings"].get("deep"):
        fixed["settings"]["deep"] = former_names.deep_of_today(deep)


def _fill_in(stored: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    for key, value in defaults.items():
        if isinstance(value, dict) and isinstance(stored.get(key), dict):
            _fill_in(stored[key], value)
        else:
            stored.setdefault(key, value)


def _difference(stored: Mapping[str, Any], now: Mapping[str, Any], free: Sequence[str], within: str = "") -> str:
    """Return the name of the first thing that differs and is not free, "" if none."""
    for key in sorted({*stored, *now}):
        name, a, b = within + key, stored.get(key), now.get(key)
        if a == b or any(fnmatchcase(name, pattern) for pattern in free):
            continue
        if not isinstance(a, dict) or not isinstance(b, dict):
            return name
        if inner := _difference(a, b, free, f"{name}."):
            return inner
    return ""


def software() -> dict[str, str]:
    """Return the versions that make a result."""
    found = {"dicomnode": dicomnode.__version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def code() -> dict[str, object]:
    """Return the git commit of this package's own working tree, and whether files differ from it; empty without one."""
    folder = Path(__file__).parents[1]
    if shutil.which("git") is None or not (folder.parent / ".git").exists():
        return {}
    answers = [
        subprocess.run(["git", "-C", str(folder.parent), *command], capture_output=True, text=True, check=False)
        for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", "training", "dicomnode"])
    ]
    if any(a.returncode for a in answers):
        return {}
    return {"git_commit": answers[0].stdout.strip(), "git_changed": bool(answers[1].stdout.strip())}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
