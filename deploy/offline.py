"""Make one archive from which deploy/install.sh installs a node on a machine without any network (`make offline`).

    python deploy/offline.py --python .venv/bin/python --out build/offline

It holds the wheels of everything that a node needs, for this machine's kind and this Python, each with its SHA-256;
pyradiomics, which has no wheel, is built here. Beside the wheels: install.sh, units, example configuration, the
demonstration bundle, weights that are named with --weights, and SHA256SUMS over every file.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
#: What of the repository goes along as it is: what install.sh reads, and what an administrator reads first.
CARRIED = (
    "deploy/install.sh",
    "deploy/dicomnode.service",
    "deploy/drop-ins",
    "ae_config.toml",
    "weights/demo-synthetic",
    "weights/gate.toml",
    "LICENSE",
    "CHANGELOG.md",
    "docs/admin/install.md",
    "docs/admin/upgrade.md",
)
#: What setuptools makes our own wheel from.
SOURCES = (
    "dicomnode",
    "training",
    "weights/demo-synthetic",
    "docs/research/training-run.toml",
    "ae_config.toml",
    "pyproject.toml",
    "setup.py",
    "README.md",
    "LICENSE",
)
#: The node alone, and what each extra adds to it: one list of requirements each.
EXTRAS = ("", "training", "tracing")
#: Free disk that an installed wheel needs, over what is in it: compiled Python, blocks.
_INSTALLED_OVER_UNPACKED = 1.25
#: The date of every file in the archive, where the commit's is not known: what zip begins with.
_ANY_DATE = 315532800


def main(arguments: Sequence[str] | None = None) -> int:
    """Collect, list, pack."""
    parser = argparse.ArgumentParser(description="make an archive that installs without any network")
    parser.add_argument("--python", default=sys.executable, help="of an environment made by `make install`")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "offline", help="where the archive is put")
    parser.add_argument("--weights", type=Path, action="append", default=[], help="a file or bundle for weights/ too")
    args = parser.parse_args(arguments)
    if missing := [str(path) for path in args.weights if not path.exists()]:
        parser.error(f"--weights: there is no {', '.join(missing)}")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dicomnode-offline-") as work:
        folder = Path(work, "dicomnode")
        collect_files(folder, args.weights)
        fetch_wheels(Path(args.python), folder / "wheels", Path(work, "sources"))
        archive = seal_and_pack(folder, args.out, list_wheels(Path(args.python), folder))
    size = archive.stat().st_size / 1e6
    print(f"{archive}: {size:.0f} MB, made in {time.monotonic() - begun:.0f} s; {archive.name}.sha256 is its digest")
    return 0


def collect_files(folder: Path, weights: Sequence[Path]) -> None:
    """Copy what goes along as it is."""
    for source, target in [
        *((ROOT / n, folder / n) for n in CARRIED),
        *((w, folder / "weights" / w.name) for w in weights),
    ]:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)


def copy_sources(target: Path) -> None:
    """Copy what our own wheel is made from, because setuptools builds in the folder of the sources."""
    target.mkdir(parents=True)
    for name in SOURCES:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(ROOT / name, target / name)


def fetch_wheels(python: Path, wheels: Path, sources: Path) -> None:
    """Bring the wheels of the node, of every extra and of our own sources, in the order of deploy/environment.sh."""
    wheels.mkdir(parents=True)
    copy_sources(sources)
    env = os.environ | {"SOURCE_DATE_EPOCH": str(commit_date())}
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--wheel-dir", str(wheels)]
    pip += ["--constraint", str(ROOT / "constraints.txt"), "--find-links", str(wheels)]
    extras = ",".join(extra for extra in EXTRAS if extra)
    build = ["--no-deps", "--no-build-isolation"]
    for what, path in (
        (["torch"], ""),
        (["--no-deps", "torchvision"], ""),
        ([*build, "pyradiomics"], str(ROOT / "deploy" / "pyradiomics-build")),
        (["--no-build-isolation", f"{sources}[{extras}]"], ""),
    ):
        # pip's own path is the environment's; PYTHONPATH is for pyradiomics' build alone.
        kept = {name: value for name, value in env.items() if name != "PYTHONPATH"}
        done = subprocess.run([*pip, *what], env=kept | ({"PYTHONPATH": path} if path else {}), check=False)
        if done.returncode:
            sys.exit(f"pip could not bring {what[-1]}: see above")


def list_wheels(python: Path, folder: Path) -> dict[str, str]:
    """Write requirements.txt, and one for each extra: exact versions with digests. Return what `about` says."""
    # What each extra adds is what pip would install for it from these wheels alone, in an empty environment.
    found = {extra: resolved(python, folder / "wheels", extra) for extra in EXTRAS}
    for extra, names in found.items():
        own = names if not extra else names - found[""]
        lines = [requirement(*wheel) for wheel in sorted(own)]
        (folder / (f"requirements-{extra}.txt" if extra else "requirements.txt")).write_text("\n".join(lines) + "\n")
    listed = {path for names in found.values() for _, _, path in names}
    for path in set((folder / "wheels").iterdir()) - listed:
        path.unlink()
    unpacked = sum(
        i.file_size for _, _, path in found[""] | found["training"] for i in zipfile.ZipFile(path).infolist()
    )
    return about(python, int(unpacked * _INSTALLED_OVER_UNPACKED / 1000))


def requirement(name: str, version: str, wheel: Path) -> str:
    """Return a line of a list for pip's --require-hashes."""
    return f"{name}=={version} --hash=sha256:{sha256(wheel)}"


