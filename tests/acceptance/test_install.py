"""deploy/install.sh, in a root of its own and without a network: installed, again, upgraded, back, removed.

The archive is a small one: our own wheel, whose libraries are the tests' own. `make try-install` installs the whole.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import pytest

import dicomnode
from tests.conftest import ROOT, absent
from tests.helpers.own_root import OwnRoot, own_root

pytestmark = pytest.mark.slow
INSTALL = ROOT / "deploy" / "install.sh"
STATE, PREFIX = "/var/lib/dicomnode", "/opt/dicomnode"
UNIT = "/etc/systemd/system/dicomnode.service"
VERSION = dicomnode.__version__
#: What the next release might be called.
NEXT = f"{VERSION}1"


def load_offline() -> ModuleType:
    spec = importlib.util.spec_from_file_location("offline", ROOT / "deploy" / "offline.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two small archives, by version: of this version, and of the next."""
    offline, folder = load_offline(), tmp_path_factory.mktemp("archives")
    sources = folder / "sources"
    offline.copy_sources(sources)
    (folder / "mine.pth").write_text("a network")
    made = {}
    for version in (VERSION, NEXT):
        about = sources / "dicomnode" / "__init__.py"
        about.write_text(about.read_text("utf-8").replace(f'"{VERSION}"', f'"{version}"'), "utf-8")
        shutil.rmtree(sources / "build", ignore_errors=True)
        small = folder / version
        offline.collect_files(small, [folder / "mine.pth"])
        (small / "wheels").mkdir()
        build = [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-index",
        ]
        done = subprocess.run(
            [*build, "--no-build-isolation", "-w", small / "wheels", sources],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        (wheel,) = (small / "wheels").iterdir()
        libraries = libraries_wheel(small / "wheels")
        lines = [offline.requirement("dicomnode", version, wheel), offline.requirement("libraries", "1", libraries)]
        (small / "requirements.txt").write_text("\n".join(lines) + "\n")
        about_it = offline.about(Path(sys.executable), installed_kb=200_000) | {"version": version}
        made[version] = offline.seal_and_pack(small, folder / "out", about_it)
    return made


def libraries_wheel(folder: Path) -> Path:
    """A wheel that brings no library, but shows Python where the tests' own lie, before those that venv brings."""
    path = folder / "libraries-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("libraries.pth", f"import sys; sys.path.insert(0, {sysconfig.get_path('purelib')!r})\n")
        wheel.writestr("libraries-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: libraries\nVersion: 1\n")
        wheel.writestr("libraries-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("libraries-1.dist-info/RECORD", "")
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, peer: Callable[[str, str], str]) -> Iterator[OwnRoot]:
    peer("unshare", "util-linux")
    if os.geteuid() != 0:
        absent("install.sh is tried as root, in a root of its own")
    with ExitStack() as held:
        try:
            made = held.enter_context(own_root(tmp_path_factory.mktemp("root")))
        except RuntimeError as error:  # as in many containers
            absent(str(error))
        made.open_interpreter()
        yield made


Install = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def install(root: OwnRoot, archives: dict[str, Path]) -> Install:
    """`install("--upgrade", version=NEXT)`: install.sh in that root, with the archive of a version."""

    def run(*options: str | Path, version: str = "") -> subprocess.CompletedProcess[str]:
        archive = ["--offline", archives[version], "--python", sys.executable] if version else []
        # What pip is told elsewhere on the machine must not count.
        return root.run("env", "PIP_FIND_LINKS=/nowhere", "PIP_REQUIRE_VIRTUALENV=1", "sh", INSTALL, *archive, *options)

    return run


@pytest.fixture(scope="module")
def installed(install: Install) -> str:
    done = install(version=VERSION)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rights(root: OwnRoot, *paths: str) -> list[str]:
    return root.shell("stat -c '%U:%G %a' " + " ".join(paths)).splitlines()


def test_a_damaged_archive_changes_nothing(
    root: OwnRoot, install: Install, archives: dict[str, Path], tmp_path: Path
) -> None:
    """A wheel with one other byte; one that nobody lists, also as a link; an archive that is not its digest."""
    for name in ("changed", "added", "linked"):
        folder = tmp_path / name
        folder.mkdir()
        subprocess.run(["tar", "-xf", archives[VERSION], "-C", folder], check=True)
        (unpacked,) = folder.iterdir()
        if name == "changed":
            wheel = next((unpacked / "wheels").glob("dicomnode-*"))
            content = bytearray(wheel.read_bytes())
            content[len(content) // 2] ^= 1
            wheel.write_bytes(content)
        elif name == "linked":
            (unpacked / "wheels" / "stranger-1-py3-none-any.whl").symlink_to("/etc/passwd")
        else:
            (unpacked / "wheels" / "stranger-1-py3-none-any.whl").write_bytes(b"")
        archive = tmp_path / f"{name}.tar"
        subprocess.run(["tar", "-cf", archive, "-C", folder, unpacked.name], check=True)
        done = install("--offline", archive, "--python", sys.executable)
        assert done.returncode == 1
        assert "Nothing was changed" in done.stderr, done.stderr
    shutil.copy(archive, tmp_path / "other.tar")
    (tmp_path / "other.tar.sha256").write_text(hashlib.sha256(b"").hexdigest() + "  other.tar\n")
    done = install("--offline", tmp_path / "other.tar")
    assert done.returncode == 1 and "copy it again" in done.stderr, done.stderr
    assert root.run("id", "dicomnode").returncode == 1
    assert root.run("test", "-e", STATE).returncode == 1


@pytest.mark.parametrize(
    ("options", "status", "told"),
    [
        (["--frobnicate"], 2, "unknown option --frobnicate"),
        (["--prefix"], 2, "--prefix needs a value"),
        (["--prefix", "/opt/a b"], 2, "plain absolute path"),
        (["--state", "/"], 2, "absolute path"),
        (["--state", "/var/../etc/x"], 2, "plain absolute path"),
        (["--state", "/opt/dicomnode/state"], 2, "must not lie in --prefix"),
        (["--purge"], 2, "--purge goes with --uninstall"),
        (["--uninstall", "--prefix", "/opt/nothing"], 1, "nothing to remove"),
        (["--rollback", "--prefix", "/opt/nothing"], 1, "no version before"),
        (["--upgrade", "--prefix", "/opt/nothing"], 1, "nothing to upgrade"),
        (["--offline", "/nowhere.tar"], 1, "no such file"),
        (["--state", "/var/lib"], 1, "/var/lib holds other things, and no ae_config.toml"),
        (["--prefix", "/usr/local"], 1, "/usr/local holds other things, and no installed"),
    ],
)
def test_wrong_use_is_told(install: Install, options: list[str], status: int, told: str) -> None:
    done = install(*options)
    assert done.returncode == status, done.stdout + done.stderr
    assert told in done.stderr


def test_what_is_installed_and_whose_it_is(root: OwnRoot, installed: str) -> None:
    assert "systemctl enable --now dicomnode" in installed
    state = [STATE, f"{STATE}/weights", f"{STATE}/ae_config.toml", f"{STATE}/ae_config.toml.example"]
    assert rights(root, *state) == [
        "dicomnode:dicomnode 700",
        "dicomnode:dicomnode 750",
        "root:dicomnode 640",
        "root:root 644",
    ]
    assert rights(root, PREFIX, UNIT, "/usr/local/sbin/dicomnode") == [
        "root:root 755",
        "root:root 644",
        "root:root 755",
    ]
    assert root.shell(f"find {PREFIX} ! -user root -o ! -type l -perm /022") == ""
    user = root.shell("getent passwd dicomnode").strip().split(":")
    assert (user[5], user[6].rpartition("/")[2]) == (STATE, "nologin")
    assert root.shell(f"cat {UNIT}") == (ROOT / "deploy" / "dicomnode.service").read_text("utf-8")
    assert root.shell(f"{PREFIX}/.venv/bin/dicomnode --version").strip() == VERSION


def test_the_node_s_user_runs_it_where_it_was_put(root: OwnRoot, installed: str) -> None:
    """`dicomnode` in root's path is the node's user's: what it makes belongs to the node."""
    done = root.run("/usr/local/sbin/dicomnode", "check")
    assert "bundle" in done.stdout, done.stdout + done.stderr
    assert "demo-synthetic" in done.stdout
    assert root.shell(f"cat {STATE}/weights/mine.pth") == "a network"  # the archive was made with --weights
    assert sorted(root.shell(f"find {STATE} ! -user dicomnode").split()) == [
        f"{STATE}/ae_config.toml",
        f"{STATE}/ae_config.toml.example",
    ]
    # Not by the link: what a process that still runs imports late must be of its own version, after an upgrade too.
    assert root.shell(f"head -1 {PREFIX}/.venv/bin/dicomnode").startswith(f"#!{PREFIX}/versions/{VERSION}-")


def test_again_changes_nothing(root: OwnRoot, install: Install, installed: str) -> None:
    root.shell(f"echo '# ours' >> {STATE}/ae_config.toml")
    # The record, the link and the example are written anew each time.
    skipped = " ".join(
        f"! -path {p}" for p in (PREFIX, f"{PREFIX}/installed", f"{PREFIX}/.venv", STATE, f"{STATE}/*.example")
    )
    listing = f"find {PREFIX} {STATE} {UNIT} {skipped} -printf '%p %i %m %u %s %T@\\n'"
    before = root.shell(listing)
    done = install(version=VERSION)
    assert done.returncode == 0, done.stderr
    assert "already" in done.stdout
    assert root.shell(listing) == before
    assert root.shell(f"tail -1 {STATE}/ae_config.toml") == "# ours\n"


def test_another_version_asks_for_upgrade(install: Install, installed: str) -> None:
    done = install(version=NEXT)
    assert done.returncode == 1
    assert "give --upgrade" in done.stderr


def test_upgrade_and_back(root: OwnRoot, install: Install, installed: str) -> None:
    version = f"{PREFIX}/.venv/bin/dicomnode --version"
    root.shell(f"echo '[nod]' >> {STATE}/ae_config.toml")
    done = install("--upgrade", version=NEXT)
    assert done.returncode == 1
    assert "Nothing was switched" in done.stderr and "nod" in done.stderr, done.stderr
    assert root.shell(version).strip() == VERSION
    root.shell(f"sed -i '$d' {STATE}/ae_config.toml")
    root.shell(f"echo ours > {STATE}/weights/mine.pth")
    done = install("--upgrade", version=NEXT)
    assert done.returncode == 0, done.stderr
    assert root.shell(version).strip() == NEXT
    assert root.shell(f"tail -1 {STATE}/ae_config.toml") == "# ours\n"
    assert root.shell(f"cat {STATE}/weights/mine.pth") == "ours\n"
    # Not by the modules that lie where somebody stands: a clone of another version, or what anybody has put into /tmp.
    root.shell(
        "mkdir /tmp/here && for name in dicomnode pathlib ensurepip; do echo 'exit(9)' > /tmp/here/$name.py; done"
    )
    done = root.run("sh", "-c", f"cd /tmp/here && PYTHONPATH=/tmp/here sh {INSTALL} --rollback")
    assert done.returncode == 0, done.stderr
    assert root.shell(version).strip() == VERSION
    assert len(root.shell(f"ls {PREFIX}/versions").split()) == 2


def test_what_is_no_longer_whole_does_not_serve(root: OwnRoot, install: Install, installed: str) -> None:
    root.shell(f"rm -rf {PREFIX}/versions/{NEXT}-*/complete {PREFIX}/versions/{NEXT}-*/lib")
    done = install("--rollback")
    assert done.returncode == 1 and "no longer whole" in done.stderr, done.stderr
    assert root.shell(f"{PREFIX}/.venv/bin/dicomnode --version").strip() == VERSION


def test_removed_without_and_with_its_data(root: OwnRoot, install: Install, installed: str) -> None:
    done = install("--uninstall")
    assert done.returncode == 0, done.stderr
    assert root.run("test", "-e", f"{PREFIX}/.venv").returncode == 1
    assert root.run("test", "-e", UNIT).returncode == 1
    assert root.shell(f"tail -1 {STATE}/ae_config.toml") == "# ours\n"
    assert root.run("id", "dicomnode").returncode == 0
    done = install("--uninstall", "--purge")
    assert done.returncode == 0, done.stderr
    assert root.run("id", "dicomnode").returncode == 1
    for path in (STATE, PREFIX, "/var/cache/dicomnode", "/usr/local/sbin/dicomnode"):
        assert root.run("test", "-e", path).returncode == 1, path


def test_other_folders_and_an_installation_that_was_cut_short(root: OwnRoot, install: Install, installed: str) -> None:
    """Power failed before the environment was whole: it is made anew. The unit names the folders; one is a link."""
    (name,) = re.findall(rf"{PREFIX}/versions/(\S+)", installed)
    root.shell(f"mkdir -p /srv/node/program/versions/{name}/lib && touch /srv/node/program/versions/{name}/lib/half")
    root.shell("mkdir -p /srv/disk && ln -s /srv/disk /srv/node/state")
    done = install("--prefix", "/srv/node/program", "--state", "/srv/node/state", version=VERSION)
    assert done.returncode == 0, done.stderr
    assert root.run("test", "-e", f"/srv/node/program/versions/{name}/lib/half").returncode == 1
    unit = root.shell(f"cat {UNIT}")
    settings = dict(re.findall(r"(?m)^(\w+)=(.*)$", unit))
    program = "/srv/node/program/.venv/bin/dicomnode"
    assert settings["ExecStart"] == f"{program} serve --config /srv/node/state/ae_config.toml"
    assert settings["ReadWritePaths"] == settings["WorkingDirectory"] == "/srv/node/state"
    assert "StateDirectory" not in settings and "/opt/dicomnode" not in unit
    assert root.run("test", "-e", "/srv/disk/ae_config.toml").returncode == 0
    done = install("--uninstall", "--purge", "--prefix", "/srv/node/program")
    assert done.returncode == 0, done.stderr
    assert "/srv/node/state is empty and stays" in done.stdout
    assert root.shell("ls -A /srv/disk") == ""


def test_shellcheck_finds_nothing(peer: Callable[[str, str], str]) -> None:
    scripts = sorted((ROOT / "deploy").rglob("*.sh"))
    assert INSTALL in scripts
    done = subprocess.run([peer("shellcheck", "shellcheck"), *scripts], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
