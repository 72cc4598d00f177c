"""`dicomnode restore`: a backup becomes a node again, on this machine or another, in these folders or others.

    configuration, keys ──> mark ──> files, each by its digest ──> databases ──> paths, leases, queue ──> no mark

While the mark stands no node runs here. A restore that was cut short is begun again by the same command: files that are
there and whole stay, the databases are put back afresh, so that nothing of them is changed twice.
"""

import os
import shutil
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg
from sqlalchemy import create_engine, delete, inspect
from sqlalchemy.exc import SQLAlchemyError

from dicomnode import config as configuration
from dicomnode import files
from dicomnode.audit.journal import Journal
from dicomnode.config import Config
from dicomnode.errors import SpoolError, UsageError
from dicomnode.operations import backup_format, snapshot
from dicomnode.operations.audited import note_command, noted
from dicomnode.operations.backup_format import CATALOG, CONFIGURATION, DUMP, NAMED, QUEUE, BackupManifest, Sums, Told
from dicomnode.operations.placing import Placing
from dicomnode.reception.reconcile import all_instances
from dicomnode.registry.key import KEY_FILE as PSEUDONYMS_KEY
from dicomnode.store import patient_key, process_names, restoring
from dicomnode.store.catalog import migrate
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.database import database_error, failure_text
from dicomnode.store.catalog.tables import patient_keys
from dicomnode.store.patient_key import KEY_FILE as PATIENT_KEY
from dicomnode.words.numerals import plural
from dicomnode.workflows.queue import Queue

_SPARE_BYTES = 64 << 20
#: Made by the node: no other can take their place. A certificate's key may be this machine's own.
_OWN_KEYS = (PATIENT_KEY, PSEUDONYMS_KEY)
_OF_SQLITE = ("", "-wal", "-shm", "-journal")
_TABLES = """SELECT count(*) FROM information_schema.tables
             WHERE table_schema NOT IN ('information_schema', 'pg_catalog')"""


@dataclass(frozen=True)
class RestoreSummary:
    """What was restored.

    Attributes:
        manifest: of the backup.
        instances: in the catalogue.
        missing: instances without their file, as many as the node had lacked before.
        jobs: in the catalogue.
        taken_over: workflows that had been begun, and are queued again.
        absent_keys: files of keys that the configuration names and that are not here.
    """

    manifest: BackupManifest
    instances: int
    missing: int
    jobs: int
    taken_over: int
    absent_keys: Mapping[str, Path]


def restore(
    source: Path, file: Path, told: Told, *, keys: Path | None = None, new_patient_key: bool = False
) -> RestoreSummary:
    """Restore a backup, or go on with a restore that was cut short.

    Args:
        source: the backup's folder.
        file: the configuration file; where there is none, the one of the backup is written.
        told: of progress.
        keys: the folder of the keys; None: they lie where the configuration says.
        new_patient_key: the catalogue's key is lost: make a new one.

    Raises:
        UsageError: no whole backup, or something is there already.
        SpoolError: the backup is damaged, there is no room, the key is another's, the database failed.
        ConfigurationError: the configuration is wrong here.
    """
    manifest, sums = backup_format.read(source)
    if manifest.revision > migrate.HEAD:
        raise UsageError(f"{source} was made by dicomnode {manifest.dicomnode}, which is newer than this: use that")
    Placing(source, sums).place(CONFIGURATION, file, keep_other=True)
    config = configuration.load(file)
    _refuse_other_database(config, manifest)
    state = config.storage.state
    is_resumed = restoring.begun(state) == manifest.sha256
    if not is_resumed:
        _refuse_occupied(config)
    _place_keys(config, keys)
    if not new_patient_key:
        _refuse_other_key(state, manifest)
    targets = _targets(config, sums)
    placing = Placing(source, sums)
    placing.refuse_others({name: path for name, path in targets.items() if name.startswith("weights/")})
    in_state = {name: state / Path(name).name for name in (CATALOG, QUEUE) if name in sums.digests}
    _refuse_without_room(placing, targets | in_state)
    restoring.begin(state, manifest.sha256)
    placing.place_all(targets, told, resumed=is_resumed)
    _place_links(config, manifest)
    _place_databases(config, placing, told, resumed=is_resumed)
    if new_patient_key:
        _forget_key(config)
    summary = _made_this_nodes(config, manifest, told)
    told("writing to the disk", 0, 0)
    os.sync()
    restoring.end(state)
    note_command(config, "restore", {"from": str(source)})
    return summary


