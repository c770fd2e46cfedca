"""What the compare page says about a pair, in words and figures. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backend.comparison_views import ComparisonView, Message
from backend.engines.base import Condition
from backend.preferences import Today
from backend.wording import msg
from ui import markup
from ui.language import Language
from ui.markup import plain

_OFFSET_COOKIE = "attune_utc_offset"  # minutes, set by keys.js: when this user's day begins
_WAITING = msg("Waiting for the model …")
_WRITING = msg("Being written: {seconds} s so far.")
_WRITING_USUALLY = msg("Being written: {seconds} s so far, usually about {usual} s.")
_TODAY = msg("{done} of {goal} today")
_GOAL_REACHED = msg("{done} of {goal} today: done!")
_ASKED = msg("You asked:")
_ANSWERED = msg("You preferred:")
_PERSONAL, _GENERIC, _BASE = Condition.PERSONAL, Condition.GENERIC, Condition.BASE
TOLD = {
    (_PERSONAL, _PERSONAL): msg("Both were made for you."),
    (_GENERIC, _GENERIC): msg("Both were made for everybody."),
    (_PERSONAL, _GENERIC): msg("A was made for you, B for everybody."),
    (_GENERIC, _PERSONAL): msg("B was made for you, A for everybody."),
    (_PERSONAL, _BASE): msg("A was made for you, B is the untuned model's."),
    (_BASE, _PERSONAL): msg("B was made for you, A is the untuned model's."),
}


def conversation(earlier: Sequence[Message], language: Language) -> str:
    """The turns before a prompt, as Markdown."""
    return "\n\n".join(_turn(turn["role"], turn["content"], language) for turn in earlier)


def _turn(role: str, text: str, language: Language) -> str:
    if role == "user":
        return f"**{plain(language.text(_ASKED))}** {plain(text)}"
    answer = markup.closed_response(text)
    return f"**{plain(language.text(_ANSWERED))}**\n\n{answer}"


def progress(view: ComparisonView, language: Language) -> str:
    """What is known about the wait, and no more."""
    if view.progress is None or not (view.text_a or view.text_b):
        return plain(language.text(_WAITING))
    seconds = round(view.progress.seconds)
    if view.progress.usual_s is None:
        return plain(language.text(_WRITING, seconds=seconds))
    usual = max(1, round(view.progress.usual_s))
    return plain(language.text(_WRITING_USUALLY, seconds=seconds, usual=usual))


def goal(today: Today, language: Language) -> str:
    """Words and numbers of ours alone: this goes into `gr.HTML`."""
    words = _GOAL_REACHED if today.done >= today.goal else _TODAY
    text = language.text(words, done=today.done, goal=today.goal)
    bar = f'<progress aria-hidden="true" max="{today.goal}" value="{today.done}"></progress>'
    return f"<span>{text}</span>{bar}"


def utc_offset_minutes(cookies: Mapping[str, str]) -> int:
    """How far the user's clock is ahead of UTC, as the page's script says; 0 when it does not."""
    value = cookies.get(_OFFSET_COOKIE, "")
    known = value.removeprefix("-").isdecimal() and len(value) <= len("-1440")
    return int(value) if known else 0
