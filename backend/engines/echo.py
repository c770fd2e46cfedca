"""The `echo` engine: made-up but steady answers without a model, for tests and for trying pages.

A response is a function of prompt, seed, condition, user and version. Its versions are directories
with one small JSON file. Loads no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

from backend.engines.base import (
    Condition,
    EngineClosed,
    Generated,
    GenerationRequest,
    Message,
    Priority,
    VersionRef,
)
from backend.engines.generation import RunningGeneration
from backend.errors import Unavailable

_FILE = "manifest.json"
_END_ID = 0
_OPENINGS = (
    "Here is {manner} way to look at {topic}.",
    "When people ask about {topic}, {manner} answer is that it depends.",
    "For {topic}, {manner} first step is to keep it simple.",
    "There is {manner} side to {topic} that is easy to miss.",
)
_MANNERS = (
    "a plain",
    "an unusual",
    "a careful",
    "a cheerful",
    "a thorough",
    "a quick",
    "a gentle",
    "a practical",
    "a playful",
    "an old-fashioned",
)
_MIDDLES = (
    "Start small, and give it a few days before you judge it.",
    "Most of the work is in the first step, so make that one easy.",
    "Write down what you notice; patterns show up sooner than you think.",
    "It helps to ask somebody who has done it before.",
    "Try two versions side by side and keep the one you like better.",
    "Leave out anything that does not earn its place.",
    "Take a break when it stops being fun, and come back with fresh eyes.",
    "A little planning saves a lot of time later on.",
)
_CLOSINGS = (
    "If you tell me more, I can be more specific.",
    "That is usually enough to get going.",
    "And if it does not work out, you will still have learnt something.",
    "Enjoy it!",
)


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
        self._recipe = _Recipe(flavour=0, users=())
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
            answers = [_answer(request, self._recipe) for request in requests]
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
            key = (_prompt_text(messages), *_whose(condition, user_id, self._recipe))
        return tuple(
            -sum(0.5 + _random(*key, token).random() for token in response)
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
        self, generation: RunningGeneration, answers: Sequence[_Answer], version_id: int
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


@dataclass(frozen=True, slots=True)
class _Recipe:
    """A version's content: `flavour` changes every answer, `users` have answers of their own."""

    flavour: int
    users: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Answer:
    """The whole answer within the request's length limit, before anybody cancels it."""

    words: tuple[str, ...]
    ends: bool

    def cut(self, count: int, version_id: int, seconds: float) -> Generated:
        """What is left when only `count` words were shown."""
        words = self.words[:count]
        ended = self.ends and count >= len(self.words)
        ids = tuple(1 + _digest(word) % 30_000 for word in words)
        return Generated(
            text=" ".join(words),
            token_ids=(*ids, _END_ID) if ended else ids,
            ended=ended,
            version_id=version_id,
            seconds=seconds,
        )


def _answer(request: GenerationRequest, recipe: _Recipe) -> _Answer:
    whose = _whose(request.condition, request.user_id, recipe)
    sampling = request.sampling
    seed = sampling.seed if sampling.temperature > 0 else None
    prompt = _prompt_text(request.messages)
    random = _random(prompt, *whose, seed)
    topic = " ".join(request.messages[-1]["content"].split()[:6]).rstrip("?.!,")
    sentences = [
        random.choice(_OPENINGS).format(topic=topic, manner=random.choice(_MANNERS)),
        *random.sample(_MIDDLES, random.randint(1, 4)),
        random.choice(_CLOSINGS),
    ]
    words = tuple(" ".join(sentences).split())
    limit = sampling.max_new_tokens
    return _Answer(words[:limit], ends=len(words) < limit)


def _whose(condition: Condition, user_id: int | None, recipe: _Recipe) -> tuple[object, ...]:
    """What the answer depends on besides prompt and seed; an unknown user is the generic one."""
    if condition is Condition.BASE:
        return ("base",)
    if condition is Condition.PERSONAL:
        if user_id is None:
            raise ValueError("a personal response needs a user")
        if user_id in recipe.users:
            return (recipe.flavour, user_id)
    return (recipe.flavour, "generic")


def _prompt_text(messages: Sequence[Message]) -> str:
    if not messages or messages[-1]["role"] != "user":
        raise ValueError("a prompt ends with a message of the user")
    return "\n".join(message["content"] for message in reversed(messages))


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


def _read_version(path: Path) -> _Recipe:
    # Imported here: it loads torch, which a process with this engine otherwise does without.
    from trainer.artifacts import ArtifactDamaged  # noqa: PLC0415

    try:
        wrapped = json.loads((path / _FILE).read_text())
        content = json.loads(wrapped["content"])
        recipe = _Recipe(flavour=int(content["flavour"]), users=tuple(content["users"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactDamaged(f"{path.name}: missing or unreadable") from error
    if wrapped["sha256"] != _sha256(wrapped["content"]):
        raise ArtifactDamaged(f"{path.name}: {_FILE} is not as written")
    return recipe


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8])


def _random(*parts: object) -> Random:
    """Random numbers fixed by `parts`, in every process."""
    return Random(_digest(*parts))  # noqa: S311
