"""What a pair and the line of thanks set on the compare page. Knows no use case and no request.

By `gr.update`: a component made anew for each change would be a third of the time a choice takes.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from backend.choosing import PREFERENCES
from backend.comparison_views import ComparisonView
from ui import markup
from ui.compare_parts import Parts
from ui.compare_texts import conversation, progress
from ui.language import Language
from ui.markup import plain

Updates = dict[Any, Any]

_CLEARLY = 2


def pair_drawn(parts: Parts, view: ComparisonView, language: Language) -> Updates:
    """What a view of a comparison sets; not the notice, which would go unread as words come in."""
    whole = view.complete and view.comparison_id is not None
    verdicts = [*parts.verdicts.values(), parts.skip]
    return {
        parts.earlier: conversation(view.earlier, language),
        parts.topic: plain(language.text(view.topic)),
        parts.prompt: f"# {plain(view.prompt)}" if view.prompt else "",
        parts.texts["a"]: markup.response(view.text_a),
        parts.texts["b"]: markup.response(view.text_b),
        parts.hidden.comparison_id: view.comparison_id if whole else None,
        parts.hidden.making_key: view.making_key,
        **{button: gr.update(interactive=view.judgeable) for button in verdicts},
        **{button: gr.update(interactive=whole) for button in (parts.undo, parts.never)},
        parts.progress: "" if view.complete else progress(view, language),
        parts.stop: gr.update(visible=view.judgeable and not view.complete),
        parts.retries["a"]: gr.update(visible=view.complete and not view.text_a.strip()),
        parts.retries["b"]: gr.update(visible=view.complete and not view.text_b.strip()),
        parts.again: gr.update(visible=False),
    }


def thanks_drawn(
    parts: Parts, choice_id: int | None, said: str, verdict: str = "", strength: int | None = None
) -> Updates:
    """The line under the pair about the choice just made; None: there is none."""
    thanks = parts.thanks
    return {
        thanks.saved: said,
        thanks.why: gr.update(visible=verdict in PREFERENCES),
        thanks.clearly: clearly_drawn(given=strength == _CLEARLY),
        thanks.other: gr.update(variant="secondary"),
        thanks.other_text: gr.update(visible=False, value=""),
        parts.hidden.choice_id: choice_id,
        **reasons_drawn(parts, None),
    }


def reasons_drawn(parts: Parts, given: str | None) -> Updates:
    """The reasons, one of them given."""
    return {
        button: gr.update(
            variant="primary" if reason == given else "secondary",
            interactive=reason != given,
        )
        for reason, button in parts.thanks.reasons.items()
    }


def clearly_drawn(*, given: bool) -> dict[str, Any]:
    """Whether the preference was clear, as a button's update."""
    return gr.update(variant="primary" if given else "secondary", interactive=not given)
