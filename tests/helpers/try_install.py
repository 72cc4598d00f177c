"""Install the offline archive as an administrator would, in a new Debian without a network, and run the demo there.

    python -m tests.helpers.try_install --archives build/offline [--root FOLDER]

Needs root, debootstrap and the archive of `make offline`. `--root` takes a Debian that debootstrap has made before.
Prints how long each step took and how much disk is used; exit status 1 where the demo does not end in its result.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.helpers.prerequisites import check_or_exit

#: Debian's release whose Python is that of most archives, and what is in it besides its smallest set.
_RELEASE, _PACKAGES = "bookworm", "python3,python3-venv"
#: Mount, bring the loopback up (nothing else is there), run one command in the root.
_ENTER = (
    'mount --bind "$0" "$0" && cd "$0" && mount -t proc proc proc && mount --rbind /dev dev && ip link set lo up '
    '&& exec chroot . "$@"'
)


def mirror() -> str:
    """Return where this machine's apt fetches from."""
    command = ["apt-get", "indextargets", "--format", "$(SITE)"]
    sites = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return next(site for site in sites if "security" not in site)


def timed(what: str, command: Sequence[str | Path]) -> None:
    """Run a step and tell how long it took; SystemExit where it fails."""
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(f"{what}: {time.monotonic() - begun:.0f} s", flush=True)
    if done.returncode:
        sys.exit(f"{what} failed ({done.returncode}):\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    if what == "demo":
        print(done.stdout)
        if "all expected objects" not in done.stdout:
            sys.exit("the demo ended without its result")


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the root, install, again, demo, remove."""
    parser = argparse.ArgumentParser(description="try install.sh in a new Debian without a network")
    parser.add_argument("--archives", type=Path, required=True, help="the folder that `make offline` has written")
    parser.add_argument("--root", type=Path, help="a Debian that debootstrap has made; it is left there")
    args = parser.parse_args(arguments)
    archives = sorted(args.archives.glob("dicomnode-*.tar"))
    if not archives:
        parser.error(f"no archive in {args.archives}: make offline")
    check_or_exit(programs=[] if args.root else [("debootstrap", "debootstrap")])
    folder = Path(tempfile.mkdtemp(prefix="dicomnode-try-"))
    root = args.root or folder / "root"
    try:
        if not args.root:
            make = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", _RELEASE, str(root), mirror()]
            timed("a new Debian", make)
        media = root / "media"
        for path in (archives[-1], Path(f"{archives[-1]}.sha256"), args.archives / "install.sh"):
            shutil.copy(path, media)
        enter = ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", _ENTER, str(root)]
        install = [*enter, "sh", "/media/install.sh", "--offline", f"/media/{archives[-1].name}"]
        timed("installed", install)
        timed("installed again", install)
        size = subprocess.run(["du", "-sm", root / "opt" / "dicomnode"], capture_output=True, text=True, check=True)
        print(f"/opt/dicomnode: {size.stdout.split()[0]} MB")
        timed("demo", [*enter, "/usr/local/sbin/dicomnode", "demo", "--out", "/var/lib/dicomnode/demo-out"])
        timed("removed", [*enter, "sh", "/media/install.sh", "--uninstall", "--purge"])
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
