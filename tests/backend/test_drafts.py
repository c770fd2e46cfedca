"""Drafts: which are made, and which is taken."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from backend.drafts import Draft, best_of, draw_drafts, names_the_matter, own_words, repetition
from backend.styles import Style, load_styles
from backend.taste_model import STRANGER, TasteModel
from backend.traits import COUNT, NAMES

STYLES = load_styles()
LIST = next(style for style in STYLES if style.name == "list")
SHORT = "Air scatters blue light most."
LONG = "Air scatters blue light far more than it does red light, and so the sky looks blue to us."
ASKED = "Why is that so?"
LOOPING = "the sky is blue " * 6


def likes(trait: str, weight: float) -> TasteModel:
    """A taste that is all but certain, for one trait."""
    weights = np.where(np.array(NAMES) == trait, weight, 0.0)
    return TasteModel(weights, np.eye(COUNT) * 1e-6, np.ones(COUNT), 50)


LIKES_SHORT, LIKES_LONG = likes("length", -1.0), likes("length", 1.0)


@pytest.mark.parametrize("style", [None, LIST])
@pytest.mark.parametrize("along", [(), STYLES])
def test_the_first_draft_is_what_would_be_made_without_others(
    style: Style | None, along: tuple[Style, ...]
) -> None:
    assert draw_drafts(1, 7, style, along, LIKES_SHORT) == (Draft(style, 7),)
    for count in (2, 3, 6, 7):
        drafts = draw_drafts(count, 7, style, along, LIKES_SHORT)
        assert len(drafts) == count
        assert drafts[:2] == (Draft(style, 7), Draft(style, drafts[1].seed))


def test_without_styles_all_drafts_are_under_the_users_own_vector() -> None:
    for along in ((), STYLES[:1]):
        drafts = draw_drafts(6, 7, None, along, LIKES_SHORT)
        assert [draft.style for draft in drafts] == [None] * 6


def test_others_are_made_along_styles_that_may_suit() -> None:
    taste = likes("list lines", 2.0)
    drafts = [draw_drafts(6, seed, None, STYLES, taste) for seed in range(100)]
    assert all([d.style for d in some[:2]] == [None, None] for some in drafts)
    drawn = Counter(draft.style.name for some in drafts for draft in some[2:] if draft.style)
    assert drawn.total() == 400
    assert drawn["list"] == 200, "one of each two, as it is certain"
    unknown = [draw_drafts(6, seed, None, STYLES, STRANGER) for seed in range(100)]
    names = {draft.style.name for some in unknown for draft in some[2:] if draft.style}
    assert len(names) > 6


def test_seeds_differ_and_the_same_response_has_the_same_drafts() -> None:
    drafts = draw_drafts(32, 2**63 - 2, None, STYLES, LIKES_LONG)
    seeds = [draft.seed for draft in drafts]
    assert len(set(seeds)) == 32
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert drafts == draw_drafts(32, 2**63 - 2, None, STYLES, LIKES_LONG)
    assert set(seeds).isdisjoint(d.seed for d in draw_drafts(32, 5, None, STYLES, LIKES_LONG))
    # Fewer drafts are the first ones of many.
    assert draw_drafts(5, 2**63 - 2, None, STYLES, LIKES_LONG) == drafts[:5]


def test_the_best_suits_best_wherever_it_stands() -> None:
    rng = random.Random(2)
    texts = [SHORT, LONG, f"{LONG} {SHORT}"]
    for _ in range(10):
        rng.shuffle(texts)
        assert texts[best_of(texts, LIKES_SHORT, ASKED)] == SHORT
        assert texts[best_of(texts, LIKES_LONG, ASKED)] == f"{LONG} {SHORT}"
    assert best_of([SHORT, SHORT], LIKES_SHORT, ASKED) == 0, "the plain one where they suit alike"


def test_a_draft_that_repeats_itself_or_says_nothing_is_passed_over() -> None:
    assert best_of([LOOPING, SHORT, ""], LIKES_LONG, ASKED) == 1
    assert best_of(["", LONG], LIKES_SHORT, ASKED) == 1
    # Where there is nothing else, what was written still is better than nothing.
    assert best_of(["", LOOPING, f"{LOOPING} {LOOPING}"], LIKES_SHORT, ASKED) == 1
    assert best_of(["", ""], LIKES_SHORT, ASKED) == 0


def test_an_echo_and_a_mere_question_are_no_answers() -> None:
    asked = "How do bees make honey?"
    told = "Bees make honey from nectar that they dry."
    for worse in (asked, "Bees make honey.", "What do you think, dear friend of mine?", "🌟🌟🌟"):
        assert best_of([worse, told], LIKES_SHORT, asked) == 1
    # Nothing else being there, the shortest still suits.
    assert best_of(["Bees make honey, bees do.", "Honey!"], LIKES_SHORT, asked) == 1


def test_what_speaks_of_something_else_is_no_answer() -> None:
    asked = "How do bees make honey? Answer in two sentences."
    told = "A bee collects nectar and dries it."
    for worse in (
        "I'm ready to help you. What's your question?",
        "Sure, I'll answer in two sentences.",
        "Dear Sarah, I hope this message finds you well in your garden!",
    ):
        for taste in (LIKES_SHORT, LIKES_LONG):
            assert best_of([worse, told], taste, asked) == 1
    # Where nothing names it, one flaw is better than two: scripts without spaces between words.
    assert best_of([LOOPING, "A plant collects light.", "One."], LIKES_LONG, asked) == 1
    # Digits are no words of one's own.
    assert best_of(["Bees: 1. 1. 2. 3. 4. 5. 6.", told], LIKES_SHORT, asked) == 1


def test_naming_the_matter_by_hand() -> None:
    assert names_the_matter("Glaciers freeze.", "Why is a glacier cold?"), "by its first letters"
    assert names_the_matter("One bee does.", "How do bees fly?")
    assert names_the_matter("DNA is a plan.", "Explain DNA.")
    assert not names_the_matter("A plan.", "Explain DNA.")
    # Neither words that any prompt may have nor questions name what it is about.
    assert not names_the_matter("What would you like? Tell me about it.", "Tell me about ice.")
    assert not names_the_matter("Is it ice?", "Tell me about ice.")
    assert names_the_matter("So it is.", "Why?"), "where nothing could be named"


def test_own_words_by_hand() -> None:
    assert (
        own_words("", "Why?") == own_words("Why?", "Why?") == own_words("So why not?", "Why?") == 0
    )
    # Of "Paris is. Is it large? Very, VERY large!" with "is" asked: paris, very, large.
    assert own_words("Paris is. Is it large? Very, VERY large!", "What is it?") == 3
    assert own_words("- Tea\n- Milk", "List two.") == 2


def test_a_stranger_gets_the_first_that_is_sound() -> None:
    assert best_of([LONG, SHORT], STRANGER, ASKED) == 0
    assert best_of(["", LOOPING, SHORT, LONG], STRANGER, ASKED) == 2
    assert best_of(["", LOOPING], STRANGER, ASKED) == 1
    assert best_of([""], STRANGER, ASKED) == best_of([LOOPING], STRANGER, ASKED) == 0


def test_repetition_by_hand() -> None:
    assert repetition("") == repetition("one two three") == repetition("One two three four") == 0
    # Five 4-grams of "a b c d a b c d", of which "a b c d" stands twice.
    assert repetition("a b c d A b  c\nd") == pytest.approx(1 / 5)
    assert repetition("no " * 13) == pytest.approx(9 / 10)
    assert repetition(LOOPING) > 0.3 > repetition(LONG)
