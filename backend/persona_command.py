"""`python -m backend.personas`: Attune with simulated users, from the command line.

It turns its options into settings and lets `app.py` take its place: the one composition root builds
the house, on the database and the data folder that the environment names. In an Attune that runs
already, the lab starts and stops personas.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from backend.errors import InvalidInput
from backend.persona_cast import (
    COUNTS,
    DEFAULT_CHOICES,
    DEFAULT_NOISE,
    Persona,
    first_rules,
    rules_from,
)
from backend.persona_rules import RULES
from backend.settings import environment_with

_APP = Path(__file__).parent.parent / "app.py"
_CANNOT_START = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Start Attune in this process's place, or list the rules.

    Returns:
        0 after a list, 2 where an option does not fit; else it does not return.
    """
    options = _parser().parse_args(arguments)
    if options.list:
        sys.stdout.write(rules_in_words())
        return 0
    try:
        settings = settings_of(options)
    except InvalidInput as error:
        sys.stderr.write(f"attune: {error}\n")
        return _CANNOT_START
    os.execve(sys.executable, [sys.executable, str(_APP)], environment_with(settings))  # noqa: S606


def rules_in_words() -> str:
    """One line per rule: its name, what it wants, its opposite."""
    widest = max(map(len, RULES))
    lines = (
        f"{rule.name:<{widest}}  {rule.wants} Opposite: {rule.opposite}." for rule in RULES.values()
    )
    return "".join(f"{line}\n" for line in lines)


def settings_of(options: argparse.Namespace) -> dict[str, str]:
    """The settings that these options stand for.

    Raises:
        InvalidInput: one does not fit.
    """
    rules = rules_from(options.rules) if options.rules else first_rules(options.count)
    for rule in rules:
        Persona(rule, options.noise, options.side_bias)  # refuses what is no probability
    return {
        "personas": ",".join(rules),
        "persona_choices": str(options.choices),
        "persona_noise": str(options.noise),
        "persona_side_bias": str(options.side_bias),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m backend.personas",
        description="Start Attune with simulated users who choose by written rules. Where it keeps "
        "its data and everything else is taken from the ATTUNE_… variables, as for `python app.py`."
        " In an Attune that runs already, start and stop personas in the lab.",
    )
    counts = ", ".join(map(str, COUNTS))
    parser.add_argument(
        "--count", type=int, default=6, help=f"how many, in opposed pairs: {counts} (default: 6)"
    )
    parser.add_argument("--rules", default="", help='these instead, for instance "shorter,longer"')
    parser.add_argument(
        "--choices",
        type=int,
        default=DEFAULT_CHOICES,
        help=f"each stops after so many; 0: never (default: {DEFAULT_CHOICES})",
    )
    parser.add_argument(
        "--noise",
        type=float,
        default=DEFAULT_NOISE,
        help=f"probability of a verdict at random (default: {DEFAULT_NOISE})",
    )
    parser.add_argument(
        "--side-bias", type=float, default=0.0, help="probability of side A unread (default: 0)"
    )
    parser.add_argument("--list", action="store_true", help="list the rules and end")
    return parser
