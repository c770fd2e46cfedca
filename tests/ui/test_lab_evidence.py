"""The lab's first card: figures with their intervals, and no word more than they carry."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from html import unescape

import pytest
from playwright.sync_api import Page, expect

from backend.confidence import Tally
from backend.evidence import Blind, CurvePoint, Figure, Figures, Snapshot, UserEvidence
from db.session import Database
from dev.accessibility import serious_in_every_look
from dev.running import RunningApp
from tests.backend.judged import Judged
from tests.conftest import Clock
from tests.ui.conftest import Stored, settled, sign_in
from ui import lab_evidence

# No pair is blind, against the base model or a repeat by chance: each figure is known beforehand.
SETTINGS = {"engine": "echo", "blind_share": "0", "base_share": "0", "repeat_share": "0"}
NAME = "<b>${7*7}</b>"


def _read(markdown: str) -> str:
    """What a reader sees of character references."""
    return "\n".join(unescape(line) for line in markdown.splitlines())


def _figure(wins: int, losses: int, halves: int = 0) -> Figure:
    return Figure(Tally(wins, halves, losses))


@pytest.mark.parametrize(
    ("blind", "says"),
    [
        (Blind(), "People: no evidence yet, 0 blind pairs."),
        (Blind(won=9), "People: no evidence yet, 9 blind pairs."),
        (Blind(won=9, lost=6), "People: personal cannot be told from generic yet, 15 blind pairs."),
        (Blind(won=30, lost=3), "People: personal responses are preferred to generic ones"),
        (Blind(won=3, lost=30), "People: generic responses are preferred to personal ones"),
        (Blind(tie=60, both_bad=9), "People: personal cannot be told from generic yet"),
    ],
)
def test_the_sentence_says_what_the_interval_allows(blind: Blind, says: str) -> None:
    said = lab_evidence.in_words(Snapshot(Figures(blind=blind), Figures(), (), ()))
    assert _read(said).startswith(says)
    assert "Simulated" not in said


def test_simulated_users_have_a_sentence_and_a_line_of_their_own() -> None:
    simulated = Figures(blind=Blind(won=40, lost=2), personal=_figure(80, 20))
    said = lab_evidence.in_words(Snapshot(Figures(), simulated, (), ()))
    assert "Simulated users&#58; personal responses are preferred" in said
    shown = _read(lab_evidence.figure_lines(_figure(3, 1), _figure(80, 20))).split("\n\n")
    assert shown[0] == "no evidence yet · people, 4 pairs"
    assert shown[1].startswith("**80%** (")
    assert shown[1].endswith("· simulated, 100 pairs")


def test_ties_are_listed_as_what_they_are() -> None:
    shown = _read(lab_evidence.figure_lines(Blind(6, 3, 1, 2), Blind()))
    assert shown.startswith("**62%**")
    assert shown.endswith("people, 12 pairs: 6 won, 3 lost, 1 tie, 2 both bad")


def test_names_are_literal_and_few_pairs_have_no_interval() -> None:
    figures = Figures(personal=_figure(3, 1), generic=_figure(30, 10), blind=Blind(3, 1, 2, 1))
    table = lab_evidence.users_table([UserEvidence(1, NAME, True, True, figures)])
    row = table.splitlines()[2]
    assert not set("<>$") & set(row)
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[1:4] == ["simulated", "4", "75&#37; of 4"]
    assert cells[4].startswith("75&#37; &#40;")
    assert cells[5] == "&#8211;"
    assert cells[-1] == "3&#44; 1&#44; 2&#44; 1"


def test_steps_with_few_choices_are_not_drawn() -> None:
    none = _figure(0, 0)
    points = (
        CurvePoint(0, 4, _figure(3, 2), _figure(2, 2, 1), none),
        CurvePoint(5, 9, _figure(4, 0), _figure(4, 0), none),
    )
    assert lab_evidence.curve_points(points) == [(2, 0.6, "personal"), (2, 0.5, "generic")]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """An app of its own: invented figures would be in the way of other tests."""
    folder = tmp_path_factory.mktemp("evidence") / "data"
    with RunningApp(folder, **SETTINGS) as running:
        yield running.wait_ready()


@pytest.fixture(scope="module")
def invented(app: RunningApp) -> None:
    """A person and two simulated users who became easier to foresee; the second version knew them.

    The first version's blind comparisons were generic against generic.
    """
    database = Database(f"sqlite:///{app.data / 'attune.db'}")
    judged, rng = Judged(database, Clock()), random.Random(2)
    with database.read() as session:
        identity = session.connection().exec_driver_sql("SELECT base_identity FROM versions")
        first, same = 1, str(identity.scalar())
    users = [
        judged.user(NAME),
        judged.user("likes it short", simulated=True),
        judged.user("likes it long", simulated=True),
    ]
    taught = [judged.choice(user, judged.comparison(user, first), "a") for user in users]
    second = judged.version(same, judged.round(first, taught))
    for user in users:
        for nth in range(30):
            choice = judged.choice(user, judged.comparison(user, second), "a")
            chances = (0.5 + 0.015 * nth, 0.5 + 0.004 * nth, 0.4)
            signs = [1.0 if rng.random() < chance else -1.0 for chance in chances]
            judged.score(choice, second, (signs[0], signs[1], signs[2]), nth=nth)
        for version, verdicts in ((first, "ab"), (second, "a" * 14 + "bb")):
            for verdict in [*verdicts, "tie"]:
                made = judged.comparison(
                    user, version, purpose="blind", conditions=("personal", "generic")
                )
                judged.choice(user, made, verdict)
    database.close()


@pytest.fixture
def researcher(app: RunningApp, stored: Stored, new_page: Callable[..., Page]) -> Page:
    """In the lab, as a guest who was made a researcher."""
    page = new_page(viewport={"width": 1440, "height": 1000})
    sign_in(page, app.address)
    stored.rows("UPDATE users SET role = 'researcher' WHERE id = (SELECT max(id) FROM users)")
    page.goto(f"{app.address}/lab/")
    expect(page.locator("#evidence-summary p")).to_be_visible()
    return page


@pytest.mark.browser
def test_at_first_there_is_no_evidence_and_a_choice_is_scored(
    researcher: Page, app: RunningApp, stored: Stored
) -> None:
    expect(researcher.locator("#evidence-summary")).to_have_text(
        "People: no evidence yet, 0 blind pairs."
    )
    expect(researcher.locator("#evidence-no-curve")).to_contain_text("No curve yet")
    expect(researcher.locator("#plot-evidence")).to_have_count(0)
    researcher.goto(app.address)
    settled(researcher)
    researcher.locator("#choose-a").click()
    expect(researcher.locator("#count")).to_have_text("1 of 20 today")
    researcher.goto(f"{app.address}/lab/")
    # The score of that one choice is all that has been measured.
    values = researcher.locator("#lab-evidence .figure .prose.value")
    expect(values.nth(1)).to_have_text("no evidence yet · people, 1 pair")
    assert stored.rows("SELECT count(*) FROM prequential_scores") == [(1,)]


@pytest.mark.browser
def test_figures_curve_users_and_versions(
    invented: None, researcher: Page, picture: Callable[..., None]
) -> None:
    summary = researcher.locator("#evidence-summary")
    expect(summary).to_contain_text("Simulated users: personal responses are preferred")
    values = researcher.locator("#lab-evidence .figure .prose.value")
    expect(values.nth(0)).to_contain_text("people, 17 pairs: 14 won")
    expect(values.nth(0)).to_contain_text("simulated, 34 pairs: 28 won")
    rows = researcher.locator("#evidence-users tbody tr")
    expect(rows.filter(has_text="simulated")).to_have_count(2)
    expect(rows.filter(has_text="simulated").first).to_contain_text("14, 2, 1, 0")
    expect(rows.locator("td").filter(has_text=NAME)).to_have_text(NAME)
    expect(researcher.locator("#plot-evidence .mark-line path")).to_have_count(3)
    researcher.locator("#evidence-whose input").click()
    researcher.get_by_role("option", name="likes it long").click()
    expect(researcher.locator("#plot-evidence .mark-line path")).to_have_count(3)
    researcher.locator("#lab-evidence").get_by_text("Version by version", exact=True).click()
    versions = researcher.locator("#evidence-versions tbody tr")
    expect(versions).to_have_count(4)
    expect(versions.last).to_contain_text("1, 1, 1, 0")
    researcher.locator("#lab-evidence summary").first.click()
    expect(researcher.locator("#lab-evidence")).to_contain_text("had no vector, no profile")
    expect(researcher.locator("#lab-users")).to_contain_text("01 Jan 12:0")
    for wide in ("#lab-users .block.table", "#lab-rounds .block.table"):
        cut = researcher.locator(wide).evaluate("table => table.scrollWidth > table.clientWidth")
        assert not cut, f"{wide} is cut at its right"
    picture(researcher, "lab-evidence", full_page=True)
    assert serious_in_every_look(researcher) == []


@pytest.mark.browser
def test_it_fits_on_a_phone_in_the_dark(
    invented: None, researcher: Page, picture: Callable[..., None]
) -> None:
    researcher.emulate_media(color_scheme="dark")
    researcher.set_viewport_size({"width": 390, "height": 844})
    researcher.reload()
    expect(researcher.locator("#evidence-users tbody tr")).not_to_have_count(0)
    expect(researcher.locator("#plot-evidence .mark-line path")).to_have_count(3)
    wide = researcher.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    assert not wide
    heading = researcher.locator("#lab-users th", has_text="Choices").bounding_box()
    assert heading is not None
    # "Choices" beside "Same when asked again" at a word a line, not at a letter a line.
    assert heading["height"] < 100
    picture(researcher, "lab-evidence-phone", full_page=True)


@pytest.mark.browser
def test_an_annotator_reads_no_figures(researcher: Page, stored: Stored) -> None:
    stored.rows("UPDATE users SET role = 'annotator' WHERE is_guest = 1")
    # Whatever is in flight may still be answered; the next one is not.
    with researcher.expect_response(lambda answer: answer.status in {401, 403}):
        researcher.locator("#evidence-whose input").fill("user 1")
        researcher.locator("#evidence-whose input").press("Enter")
