"""One's own figures in plain words, and the curve as a drawing.

Says no more than the figures carry: few outcomes make no share, and an interval that holds one half
is said to tell nothing. Knows no component and no use case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from backend.evidence import Figure
from backend.taste import FEWEST, Taste, TastePoint

PERCENT = "{value:.0f}\N{NO-BREAK SPACE}%"
NO_FIGURE = "–"
NOTHING_SCORED = (
    "Nothing to say yet: none of your choices has been set against what it expected. "
    "That happens by itself, in the background."
)
FEW_SCORED = "{count} of your choices are scored so far. From {fewest} on, a share stands here."
ONE_SCORED = "One of your choices is scored so far. From {fewest} on, a share stands here."
FORESEEN = "of your choices foreseen, each before it was learnt from"
BEHIND = "{count} choices · likely between {low} and {high} · everyone’s taste: {generic}"
CONTROL = "Someone else’s taste foresaw {share} of {count} of them."
NO_CONTROL = "Someone else’s taste, for comparison: too few choices yet."
APART_NEVER = "Your taste and everyone’s have expected the same each time, so far."
APART_FEW = (
    "Choices where yours and everyone’s expected different things: {count}, of which yours was "
    "right in {right}. Too few to be sure that it knows you."
)
APART_BETTER = (
    "Where yours and everyone’s expected different things ({count} choices), yours was right more "
    "often: {share}, likely between {low} and {high}."
)
APART_WORSE = (
    "Where yours and everyone’s expected different things ({count} choices), everyone’s was right "
    "more often: yours in {share}, likely between {low} and {high}."
)
APART_EVEN = (
    "Where yours and everyone’s expected different things ({count} choices), yours was right in "
    "{share}, likely between {low} and {high}: that could be chance."
)
BLIND_FIGURE = "{won} of {count}"
BLIND_NONE = (
    "Now and then one answer is made for you and one for everyone, unmarked. "
    "You have judged no such pair yet."
)
BLIND_WHAT = (
    "Now and then one answer is made for you and one for everyone, unmarked. "
    "Taken: yours {won}, everyone’s {lost}, a tie {ties}, both bad {bad}. "
    "For the range, ties and both bad count half."
)
BLIND_FEW = "Too few to be sure yet: between {low} and {high}."
BLIND_EVEN = "No difference can be told so far: between {low} and {high}."
BLIND_BETTER = "More often yours than everyone’s: between {low} and {high}."
BLIND_WORSE = "More often everyone’s than yours: between {low} and {high}."
BLIND_BEFORE = "{count} more were made before it had learnt anything from you; they do not count."
CURVE_NAME = (
    "Share of your choices foreseen, after each choice from the first to number {count}: "
    "yours {personal}, everyone’s {generic}."
)
CURVE_FIRST = "first choice"
CURVE_LAST = "choice {count}"
CURVE_YOURS = "yours, with the range it likely lies in"
CURVE_GENERIC = "everyone’s"
NO_CURVE = "The curve begins with {fewest} scored choices."

_EVEN = 0.5
_MANY = 50  # outcomes, from which on no difference is more than too few of them
_WIDTH, _HEIGHT = 560, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 550, 18, 158
_GRID = (0.0, 0.5, 1.0)


def percent(share: float | None) -> str:
    return NO_FIGURE if share is None else PERCENT.format(value=100 * share)


def known_figure(taste: Taste) -> str:
    """The large figure of the first card."""
    return percent(taste.personal.share) if taste.personal.count >= FEWEST else NO_FIGURE


def known_lines(taste: Taste) -> tuple[str, ...]:
    """What stands beside and below it."""
    figure = taste.personal
    if not figure.count:
        return (NOTHING_SCORED,)
    if figure.count < FEWEST:
        few = ONE_SCORED if figure.count == 1 else FEW_SCORED
        return (few.format(count=figure.count, fewest=FEWEST),)
    behind = BEHIND.format(
        count=figure.count, generic=percent(taste.generic.share), **_ends(figure)
    )
    wrong = taste.wrong
    control = CONTROL.format(share=percent(wrong.share), count=wrong.count)
    return (
        FORESEEN,
        behind,
        control if wrong.count >= FEWEST else NO_CONTROL,
        _apart(taste.apart),
    )


def blind_figure(taste: Taste) -> str:
    """The large figure of the blind test."""
    count = taste.blind.rate.count
    return BLIND_FIGURE.format(won=taste.blind.won, count=count) if count else NO_FIGURE


def blind_lines(taste: Taste) -> tuple[str, ...]:
    """What stands below it."""
    blind, before = taste.blind, BLIND_BEFORE.format(count=taste.before)
    last = (before,) if taste.before else ()
    if not blind.rate.count:
        return (BLIND_NONE, *last)
    what = BLIND_WHAT.format(won=blind.won, lost=blind.lost, ties=blind.tie, bad=blind.both_bad)
    return (what, _blind_verdict(blind.rate), *last)


def curve_svg(taste: Taste) -> str:
    """The curve as inline SVG made of our words and numbers alone; a sentence while too short."""
    points = taste.curve
    if taste.personal.count < FEWEST:
        return f'<p class="no-curve">{NO_CURVE.format(fewest=FEWEST)}</p>'
    last = points[-1]
    name = CURVE_NAME.format(
        count=last.choices,
        personal=percent(last.personal.share),
        generic=percent(last.generic.share),
    )
    end = CURVE_LAST.format(count=last.choices)
    lines = "".join(
        f'<line x1="{_LEFT}" y1="{_y(share):.0f}" x2="{_RIGHT}" y2="{_y(share):.0f}"/>'
        f'<text x="{_LEFT - 6}" y="{_y(share) + 4:.0f}" text-anchor="end">{percent(share)}</text>'
        for share in _GRID
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{name}">'
        f'<g class="grid">{lines}'
        f'<text x="{_LEFT}" y="{_HEIGHT - 8}">{CURVE_FIRST}</text>'
        f'<text x="{_RIGHT}" y="{_HEIGHT - 8}" text-anchor="end">{end}</text></g>'
        f'<path class="band" d="{_band(points)}"/>'
        f'<path class="generic" d="{_path(points, lambda point: point.generic.share)}"/>'
        f'<path class="personal" d="{_path(points, lambda point: point.personal.share)}"/></svg>'
        f'<p class="legend"><span class="personal">{CURVE_YOURS}</span>'
        f'<span class="generic">{CURVE_GENERIC}</span></p>'
    )


def _apart(figure: Figure) -> str:
    if not figure.count:
        return APART_NEVER
    if figure.count < FEWEST:
        return APART_FEW.format(count=figure.count, right=figure.tally.wins)
    ends = figure.interval
    sentence = APART_EVEN
    if ends.low > _EVEN:
        sentence = APART_BETTER
    elif ends.high < _EVEN:
        sentence = APART_WORSE
    return sentence.format(count=figure.count, share=percent(figure.share), **_ends(figure))


def _blind_verdict(figure: Figure) -> str:
    ends = figure.interval
    if ends.low > _EVEN:
        sentence = BLIND_BETTER
    elif ends.high < _EVEN:
        sentence = BLIND_WORSE
    else:
        sentence = BLIND_FEW if figure.count < _MANY else BLIND_EVEN
    return sentence.format(**_ends(figure))


def _ends(figure: Figure) -> dict[str, str]:
    ends = figure.interval
    return {"low": percent(ends.low), "high": percent(ends.high)}


def _x(point: TastePoint, last: TastePoint) -> float:
    return _LEFT + (_RIGHT - _LEFT) * (point.choices - 1) / max(1, last.choices - 1)


def _y(share: float) -> float:
    return _BOTTOM - (_BOTTOM - _TOP) * share


def _path(points: Sequence[TastePoint], of: Callable[[TastePoint], float | None]) -> str:
    return f"M{_along(points, of, points[-1])}"


def _band(points: Sequence[TastePoint]) -> str:
    last = points[-1]
    low = _along(points, lambda point: point.personal.interval.low, last)
    high = _along(points[::-1], lambda point: point.personal.interval.high, last)
    return f"M{low}L{high}Z"


def _along(
    points: Sequence[TastePoint], of: Callable[[TastePoint], float | None], last: TastePoint
) -> str:
    drawn = ((_x(point, last), of(point)) for point in points)
    return "L".join(f"{x:.1f} {_y(share):.1f}" for x, share in drawn if share is not None)
