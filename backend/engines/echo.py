"""The `echo` engine: made-up but steady answers without a model, for tests and for trying pages.

A response is a function of prompt, seed, condition, user, style and version; there is a style for
every number. Its versions are directories with one small JSON file. Loads no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from backend.engines.base import (
    Condition,
    EngineClosed,
    GenerationRequest,
    Message,
    Priority,
    VersionRef,
)
from backend.engines.echo_answers import Answer, Recipe, answer, prompt_text, random_of, whose
from backend.engines.generation import RunningGeneration
from backend.errors import Unavailable

_FILE = "manifest.json"


class EchoEngine:
    """Implements `Engine`. Before the first `swap`, `generate` and `score` raise `Unavailable`."""

    def __init__(self, *, word_delay_s: float = 0.0, max_calls: int = 16) -> None:
        """Start idle.

        Args:
            word_delay_s: pause before each word, so that streaming can be watched.
            max_calls: calls answered at once; others wait.
        """
        self._word_delay_s = word_delay_s
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._live: VersionRef | None = None
        self._recipe = Recipe(flavour=0, users=())
        self._running: set[RunningGeneration] = set()
        self._workers = ThreadPoolExecutor(max_calls, thread_name_prefix="echo")

    @property
    def model_identity(self) -> str:
        """What stands for a base model's checksum."""
        return hashlib.sha256(b"echo").hexdigest()

    @property
    def live_version(self) -> VersionRef | None:
        """What new requests are served with; None before the first swap."""
        return self._live

    def generate(
        self, requests: Sequence[GenerationRequest], priority: Priority = Priority.INTERACTIVE
    ) -> RunningGeneration:
        """Start answering; `priority` makes no difference here.

        Raises:
            EngineClosed. Unavailable: no version is live yet. ValueError: no request, or a
            personal one without a user.
        """
        if not requests:
            raise ValueError("no request")
        with self._lock:
            live = self._require_live()
            answers = [answer(request, self._recipe) for request in requests]
            generation = RunningGeneration(len(requests))
            self._running.add(generation)
            self._workers.submit(self._run, generation, answers, live.version_id)
        return generation

    def score(
        self,
        messages: Sequence[Message],
        responses: Sequence[Sequence[int]],
        condition: Condition,
        user_id: int | None,
    ) -> tuple[float, ...]:
        """Made-up but steady log-probs (nats): one negative number per token, summed.

        Raises:
            EngineClosed. Unavailable: no version is live yet. ValueError: a personal condition
            without a user.
        """
        with self._lock:
            self._require_live()
            key = (prompt_text(messages), *whose(condition, user_id, self._recipe))
        return tuple(
            -sum(0.5 + random_of(*key, token).random() for token in response)
            for response in responses
        )

    def swap(self, version: VersionRef) -> None:
        """Go over to `version`; running answers stay as they were.

        Raises:
            ArtifactDamaged: nothing changed. EngineClosed.
        """
        recipe = _read_version(version.path)
        with self._lock:
            self._require_open()
            self._live, self._recipe = version, recipe

    def write_initial(self, path: Path) -> None:
        """Write the version that is served before the first round."""
        write_version(path)

    def close(self) -> None:
        """Stop; unfinished answers end with `EngineClosed`. May be repeated."""
        with self._lock:
            self._closing.set()
            unfinished = list(self._running)
        for generation in unfinished:
            generation.fail(EngineClosed("the engine was stopped"))
        self._workers.shutdown(wait=True, cancel_futures=True)

    def _require_open(self) -> None:
        if self._closing.is_set():
            raise EngineClosed("the engine was stopped")

    def _require_live(self) -> VersionRef:
        self._require_open()
        if self._live is None:
            raise Unavailable("The model is still being loaded. Please try again in a moment.")
        return self._live

    def _run(
        self, generation: RunningGeneration, answers: Sequence[Answer], version_id: int
    ) -> None:
        """Show one more word of every answer at a time, on a worker's thread."""
        started_s = time.perf_counter()
        shown = 0
        longest = max(len(answer.words) for answer in answers)
        while shown < longest and not generation.cancelled and not self._closing.is_set():
            self._closing.wait(self._word_delay_s)
            shown += 1
            generation.show([" ".join(answer.words[:shown]) for answer in answers])
        seconds = time.perf_counter() - started_s
        generation.finish([answer.cut(shown, version_id, seconds) for answer in answers])
        with self._lock:
            self._running.discard(generation)


def write_version(path: Path, *, flavour: int = 0, users: Sequence[int] = ()) -> None:
    """Write a version directory; an echo engine serving it answers `users` in their own way.

    Raises:
        FileExistsError: `path` exists. OSError.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists already")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    content = json.dumps({"flavour": flavour, "users": sorted(users)})
    (partial / _FILE).write_text(json.dumps({"sha256": _sha256(content), "content": content}))
    partial.rename(path)


def _read_version(path: Path) -> Recipe:
    try:
        wrapped = json.loads((path / _FILE).read_text())
        content = json.loads(wrapped["content"])
        recipe = Recipe(flavour=int(content["flavour"]), users=tuple(content["users"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(f"{path.name}: missing or unreadable") from error
    if wrapped["sha256"] != _sha256(wrapped["content"]):
        raise _damaged(f"{path.name}: {_FILE} is not as written")
    return recipe


def _damaged(reason: str) -> Exception:
    # Imported here: it loads torch, which a process with this engine otherwise does without.
    from trainer.artifacts import ArtifactDamaged  # noqa: PLC0415

    return ArtifactDamaged(reason)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
