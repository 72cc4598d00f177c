"""The slices of a study's page in Chromium: they scroll by keyboard and wheel, with what lies over them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dicomnode.console import server
from dicomnode.operations import passwords
from tests.conftest import absent
from tests.helpers import browser
from tests.helpers.ports import free_port
from tests.helpers.prerequisites import MissingError
from tests.helpers.rich_findings import write_findings
from tests.helpers.waiting import until
from tests.helpers.web import serving
from tests.unit.console.conftest import PASSWORD
from tests.unit.dicomweb.conftest import Filled, filled
from tests.unit.dicomweb.test_slices import analysed

__all__ = ["analysed", "filled"]


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_slices_scroll_in_a_browser(
    analysed: str, filled: Filled, peer: Callable[[str, str], str], tmp_path: Path, width: int, scheme: str
) -> None:
    program = peer("chromium", "chromium")
    filled.catalog.add_console_user("reader", "reader", passwords.hashed(PASSWORD), 1.0)
    write_findings(filled.config, analysed)
    port = free_port()
    table = filled.config.console.model_copy(update={"port": port})
    config = filled.config.model_copy(update={"console": table})
    url = f"http://127.0.0.1:{port}"
    try:
        with (
            serving(lambda stop: server.run(config, stop), url, "/login"),
            browser.chromium(program) as started,
        ):
            context = started.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page, asked, faults = context.new_page(), list[str](), list[str]()
            page.set_default_timeout(1000 * browser.PATIENCE_S)
            page.on("request", lambda one: asked.append(one.url))
            page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.goto(f"{url}/login")
            page.get_by_label("Name").fill("reader")
            page.get_by_label("Password").fill(PASSWORD)
            page.get_by_role("button", name="Log in").click()
            page.get_by_text("Log out").wait_for()
            page.goto(f"{url}/study/{filled.site.keys.key(analysed)}")
            axial, coronal = page.locator('[data-plane="axial"]'), page.locator('[data-plane="coronal"]')
            until("the middle slices", lambda: "3 of 5" in axial.inner_text() and "4 of 8" in coronal.inner_text(), 30)
            slider = page.get_by_role("slider", name="Axial slice, head to feet")
            slider.focus()
            page.keyboard.press("ArrowRight")
            until("the next slice", lambda: "4 of 5" in axial.inner_text(), 30)
            coronal.locator(".picture").hover()
            page.mouse.wheel(0, 100)
            until("the next coronal slice", lambda: "5 of 8" in coronal.inner_text(), 30)
            page.get_by_label("attenuation map").check()
            over = coronal.locator('.over[data-kind="areas"]')
            until("the map", lambda: over.evaluate("image => image.complete && image.naturalWidth > 0"), 30)
            sizes = [coronal.locator(one).bounding_box() for one in (".slice", '.over[data-kind="areas"]')]
            assert sizes[0] is not None and sizes[1] is not None
            assert np.allclose(list(sizes[0].values()), list(sizes[1].values()), atol=1)
            assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
            page.locator("#slices").screenshot(path=tmp_path / "slices.png")
            assert browser.violations(page, browser.axe()) == []
            assert faults == [] and all(one.startswith(url) for one in asked)
            assert coronal.locator(".slice").get_attribute("alt") == "coronal slice 5 of 8, lung window"
    except MissingError as error:
        absent(str(error))
