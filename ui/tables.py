"""Read models → the lab's tables as Markdown.

Names and reasons are data: cells show them literally.
Knows no component and no use case.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from backend.insights import Consistency, GateView, LabSnapshot, RoundRow, UserRow, VersionRow
from ui.markup import plain

NONE = "–"
_NO_ROUND = "No round has run yet."
_FEW = 10  # repeats, below which a share is no figure


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a heading that ends in `>` aligns its column to the right."""
    names = [heading.removesuffix(">") for heading in headings]
    rules = ["--:" if heading.endswith(">") else ":--" for heading in headings]
    lines = [names, rules, *([plain(cell) or " " for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rounds(rows: Iterable[RoundRow]) -> str:
    """Newest first: what went in, what came out, and why not."""
    rows = list(rows)
    if not rows:
        return _NO_ROUND
    headings = ("Round>", "Kind", "Status", "Started", "Pairs: new + replay>", "Loss>")
    return table(
        (*headings, "Accuracy>", "Seconds>", ""),
        (
            (
                str(row.id),
                row.kind,
                row.status,
                moment(row.started_at),
                f"{row.new_pairs} + {row.replay_pairs}",
                _change(row.loss_before, row.loss_after),
                percent(row.accuracy_last),
                NONE if row.seconds is None else f"{row.seconds:.0f}",
                row.progress or row.reason,
            )
            for row in rows
        ),
    )


def versions(rows: Iterable[VersionRow]) -> str:
    """Newest first; one of them is live."""
    return table(
        ("Version>", "", "Made", "By round>", "Responses>"),
        (
            (
                str(row.id),
                "live" if row.live else "damaged" if row.damaged else "",
                moment(row.created_at),
                NONE if row.round_id is None else str(row.round_id),
                str(row.responses),
            )
            for row in rows
        ),
    )


def users(rows: Iterable[UserRow]) -> str:
    """Choices per user; simulated users are labelled."""
    return table(
        ("User", "", "Choices>", "Learnt from>", "Same when asked again>", "Last choice"),
        (
            (
                row.username,
                _kind(row),
                str(row.choices),
                str(row.consumed),
                steadiness(row.steady),
                NONE if row.last_choice_at is None else moment(row.last_choice_at),
            )
            for row in rows
        ),
    )


def steadiness(consistency: Consistency) -> str:
    """How often an earlier pair, sides swapped, was judged as before; a share from ten on."""
    figure = consistency.same
    if not figure.count:
        return NONE
    counts = f"{figure.tally.wins} of {figure.count}"
    if figure.count < _FEW:
        return counts
    ends = figure.interval
    return f"{counts}: {percent(figure.share)} ({percent(ends.low)} to {percent(ends.high)})"


def _change(before: float | None, after: float | None) -> str:
    return NONE if before is None else f"{figure(before)} → {figure(after)}"


def _kind(row: UserRow) -> str:
    if row.simulated:
        return "simulated"
    return "guest" if row.guest else row.role


def summary(snapshot: LabSnapshot) -> str:
    """One line: what is live, and what stands behind it."""
    simulated = [user for user in snapshot.users if user.simulated]
    theirs = sum(user.choices for user in simulated)
    live = snapshot.live_version
    parts = (
        "no version is live" if live is None else f"version {live} is live",
        f"{counted(sum(user.choices for user in snapshot.users), 'choice')}, {theirs} simulated",
        f"{counted(len(snapshot.users), 'user')}, {len(simulated)} of them simulated",
        "learning now" if any(row.status == "running" for row in snapshot.rounds) else "at rest",
    )
    return plain(" · ".join(parts))


def verdict(gate: GateView | None, row: RoundRow | None) -> str:
    """The gate's word on a round, with every reason against it."""
    if row is None:
        return _NO_ROUND
    if gate is None:
        why = row.reason or row.progress
        return f"**Not judged.** {plain(why)}"
    if gate.passed:
        return f"**Passed.** {counted(row.held_out_pairs, 'held-out pair')}."
    reasons = "\n".join(f"- {plain(reason)}" for reason in gate.reasons)
    return f"**Refused.**\n\n{reasons}"


def gate_figures(figures: Mapping[str, float]) -> str:
    """Every number the gate measured, by name."""
    if not figures:
        return ""
    rows = ((name.replace("_", " "), figure(value)) for name, value in figures.items())
    return table(("Measured", "Value>"), rows)


def samples(texts: Iterable[Mapping[str, Any]], users: Iterable[UserRow]) -> str:
    """The gate's generated texts, by writer; simulated users are labelled."""
    names = {user.id: user.username + " (simulated)" * user.simulated for user in users}
    blocks = (
        f"**{_writer(text['user_id'], names)}** {plain(text['prompt'])}\n\n> {plain(text['text'])}"
        for text in texts
    )
    return "\n\n".join(blocks)


def _writer(user_id: int | None, names: Mapping[int, str]) -> str:
    if user_id is None:
        return "Base model:"
    return f"{plain(names.get(user_id, f'User {user_id}'))}:"


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def moment(when: datetime) -> str:
    """UTC, to the minute."""
    return when.astimezone(UTC).strftime("%d %b %H:%M")


def figure(value: float | None) -> str:
    return NONE if value is None else f"{value:.4g}"


def percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.0f}%"