def _refuse_other_database(config: Config, manifest: BackupManifest) -> None:
    ours = "postgresql" if config.storage.database_url else "sqlite"
    if ours != manifest.database:
        raise UsageError(
            f"the backup's database is {manifest.database}, and storage.database_url asks for {ours}: a restore does "
            "not change the kind; correct storage.database_url"
        )


def _refuse_occupied(config: Config) -> None:
    state = config.storage.state
    if restoring.begun(state) is not None:
        raise UsageError(
            f"{state}: the restore of another backup was cut short; finish that one, or remove the node's folders"
        )
    for part, root in (*backup_format.parts(config).items(), ("state", state)):
        allowed = {PATIENT_KEY} if part == "state" else {PSEUDONYMS_KEY} if part == "registry" else set()
        found = next(
            (Path(f, n) for f, _, names in os.walk(root) for n in names if n not in allowed and not _is_lock(n)), None
        )
        if found is not None and part != "weights":
            raise UsageError(
                f"{root} is not empty ({found.name}): a restore overwrites nothing; move it away, or give a "
                "configuration with other folders"
            )
    if config.storage.database_url:
        try:
            with psycopg.connect(config.storage.database_url) as connection:
                row = connection.execute(_TABLES).fetchone()
        except psycopg.Error as error:
            raise SpoolError(failure_text(error)) from error
        if row is None or row[0]:
            raise UsageError("the database of storage.database_url is not empty: give one of its own, newly made")


def _is_lock(name: str) -> bool:
    return name.endswith((".lock", ".starting"))


def _place_keys(config: Config, folder: Path | None) -> None:
    if folder is None:
        return
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder of keys; give the one that `backup --keys` wrote")
    for key, path in backup_format.keys(config).items():
        if not (folder / key).is_file():
            continue
        content = (folder / key).read_bytes()
        if not path.exists():
            files.write_whole(path, content)
        elif key in _OWN_KEYS and path.read_bytes() != content:
            raise UsageError(f"{path} is there, and is not the {key} of {folder}: move it away, or leave out --keys")


def _refuse_other_key(state: Path, manifest: BackupManifest) -> None:
    if not (state / PATIENT_KEY).is_file():
        raise UsageError(
            f"{state / PATIENT_KEY} is missing: the key is not in the backup. Give its folder with --keys, or copy the "
            "file there (mode 0600); if it is lost, --new-patient-key makes a new one, and prior scans that came "
            "before are not found any more"
        )
    patient_key.load(state, manifest.patient_key or None)


def _forget_key(config: Config) -> None:
    """Let the catalogue take any key: the one that is in its folder, or the one that is made there."""
    engine = create_engine(config.catalog_url)
    try:
        with engine.begin() as connection:
            if inspect(connection).has_table(patient_keys.name):
                connection.execute(delete(patient_keys))
    except SQLAlchemyError as error:
        raise database_error(error) from error
    finally:
        engine.dispose()


def _targets(config: Config, sums: Sums) -> dict[str, Path]:
    """Where each file of the backup goes, but for the databases and the configuration."""
    roots = backup_format.parts(config)
    named = backup_format.plain_files(config)
    found: dict[str, Path] = {}
    for name in sums.digests:
        part, _, rest = name.partition("/")
        if part in roots:
            found[name] = files.inside(roots[part], *rest.split("/"))
        elif name.startswith(f"{NAMED}/") and name.removeprefix(f"{NAMED}/") in named:
            found[name] = named[name.removeprefix(f"{NAMED}/")]
    return found


