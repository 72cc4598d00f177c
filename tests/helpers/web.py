"""A server of web pages in a thread, with a client that asks it."""

import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx

from tests.helpers.waiting import until


def answers(url: str) -> bool:
    """Whether a page is there."""
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def http_client(url: str, timeout: float = 30, verify: ssl.SSLContext | bool = False) -> httpx.Client:
    """A client that makes a connection for each request.

    A server may hang up on one that has been idle (Orthanc after a second) while the next request is on its way; on
    a busy machine two requests in a row are that far apart.
    """
    return httpx.Client(
        base_url=url, timeout=timeout, verify=verify, limits=httpx.Limits(max_keepalive_connections=0), trust_env=False
    )


@contextmanager
def serving(
    run: Callable[[threading.Event], None], url: str, page: str, verify: ssl.SSLContext | bool = False
) -> Iterator[httpx.Client]:
    """Let a server run until the end, once `page` is answered 200; what it raises is raised here."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, stop)
        client = http_client(url, verify=verify)

        def answers() -> bool:
            assert not running.done(), running.exception()
            try:
                return client.get(page).status_code == 200
            except httpx.TransportError:
                return False

        try:
            until("it answers", answers, 30)
            yield client
        finally:
            client.close()
            stop.set()
        running.result(30)
