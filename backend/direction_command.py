"""`python -m backend.direction_command`: style directions for a base model, once.

Each wish of `backend/styles.py` is distilled into a prefix (`trainer.distilling`), on questions
that are in no prompt bank; its direction is what leads from e₀ there. The styled user model needs
them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from backend.base_model import resolve
from backend.errors import ConfigurationError
from backend.settings import Settings, environment_with, load_settings
from backend.shipped_prompts import USUAL_ENDING, with_ending
from backend.styles import Style, in_style, load_styles
from trainer.config import TrainConfig
from trainer.directions import write_directions
from trainer.distilling import Schooling, distil
from trainer.language_model import load_language_model
from trainer.prompting import PromptFormat
from trainer.teaching import Lesson
from trainer.types import Message
from trainer.user_models import initial_users

_CANNOT_START = 2
_QUESTIONS = (
    "How can I keep my feet warm in winter?",
    "Tell me about a day at the sea.",
    "Why do cats purr?",
    "What should I think of before buying a used bicycle?",
    "How does a lock work?",
    "My neighbour plays loud music at night. What can I do?",
    "Describe a railway station early in the morning.",
    "What is the difference between weather and climate?",
    "How do I make a simple vegetable soup?",
    "Is it better to read books on paper or on a screen?",
    "Why is exercise good for the heart?",
    "Help me plan a weekend with my grandparents.",
    "How do bees find their way home?",
    "I cannot fall asleep lately. What could help?",
    "What makes a good photograph?",
    "What is the use of a compass when there are maps?",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the directions of the base model that `ATTUNE_MODEL` names; 2 where that fails."""
    options = _parser().parse_args(arguments)
    try:
        settings = load_settings(environment_with({}))
        path = _make(settings, options.out or settings.directions_dir, options)
    except (ConfigurationError, OSError, ValueError, RuntimeError, ImportError) as error:
        sys.stderr.write(f"attune: {' '.join(str(error).split())}\n")
        return _CANNOT_START
    _say(f"written to {path}")
    return 0


def _make(settings: Settings, target: Path, options: argparse.Namespace) -> Path:
    model = resolve(settings.model, settings.model_revision, settings.cache_dir, _say)
    base = load_language_model(
        model.path, model.identity, device=settings.device, dtype=settings.dtype
    )
    config = TrainConfig()
    prompts = PromptFormat(base.tokenizer, config.prefix_tokens)
    start = initial_users(base.model, base.tokenizer, config).prefix(None).detach()
    schooling = Schooling(epochs=options.epochs)
    found, names = [], []
    for style in load_styles():
        if not style.wish:
            continue
        began = time.perf_counter()
        lessons = [_lesson(question, options.ending, style) for question in _QUESTIONS]
        prefix, curve = distil(base, prompts, lessons, start, schooling)
        found.append(prefix - start)
        names.append(style.name)
        _say(
            f"{style.name}: KL {curve[0]:.2f} → {curve[-1]:.2f} nats per token, "
            f"{time.perf_counter() - began:.0f} s"
        )
    return write_directions(target, torch.stack(found), names, model.identity)


def _lesson(question: str, ending: str, style: Style) -> Lesson:
    """Plain is the question as people will ask it; a wish stands in its ending's place."""
    bare = (Message(role="user", content=question),)
    usual = (Message(role="user", content=with_ending(question, ending)),)
    return Lesson(in_style(bare, style), usual)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m backend.direction_command", description=__doc__
    )
    parser.add_argument("--out", type=Path, help="folder (default: directions in the cache folder)")
    parser.add_argument(
        "--ending",
        default=USUAL_ENDING,
        help="what prompts usually end with, where a wish would stand (may be empty)",
    )
    parser.add_argument("--epochs", type=int, default=Schooling().epochs, help="passes per wish")
    return parser


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")


if __name__ == "__main__":
    sys.exit(main())
