"""My taste as a person meets it: figures, trying, words, every choice, one's data."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from db.models import Comparison, Prompt, Response
from db.session import Database
from dev.accessibility import serious_in_every_look
from dev.running import RunningApp
from tests.backend.judged import Judged
from tests.conftest import Clock
from tests.ui.conftest import PHONE, Stored, name_of
from tests.ui.lived_in import ECHO, lived_in, user_of, written

pytestmark = pytest.mark.browser

Guest = Callable[..., Page]
HOSTILE = "<script>window.ran=1</script> ${window.ran=2} ![x](https://example.org/p.png) **bold**"


@pytest.fixture
def judged(app: RunningApp, clock: Clock) -> Iterator[Judged]:
    """Writes into the running app's database."""
    database = Database(f"sqlite:///{app.data / 'attune.db'}")
    yield Judged(database, clock)
    database.close()


def visit(page: Page, path: str = "taste/") -> None:
    page.goto(re.sub(r"(//[^/]+/).*", rf"\1{path}", page.url))
    if path == "taste/":
        expect(page.locator("#blind-lines")).to_contain_text("Now and then")


def chosen(judged: Judged, page: Page, count: int) -> tuple[int, list[int]]:
    """So many choices of a guest's, scored, with texts of their own; user and comparisons."""
    user, version = user_of(judged, name_of(page)), judged.version(ECHO)
    comparisons = []
    for number in range(count):
        judged.clock.forward(seconds=1)
        comparison = judged.comparison(user, version)
        choice = judged.choice(user, comparison, "ab"[number % 2])
        judged.score(choice, version, (1.0 if number % 4 else -1.0, -1.0, 0.5), nth=number)
        comparisons.append(comparison)
        with judged.database.write() as session:
            session.query(Response).filter_by(comparison_id=comparison, side="A").update(
                {Response.text: f"Apple {number} end"}
            )
    return user, comparisons


def row(page: Page, number: int) -> Locator:
    return page.locator(f"#past-row-{number}")


def test_nothing_is_claimed_before_there_is_anything(guest: Guest) -> None:
    page = guest("/")
    page.get_by_role("link", name="My taste").click()
    expect(page).to_have_url(re.compile(r"/taste/$"))
    expect(page.get_by_role("link", name="My taste")).to_have_attribute("aria-current", "page")
    expect(page.locator("#known-lines")).to_contain_text("Nothing to say yet")
    expect(page.locator("#known-figure")).to_have_text("–")
    expect(page.locator("#blind-figure")).to_have_text("–")
    expect(page.locator("#known-curve svg")).to_have_count(0)
    expect(page.locator("#past-empty")).to_contain_text("not made any choice")
    expect(page.locator("#words-shown")).to_contain_text("not written anything")


def test_figures_with_their_counts_ranges_and_controls(guest: Guest, judged: Judged) -> None:
    page = guest("/account")
    user, _ = chosen(judged, page, 20)
    version = judged.version(ECHO)
    sides = ("personal", "generic")
    for verdict in "aaab":
        pair = judged.comparison(user, version, purpose="blind", conditions=sides)
        with judged.database.write() as session:
            session.query(Response).filter_by(comparison_id=pair, side="A").update(
                {Response.profile: "short"}
            )
        judged.score(judged.choice(user, pair, verdict), version, (1.0, -1.0, 0.5), nth=20)
    visit(page)
    expect(page.locator("#known-figure")).to_have_text("79%")
    expect(page.locator("#known-lines")).to_contain_text("24 choices · likely between")
    expect(page.locator("#known-lines")).to_contain_text("Someone else’s taste foresaw")
    expect(page.get_by_role("img", name="Share of your choices foreseen")).to_be_visible()
    expect(page.locator("#blind-figure")).to_have_text("3 of 4")
    expect(page.locator("#blind-lines")).to_contain_text("Too few to be sure yet: between")
    page.locator("#taste-known summary").click()
    page.locator("#words-edit").click()
    expect(page.locator("#words-text")).to_be_visible()
    row(page, 0).get_by_role("button", name="Edit").click()
    expect(page.locator("#past-panel")).to_be_visible()
    assert serious_in_every_look(page) == []


