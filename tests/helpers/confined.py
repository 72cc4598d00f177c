"""Run a command under the system-call filter of the systemd unit, without systemd.

    python -m tests.helpers.confined UNIT COMMAND...

`SystemCallFilter`, `RestrictAddressFamilies` and `UMask` of the unit hold for the command and all that it starts; the
sets (`@system-service`) are expanded by `systemd-analyze`, the filter is built by libseccomp, as systemd does. What is
not allowed fails with EPERM (`SystemCallErrorNumber`).
"""

import ctypes
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_ALLOW, _EPERM = 0x7FFF0000, 0x00050000 | errno.EPERM
_EQUAL = 4
_PR_SET_NO_NEW_PRIVS = 38


class _Compared(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


class Unit(dict[str, list[str]]):
    """The keys of [Service], each with its values in their order."""

    @classmethod
    def read(cls, path: Path) -> "Unit":
        """Read a unit file; a key may stand there several times."""
        found = cls()
        for line in path.read_text(encoding="utf-8").partition("[Service]")[2].partition("[Install]")[0].splitlines():
            key, is_setting, value = line.partition("=")
            if is_setting and not line.startswith("#"):
                found.setdefault(key.strip(), []).append(value.strip())
        return found

    @property
    def system_calls(self) -> set[str]:
        """What `SystemCallFilter` allows: the first list, with @default, and without what later ones take away."""
        allowed = expanded("@default")
        for value in self["SystemCallFilter"]:
            named = {call for name in value.removeprefix("~").split() for call in expanded(name)}
            allowed = allowed - named if value.startswith("~") else allowed | named
        return allowed


def expanded(name: str) -> set[str]:
    """Return the system calls of a set, or the one of this name."""
    if not name.startswith("@"):
        return {name}
    command = ["systemd-analyze", "syscall-filter", "--no-pager", name]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    members = [line.strip() for line in lines[1:] if line.strip() and not line.strip().startswith("#")]
    return {call for member in members for call in expanded(member)}


def confine(unit: Unit) -> None:
    """Put this process, and all that it starts, under the unit's filter."""
    calls = unit.system_calls
    families = [getattr(socket, name) for name in unit["RestrictAddressFamilies"][-1].split()]
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_EPERM)))
    for call in sorted(calls):
        number = library.seccomp_syscall_resolve_name(call.encode())
        if number < 0:  # of another architecture
            continue
        if call == "socket":
            for family in families:
                compared = _Compared(0, _EQUAL, family, 0)
                _did(library.seccomp_rule_add_array(context, _ALLOW, number, 1, ctypes.byref(compared)))
        else:
            _did(library.seccomp_rule_add_array(context, _ALLOW, number, 0, None))
    os.umask(int(unit["UMask"][-1], 8))
    _did(ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _did(library.seccomp_load(context))


def _did(result: int) -> None:
    if result != 0:
        raise OSError(-result, f"seccomp: {os.strerror(-result)}")


def main(arguments: Sequence[str]) -> None:
    """Take the command's place."""
    confine(Unit.read(Path(arguments[0])))
    os.execvp(arguments[1], arguments[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
