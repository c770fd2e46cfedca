"""The engine seam: what turns requests into responses.

Every implementation passes `tests/backend/engines/test_contract.py`. The seam knows nothing of
comparisons, sides or users' names; a user is an integer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Protocol

from trainer.types import Condition, Message

__all__ = [
    "Condition",
    "Engine",
    "EngineClosed",
    "EngineFailed",
    "Generated",
    "Generation",
    "GenerationRequest",
    "Message",
    "Priority",
    "Sampling",
    "VersionRef",
]


class Priority(IntEnum):
    """Who is served first."""

    INTERACTIVE = 0  # someone is waiting
    PREFETCH = 1
    SIMULATED = 2  # nobody waits: a persona's


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn; temperature 0 is greedy. The seed alone fixes the draw."""

    temperature: float = 0.8
    top_p: float = 0.95
    max_new_tokens: int = 160
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One response asked for.

    Attributes:
        user_id: matters under the personal condition only.
        style: index of a style direction of the version: the response is made with e₀ + d_style,
            whatever vector the condition has; not with the base condition, which has none.
    """

    messages: tuple[Message, ...]
    condition: Condition
    user_id: int | None
    sampling: Sampling
    style: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """One finished response.

    Attributes:
        text: decoded without special tokens, stripped.
        token_ids: response tokens, the end-of-turn token included when `ended`.
        ended: False when cut at `max_new_tokens` or cancelled.
        version_id: the one version that made it.
        seconds: wall time from the start of its batch.
    """

    text: str
    token_ids: tuple[int, ...]
    ended: bool
    version_id: int
    seconds: float


@dataclass(frozen=True, slots=True)
class VersionRef:
    """A version's database id and its artifact directory."""

    version_id: int
    path: Path


class EngineClosed(Exception):
    """The engine was stopped before the generation finished."""


class EngineFailed(Exception):
    """The model raised while generating; the engine goes on serving others."""


class Generation(Protocol):
    """A running `Engine.generate` call."""

    def stream(self) -> Iterator[tuple[str, ...]]:
        """The texts so far, one per request, each time one has grown; ends with the last state.

        May be called by several threads and again after the end.

        Raises:
            EngineClosed, EngineFailed.
        """

    def result(self, timeout_s: float | None = None) -> tuple[Generated, ...]:
        """Wait for the finished responses, in the order of the requests.

        Raises:
            EngineClosed, EngineFailed, TimeoutError.
        """

    def cancel(self) -> None:
        """Stop after the current token; `result` then returns what there is."""


class Engine(Protocol):
    """Streams responses, each tied to exactly one version."""

    @property
    def model_identity(self) -> str:
        """Checksum of the base model."""

    @property
    def live_version(self) -> VersionRef | None:
        """What new requests are served with; None before the first swap."""

    def generate(
        self, requests: Sequence[GenerationRequest], priority: Priority = Priority.INTERACTIVE
    ) -> Generation:
        """Start generating; all `requests` are served by one and the same version.

        Raises:
            EngineClosed. backend.errors.Unavailable: no version was swapped in yet, or it does not
            have the style asked for. ValueError: no request, a personal one without a user, a base
            one in a style, or a prompt too long for the model.
        """

    def score(
        self,
        messages: Sequence[Message],
        responses: Sequence[Sequence[int]],
        condition: Condition,
        user_id: int | None,
    ) -> tuple[float, ...]:
        """Summed log-probs (nats) of each response's token ids under the live version.

        Gives way, for a moment, to responses that somebody waits for.

        Raises:
            EngineClosed, EngineFailed. backend.errors.Unavailable: no version was swapped in yet.
            ValueError: a personal condition without a user, or too long for the model.
        """

    def swap(self, version: VersionRef) -> None:
        """Go over to `version`; returns once new requests are served with it.

        Calls keep the version that was live when they were made. Adapter and vectors change
        together. Nothing waits: old and new calls are served side by side.

        Raises:
            trainer.artifacts.ArtifactDamaged: nothing changed, the old version stays live.
            EngineClosed.
        """

    def write_initial(self, path: Path) -> None:
        """Write the artifact that is served before the first round: e₀ from words, no learning."""

    def close(self) -> None:
        """Stop; waiting generations end with `EngineClosed`."""
