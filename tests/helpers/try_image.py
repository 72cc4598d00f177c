"""Run the image of deploy/Dockerfile where no container engine can start one: its root, by chroot, as its own user.

    python -m tests.helpers.try_image [IMAGE]

What a container would have is given by hand: a root file system that is read-only, nothing writable but what
compose.yaml names, no network but a loopback, the image's user without capabilities and without a way to new ones, the
image's own environment, entry point, command and health check. Runs the demo; then the image's command until the health
check is content, and ends it by SIGTERM. Needs root and podman.
Exit status 1 where the demo does not end in its result, or the node does not become healthy or does not end in order.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.helpers.prerequisites import check_or_exit

_CONFIG = """
[storage]
spool = "/var/lib/dicomnode/spool"
results = "/var/lib/dicomnode/results"
state = "/var/lib/dicomnode/state"
[registry]
folder = "/var/lib/dicomnode/registry"
[retraining]
folder = "/var/lib/dicomnode/retraining"
[monitoring]
port = 9108
"""
#: What runs in a mount and network namespace of its own: $0 is the image's root, the rest a command in it.
_ENTER = """
set -e
mount --bind "$0" "$0"; cd "$0"
mount -t proc proc proc; mount --rbind /dev dev
for folder in tmp var/lib/dicomnode var/cache/dicomnode; do
    mount -t tmpfs -o mode=0700,uid={uid},gid={gid},exec none "$folder"
done
mount --bind {etc} etc/dicomnode
mount -o remount,bind,ro .
ip link set lo up
exec chroot . /usr/bin/setpriv --reuid={uid} --regid={gid} --clear-groups --bounding-set=-all --inh-caps=-all \\
    --no-new-privs /usr/bin/env -i "$@"
"""
_SERVE = """
{command} & node=$!
for attempt in $(seq 240); do kill -0 $node || exit 1; {health} 2> /dev/null && break; sleep 0.5; done
{health} && kill -TERM $node && wait $node && echo "healthy, and ended in order"
"""
_CONFINED = "grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs):' /proc/self/status; touch /opt/dicomnode/x 2>&1 || true"


def _podman(*arguments: str) -> str:
    return subprocess.run(["podman", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def _run(what: str, root: str, image: dict[str, Any], etc: str, words: str) -> str:
    """Run words of a shell in the image's root; tell how long it took. SystemExit where it fails."""
    uid, gid = image["User"].split(":")
    enter = _ENTER.format(uid=uid, gid=gid, etc=shlex.quote(etc))
    shell = ["/bin/sh", "-c", f"cd {shlex.quote(image['WorkingDir'])}\n{words}"]
    command = [
        "unshare",
        "--mount",
        "--net",
        "--propagation",
        "private",
        "sh",
        "-c",
        enter,
        root,
        *image["Env"],
        *shell,
    ]
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(f"{what}: {time.monotonic() - begun:.0f} s", flush=True)
    if done.returncode:
        sys.exit(f"{what} failed ({done.returncode}):\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Demo and health of an image."""
    parser = argparse.ArgumentParser(description="run the root of the image by chroot")
    parser.add_argument("image", nargs="?", default="localhost/dicomnode", help="as podman knows it")
    args = parser.parse_args(arguments)
    check_or_exit(programs=[("podman", "podman"), ("ip", "iproute2")])
    described = json.loads(_podman("image", "inspect", args.image))[0]
    image = {"WorkingDir": "/", **described["Config"]}
    health = (described.get("HealthCheck") or described.get("Healthcheck") or image["Healthcheck"])["Test"]
    root = _podman("image", "mount", args.image)
    try:
        with tempfile.TemporaryDirectory(prefix="dicomnode-image-") as etc:
            Path(etc).chmod(0o755)
            (Path(etc) / "ae_config.toml").write_text(_CONFIG)
            print(f"image: {described['Size'] / 2**20:.0f} MB")
            print(_run("confined", root, image, etc, _CONFINED))
            entry = shlex.join(image["Entrypoint"])
            said = _run("demo", root, image, etc, f"{entry} demo --out /var/lib/dicomnode/demo-out")
            print(said)
            if "all expected objects" not in said:
                sys.exit("the demo ended without its result")
            serve = _SERVE.format(command=f"{entry} {shlex.join(image['Cmd'])}", health=shlex.join(health[1:]))
            print(_run("served", root, image, etc, serve))
    finally:
        _podman("image", "umount", args.image)
    return 0


if __name__ == "__main__":
    sys.exit(main())
