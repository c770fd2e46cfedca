"""Echo engines that keep what they were asked; one of them says what the test tells it to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from backend.engines.base import Generated, GenerationRequest, Priority
from backend.engines.echo import EchoEngine
from backend.engines.generation import RunningGeneration


class Listening(EchoEngine):
    """Keeps what it was asked; says nothing at all where `mute` says so."""

    def __init__(self, *, word_delay_s: float = 0.0) -> None:
        super().__init__(word_delay_s=word_delay_s)
        self.asked: list[GenerationRequest] = []
        self.mute = False

    def generate(
        self, requests: Sequence[GenerationRequest], priority: Priority = Priority.INTERACTIVE
    ) -> RunningGeneration:
        self.asked += requests
        if self.mute:
            requests = [
                replace(request, sampling=replace(request.sampling, max_new_tokens=0))
                for request in requests
            ]
        return super().generate(requests, priority)


@dataclass(frozen=True)
class Call:
    """One call of an engine by hand, for the test to end."""

    requests: tuple[GenerationRequest, ...]
    generation: RunningGeneration
    version_id: int

    def say(self, texts: Sequence[str], *, ended: Sequence[bool] = (), seconds: float = 1) -> None:
        """End it: one text per request, ended unless it says otherwise."""
        self.generation.finish(
            [
                Generated(
                    text=text,
                    token_ids=tuple(range(5, 5 + len(text.split()))),
                    ended=whole,
                    version_id=self.version_id,
                    seconds=seconds,
                )
                for text, whole in zip(texts, ended or [True] * len(texts), strict=True)
            ]
        )


class ByHand(EchoEngine):
    """Writes nothing by itself: every call waits for the test."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def generate(
        self, requests: Sequence[GenerationRequest], priority: Priority = Priority.INTERACTIVE
    ) -> RunningGeneration:
        with self._lock:
            live = self._require_live()
            generation = RunningGeneration(len(requests))
            self._running.add(generation)  # so that it ends when the engine is closed
        self.calls.append(Call(tuple(requests), generation, live.version_id))
        return generation
