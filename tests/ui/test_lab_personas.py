"""The lab's card of simulated users, as a researcher meets it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from dev.running import RunningApp
from dev.waiting import wait_for
from tests.ui.conftest import Stored, answer_to_click, sign_in

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """An app of its own: simulated users would be in the way of other tests."""
    folder = tmp_path_factory.mktemp("personas") / "data"
    settings = {"engine": "echo", "persona_choices": "0", "persona_noise": "0.25"}
    with RunningApp(folder, **settings) as running:
        yield running.wait_ready()


@pytest.fixture
def researcher(app: RunningApp, stored: Stored, new_page: Callable[..., Page]) -> Iterator[Page]:
    """In the lab, as a guest who was made a researcher; no persona chooses afterwards."""
    page = new_page(viewport={"width": 1440, "height": 1000})
    sign_in(page, app.address)
    stored.rows("UPDATE users SET role = 'researcher' WHERE id = (SELECT max(id) FROM users)")
    page.goto(f"{app.address}/lab/")
    expect(page.locator("#personas-state p")).to_be_visible()
    yield page
    stored.rows("UPDATE users SET role = 'researcher' WHERE is_guest = 1")
    page.goto(f"{app.address}/lab/")
    expect(page.locator("#personas-state p")).to_be_visible()
    if page.locator("#personas-stop").is_enabled():
        page.locator("#personas-stop").click()
        expect(page.locator("#personas-run")).to_be_enabled()


def choices(stored: Stored) -> int:
    count: int = stored.rows("SELECT count(*) FROM choices")[0][0]
    return count


def test_some_choose_until_they_are_stopped(
    researcher: Page, stored: Stored, picture: Callable[..., None]
) -> None:
    expect(researcher.locator("#personas-stop")).to_be_disabled()
    researcher.locator("#personas-count input").click()
    researcher.get_by_role("option", name="4 personas").click()
    researcher.locator("#personas-run").click()
    expect(researcher.locator("#personas-state")).to_contain_text("choosing now")
    expect(researcher.locator("#personas-run")).to_be_disabled()
    rows = researcher.locator("#personas-table tbody tr")
    expect(rows).to_have_count(4)
    expect(rows.first.locator("td").nth(0)).to_have_text("persona: shorter")
    expect(rows.first.locator("td").nth(1)).to_have_text("Likes short, crisp answers.")
    expect(rows.first.locator("td").nth(2)).to_have_text("25%")
    expect(rows.first.locator("td").nth(3)).to_have_text("0%")
    expect(rows.first.locator("td").nth(4)).not_to_have_text("0")
    labelled = researcher.locator("#lab-users tbody tr").filter(has_text="simulated")
    expect(labelled).to_have_count(4)
    researcher.locator("#personas-stop").click()
    expect(researcher.locator("#personas-state")).to_contain_text("at rest")
    expect(researcher.locator("#personas-run")).to_be_enabled()
    expect(rows).to_have_count(4)
    expect(researcher.locator("#lab-summary")).to_contain_text("4 of them simulated")
    assert choices(stored) >= 4
    picture(researcher, "lab-personas", full_page=True)  # at rest: its tables grow no more


def test_an_odd_number_is_refused_in_words(researcher: Page, stored: Stored) -> None:
    before = choices(stored)
    field = researcher.locator("#personas-count input")
    field.fill("3")
    field.press("Enter")
    researcher.locator("#personas-run").click()
    expect(researcher.locator("#personas-refused")).to_contain_text("2, 4, 6 or 8 of them")
    with researcher.expect_response("**/gradio_api/run/**"):  # the clock's next refresh
        pass
    expect(researcher.locator("#personas-refused")).to_contain_text("2, 4, 6 or 8 of them")
    assert choices(stored) == before


@pytest.mark.parametrize("button", ["#personas-run", "#personas-stop"])
def test_a_page_left_open_is_closed_with_the_role(
    researcher: Page, stored: Stored, button: str
) -> None:
    """The page is open when the role is taken away; nothing on it works any more."""
    if button == "#personas-stop":
        researcher.locator("#personas-run").click()
        expect(researcher.locator("#personas-stop")).to_be_enabled()
    stored.rows("UPDATE users SET role = 'annotator' WHERE is_guest = 1")
    before = choices(stored)
    assert answer_to_click(researcher, button).status in {401, 403}
    if button == "#personas-stop":
        wait_for(lambda: choices(stored) > before)


def test_on_a_phone_it_fits(researcher: Page) -> None:
    researcher.set_viewport_size({"width": 390, "height": 844})
    wide = researcher.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    assert not wide
