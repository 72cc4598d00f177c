"""The processes that another one started; each may end while it is looked at, and is then not there."""

import psutil


def children(word: str, pid: int | None = None) -> list[psutil.Process]:
    """Those of a process (None: of this one) in whose command line an argument is `word`."""
    found = []
    for child in psutil.Process(pid).children():
        try:
            if word in child.cmdline():
                found.append(child)
        except psutil.Error:
            continue
    return found


def listens(pid: int, port: int) -> bool:
    """Whether a process listens on a port. It is not called: some peers answer one caller at a time."""
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return False
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)
