"""One's own figures in plain words, and the curve as a drawing.

Says no more than the figures carry: few outcomes make no share, and an interval that holds one half
is said to tell nothing. Knows no component and no use case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from backend.evidence import Figure
from backend.insights import Consistency
from backend.taste import FEWEST, Taste, TastePoint
from backend.wording import Counted, msg
from ui.language import Language

NO_FIGURE = "–"
NOTHING_SCORED = msg(
    "Nothing to say yet: none of your choices has been set against what it expected. "
    "That happens by itself, in the background."
)
FEW_SCORED = Counted(
    "One of your choices is scored so far. From {fewest} on, a share stands here.",
    "{count} of your choices are scored so far. From {fewest} on, a share stands here.",
)
FORESEEN = msg("of your choices foreseen, each before it was learnt from")
BEHIND = Counted(
    "{count} choice · likely between {low} and {high} · without your taste: {generic}",
    "{count} choices · likely between {low} and {high} · without your taste: {generic}",
)
CONTROL = msg("Someone else’s taste foresaw {share} of {count} of them.")
NO_CONTROL = msg("Someone else’s taste, for comparison: too few choices yet.")
APART_NEITHER = msg("Without your taste it leans to neither response, so that figure is a coin’s.")
APART_NEVER = msg("With your taste and without it, it has not expected different things so far.")
APART_FEW = msg(
    "Choices where it expected different things with your taste and without it: {count}, of which "
    "your taste was right in {right}. Too few to be sure that it knows you."
)
APART_BETTER = Counted(
    "Where it expected different things with your taste and without it ({count} choice), your "
    "taste was right more often: {share}, likely between {low} and {high}.",
    "Where it expected different things with your taste and without it ({count} choices), your "
    "taste was right more often: {share}, likely between {low} and {high}.",
)
APART_WORSE = Counted(
    "Where it expected different things with your taste and without it ({count} choice), your "
    "taste was right less often: {share}, likely between {low} and {high}.",
    "Where it expected different things with your taste and without it ({count} choices), your "
    "taste was right less often: {share}, likely between {low} and {high}.",
)
APART_EVEN = Counted(
    "Where it expected different things with your taste and without it ({count} choice), your "
    "taste was right in {share}, likely between {low} and {high}: that could be chance.",
    "Where it expected different things with your taste and without it ({count} choices), your "
    "taste was right in {share}, likely between {low} and {high}: that could be chance.",
)
BLIND_FIGURE = msg("{won} of {count}")
BLIND_NONE = msg(
    "Now and then one response is made for you and one for everybody, unmarked. "
    "You have judged no such pair yet."
)
BLIND_WHAT = msg(
    "Now and then one response is made for you and one for everybody, unmarked. "
    "Taken: yours {won}, everybody’s {lost}, a tie {ties}, both bad {bad}. "
    "For the range, ties and both bad count half."
)
BLIND_FEW = msg("Too few to be sure yet: between {low} and {high}.")
BLIND_EVEN = msg("No difference can be told so far: between {low} and {high}.")
BLIND_BETTER = msg("More often yours than everybody’s: between {low} and {high}.")
BLIND_WORSE = msg("More often everybody’s than yours: between {low} and {high}.")
BLIND_BEFORE = Counted(
    "{count} more was made before it had learnt anything from you; it does not count.",
    "{count} more were made before it had learnt anything from you; they do not count.",
)
CURVE_NAME = msg(
    "Share of your choices foreseen, after each choice from the first to number {count}: "
    "with your taste {personal}, without it {generic}."
)
CURVE_FIRST = msg("first choice")
CURVE_LAST = msg("choice {count}")
CURVE_YOURS = msg("with your taste, and the range it likely lies in")
CURVE_GENERIC = msg("without your taste")
STEADY_FEW = Counted(
    "One earlier pair came back with its sides swapped. "
    "Too few to say how steady your choices are.",
    "{count} earlier pairs came back with their sides swapped; you chose the same in {same}. "
    "Too few to say how steady your choices are.",
)
STEADY = Counted(
    "{count} earlier pair came back with its sides swapped. You chose the same in {share}, "
    "likely between {low} and {high}.",
    "{count} earlier pairs came back with their sides swapped. You chose the same in {share} of "
    "them, likely between {low} and {high}.",
)
STEADY_SIDE = Counted(
    "One time you chose otherwise, and it went to the same side as before.",
    "{count} times you chose otherwise, and {side} of them went to the same side as before.",
)
NO_CURVE = msg("The curve begins with {fewest} scored choices.")

_EVEN = 0.5
_MANY = 50  # outcomes, from which on no difference is more than too few of them
_WIDTH, _HEIGHT = 560, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 550, 18, 158
_GRID = (0.0, 0.5, 1.0)


def percent(share: float | None, language: Language) -> str:
    return NO_FIGURE if share is None else language.percent(share)


def known_figure(taste: Taste, language: Language) -> str:
    """The large figure of the first card."""
    return percent(taste.personal.share, language) if taste.personal.count >= FEWEST else NO_FIGURE


def known_lines(taste: Taste, language: Language) -> tuple[str, ...]:
    """What stands beside and below it."""
    figure = taste.personal
    if not figure.count:
        return (language.text(NOTHING_SCORED),)
    if figure.count < FEWEST:
        return (language.text(FEW_SCORED, count=figure.count, fewest=FEWEST),)
    generic = percent(taste.generic.share, language)
    behind = language.text(BEHIND, count=figure.count, generic=generic, **_ends(figure, language))
    wrong = taste.wrong
    control = language.text(NO_CONTROL)
    if wrong.count >= FEWEST:
        share = percent(wrong.share, language)
        control = language.text(CONTROL, share=share, count=wrong.count)
    return (language.text(FORESEEN), behind, control, _apart(taste, language))


def blind_figure(taste: Taste, language: Language) -> str:
    """The large figure of the blind test."""
    count = taste.blind.rate.count
    return language.text(BLIND_FIGURE, won=taste.blind.won, count=count) if count else NO_FIGURE


def blind_lines(taste: Taste, language: Language) -> tuple[str, ...]:
    """What stands below it."""
    blind = taste.blind
    last = (language.text(BLIND_BEFORE, count=taste.before),) if taste.before else ()
    if not blind.rate.count:
        return (language.text(BLIND_NONE), *last)
    what = language.text(
        BLIND_WHAT, won=blind.won, lost=blind.lost, ties=blind.tie, bad=blind.both_bad
    )
    return (what, _blind_verdict(blind.rate, language), *last)


def steady_lines(consistency: Consistency, language: Language) -> tuple[str, ...]:
    """How steady one's choices are, as far as repeats tell; nothing before the first repeat."""
    figure = consistency.same
    if not figure.count:
        return ()
    if figure.count < FEWEST:
        return (language.text(STEADY_FEW, count=figure.count, same=figure.tally.wins),)
    share = percent(figure.share, language)
    steady = language.text(STEADY, count=figure.count, share=share, **_ends(figure, language))
    otherwise, side = figure.tally.losses, consistency.same_side
    if not side:
        return (steady,)
    return (steady, language.text(STEADY_SIDE, count=otherwise, side=side))


