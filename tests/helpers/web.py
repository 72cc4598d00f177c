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


@contextmanager
def serving(
    run: Callable[[threading.Event], None], url: str, page: str, verify: ssl.SSLContext | bool = False
) -> Iterator[httpx.Client]:
    """Let a server run until the end, once `page` is answered 200; what it raises is raised here."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, stop)
        client = httpx.Client(base_url=url, timeout=30, verify=verify)

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
