"""What the last `dicomnode registry monitor` found, for the node's alerts and /metrics: neither reads the registry."""

import json
from collections.abc import Mapping
from typing import Any, Final

from dicomnode.config import Config

FOLDER: Final = "monitor"
LATEST: Final = "latest.json"


def latest(config: Config) -> Mapping[str, Any] | None:
    """Return what the last look found; None where there was none, or its file is not one of ours."""
    try:
        stored = json.loads((config.registry.folder / FOLDER / LATEST).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return stored if isinstance(stored, dict) and stored.get("format") == 1 else None
