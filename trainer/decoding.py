"""Rows decoding side by side over one key/value cache: join, advance by a token, leave.

Rows are left-padded to a common width; a row may join while others are half way and leaves when it
is done, so nobody waits for a neighbour. Weights are whatever the model has when a method is
called. Knows nothing of requests, sampling, versions or threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.modeling_outputs import CausalLMOutputWithPast

# Room for tokens to come; a longer response copies its keys and values once per so many tokens.
_SPARE_TOKENS = 64


def check_cache(model: PreTrainedModel) -> None:
    """Make sure that rows of the model's cache can be cut apart and put together.

    Raises:
        ValueError: the model keeps more than keys and values per token (a recurrent state).
    """
    layers = DynamicCache(config=model.config).layers
    if any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
        raise ValueError(f"{type(model).__name__} does not keep plain keys and values; unsupported")


class _RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A cache layer that writes new tokens into spare room instead of copying what is there.

    `keys` and `values` (B, heads, T, D) are views of buffers with room for some more tokens.
    """

    keys: Tensor | None
    values: Tensor | None

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._key_room: Tensor | None = None
        self._value_room: Tensor | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append the states of new tokens; all states there are now."""
        filled = self.get_seq_length()
        self.is_initialized = True
        self._key_room, keys = _written(self._key_room, key_states, filled)
        self._value_room, values = _written(self._value_room, value_states, filled)
        self.keys, self.values = keys, values
        return keys, values

    def hold(self, keys: Tensor, values: Tensor) -> None:
        """Hold these states and nothing else."""
        self._key_room, self._value_room = keys, values
        self.keys, self.values = keys, values

    @property
    def states(self) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer that has seen tokens."""
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values


def _written(room: Tensor | None, states: Tensor, filled: int) -> tuple[Tensor, Tensor]:
    """The buffer with `states` behind its first `filled` tokens, and a view of all it holds."""
    end = filled + states.shape[-2]
    if room is None or room.shape[-2] < end:
        wider = states.new_zeros(*states.shape[:-2], end + _SPARE_TOKENS, states.shape[-1])
        if room is not None:
            wider[..., :filled, :] = room[..., :filled, :]
        room = wider
    room[..., filled:end, :] = states
    return room, room[..., :end, :]


class RowCache(Cache):
    """Keys and values (B, heads, T, D) of every layer, whose rows can be taken and put together.

    Every layer is kept whole; a sliding window is left to the attention mask.
    """

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=_RoomyLayer)

    def take(self, rows: Tensor, skip: int = 0) -> None:
        """Only these rows (repeats allowed), without their first `skip` positions."""
        for layer in self._layers():
            keys, values = layer.states
            layer.hold(keys[rows, :, skip:], values[rows, :, skip:])

    def append(self, *others: RowCache) -> None:
        """The rows of `others` behind those that are here, all left-padded to one width."""
        caches = (self, *others)
        width = max(cache.get_seq_length() for cache in caches)
        for layers in zip(*(cache._layers() for cache in caches), strict=True):
            both = zip(*(layer.states for layer in layers), strict=True)
            keys, values = (torch.cat([_pad(some, width) for some in states]) for states in both)
            layers[0].hold(keys, values)

    def stacked(self) -> Tensor:
        """(2 · layers, B, heads, T, D), each layer's keys and then its values; a copy.

        Raises:
            RuntimeError: layers differ in shape.
        """
        return torch.stack([states for layer in self._layers() for states in layer.states])

    def _layers(self) -> list[_RoomyLayer]:
        return cast(list[_RoomyLayer], self.layers)


def _pad(states: Tensor, width: int) -> Tensor:
    return nn.functional.pad(states, (0, 0, width - states.shape[-2], 0))


class Batch(Protocol):
    """B rows decoding side by side. Weights are what the model has when a method is called.

    Attributes:
        logits: (B, V) fp32, of each row's next token.
    """

    logits: Tensor

    def __len__(self) -> int:
        """B."""

    def join(self, prompts: Sequence[Tensor], copies: Sequence[int]) -> None:
        """Read prompts and append rows for them behind those that are there.

        Args:
            prompts: input embeddings (T, H) each.
            copies: rows made of each prompt, which is read once.
        """

    def advance(self, token_ids: Tensor) -> None:
        """Read one token (B,) per row; `logits` are then those of the next one."""

    def keep(self, rows: Sequence[int]) -> None:
        """Let all rows but these leave."""