def about(python: Path, installed_kb: int) -> dict[str, str]:
    """Return what install.sh asks of an archive before it installs: version, Python, machine, disk."""
    run = [str(python), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    return {
        "version": re.findall(r'__version__ = "(.+)"', (ROOT / "dicomnode" / "__init__.py").read_text("utf-8"))[0],
        "python": subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip(),
        "machine": platform.machine(),
        "libc": "-".join(platform.libc_ver()),
        "installed_kb": str(installed_kb),
    }


def resolved(python: Path, wheels: Path, extra: str) -> set[tuple[str, str, Path]]:
    """Return name, version and file of every wheel that `dicomnode[extra]` needs, by pip's own resolver, offline."""
    what = f"dicomnode[{extra}]" if extra else "dicomnode"
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--dry-run"]
    command += ["--ignore-installed", "--no-index", "--find-links", str(wheels), "--report", "-", what]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PIP_FIND_LINKS": ""})
    if done.returncode:
        sys.exit(f"the wheels do not suffice for {what}:\n{done.stderr}")
    return {(name, version, wheels / file) for name, version, file in _installed(done.stdout)}


def _installed(report: str) -> Iterator[tuple[str, str, str]]:
    for item in json.loads(report)["install"]:
        path = Path(unquote(urlsplit(item["download_info"]["url"]).path))
        yield item["metadata"]["name"].lower(), item["metadata"]["version"], path.name


def seal_and_pack(folder: Path, out: Path, about_it: dict[str, str]) -> Path:
    """Write `about` and SHA256SUMS, and the archive with its digest beside it; the same files give the same bytes."""
    (folder / "about").write_text("".join(f"{key}={value}\n" for key, value in about_it.items()), encoding="utf-8")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = "".join(f"{sha256(path)}  {path.relative_to(folder)}\n" for path in files)
    (folder / "SHA256SUMS").write_text(sums, encoding="utf-8")
    out.mkdir(parents=True, exist_ok=True)
    name = f"dicomnode-{about_it['version']}-py{about_it['python']}-{about_it['machine']}"
    archive, date = out / f"{name}.tar", commit_date()
    with tarfile.open(archive, "w") as packed:
        for path in sorted([*files, folder / "SHA256SUMS"]):
            info = tarfile.TarInfo(f"{name}/{path.relative_to(folder)}")
            info.size, info.mtime = path.stat().st_size, date
            info.mode = 0o755 if path.suffix == ".sh" else 0o644
            with path.open("rb") as content:
                packed.addfile(info, content)
    (out / f"{name}.tar.sha256").write_text(f"{sha256(archive)}  {archive.name}\n")
    # Who has the archive needs the installer before it is unpacked.
    shutil.copy2(ROOT / "deploy" / "install.sh", out)
    return archive


def sha256(path: Path) -> str:
    """Return a file's digest."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def commit_date() -> int:
    """Return when the commit was made, in seconds since 1970; without git, the same date always."""
    done = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 and done.stdout.strip() else _ANY_DATE


if __name__ == "__main__":
    sys.exit(main())
