"""A node's state with one study in it, made without any process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dicomnode import config
from dicomnode.operations.backup import backup
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Instance
from dicomnode.store.spool import Spool

STUDY, SERIES = "1.2.3", "1.2.3.4"


class SmallNode:
    """A node's state with one study, and no process."""

    def __init__(self, folder: Path, more: str = "", images: int = 3, size: int = 0) -> None:
        folder.mkdir(parents=True, mode=0o700)
        self.path = folder / "ae_config.toml"
        self.path.write_text(f"[storage]\nminimum_free_gb = 0.1\n[analysis]\nradiomics = false\n{more}")
        self.config = config.load(self.path)
        self.config.storage.state.mkdir(parents=True)
        self.catalog = Catalog.open(self.config.catalog_url, self.config.storage.state)
        self.spool = Spool(self.config.storage.spool)
        self._filling = bytes(size)
        for number in range(images):
            self.receive(number)

    def store(self, number: int) -> Instance:
        uid = f"{SERIES}.{number}"
        stored = self.spool.store(STUDY, SERIES, uid, b"meta", b"image %d" % number + self._filling)
        return Instance(
            uid, "1.9", STUDY, SERIES, str(stored.path), stored.sha256, stored.size, 1.0, None, "a" * 64, "CT", "", ""
        )

    def receive(self, number: int) -> None:
        self.catalog.record(self.store(number))

    def remove(self) -> None:
        """As retention does."""
        study = self.catalog.study(STUDY)
        assert study is not None
        assert self.catalog.release(study, lambda: self.spool.move_out(STUDY))
        self.spool.delete(STUDY)

    def backup(self, to: Path, told: Callable[[str, int, int], None] = lambda *_: None, **more: Any) -> Any:
        return backup(self.config, self.path, to, told, **more)