def curve_svg(taste: Taste, language: Language) -> str:
    """The curve as inline SVG made of our words and numbers alone; a sentence while too short."""
    points = taste.curve
    if taste.personal.count < FEWEST:
        return f'<p class="no-curve">{language.text(NO_CURVE, fewest=FEWEST)}</p>'
    last = points[-1]
    name = language.text(
        CURVE_NAME,
        count=last.choices,
        personal=percent(last.personal.share, language),
        generic=percent(last.generic.share, language),
    )
    end = language.text(CURVE_LAST, count=last.choices)
    lines = "".join(
        f'<line x1="{_LEFT}" y1="{_y(share):.0f}" x2="{_RIGHT}" y2="{_y(share):.0f}"/>'
        f'<text x="{_LEFT - 6}" y="{_y(share) + 4:.0f}" text-anchor="end">'
        f"{percent(share, language)}</text>"
        for share in _GRID
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{name}">'
        f'<g class="grid">{lines}'
        f'<text x="{_LEFT}" y="{_HEIGHT - 8}">{language.text(CURVE_FIRST)}</text>'
        f'<text x="{_RIGHT}" y="{_HEIGHT - 8}" text-anchor="end">{end}</text></g>'
        f'<path class="band" d="{_band(points)}"/>'
        f'<path class="generic" d="{_path(points, lambda point: point.generic.share)}"/>'
        f'<path class="personal" d="{_path(points, lambda point: point.personal.share)}"/></svg>'
        f'<p class="legend"><span class="personal">{language.text(CURVE_YOURS)}</span>'
        f'<span class="generic">{language.text(CURVE_GENERIC)}</span></p>'
    )


def _apart(taste: Taste, language: Language) -> str:
    figure = taste.apart
    if taste.generic.tally.halves == taste.generic.count:  # styled users: it is the base model
        return language.text(APART_NEITHER)
    if not figure.count:
        return language.text(APART_NEVER)
    if figure.count < FEWEST:
        return language.text(APART_FEW, count=figure.count, right=figure.tally.wins)
    ends = figure.interval
    sentence = APART_EVEN
    if ends.low > _EVEN:
        sentence = APART_BETTER
    elif ends.high < _EVEN:
        sentence = APART_WORSE
    share = percent(figure.share, language)
    return language.text(sentence, count=figure.count, share=share, **_ends(figure, language))


def _blind_verdict(figure: Figure, language: Language) -> str:
    ends = figure.interval
    if ends.low > _EVEN:
        sentence = BLIND_BETTER
    elif ends.high < _EVEN:
        sentence = BLIND_WORSE
    else:
        sentence = BLIND_FEW if figure.count < _MANY else BLIND_EVEN
    return language.text(sentence, **_ends(figure, language))


def _ends(figure: Figure, language: Language) -> dict[str, str]:
    ends = figure.interval
    return {"low": percent(ends.low, language), "high": percent(ends.high, language)}


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
