"""`dicomnode check`: what would not work is found before the first study comes."""

import errno
import ipaddress
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from pydicom.datadict import dictionary_VM

from dicomnode.analysis.risk.reference import NO_REFERENCE
from dicomnode.config import Config
from dicomnode.errors import AssociationRejectedError, DicomnodeError, SpoolError
from dicomnode.models import segmenters
from dicomnode.models.build import model_bundle
from dicomnode.network import association
from dicomnode.network.certificates import inspect, read
from dicomnode.network.openid import OpenIdClient
from dicomnode.network.tls import Security
from dicomnode.operations import exposure, peer_tests
from dicomnode.operations.peer_tests import CheckResult
from dicomnode.outbound.notify import mail, webhook
from dicomnode.outbound.peers import known
from dicomnode.reception.reconcile import all_instances
from dicomnode.reception.spooled import digest
from dicomnode.registry.retraining import check_settings, trigger
from dicomnode.routing.dead_rules import dead_rules
from dicomnode.store import restoring
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Instance
from dicomnode.words.numerals import plural

#: So many damaged files are named.
_NAMED = 20


def run(config: Config, *, deep: bool = False, file: Path | None = None) -> list[CheckResult]:
    """Look at everything; a failure does not stop the rest.

    Args:
        config: the configuration.
        deep: read every file of the spool.
        file: the configuration's own, which may hold secrets.

    Returns:
        What was looked at; what works but is left open (`exposure`) is a warning.
    """
    return [
        *_folders(config),
        _disk(config),
        _database(config),
        *_ports(config),
        *_callers(config),
        *_tls(config),
        _segmenter(config),
        _bundle(config),
        *_candidate(config),
        *_retraining(config),
        *_monitoring(config),
        *_peers(config),
        *_profiles(config),
        *_rules(config),
        *_notified(config),
        *_audit(config),
        *_alerts(config),
        *_provider(config),
        *([_spool(config)] if deep else []),
        *(CheckResult(one.what, True, one.text, warning=True) for one in exposure.find(config, file)),
    ]


def _folders(config: Config) -> Iterator[CheckResult]:
    for key in ("spool", "results", "state"):
        folder: Path = getattr(config.storage, key)
        nearest = next(p for p in (folder, *folder.parents) if p.exists())
        ok = nearest.is_dir() and _takes_files(nearest)
        cure = f"{nearest} is not a folder that this user can write to: change its owner, or storage.{key}"
        yield CheckResult(f"storage.{key}", ok, str(folder) if ok else cure)
    loose = [str(f) for f in config.private_folders if f.is_dir() and f.stat().st_mode & 0o077]
    cure = "other users may read patients' data there: chmod 0700, or start the node as the owner, which does that"
    yield CheckResult("rights", not loose, f"{', '.join(loose)}: {cure}" if loose else "folders are this user's alone")


