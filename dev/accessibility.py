"""What axe-core finds on our pages, for tests and benchmarks.

The script comes with its package, so nothing is fetched. Knows each page's address and what stands
on it once it is filled.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, ViewportSize

Scheme = Literal["light", "dark"]

# Path → what is there once the page is filled.
DOORS = {"/login": "main", "/signup": "main"}
ROOMS = {
    "/": "#choose-a:enabled",
    "/taste/": "#blind-lines p",
    "/guide": "main",
    "/welcome": "main",
    "/welcome?step=2": "main",
    "/welcome?step=3": "main",
    "/account": "main",
    "/lab/": "#lab-summary p",
}
_SCHEMES: tuple[Scheme, ...] = ("light", "dark")
_SIZES: dict[str, ViewportSize] = {
    "desktop": {"width": 1280, "height": 760},
    "phone": {"width": 390, "height": 844},
}
_HARM = {"serious", "critical"}
# Two frames: the first may still show the look before.
_PAINTED = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def open_page(page: Page, address: str, path: str, filled: str) -> None:
    """Go to `path` on a desktop and wait until it is filled."""
    page.set_viewport_size(_SIZES["desktop"])
    page.goto(f"{address}{path}")
    page.locator(filled).first.wait_for()


def serious_in_every_look(page: Page) -> list[str]:
    """What axe calls serious or critical, light and dark, on a desktop and a phone."""
    return [
        f"{look}: {found}" for look in _looks(page) for found in serious(Axe().run(page).response)
    ]


def serious(response: dict[str, Any]) -> list[str]:
    """One line for each element that breaks a rule in a serious or critical way."""
    return [
        f"{violation['id']} ({violation['impact']}) at {' '.join(map(str, node['target']))}"
        for violation in response["violations"]
        for node in violation["nodes"]
        if violation["impact"] in _HARM
    ]


def _looks(page: Page) -> Iterator[str]:
    """Sets the page to each size and scheme in turn, without movement; tells which it is."""
    for name, size in _SIZES.items():
        page.set_viewport_size(size)
        for scheme in _SCHEMES:
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            page.evaluate(_PAINTED)
            yield f"{name}, {scheme}"