def test_what_choices_lean_to_once_it_is_clear(guest: Guest, judged: Judged) -> None:
    page = guest("/account")
    user, version = user_of(judged, name_of(page)), judged.version(ECHO)
    rng = random.Random(6)

    def choose(count: int) -> None:
        for number in range(count):
            pair = judged.comparison(user, version)
            judged.choice(user, pair, "ab"[number % 2])
            written(judged, pair, "ab"[number % 2], rng)

    choose(9)
    visit(page)
    said, chips = page.locator("#leaning-lines"), page.locator("#leanings li")
    expect(said).to_contain_text("Too few to say yet")
    expect(said).to_contain_text("So far: 9.")
    expect(chips).to_have_count(0)
    choose(1)
    page.reload()
    expect(said).to_contain_text("Nothing stands out clearly yet in 10 choices")
    choose(50)
    page.reload()
    expect(said).to_contain_text("From 60 choices. Each is at least 90% sure")
    expect(said).to_contain_text("not of you as a person")
    assert {"short responses", "being spoken to (you, your)"} <= set(chips.all_inner_texts())
    page.locator("#taste-leanings summary").click()
    expect(page.locator("#taste-leanings details")).to_contain_text("strongest first")
    assert serious_in_every_look(page) == []


def test_one_prompt_for_everybody_and_for_you(guest: Guest, stored: Stored) -> None:
    page = guest("/account")
    user = "SELECT id FROM users WHERE username = ?"
    name = name_of(page)
    visit(page)
    expect(page.locator("#try-answers")).to_have_count(0)
    page.get_by_label("Your prompt").fill("How do I start running?")
    page.keyboard.press("Enter")
    for part in ("#try-generic", "#try-personal"):
        expect(page.locator(part)).to_contain_text(re.compile(r"\w+ \w+"))
    labels = page.locator("#try-answers h3").all_inner_texts()
    assert labels == ["For everybody", "For you"]
    expect(page.locator("#try-notice")).to_contain_text("made alike")
    assert stored.rows(f"SELECT count(*) FROM prompts WHERE owner_id = ({user})", name) == [(0,)]
    page.get_by_label("Your prompt").fill("  ")
    page.locator("#try-send").click()
    expect(page.locator("#try-notice")).not_to_contain_text("made alike")
    expect(page.locator("#try-notice")).to_have_attribute("role", "status")


def test_words_about_oneself_are_written_kept_and_erased(guest: Guest, stored: Stored) -> None:
    page = guest("/account")
    kept = "SELECT profile FROM users WHERE username = ?"
    name = name_of(page)
    visit(page)
    page.locator("#words-edit").click()
    box = page.get_by_label("How should responses be for you?")
    box.fill("Short.\n<b>No</b> ${7*7} lectures.")
    page.locator("#words-cancel").click()
    expect(box).to_have_count(0)
    assert stored.rows(kept, name) == [("",)]
    page.locator("#words-edit").click()
    box.fill("Short.\n<b>No</b> ${7*7} lectures.")
    page.locator("#words-save").click()
    expect(page.locator("#words-notice")).to_contain_text("go by it")
    expect(page.locator("#words-shown")).to_have_text("Short.\n<b>No</b> ${7*7} lectures.")
    assert stored.rows(kept, name) == [("Short.\n<b>No</b> ${7*7} lectures.",)]
    visit(page)
    page.locator("#words-edit").click()
    expect(box).to_have_value("Short.\n<b>No</b> ${7*7} lectures.")
    page.locator("#words-erase").click()
    expect(page.locator("#words-notice")).to_contain_text("Erased")
    assert stored.rows(kept, name) == [("",)]


def test_every_choice_is_listed_page_by_page_and_found(guest: Guest, judged: Judged) -> None:
    page = guest("/account")
    chosen(judged, page, 8)
    visit(page)
    expect(page.locator("#past-place")).to_have_text("1–6 of 8")
    expect(page.locator("#past-newer")).to_have_count(0)
    page.locator("#past-older").click()
    expect(page.locator("#past-place")).to_have_text("7–8 of 8")
    expect(row(page, 2)).to_have_count(0)
    page.locator("#past-newer").click()
    expect(row(page, 5)).to_be_visible()
    page.get_by_label("Search your choices").fill("apple 3 END")
    expect(row(page, 1)).to_have_count(0)
    expect(row(page, 0)).to_contain_text("B is better")
    page.get_by_label("Search your choices").fill("pear")
    expect(page.locator("#past-empty")).to_contain_text("No choice of yours contains this")
    page.get_by_label("Search your choices").fill("")
    expect(row(page, 5)).to_be_visible()