def _refuse_without_room(placing: Placing, targets: Mapping[str, Path]) -> None:
    needed: dict[int, int] = defaultdict(lambda: _SPARE_BYTES)
    somewhere: dict[int, Path] = {}
    for name, target in targets.items():
        if target.exists():
            continue
        folder = next(p for p in target.parents if p.is_dir())
        device = folder.stat().st_dev
        somewhere[device] = folder
        needed[device] += placing.size(name)
    for device, folder in somewhere.items():
        free = shutil.disk_usage(folder).free
        if needed[device] > free:
            raise SpoolError(
                f"{folder}: the restore needs {needed[device] / 1e9:.1f} GB there, and {free / 1e9:.1f} GB are free"
            )


def _place_links(config: Config, manifest: BackupManifest) -> None:
    for name, to in manifest.links.items():
        link = files.inside(config.analysis.weights, name) if "/" not in to else None
        if link is not None and not link.is_symlink() and not link.exists():
            link.symlink_to(to)


def _place_databases(config: Config, placing: Placing, told: Told, *, resumed: bool) -> None:
    state = config.storage.state
    for name in (CATALOG, QUEUE):
        if name in placing.sums.digests:
            for suffix in _OF_SQLITE:  # of a command that ran here meanwhile
                (state / f"{Path(name).name}{suffix}").unlink(missing_ok=True)
            placing.place(name, state / Path(name).name)
    if DUMP in placing.sums.digests:
        placing.check(DUMP)
        # All or nothing; what an earlier try has brought makes place.
        options = ["--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error"]
        again = ["--clean", "--if-exists"] if resumed else []
        given = [*options, *again, str(placing.source / DUMP)]
        snapshot.run("pg_restore", config.storage.database_url, given, lambda: told("database", 0, 0))


def _made_this_nodes(config: Config, manifest: BackupManifest, told: Told) -> RestoreSummary:
    """Let the databases speak of this machine: its paths, and nobody at work."""
    told("catalogue", 0, 0)
    roots = backup_format.parts(config)
    with closing(Catalog.open(config.catalog_url, config.storage.state)) as catalog, noted(config, catalog):
        moves = [(part, Path(old)) for part in manifest.folders for old in manifest.folders[part] if part in roots]
        catalog.relocate([(old, roots[part]) for part, old in moves])
        catalog.lose_associations(catalog.dead_receivers(lambda _: False), time.time())
        catalog.retire_workers()
        if roots["audit"].is_dir():
            journal = Journal(roots["audit"], process_names.current())
            journal.adopt(lambda _: False, catalog.audit_all, lambda _: None)
            journal.close()
        instances = missing = 0
        for instance in all_instances(catalog):
            instances += 1
            missing += not Path(instance.path).is_file()
            if not instances % 1000:
                told("looking for every image", instances, manifest.instances)
        if missing > manifest.missing:
            raise SpoolError(f"{plural(missing, 'image')} of the catalogue without a file, {manifest.missing} before")
        jobs = catalog.count_jobs()
    absent = {key: path for key, path in backup_format.keys(config).items() if not path.exists()}
    wanted = {key: path for key, path in absent.items() if key in manifest.keys}
    return RestoreSummary(manifest, instances, missing, jobs, _taken_over(config, manifest), wanted)


def _taken_over(config: Config, manifest: BackupManifest) -> int:
    if manifest.database == "sqlite" and not (config.storage.state / Path(QUEUE).name).exists():
        return 0
    try:
        with closing(Queue(config)) as queue:
            return queue.take_over()
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        if type(cause).__name__ == "UndefinedTable" or "no such table" in str(cause):
            return 0  # no worker has ever run
        raise SpoolError(
            f"the queue cannot be read ({type(cause).__name__}): restore with dicomnode {manifest.dicomnode}, which "
            "made the backup, and upgrade then"
        ) from None
