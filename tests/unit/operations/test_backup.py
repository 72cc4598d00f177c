"""`dicomnode backup` and `restore` on small nodes: cut short, damaged, without room, with images that come and go."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from dicomnode import config
from dicomnode.cli import app
from dicomnode.errors import SpoolError, UsageError
from dicomnode.files import write_whole
from dicomnode.operations import backup as making
from dicomnode.operations import backup_folder, backup_format, checks
from dicomnode.operations import restore as restoring_
from dicomnode.operations.backup import backup
from dicomnode.operations.restore import restore
from dicomnode.service.processes import prepare_folders
from dicomnode.store import restoring
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.replaced import Replaced
from tests.helpers.small_node import SERIES, STUDY, SmallNode


@pytest.fixture
def node(tmp_path: Path) -> Iterator[SmallNode]:
    made = SmallNode(tmp_path / "here")
    yield made
    made.catalog.close()


def restored(tmp_path: Path) -> config.Config:
    there = tmp_path / "there" / "ae_config.toml"
    restore(tmp_path / "backup", there, lambda *_: None, keys=tmp_path / "keys")
    return config.load(there)


def images(there: config.Config) -> dict[str, bytes]:
    catalog = Catalog.open(there.catalog_url, there.storage.state)
    try:
        return {i.sop_instance_uid: Path(i.path).read_bytes() for i in catalog.instances(STUDY)}
    finally:
        catalog.close()


def files_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.dcm"))


def test_a_node_goes_elsewhere(node: SmallNode, tmp_path: Path) -> None:
    done = node.backup(tmp_path / "backup", keys=tmp_path / "keys")
    assert (done.manifest.instances, done.manifest.missing, done.linked) == (3, 0, 3)
    assert not list((tmp_path / "backup").rglob("*.key"))
    there = restored(tmp_path)
    assert there.storage.spool == tmp_path / "there" / "var" / "spool"
    assert images(there) == {f"{SERIES}.{n}": b"metaimage %d" % n for n in range(3)}
    checked = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / "backup", check=False)
    assert checked.returncode == 0


def test_the_commands_say_what_was_done(node: SmallNode, tmp_path: Path) -> None:
    keys = ["--keys", str(tmp_path / "keys")]
    said = CliRunner().invoke(app, ["backup", str(tmp_path / "backup"), "--config", str(node.path), *keys])
    assert said.exit_code == 0, said.output
    for words in ("is whole: 3 images, 0 jobs", "links to the node's own: copy the folder", "patient.key"):
        assert words in said.output
    there = tmp_path / "there" / "ae_config.toml"
    said = CliRunner().invoke(app, ["restore", str(tmp_path / "backup"), "--config", str(there), *keys])
    assert said.exit_code == 0, said.output
    assert "restored: 3 images, 0 jobs" in said.output


def test_a_backup_that_was_cut_short_is_not_whole_and_goes_on(
    node: SmallNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[Path] = []
    copy = backup_folder._copied

    def copying(source: Path, target: Path, status: Any) -> str:
        if len(copied) == 2:
            raise KeyboardInterrupt
        copied.append(source)
        return copy(source, target, status)

    monkeypatch.setattr(backup_folder, "_copied", copying)
    with pytest.raises(KeyboardInterrupt):
        node.backup(tmp_path / "backup", link=False)
    with pytest.raises(UsageError, match="cut short and is not whole"):
        restored(tmp_path)
    monkeypatch.setattr(backup_folder, "_copied", lambda *a: copied.append(a[0]) or copy(*a))
    assert node.backup(tmp_path / "backup", link=False, keys=tmp_path / "keys").manifest.missing == 0
    assert len(copied) == len(set(copied)) == 4, "the images and the configuration, each once"
    assert len(images(restored(tmp_path))) == 3


def test_a_copy_whose_digest_was_not_noted_is_made_again(node: SmallNode, tmp_path: Path) -> None:
    """A power cut may leave a file of the right size and time, and without its content."""
    torn = tmp_path / "backup" / "spool" / "studies" / STUDY / SERIES / next(node.spool.root.rglob("*.0-*")).name
    source = next(node.spool.root.rglob("*.0-*"))
    write_whole(torn, bytes(source.stat().st_size))
    (tmp_path / "backup" / backup_format.UNFINISHED).touch()
    node.backup(tmp_path / "backup", keys=tmp_path / "keys", link=False)
    assert images(restored(tmp_path))[f"{SERIES}.0"] == source.read_bytes()


def test_what_was_removed_before_the_snapshot_does_not_come_back(node: SmallNode, tmp_path: Path) -> None:
    def told(what: str, done: int, total: int) -> None:
        if what == "files" and done == total:
            node.remove()

    done = node.backup(tmp_path / "backup", told, keys=tmp_path / "keys")
    assert done.manifest.instances == 0
    assert files_of(tmp_path / "backup") == []


def test_what_is_removed_after_the_snapshot_is_there(node: SmallNode, tmp_path: Path) -> None:
    def told(what: str, done: int, total: int) -> None:
        if what == "catalogue" and done == total:
            node.remove()

    assert node.backup(tmp_path / "backup", told, keys=tmp_path / "keys").manifest.missing == 0
    assert len(images(restored(tmp_path))) == 3


def test_what_comes_during_the_backup_is_there_or_is_recorded_at_the_start(node: SmallNode, tmp_path: Path) -> None:
    def told(what: str, done: int, total: int) -> None:
        if done == total and what in ("files", "catalogue"):
            node.receive(10 if what == "files" else 11)

    done = node.backup(tmp_path / "backup", told, keys=tmp_path / "keys")
    assert (done.manifest.instances, done.manifest.missing) == (4, 0)
    there = restored(tmp_path)
    assert f"{SERIES}.10" in images(there)
    assert len(files_of(there.storage.spool)) == 5


def test_every_area_of_the_spool_comes_along_but_what_is_being_received(node: SmallNode, tmp_path: Path) -> None:
    image = Path(node.catalog.instances(STUDY)[0].path)
    Replaced(node.spool).put(image, STUDY, "a" * 64, 1.0)
    node.spool.quarantine(b"meta", b"bad", "code", "text", 1.0)
    write_whole(node.spool.root / "incoming" / "1~0.part", b"half")
    write_whole(node.spool.root / "of-a-later-version" / "x", b"new")
    node.backup(tmp_path / "backup", keys=tmp_path / "keys")
    there = restored_files(tmp_path)
    mine = {str(p.relative_to(node.spool.root)): p.read_bytes() for p in node.spool.root.rglob("*") if p.is_file()}
    assert mine.pop("incoming/1~0.part") == b"half"
    assert len(mine) >= 7
    assert there == mine


def restored_files(tmp_path: Path) -> dict[str, bytes]:
    spool = restored(tmp_path).storage.spool
    return {str(p.relative_to(spool)): p.read_bytes() for p in spool.rglob("*") if p.is_file()}


def test_an_image_that_the_node_had_lost_is_counted(node: SmallNode, tmp_path: Path) -> None:
    next(node.spool.root.rglob("*.dcm")).unlink()
    assert node.backup(tmp_path / "backup", keys=tmp_path / "keys").manifest.missing == 1
    found = restore(tmp_path / "backup", tmp_path / "there" / "c.toml", lambda *_: None, keys=tmp_path / "keys")
    assert (found.instances, found.missing) == (3, 1)


def test_no_node_starts_on_half_a_restore_and_the_restore_goes_on(
    node: SmallNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.backup(tmp_path / "backup", keys=tmp_path / "keys")
    with monkeypatch.context() as cut:
        cut.setattr(restoring_, "_place_databases", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            restored(tmp_path)
    there = config.load(tmp_path / "there" / "ae_config.toml")
    with pytest.raises(SpoolError, match="cut short"):
        prepare_folders(there)
    assert not checks._database(there).ok
    next(there.storage.spool.rglob("*.0-*.dcm")).write_bytes(b"torn by a power cut")
    Catalog.open(there.catalog_url, there.storage.state).close()  # `jobs list` meanwhile
    assert restored(tmp_path) == there
    assert images(there)[f"{SERIES}.0"] == b"metaimage 0"
    prepare_folders(there)
    assert restoring.begun(there.storage.state) is None


def test_a_damaged_file_is_named_and_not_restored(node: SmallNode, tmp_path: Path) -> None:
    node.backup(tmp_path / "backup", keys=tmp_path / "keys", link=False)
    victim = next((tmp_path / "backup").rglob("*.1-*.dcm"))
    content = victim.read_bytes()
    victim.write_bytes(content[:-1] + b"?")
    with pytest.raises(SpoolError, match=victim.name):
        restored(tmp_path)
    assert not list((tmp_path / "there").rglob(victim.name))
    victim.write_bytes(content)
    assert len(images(restored(tmp_path))) == 3


@pytest.mark.parametrize("name", [backup_format.MANIFEST, backup_format.SUMS])
def test_damaged_lists_are_noticed(node: SmallNode, tmp_path: Path, name: str) -> None:
    node.backup(tmp_path / "backup", keys=tmp_path / "keys")
    path = tmp_path / "backup" / name
    path.write_text(path.read_text()[:-20])
    with pytest.raises(SpoolError, match="another copy"):
        restored(tmp_path)
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("there", ["spool/x", "results/1.2/g1/findings.json", "state/catalog.sqlite", "registry/x"])
def test_nothing_is_overwritten(node: SmallNode, tmp_path: Path, there: str) -> None:
    node.backup(tmp_path / "backup", keys=tmp_path / "keys")
    write_whole(tmp_path / "there" / "var" / there, b"mine")
    with pytest.raises(UsageError, match="is not empty"):
        restored(tmp_path)
    assert (tmp_path / "there" / "var" / there).read_bytes() == b"mine"


def test_without_the_patients_key_nothing_is_restored(node: SmallNode, tmp_path: Path) -> None:
    done = node.backup(tmp_path / "backup")
    assert list(done.keys) == ["patient.key"]
    with pytest.raises(UsageError, match=r"patient\.key is missing.*--keys"):
        restore(tmp_path / "backup", tmp_path / "there" / "c.toml", lambda *_: None)
    assert files_of(tmp_path / "there") == []


def test_the_key_of_another_node_is_noticed_before_anything_is_restored(node: SmallNode, tmp_path: Path) -> None:
    node.backup(tmp_path / "backup")
    write_whole(tmp_path / "keys" / "patient.key", b"k" * 32)
    with pytest.raises(SpoolError, match="is not the key of this catalogue"):
        restored(tmp_path)
    assert files_of(tmp_path / "there") == []


def test_a_node_whose_key_is_lost_is_restored_with_a_new_one(node: SmallNode, tmp_path: Path) -> None:
    node.backup(tmp_path / "backup")
    there = tmp_path / "there" / "ae_config.toml"
    restore(tmp_path / "backup", there, lambda *_: None, new_patient_key=True)
    assert len(images(config.load(there))) == 3
    key = (tmp_path / "there" / "var" / "state" / "patient.key").read_bytes()
    assert key != (node.config.storage.state / "patient.key").read_bytes()


def test_room_is_looked_for_first(node: SmallNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        full.setattr(making.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        with pytest.raises(SpoolError, match="GB are free"):
            node.backup(tmp_path / "backup")
    assert files_of(tmp_path / "backup") == []
    node.backup(tmp_path / "backup", keys=tmp_path / "keys")
    monkeypatch.setattr(restoring_.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(SpoolError, match="GB are free"):
        restored(tmp_path)
    assert files_of(tmp_path / "there") == []


def test_places_that_are_refused(node: SmallNode, tmp_path: Path) -> None:
    node.backup(tmp_path / "backup")
    with pytest.raises(UsageError, match="holds a whole backup already"):
        node.backup(tmp_path / "backup")
    for inside in (node.config.storage.state / "b", node.config.storage.spool / "b"):
        with pytest.raises(UsageError, match="lie within each other"):
            node.backup(inside)
    with pytest.raises(UsageError, match="keys must not lie with the backup"):
        node.backup(tmp_path / "new", keys=tmp_path / "new" / "keys")
    write_whole(tmp_path / "full" / "x", b"")
    with pytest.raises(UsageError, match="is not empty"):
        node.backup(tmp_path / "full")


def test_a_backup_of_another_node_is_not_gone_on_with(node: SmallNode, tmp_path: Path) -> None:
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / backup_format.UNFINISHED).write_text('{"state": "/elsewhere", "database": false}')
    with pytest.raises(UsageError, match="another node"):
        node.backup(tmp_path / "backup")


def test_two_backups_of_a_node_do_not_meet(node: SmallNode, tmp_path: Path) -> None:
    refused: list[str] = []

    def told(what: str, done: int, total: int) -> None:
        if what == "files" and done == total:
            for to in ("backup", "other"):
                with pytest.raises(UsageError) as caught:
                    node.backup(tmp_path / to)
                refused.append(str(caught.value))

    assert node.backup(tmp_path / "backup", told).manifest.missing == 0
    assert len(refused) == 2 and all("another backup of this node" in words for words in refused)


def test_a_newer_backup_is_refused(node: SmallNode, tmp_path: Path) -> None:
    node.backup(tmp_path / "backup")
    path = tmp_path / "backup" / backup_format.MANIFEST
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(UsageError, match="has format 2"):
        restored(tmp_path)


def test_keys_and_the_files_of_the_configuration_go_apart(tmp_path: Path) -> None:
    more = (
        '[tls]\ncertificate = "tls/node.crt"\nkey = "tls/node.key"\nca_file = "tls/ca.crt"\n'
        '[[destination]]\nname = "pacs"\nkind = "stow"\nurl = "https://pacs.example/dicom-web"\n'
        'token = "file:tls/token"\nca_file = "tls/web.crt"\n'
        '[[destination]]\nname = "peer"\nae_title = "P"\nhost = "h"\nport = 104\ntls = true\n'
        '[[notify]]\nname = "hook"\nkind = "webhook"\nurl = "https://x.example"\nsecret_file = "secret"\n'
    )
    node = SmallNode(tmp_path / "here", more)
    secrets = {"tls/node.key", "tls/token", "secret"}
    plain = {"tls/node.crt", "tls/ca.crt", "tls/web.crt"}
    for name in secrets | plain:
        write_whole(tmp_path / "here" / name, name)
    node.backup(tmp_path / "backup", keys=tmp_path / "keys")
    node.catalog.close()
    held = {p.read_bytes() for p in (tmp_path / "backup").rglob("*") if p.is_file()}
    assert {name.encode() for name in plain} <= held
    assert held.isdisjoint(name.encode() for name in secrets)
    assert (node.config.storage.state / "patient.key").read_bytes() not in held
    restored(tmp_path)
    for name in secrets | plain:
        assert (tmp_path / "there" / name).read_text() == name
        assert not (tmp_path / "there" / name).stat().st_mode & 0o077


def test_the_bundle_in_service_comes_along(tmp_path: Path) -> None:
    node = SmallNode(tmp_path / "here")
    weights = node.config.analysis.weights
    for name in ("old-1", "new-2"):
        write_whole(weights / name / "model.toml", name)
    write_whole(weights / "promotions.jsonl", "{}")
    (weights / "current").symlink_to("new-2")
    node.backup(tmp_path / "backup", keys=tmp_path / "keys")
    node.catalog.close()
    there = restored(tmp_path).analysis.weights
    assert (there / "current").readlink() == Path("new-2")
    assert (there / "current" / "model.toml").read_text() == "new-2"
    assert (there / "old-1" / "model.toml").exists() and (there / "promotions.jsonl").exists()


def test_another_bundle_of_the_same_name_is_refused_before_anything_is_restored(tmp_path: Path) -> None:
    node = SmallNode(tmp_path / "here")
    write_whole(node.config.analysis.weights / "one" / "model.toml", "theirs")
    node.backup(tmp_path / "backup", keys=tmp_path / "keys")
    node.catalog.close()
    write_whole(tmp_path / "there" / "weights" / "one" / "model.toml", "mine")
    with pytest.raises(UsageError, match="is not that of the backup"):
        restored(tmp_path)
    assert files_of(tmp_path / "there") == []


def test_certificates_of_the_new_machine_stay(tmp_path: Path) -> None:
    more = '[tls]\ncertificate = "node.crt"\nkey = "node.pem"\nca_file = "ca.crt"\n'
    node = SmallNode(tmp_path / "here", more)
    for name in ("node.crt", "node.pem", "ca.crt"):
        write_whole(tmp_path / "here" / name, "old")
    node.backup(tmp_path / "backup", keys=tmp_path / "keys")
    node.catalog.close()
    for name in ("node.crt", "node.pem"):
        write_whole(tmp_path / "there" / name, "new")
    restored(tmp_path)
    assert [(tmp_path / "there" / name).read_text() for name in ("node.crt", "node.pem", "ca.crt")] == [
        "new", "new", "old",
    ]  # fmt: skip


def test_a_catalogue_whose_paths_lead_through_a_link_is_restored(tmp_path: Path) -> None:
    node = SmallNode(tmp_path / "disk")
    (tmp_path / "link").symlink_to("disk")
    config_ = config.load(tmp_path / "link" / "ae_config.toml")
    assert (
        backup(config_, node.path, tmp_path / "backup", lambda *_: None, keys=tmp_path / "keys").manifest.missing == 0
    )
    node.catalog.close()
    assert len(images(restored(tmp_path))) == 3


def test_every_file_of_the_configuration_is_thought_of() -> None:
    """A new key that names a file: is it in a backup, and is it a secret? Then add it here."""

    def paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
        for key, field in model.model_fields.items():
            waiting = [field.annotation]
            while waiting:
                one = waiting.pop()
                waiting += get_args(one)
                if isinstance(one, type) and issubclass(one, BaseModel):
                    yield from paths(one, f"{prefix}{key}.")
                elif isinstance(one, type) and issubclass(one, Path):
                    yield f"{prefix}{key}"

    found = {key.rpartition(".")[2] for key in paths(config.Config)}
    folders = {key.rpartition(".")[2] for key in backup_format._FOLDERS}
    assert found - folders == {
        "certificate", "key", "ca_file", "crl_file", "tls_certificate", "tls_key", "tls_ca_file", "tls_crl_file",
        "lungmask_weights", "lungmask_lobe_weights", "trusted_keys", "secret_file", "settings",
    }  # fmt: skip