def read_prompts(
    model: PreTrainedModel, prompts: Sequence[Tensor]
) -> tuple[RowCache, Tensor, Tensor]:
    """Read prompts, input embeddings (T, H) each, as rows left-padded to one width.

    On a CPU each by itself: nothing is computed for padding, and what comes of a prompt does not
    depend on which others are read with it, not even in its last bits.

    Returns:
        Their cache, their lengths (B,) and the logits (B, V), fp32, of each one's next token.
    """
    if model.device.type == "cpu":
        caches, lengths, logits = zip(*(_read(model, [prompt]) for prompt in prompts), strict=True)
        caches[0].append(*caches[1:])
        return caches[0], torch.cat(lengths), torch.cat(logits)
    return _read(model, prompts)


def _read(model: PreTrainedModel, prompts: Sequence[Tensor]) -> tuple[RowCache, Tensor, Tensor]:
    longest = max(len(prompt) for prompt in prompts)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
    embeds = prompts[0].new_zeros(len(prompts), longest, prompts[0].shape[-1])
    for row, prompt in zip(embeds, prompts, strict=True):
        row[longest - len(prompt) :] = prompt
    places = torch.arange(longest, device=model.device)
    positions = (places - (longest - lengths)[:, None]).clamp(min=0)
    cache = RowCache()
    logits = _forward(model, cache, lengths, longest, positions, inputs_embeds=embeds)
    return cache, lengths, logits


class DecodingBatch:
    """Implements `Batch`: keys and values grow with the rows, and every step is run as it comes."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._cache = RowCache()
        self._lengths = torch.zeros(0, dtype=torch.long, device=model.device)
        self.logits = torch.zeros(0, model.config.get_text_config().vocab_size)

    def __len__(self) -> int:
        return len(self._lengths)

    def join(self, prompts: Sequence[Tensor], copies: Sequence[int]) -> None:
        """See `Batch`."""
        cache, lengths, logits = read_prompts(self._model, prompts)
        rows = torch.arange(len(prompts), device=lengths.device).repeat_interleave(
            torch.tensor(copies, device=lengths.device)
        )
        if any(count > 1 for count in copies):
            cache.take(rows)
        self._append(cache, lengths[rows], logits[rows])

    def advance(self, token_ids: Tensor) -> None:
        """See `Batch`."""
        positions = self._lengths[:, None]
        self._lengths = self._lengths + 1
        ids = token_ids.to(self._lengths.device)[:, None]
        self.logits = _forward(
            self._model, self._cache, self._lengths, self._width + 1, positions, input_ids=ids
        )

    def keep(self, rows: Sequence[int]) -> None:
        """See `Batch`."""
        if len(rows) == len(self):
            return
        index = torch.tensor(rows, dtype=torch.long, device=self._lengths.device)
        self.logits = self.logits[index]
        width = self._width
        self._lengths = self._lengths[index]
        if not rows:
            self._cache = RowCache()
            return
        spare = width - int(self._lengths.max())  # padding that only those who leave needed
        self._cache.take(index, spare)

    @property
    def _width(self) -> int:
        return self._cache.get_seq_length()

    def _append(self, cache: RowCache, lengths: Tensor, logits: Tensor) -> None:
        if not len(self):
            self._cache, self._lengths, self.logits = cache, lengths, logits
            return
        self._cache.append(cache)
        self._lengths = torch.cat([self._lengths, lengths])
        self.logits = torch.cat([self.logits, logits])


def _forward(
    model: PreTrainedModel,
    cache: RowCache,
    lengths: Tensor,
    width: int,
    positions: Tensor,
    **inputs: Tensor,
) -> Tensor:
    """Logits (B, V), fp32, behind the last token; `cache` grows."""
    padding = width - lengths
    mask = None  # no mask at all keeps attention on its fast path
    if bool(padding.any()):
        mask = (torch.arange(width, device=lengths.device) >= padding[:, None]).long()
    made: CausalLMOutputWithPast = model(
        **inputs,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    assert made.logits is not None
    # On a CPU the largest of many bf16 numbers takes longer to find than that of fp32 ones.
    return made.logits[:, -1].float()