def test_a_choice_is_changed(guest: Guest, judged: Judged, stored: Stored) -> None:
    page = guest("/account")
    name = name_of(page)
    chosen(judged, page, 2)
    visit(page)
    row(page, 1).get_by_role("button", name="Edit").click()
    expect(page.locator("#past-a")).to_contain_text("Apple 0 end")
    expect(page.get_by_label("A is better")).to_be_checked()
    page.get_by_label("B is better").check()
    page.get_by_label("Clearly").check()
    page.get_by_label("Why (if you like)").fill("clearer")
    page.locator("#past-save").click()
    expect(page.locator("#past-notice")).to_contain_text("Saved")
    expect(row(page, 1)).to_contain_text("B is better, clearly · clearer")
    expect(page.locator("#past-panel")).to_have_count(0)
    assert set(stored.standing(name)) == {("b", 2, "clearer"), ("b", None, None)}
    row(page, 0).get_by_role("button", name="Edit").click()
    page.get_by_label("Tie").check()
    expect(page.get_by_label("Clearly")).to_have_count(0)
    page.locator("#past-cancel").click()
    expect(page.locator("#past-panel")).to_have_count(0)
    assert set(stored.standing(name)) == {("b", 2, "clearer"), ("b", None, None)}


def test_a_choice_is_changed_by_keyboard(guest: Guest, judged: Judged, stored: Stored) -> None:
    page = guest("/account")
    name = name_of(page)
    _, comparisons = chosen(judged, page, 2)
    with judged.database.write() as session:
        prompt_id = session.get_one(Comparison, comparisons[0]).prompt_id
        session.get_one(Prompt, prompt_id).text = "Why is the sky blue?"
    visit(page)
    edit = page.get_by_role("button", name="Edit Why is the sky blue?")
    title = page.get_by_role("heading", name="Change this choice")
    for way_out, verdict in (("Cancel", "a"), ("Save", "tie")):
        edit.focus()
        page.keyboard.press("Enter")
        expect(title).to_be_focused()
        page.get_by_label("Tie").check()
        page.locator("#past-panel").get_by_role("button", name=way_out).press("Enter")
        expect(title).to_have_count(0)
        expect(edit).to_be_focused()
        assert verdict in [stands for stands, _, _ in stored.standing(name)]


def test_a_reply_stands_behind_its_earlier_turns(guest: Guest, judged: Judged) -> None:
    page = guest("/account")
    _, comparisons = chosen(judged, page, 1)
    turns = [
        {"role": "user", "content": "What do bees **eat**?"},
        {"role": "assistant", "content": "Nectar ![x](https://example.org/p.png)"},
    ]
    with judged.database.write() as session:
        prompt_id = session.get_one(Comparison, comparisons[0]).prompt_id
        session.get_one(Prompt, prompt_id).earlier = turns
    visit(page)
    row(page, 0).get_by_role("button", name="Edit").click()
    expect(page.locator("#past-earlier")).to_contain_text("You asked: What do bees **eat**?")
    expect(page.locator("#past-earlier")).to_contain_text("You preferred: Nectar ![x]")
    expect(page.locator("#past-prompt")).to_have_text("How are you?")


def test_repeats_say_how_steady_one_chooses(guest: Guest, judged: Judged) -> None:
    page = guest("/account")
    _, comparisons = chosen(judged, page, 2)
    visit(page)
    expect(row(page, 0)).to_be_visible()
    expect(page.locator("#past-steady")).to_have_text("")
    with judged.database.write() as session:
        session.get_one(Comparison, comparisons[1]).repeat_of_id = comparisons[0]
    page.reload()
    expect(page.locator("#past-steady")).to_contain_text("One earlier pair came back")
    assert "%" not in page.locator("#past-steady").inner_text()


