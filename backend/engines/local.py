"""The `local` engine: transformers on this machine, many users in shared batches, one adapter.

One thread owns the model. Requests join a running batch between two tokens and leave when they are
done. `swap` merges the new version's weights beside the live ones, in the calling thread, and then
changes one reference: a call keeps the version that was live when it was made, old and new rows
decode in turn until the old ones are done, and nothing waits or fails.

Knows nothing of comparisons, sides, databases or where versions come from.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from torch import Tensor

from backend.engines.base import (
    Condition,
    GenerationRequest,
    Message,
    Priority,
    VersionRef,
)
from backend.engines.calls import Call, Row
from backend.engines.generation import RunningGeneration
from backend.engines.model_thread import EngineStats, ModelThread, ScoreJob
from backend.engines.versions import LoadedVersion, load
from backend.errors import ConfigurationError, Unavailable
from trainer.batching import Row as ScoredRow
from trainer.config import TrainConfig
from trainer.language_model import LanguageModel
from trainer.prompting import EncodedPrompt

# Of a prompt with all its turns. The thread reads a prompt whole while everybody's decoding stands
# still (the embedded model on one CPU core: ten seconds for so many), and rounds read about so many
# at once (`forward_tokens` in `trainer/config.py`). For the embedded model 2,000 characters of
# English are 500 tokens, of Russian 1,500; of emoji or rare characters they are 6,000 and more.
_MOST_PROMPT_TOKENS = 2048
_LEAST_PROMPT_TOKENS = 256  # prompts of the bank fit in, with a vector and a profile
_STOPPED = "the model has stopped; the log says why"


class LocalEngine:
    """Implements `Engine`. Before the first `swap`, `generate` and `score` raise `Unavailable`.

    The engine takes the model over: nobody else may run it or touch its weights.
    """

    def __init__(
        self,
        base: LanguageModel,
        *,
        max_batch: int = 8,
        threads: int = 0,
        config: TrainConfig | None = None,
        directions: Tensor | None = None,
        capture: bool = True,
    ) -> None:
        """Start the model's thread.

        Args:
            max_batch: rows decoded at once that somebody waits for, and as many that nobody
                waits for.
            threads: CPU threads of the model; 0 leaves torch's choice.
            config: the recipe `write_initial` follows.
            directions: (K, P, H), what it needs for the styled user model.
            capture: on CUDA, replay decoding steps as captured graphs where that can be done.

        Raises:
            ValueError: the model is of an unsupported kind.
        """
        self._base = base
        self._config = config or TrainConfig()
        self._directions = directions
        self._stop_ids = frozenset(base.stop_ids)
        self._context_tokens = int(base.model.config.get_text_config().max_position_embeddings)
        self._tokenizing = threading.Lock()  # encoding changes the tokenizer's state
        self._swapping = threading.Lock()
        self._numbers = itertools.count()
        self._live: LoadedVersion | None = None
        self._thread = ModelThread(base.model, max_rows=max_batch, threads=threads, capture=capture)

    @property
    def model_identity(self) -> str:
        """Checksum of the base model."""
        return self._base.identity

    @property
    def live_version(self) -> VersionRef | None:
        """What new requests are served with; None before the first swap."""
        live = self._live
        return None if live is None else live.ref

    def check_response_tokens(self, most: int) -> None:
        """Make sure that responses of so many tokens leave room for prompts.

        Raises:
            ConfigurationError.
        """
        if self._context_tokens - most < _LEAST_PROMPT_TOKENS:
            raise ConfigurationError(
                f"ATTUNE_MAX_NEW_TOKENS={most} is too much for this model: of the "
                f"{self._context_tokens} tokens that it can read, prompts need at least "
                f"{_LEAST_PROMPT_TOKENS}"
            )

    def waits_for(self) -> str | None:
        """Why nothing can be generated any more; None while it can. Returns at once."""
        return None if self._thread.is_open else _STOPPED

    def generate(
        self, requests: Sequence[GenerationRequest], priority: Priority = Priority.INTERACTIVE
    ) -> RunningGeneration:
        """Start generating under the version that is live now.

        Raises:
            EngineClosed. Unavailable: no version is live yet, or it does not have the style asked
            for. ValueError: no request, a personal one without a user, a base one in a style, or a
            prompt too long for the model or for those who wait meanwhile.
        """
        if not requests:
            raise ValueError("no request")
        live = self._require_live()
        rows = [self._row(request, live) for request in requests]
        call = Call(rows, live, priority, next(self._numbers))
        self._thread.put(call)
        return call.generation

    def score(
        self,
        messages: Sequence[Message],
        responses: Sequence[Sequence[int]],
        condition: Condition,
        user_id: int | None,
    ) -> tuple[float, ...]:
        """Summed log-probs (nats) of each response's token ids under the live version.

        Raises:
            EngineClosed, EngineFailed. Unavailable: no version is live yet. ValueError: a personal
            condition without a user, or prompt and response too long for the model.
        """
        live = self._require_live()
        longest = max((len(response) for response in responses), default=0)
        prompt = self._encode(messages, condition, user_id, longest, live)
        vector = live.vector(condition, user_id)
        rows = tuple(ScoredRow(prompt, tuple(response)) for response in responses)
        weights = None if condition is Condition.BASE else live.weights
        job = ScoreJob(rows, vector, weights, Future())
        self._thread.put(job)
        return job.future.result()

    def swap(self, version: VersionRef) -> None:
        """Go over to `version`; calls made before keep the version they have.

        Raises:
            ArtifactDamaged: nothing changed. EngineClosed.
        """
        with self._swapping:
            self._thread.check_open()
            self._live = load(version, self._base, self._thread.weight_sets)
            self._thread.count_swap()

    def write_initial(self, path: Path) -> None:
        """Write the artifact that is served before the first round."""
        # Late: it brings PEFT along, half a second that only the very first start needs.
        from trainer.round import write_initial  # noqa: PLC0415

        write_initial(self._base, self._config, path, self._directions)

    def stats(self) -> EngineStats:
        """Counters, for metrics and benchmarks."""
        return self._thread.stats()

    def close(self) -> None:
        """Stop the thread; whatever is unfinished ends with `EngineClosed`. May be repeated."""
        self._thread.close()

    def _require_live(self) -> LoadedVersion:
        self._thread.check_open()
        if self._live is None:
            raise Unavailable("The model is still being loaded. Please try again in a moment.")
        return self._live

    def _row(self, request: GenerationRequest, live: LoadedVersion) -> Row:
        live.vector(request.condition, request.user_id, request.style)  # refused here, at once
        prompt = self._encode(
            request.messages,
            request.condition,
            request.user_id,
            request.sampling.max_new_tokens,
            live,
        )
        if len(prompt.token_ids) > _MOST_PROMPT_TOKENS:
            raise ValueError(
                f"the prompt is too long: {len(prompt.token_ids)} tokens, "
                f"at most {_MOST_PROMPT_TOKENS} are read at once"
            )
        return Row(request=request, prompt=prompt, decode=self._decode, stop_ids=self._stop_ids)

    def _encode(
        self,
        messages: Sequence[Message],
        condition: Condition,
        user_id: int | None,
        new_tokens: int,
        live: LoadedVersion,
    ) -> EncodedPrompt:
        """The prompt's token ids, with room for the prefix unless it is for the base model."""
        if condition is Condition.PERSONAL and user_id is None:
            raise ValueError("a personal response needs a user")
        with self._tokenizing:
            prompt = live.prompts.encode(messages, with_prefix=condition is not Condition.BASE)
        room = self._context_tokens - new_tokens
        if len(prompt.token_ids) > room:
            raise ValueError(
                f"the prompt is too long for the model: {len(prompt.token_ids)} tokens, "
                f"at most {max(room, 0)} leave room for the response"
            )
        return prompt

    def _decode(self, token_ids: Sequence[int]) -> str:
        with self._tokenizing:
            text = self._base.tokenizer.decode(
                list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        assert isinstance(text, str)
        return text
