"""What one's choices lean to, in plain words: a name for each trait in both directions.

Says no more than the leanings carry, and of texts only, never of the person. Knows no component and
no use case.
"""

from __future__ import annotations

from html import escape

from backend.leanings import FEWEST, SURE, Leaning, Leanings
from backend.wording import Counted, msg
from ui.language import Language

# Trait → (what texts with more of it have, what texts with less of it have).
NAMES = {
    "length": (msg("long responses"), msg("short responses")),
    "word length": (msg("long words"), msg("short words")),
    "sentence length": (msg("long sentences"), msg("short sentences")),
    "list lines": (msg("lists"), msg("running text")),
    "first person": (msg("“I” and “we”"), msg("little “I” and “we”")),
    "second person": (
        msg("being spoken to (you, your)"),
        msg("not being spoken to (you, your)"),
    ),
    "third person": (
        msg("speaking of others (he, she, it, they)"),
        msg("seldom speaking of others (he, she, it, they)"),
    ),
    "exclamations": (msg("exclamation marks"), msg("few exclamation marks")),
    "questions": (msg("questions in the response"), msg("few questions in the response")),
    "commas": (msg("many commas"), msg("few commas")),
    "digits": (msg("numbers in digits"), msg("few digits")),
    "variety": (msg("ever different words"), msg("words that come again")),
    "brackets and colons": (
        msg("brackets, colons and quotation marks"),
        msg("few brackets, colons and quotation marks"),
    ),
    "function words": (
        msg("many small words (the, of, and)"),
        msg("few small words (the, of, and)"),
    ),
    "hedges": (msg("cautious words (may, perhaps)"), msg("few cautious words (may, perhaps)")),
    "connectives": (
        msg("linking words (because, however)"),
        msg("few linking words (because, however)"),
    ),
    "paragraphs": (msg("several paragraphs"), msg("text in one piece")),
    "capitals": (msg("many capital letters"), msg("few capital letters")),
}
YOU_LEAN_TO = msg("You lean to")
FROM = Counted(
    "From {count} choice. Each is at least {sure} sure, and more than choosing at random would "
    "easily give.",
    "From {count} choices. Each is at least {sure} sure, and more than choosing at random would "
    "easily give.",
)
HABITS = msg(
    "These are habits of the texts you chose, not of you as a person; what cannot be counted is "
    "not listed here."
)
TOO_FEW = msg(
    "Too few to say yet: it takes {fewest} choices of one response over the other. So far: {count}."
)
NOTHING_CLEAR = Counted(
    "Nothing stands out clearly yet in {count} choice. That is no fault: what cannot be counted in "
    "a text is not looked for here.",
    "Nothing stands out clearly yet in {count} choices. That is no fault: what cannot be counted "
    "in a text is not looked for here.",
)


def chips_html(leanings: Leanings, language: Language) -> str:
    """The leanings as a list, made of our words alone; nothing where there is none."""
    if not leanings.clear:
        return ""
    items = "".join(f"<li>{escape(name_of(one, language))}</li>" for one in leanings.clear)
    return f"<p>{escape(language.text(YOU_LEAN_TO))}</p><ul>{items}</ul>"


def lines(leanings: Leanings, language: Language) -> tuple[str, ...]:
    """What stands below them, or in their place."""
    count = leanings.choices
    if count < FEWEST:
        return (language.text(TOO_FEW, fewest=FEWEST, count=count),)
    if not leanings.clear:
        return (language.text(NOTHING_CLEAR, count=count),)
    return (language.text(FROM, count=count, sure=language.percent(SURE)), language.text(HABITS))


def name_of(leaning: Leaning, language: Language) -> str:
    """A leaning in words."""
    more, less = NAMES[leaning.trait]
    return language.text(more if leaning.more else less)
