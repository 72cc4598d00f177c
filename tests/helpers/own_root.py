"""A root of its own: the machine's files under an overlay, where a test may install, make users and remove, as root.

What is written lies in memory and is gone at the end; the machine is as before. No network reaches in or out.
"""

import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREPARE = """
set -e
mount -t tmpfs tmpfs {here}
cd {here} && mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
mount -t proc proc root/proc && mount --rbind /dev root/dev && mount -t tmpfs tmpfs root/run
echo ready
cat
"""


class OwnRoot:
    """A root that `own_root` holds open."""

    def __init__(self, holder: int, here: Path) -> None:
        self._holder, self._root = holder, here / "root"

    def run(self, *command: str | Path, timeout_s: float = 500) -> subprocess.CompletedProcess[str]:
        """Run a command in it."""
        enter = ["nsenter", "--mount", "--net", "--target", str(self._holder), "chroot", str(self._root)]
        clean = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "TMPDIR=/tmp"]
        return subprocess.run(
            [*enter, *clean, *command], capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def shell(self, script: str) -> str:
        """Run a few lines that must succeed; what they print."""
        done = self.run("sh", "-ec", script)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def open_interpreter(self) -> None:
        """Let every user of this root run the tests' Python and read its libraries, wherever they lie."""
        for end in (Path(sys.base_prefix), Path(sysconfig.get_path("purelib"))):
            for folder in (end, *end.parents):
                self.shell(f"chmod o+x {folder}")


@contextmanager
def own_root(here: Path) -> Iterator[OwnRoot]:
    """Hold a root open; `here` is an empty folder that it may use.

    Raises:
        RuntimeError: this machine lets nobody mount an overlay.
    """
    command = ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", _PREPARE.format(here=here)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert holder.stdin and holder.stdout and holder.stderr
    try:
        if holder.stdout.readline() != "ready\n":
            raise RuntimeError(f"no root of its own: {holder.stderr.read().strip()}")
        yield OwnRoot(holder.pid, here)
    finally:
        holder.stdin.close()
        holder.wait()
        holder.stdout.close()
        holder.stderr.close()
