"""What the compare page says about a pair, in words and figures. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from backend.comparison_views import ComparisonView
from backend.engines.base import Condition
from backend.preferences import Today
from ui import markup
from ui.markup import plain

_OFFSET_COOKIE = "attune_utc_offset"  # minutes, set by keys.js: when this user's day begins
_WAITING = "Waiting for the model …"
_WRITING = "Being written: {seconds} s so far."
_WRITING_USUALLY = "Being written: {seconds} s so far, usually about {usual} s."
_TODAY = "{done} of {goal} today"
_GOAL_REACHED = "{done} of {goal} today: done!"
_ASKED = "**You asked:** {text}"
_ANSWERED = "**You preferred:**\n\n{text}"
_PERSONAL, _GENERIC, _BASE = Condition.PERSONAL, Condition.GENERIC, Condition.BASE
TOLD = {
    (_PERSONAL, _PERSONAL): "Both were made for you.",
    (_GENERIC, _GENERIC): "Both were made for everybody.",
    (_PERSONAL, _GENERIC): "A was made for you, B for everybody.",
    (_GENERIC, _PERSONAL): "B was made for you, A for everybody.",
    (_PERSONAL, _BASE): "A was made for you, B is the untuned model's.",
    (_BASE, _PERSONAL): "B was made for you, A is the untuned model's.",
}


def conversation(view: ComparisonView) -> str:
    """The turns before the prompt, as Markdown."""
    forms = {"user": (_ASKED, plain), "assistant": (_ANSWERED, markup.closed_response)}
    turns = [(*forms[turn["role"]], turn["content"]) for turn in view.earlier]
    return "\n\n".join(form.format(text=shown(text)) for form, shown, text in turns)


def progress(view: ComparisonView) -> str:
    """What is known about the wait, and no more."""
    if view.progress is None or not (view.text_a or view.text_b):
        return plain(_WAITING)
    seconds = round(view.progress.seconds)
    if view.progress.usual_s is None:
        return plain(_WRITING.format(seconds=seconds))
    usual = max(1, round(view.progress.usual_s))
    return plain(_WRITING_USUALLY.format(seconds=seconds, usual=usual))


def goal(today: Today) -> str:
    """Numbers of ours alone: this goes into `gr.HTML`."""
    words = _GOAL_REACHED if today.done >= today.goal else _TODAY
    text = words.format(done=today.done, goal=today.goal)
    bar = f'<progress aria-hidden="true" max="{today.goal}" value="{today.done}"></progress>'
    return f"<span>{text}</span>{bar}"


def utc_offset_minutes(cookies: Mapping[str, str]) -> int:
    """How far the user's clock is ahead of UTC, as the page's script says; 0 when it does not."""
    value = cookies.get(_OFFSET_COOKIE, "")
    known = value.removeprefix("-").isdecimal() and len(value) <= len("-1440")
    return int(value) if known else 0