def test_two_tabs_cannot_both_change_it(guest: Guest, judged: Judged, stored: Stored) -> None:
    first = guest("/account")
    name = name_of(first)
    chosen(judged, first, 1)
    second = first.context.new_page()
    second.goto(first.url)
    for page in (first, second):
        visit(page)
        row(page, 0).get_by_role("button", name="Edit").click()
        page.get_by_label("Both bad" if page is first else "Tie").check()
    first.locator("#past-save").click()
    expect(first.locator("#past-notice")).to_contain_text("Saved")
    second.locator("#past-save").click()
    expect(second.locator("#past-notice")).to_contain_text("changed elsewhere")
    assert stored.standing(name) == [("both_bad", None, None)]
    expect(second.get_by_label("Both bad")).to_be_checked()  # it shows how it stands …
    second.get_by_label("Tie").check()
    second.locator("#past-save").click()  # … and can be changed from there
    expect(second.locator("#past-notice")).to_contain_text("Saved")
    assert stored.standing(name) == [("tie", None, None)]


def test_someone_elses_choice_is_neither_shown_nor_changed(
    guest: Guest, judged: Judged, stored: Stored
) -> None:
    """Forged ids: a friendly message, no text, nothing stored."""
    owner, thief = guest("/account"), guest("/account")
    owners = name_of(owner)
    _, comparisons = chosen(judged, owner, 1)
    chosen(judged, thief, 1)
    visit(thief)
    forged: list[Any] = [str(comparisons[0])]

    def forge(route: Any) -> None:
        body = route.request.post_data_json
        body["data"] = forged
        route.continue_(post_data=json.dumps(body))

    thief.route("**/gradio_api/run/**", forge)
    row(thief, 0).get_by_role("button", name="Edit").click()
    expect(thief.locator("#past-notice")).to_contain_text("not yours")
    expect(thief.locator("#past-panel")).to_have_count(0)
    assert stored.standing(owners) == [("a", None, None)]


def test_model_text_is_data_here_too(guest: Guest, judged: Judged) -> None:
    page = guest("/account")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    _, comparisons = chosen(judged, page, 1)
    with judged.database.write() as session:
        session.query(Response).filter_by(comparison_id=comparisons[0]).update(
            {Response.text: HOSTILE}
        )
    visit(page)
    row(page, 0).get_by_role("button", name="Edit").click()
    for side in "ab":
        expect(page.locator(f"#past-{side}")).to_contain_text("<script>window.ran=1</script>")
        expect(page.locator(f"#past-{side} strong")).to_have_text("bold")
    assert page.evaluate("window.ran") is None
    assert not [url for url in asked if "example.org" in url]


def test_taking_it_all_along_and_erasing_oneself(guest: Guest, stored: Stored) -> None:
    page = guest("/account")
    name = name_of(page)
    visit(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download all").click()
    assert download.value.suggested_filename == "attune-my-data.jsonl"
    lines = download.value.path().read_text("utf-8").splitlines()
    assert json.loads(lines[-1]) == {"kind": "end", "lines": len(lines) - 1}
    page.get_by_role("link", name="Erase me").click()
    page.get_by_label(f"Type your name, {name}").fill(name)
    page.get_by_role("button", name="Erase me").click()
    expect(page.get_by_role("heading", name="You are erased")).to_be_visible()
    assert stored.rows("SELECT count(*) FROM users WHERE username = ?", name) == [(0,)]
    page.goto(re.sub(r"(//[^/]+/).*", r"\1taste/", page.url))
    expect(page).to_have_url(re.compile(r"/login\?next=/taste/$"))


def test_it_looks_as_designed(guest: Guest, judged: Judged, picture: Callable[..., None]) -> None:
    looks: dict[str, dict[str, Any]] = {
        "taste-light": {"color_scheme": "light"},
        "taste-dark": {"color_scheme": "dark"},
        "taste-phone": {"viewport": PHONE, "has_touch": True},
    }
    for name, options in looks.items():
        page = guest("/account", **options)
        lived_in(judged, name_of(page))
        visit(page)
        page.get_by_label("Your prompt").fill("How do I start running?")
        page.keyboard.press("Enter")
        expect(page.locator("#try-personal")).to_contain_text(re.compile(r"\w+ \w+"))
        expect(page.locator("#past-place")).to_have_text("1–6 of 54")
        page.wait_for_load_state("networkidle")
        wide = page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
        assert not wide, f"{name} scrolls sideways"
        lines = [
            row(page, 0).locator(part).bounding_box() for part in (".block.what", ".block.quiet")
        ]
        first, second = lines
        assert first is not None
        assert second is not None
        apart = first["x"] + first["width"] <= second["x"] + 1
        assert apart or first["y"] + first["height"] <= second["y"] + 1, f"{name} overlaps"
        picture(page, name, full_page=True)
