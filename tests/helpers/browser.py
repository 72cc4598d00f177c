"""Chromium as people have it, and axe-core, which looks for what keeps somebody from using a page."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.helpers.prerequisites import ROOT, MissingError

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

#: `make axe` brings it.
AXE = ROOT / "build" / "axe" / "axe.min.js"
#: Of one step, on a machine that does other things too.
PATIENCE_S = 60


@contextmanager
def chromium(program: str, *options: str) -> "Iterator[Browser]":
    """A Chromium that ends with the block.

    Raises:
        MissingError: the library that drives it is not installed.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise MissingError("playwright is not installed: make unit") from None
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", *options])
        try:
            yield browser
        finally:
            browser.close()


def axe() -> str:
    """axe-core's text.

    Raises:
        MissingError: it was not brought.
    """
    if not AXE.exists():
        raise MissingError(f"{AXE} is not there: make axe")
    return AXE.read_text("utf-8")


def violations(page: "Page", script: str) -> list[str]:
    """What axe finds serious or critical on a page, in words."""
    # Not as a <script>: the page's own policy forbids that.
    page.evaluate(script)
    found = page.evaluate("async () => (await axe.run()).violations")
    return [
        f"{page.url} {one['impact']} {one['id']}: {one['help']} {[node['target'] for node in one['nodes']][:3]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
