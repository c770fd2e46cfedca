"""Room of fixed size and place for keys and values, and the step that is run in it.

A step reads one token in each of the first R slots of a room, and looks back over the first W
places; R and W are powers of two, so that there are few kinds of step, and nothing a step touches
ever moves. So it can be captured once and replayed: on a GPU the launches of a step's hundreds of
small kernels cost more than the kernels do. A room's slots and places are powers of two as well;
what outgrows one moves to another.

How a step is captured is the caller's to say (`backend/engines/captured.py` on CUDA). Knows nothing
of rows, prompts, versions and requests.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

_LEAST_WIDTH = 128  # of a step
_LEAST_SLOTS, _LEAST_PLACES = 4, 512  # of a room: it takes what two pairs of usual length need
_MOST_GRAPHS = 24  # of one room

Size = tuple[int, int]  # slots and places
Step = Callable[[], None]


class Graph(Protocol):
    """A captured step."""

    def replay(self) -> None:
        """Do again what was captured, with what the same places hold now."""


class AsItComes:
    """Stands for a graph where there is none: the step itself."""

    def __init__(self, step: Step) -> None:
        self.replay = step


Capture = Callable[[Step, Graph | None], Graph]  # a step, and another graph of its room if any


def bucket(count: int, least: int = 1) -> int:
    """The smallest power of two that is at least `count` and `least`."""
    return max(least, 1 << (count - 1).bit_length())


def size_for(slots: int, places: int) -> Size:
    """The size of the room for so many: below twice as many of either, but for the least."""
    return bucket(slots, _LEAST_SLOTS), bucket(places, _LEAST_PLACES)


class _SlotLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """One layer of the first slots and places of a room; a token is written to its own place."""

    def __init__(self, keys: Tensor, values: Tensor, places: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.is_initialized = True
        self.keys, self.values = keys, values
        self._places = places

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write the states (R, heads, 1, D) of one token a slot; all there is room for."""
        assert self.keys is not None
        assert self.values is not None
        index = self._places.view(-1, 1, 1, 1)
        self.keys.scatter_(2, index.expand_as(key_states), key_states)
        self.values.scatter_(2, index.expand_as(value_states), value_states)
        return self.keys, self.values


class Room:
    """Keys and values of one model, and what a step reads. Neither size nor place ever changes.

    Attributes:
        size: slots and places.
        states: (2 · layers, slots, heads, places, D).
        logits: (slots, V) fp32, where steps leave them.
    """

    def __init__(self, model: PreTrainedModel, capture: Capture, size: Size, like: Tensor) -> None:
        """Begin empty.

        Args:
            like: any states (2 · layers, …, heads, T, D) of the model.
        """
        self._model = model
        self._capture = capture
        self._graphs: OrderedDict[tuple[int, int, object], Graph] = OrderedDict()
        self.size = size
        slots, places = size
        # Zeros, since what is masked is multiplied by zero, and a number that is none would stay.
        self.states = like.new_zeros(like.shape[0], slots, like.shape[-3], places, like.shape[-1])
        # (slots, 2): token and place
        self._told = torch.zeros(slots, 2, dtype=torch.long, device=like.device)
        vocabulary = model.config.get_text_config().vocab_size
        self.logits = torch.zeros(slots, vocabulary, device=like.device)

    def write(self, slot: int, states: Tensor) -> None:
        """Put a prompt's states (2 · layers, heads, T, D) into a slot, from its first place."""
        self.states[:, slot, :, : states.shape[-2]] = states

    def take_over(self, other: Room) -> None:
        """Hold in each slot what `other` does, as far as either has slots and places."""
        slots, places = map(min, self.size, other.size)
        self.states[:, :slots, :, :places] = other.states[:, :slots, :, :places]

    def step(self, read: Mapping[int, tuple[int, int]], weights: object) -> None:
        """Read tokens; what stands in `logits` for their slots is then of the next ones.

        Args:
            read: slot → (token id, its place).
            weights: equal for weights that stand in the same places of memory.
        """
        rows = bucket(max(read) + 1)
        width = bucket(max(place for _, place in read.values()) + 1, _LEAST_WIDTH)
        # A slot nobody uses reads token 0 at place 0, where the next prompt will be written over.
        idle = (0, 0)
        told = torch.tensor([read.get(slot, idle) for slot in range(rows)])
        self._told[:rows].copy_(told, non_blocking=True)
        self._graph(rows, width, weights).replay()

    def _graph(self, rows: int, width: int, weights: object) -> Graph:
        key = (rows, width, weights)
        graph = self._graphs.get(key)
        if graph is None:
            beside = next(iter(self._graphs.values()), None)
            graph = self._capture(self._new_step(rows, width), beside)
            self._graphs[key] = graph
            if len(self._graphs) > _MOST_GRAPHS:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(key)
        return graph

    def _new_step(self, rows: int, width: int) -> Step:
        """It knows the tensors and not the room, whose memory is then free once it is let go."""
        states, told = self.states[:, :rows, :, :width], self._told[:rows]
        return partial(_run, self._model, states, told, self.logits[:rows])


def _run(model: PreTrainedModel, states: Tensor, told: Tensor, logits: Tensor) -> None:
    """The step itself. The same places of memory every time, and no look at what they hold.

    Args:
        states: (2 · layers, R, heads, W, D), written to.
        told: (R, 2), token and place.
        logits: (R, V) fp32, written to.
    """
    rows, width = states.shape[1], states.shape[3]
    ids, places = told.unbind(1)
    cache = Cache(layers=[*_layers(states, places)])
    hidden = torch.arange(width, device=places.device) > places[:, None]
    dtype = states.dtype
    mask = torch.zeros(rows, width, dtype=dtype, device=places.device)
    mask = mask.masked_fill(hidden, torch.finfo(dtype).min)
    made = model(
        input_ids=ids[:, None],
        attention_mask=mask[:, None, None],
        position_ids=places[:, None],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    logits.copy_(made.logits[:, -1])


def _layers(states: Tensor, places: Tensor) -> list[_SlotLayer]:
    pairs = zip(states[0::2], states[1::2], strict=True)
    return [_SlotLayer(keys, values, places) for keys, values in pairs]