def _takes_files(folder: Path) -> bool:
    """Whether a file can be made there, which rights alone do not tell (a read-only mount). Leaves none behind."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _disk(config: Config) -> CheckResult:
    folder = config.storage.spool
    free = shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free / 1e9
    need = config.storage.minimum_free_gb
    text = f"{free:.1f} GB free, {need:g} GB kept free"
    return CheckResult(
        "disk", free > need, text if free > need else f"{text}: free some, or lower storage.minimum_free_gb"
    )


def _database(config: Config) -> CheckResult:
    where = "PostgreSQL" if config.storage.database_url else "SQLite"
    if not config.storage.database_url and not config.storage.state.is_dir():
        return CheckResult("database", True, "SQLite; will be created at the first start")
    try:
        restoring.refuse(config.storage.state)
    except SpoolError as e:
        return CheckResult("database", False, str(e))
    try:
        Catalog.open(config.catalog_url, config.storage.state).close()
    except SpoolError as e:
        return CheckResult("database", False, f"cannot open {where}: {' '.join(str(e).split())}")
    except Exception as e:  # noqa: BLE001  (whatever the driver raises, the user needs one line)
        return CheckResult("database", False, f"cannot open {where} ({type(e).__name__}): check storage.database_url")
    return CheckResult("database", True, f"{where} can be opened")


def _ports(config: Config) -> Iterator[CheckResult]:
    node = config.node
    if node.plain:
        yield _port(config, node.port, "port", None)
    if node.tls_port is not None and config.tls is not None:
        own = config.tls.files
        try:
            shown = tuple(one for one in read(own.certificate)[0].identities if one.kind == "sha256")
        except DicomnodeError:
            return  # `_tls` says so
        yield _port(config, node.tls_port, "tls_port", Security(own, shown))


def _port(config: Config, port: int, key: str, security: Security | None) -> CheckResult:
    node = config.node
    with socket.socket(socket.AF_INET6 if ":" in node.host else socket.AF_INET) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((node.host, port))
        except OSError as e:
            running = association.Peer("self", node.ae_title, node.host, port, node.ae_title, security=security)
            try:
                association.echo(running)
            except AssociationRejectedError:
                text = f"{node.host}:{port} rejects {node.ae_title} as a caller ([[node.callers]])"
                return CheckResult(key, True, f"{text}: this node, or another one, is running on this port")
            except DicomnodeError:
                cure = f"node.{key}" if e.errno in (errno.EADDRINUSE, errno.EACCES) else "node.host"
                return CheckResult(key, False, f"{node.host}:{port} cannot be used ({e.strerror}): change {cure}")
            return CheckResult(key, True, f"{node.host}:{port} answers as {node.ae_title}: the node is running")
    return CheckResult(key, True, f"{node.host}:{port} is free")


def _callers(config: Config) -> Iterator[CheckResult]:
    """Callers and listening address that do not meet."""
    node = config.node
    admitted = [ipaddress.ip_network(caller.address, strict=False) for caller in node.callers]
    if exposure.is_beyond_this_machine(node.host):
        if admitted and all(one.is_loopback for one in admitted):
            text = f"{node.host} listens for other machines, and [[node.callers]] admits this one only: add the senders"
            yield CheckResult("callers", True, text, warning=True)
    elif any(one.prefixlen and not one.is_loopback for one in admitted):
        text = f"[[node.callers]] admits other machines, and {node.host} cannot be reached from them: see node.host"
        yield CheckResult("callers", True, text, warning=True)


def _tls(config: Config) -> Iterator[CheckResult]:
    for files in config.all_tls_files:
        found = inspect(files, datetime.now(UTC))
        wrong = [one for one in found if not one.ok]
        yield from (CheckResult("tls", False, one.text) for one in wrong)
        if not wrong:
            first = min(one.until for one in found if one.until is not None)
            yield CheckResult("tls", True, f"{files.certificate}, its key and CAs can be used until {first:%Y-%m-%d}")


def _segmenter(config: Config) -> CheckResult:
    try:
        made = segmenters.make(config.analysis)
        second = segmenters.make_second(config.analysis)
    except DicomnodeError as e:
        return CheckResult("segmenter", False, str(e))
    compared = f", compared with {second.name}, version {second.version}" if second else ""
    better = segmenters.first_choice(config.analysis)
    return CheckResult("segmenter", True, f"{made.name}, version {made.version}{compared}{better and f'. {better}'}")


def _bundle(config: Config) -> CheckResult:
    try:
        bundle = model_bundle(config.analysis)
    except DicomnodeError as e:
        return CheckResult("bundle", False, str(e))
    if bundle is None:
        return CheckResult("bundle", True, "none configured: no risk will be predicted")
    known = "" if bundle.reference is not None else f"; {NO_REFERENCE}"
    text = f"{bundle.name} {bundle.version}, {bundle.intended_use}: hashes and golden case verified{known}"
    if config.analysis.explanation:
        text += "; the page shows how it weighs the scan (analysis.explanation)"
    return CheckResult("bundle", True, text)


def _candidate(config: Config) -> Iterator[CheckResult]:
    if not (name := config.analysis.shadow_bundle):
        return
    what = "shadow_bundle"
    try:
        bundle = model_bundle(config.analysis, name)
    except DicomnodeError as e:
        yield CheckResult(what, False, str(e))
        return
    assert bundle is not None
    if config.registry.record:
        yield CheckResult(what, True, f"{bundle.name} {bundle.version} runs in shadow on each scan")
    else:
        yield CheckResult(what, False, f"{name} never runs, as nothing is recorded: set registry.record = true")


def _retraining(config: Config) -> Iterator[CheckResult]:
    table = config.retraining
    if not table.schedule:
        return
    try:
        trigger(table.schedule)
    except DicomnodeError as e:
        yield CheckResult("retraining", False, str(e))
        return
    if not (table.settings.is_file() and config.registry.record):
        yield CheckResult("retraining", False, f"write {table.settings}, and set registry.record = true")
        return
    try:
        said = _against_the_registry(config)
    except DicomnodeError as e:
        yield CheckResult("retraining", False, str(e))
    else:
        yield CheckResult("retraining", True, f"scheduled: {table.schedule}; {said}")


def _monitoring(config: Config) -> Iterator[CheckResult]:
    schedule = config.registry.monitor
    if not (config.registry.record and schedule):
        return
    try:
        trigger(schedule, "registry.monitor")
    except DicomnodeError as e:
        yield CheckResult("model monitoring", False, str(e))


def _against_the_registry(config: Config) -> str:
    """Check the settings of the scheduled run against what an export of the registry will hold."""
    if not config.storage.database_url and not config.storage.state.is_dir():
        return check_settings(config, None)
    with closing(Catalog.open(config.catalog_url)) as catalog:
        return check_settings(config, catalog)


def _peers(config: Config) -> Iterator[CheckResult]:
    for peer in known(config):
        yield peer_tests.ask(peer)


def _profiles(config: Config) -> Iterator[CheckResult]:
    for profile in config.profile:
        what = f"profile {profile.name}"
        if not any(rule.analyse == profile.name for rule in config.route):
            yield CheckResult(what, True, "not used by any rule")
            continue
        try:
            table = config.analysis_of(profile.name)
            segmenters.make(table)
            model_bundle(table)
        except DicomnodeError as e:
            yield CheckResult(what, False, str(e))
        else:
            yield CheckResult(what, True, f"{table.segmenter}, {table.bundle or 'no bundle'}")


def _rules(config: Config) -> Iterator[CheckResult]:
    dead = {d.rule: d.why for d in dead_rules(config.rules, lambda keyword: dictionary_VM(keyword) == "1")}
    callers = {caller.ae_title for caller in config.node.callers}
    for rule in config.route:
        if callers and "*" not in callers and rule.calling_ae and callers.isdisjoint(rule.calling_ae):
            dead.setdefault(rule.name, "none of its calling_ae may send: see [[node.callers]]")
        why = f"can never apply: {dead[rule.name]}" if rule.name in dead else ""
        yield CheckResult(f"rule {rule.name}", not why, why or "can apply; try it with `dicomnode routes test`")


def _notified(config: Config) -> Iterator[CheckResult]:
    for to in config.notify:
        try:
            (mail if to.kind == "email" else webhook).reachable(to)
        except DicomnodeError as e:
            yield CheckResult(f"notify {to.name}", False, str(e))
        else:
            yield CheckResult(f"notify {to.name}", True, "reachable; `dicomnode notify test` sends a message")


def _audit(config: Config) -> Iterator[CheckResult]:
    table = config.audit
    sink = table.sink(socket.gethostname())
    if sink is None:
        yield CheckResult("audit", True, 'no audit trail is kept: set [audit] to = "tls", "udp" or "file"')
        return
    try:
        sink.check()
    except DicomnodeError as e:
        yield CheckResult("audit", False, str(e))
    else:
        yield CheckResult("audit", True, f"{sink} can be reached")
    if not config.storage.database_url and not config.storage.state.is_dir():
        return
    try:
        catalog = Catalog.open(config.catalog_url, config.storage.state)
    except DicomnodeError:
        return  # told above
    with closing(catalog):
        count, oldest = catalog.audit_backlog()
    waits_s = 0.0 if oldest is None else time.time() - oldest
    text = f"{plural(count, 'message waits', 'messages wait')}, the oldest for {waits_s:.0f} s"
    ok = waits_s <= table.warn_after_s and count < table.most_waiting / 2
    cure = f"{text}: see why the syslog server does not take them; beyond audit.most_waiting they are dropped"
    yield CheckResult("audit outbox", ok, text if ok else cure)


def _alerts(config: Config) -> Iterator[CheckResult]:
    """Look for what the running node, or the last one, has raised and not ended."""
    if not config.storage.database_url and not config.storage.state.is_dir():
        return
    try:
        catalog = Catalog.open(config.catalog_url, config.storage.state)
    except DicomnodeError:
        return  # told above
    with closing(catalog):
        raised = catalog.alerts()
    for alert in raised:
        since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(alert.raised_at))
        yield CheckResult("alert", True, f"since {since}: {alert.text}", warning=True)


def _provider(config: Config) -> Iterator[CheckResult]:
    """Ask the provider by which users of the console log in for what a login needs."""
    table, what = config.console.oidc, "console.oidc"
    if table is None or not config.console.enabled:
        return
    try:
        OpenIdClient(table.provider).reachable()
    except DicomnodeError as e:
        yield CheckResult(what, False, f"{e}; see console.oidc.issuer")
        return
    if unused := sorted(set(table.allowed_groups) - set(table.roles)):
        text = f"{', '.join(unused)} in allowed_groups gives no role by itself: each user needs a group of roles too"
        yield CheckResult(what, True, text, warning=True)
    yield CheckResult(
        what, True, f"{table.issuer} answers; it has to send browsers back to {table.provider.redirect_uri}"
    )


def _spool(config: Config) -> CheckResult:
    if not config.storage.database_url and not config.storage.state.is_dir():
        return CheckResult("spool", True, "nothing received yet")
    try:
        catalog = Catalog.open(config.catalog_url, config.storage.state)
    except DicomnodeError as e:
        return CheckResult("spool", False, str(e))
    good = 0
    damaged: list[str] = []
    with closing(catalog):
        for instance in all_instances(catalog):
            if _is_whole(instance):
                good += 1
            else:
                damaged.append(instance.sop_instance_uid)
    if not damaged:
        return CheckResult("spool", True, plural(good, "file matches its digest", "files match their digests"))
    named = ", ".join(damaged[:_NAMED]) + (" …" if len(damaged) > _NAMED else "")
    return CheckResult(
        "spool",
        False,
        f"{len(damaged)} of {plural(good + len(damaged), 'file')} missing or damaged; send these images again: {named}",
    )


def _is_whole(instance: Instance) -> bool:
    try:
        return digest(Path(instance.path)) == instance.sha256
    except (OSError, ValueError):
        return False
