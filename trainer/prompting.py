"""Messages and a user vector → token ids, embeddings and masks. Training and serving share it.

A user vector stands where the chat template puts the system message; a template without a system
message gets it at the head of the first user message. Message texts are tokenized as plain text:
a person who types `<|im_end|>` writes eight characters, not the end of a turn.

Knows nothing of users, adapters or generation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jinja2.exceptions import TemplateError
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from trainer.types import Message

_PREFIX_MARK = "\ue000PREFIX\ue000"
_MARK = re.compile(f"({_PREFIX_MARK}|\ue000TEXT[0-9]+\ue000)")
_PROFILE_HEAD = "The user says about themselves:"


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """Token ids of a rendered prompt, generation prompt included.

    Attributes:
        token_ids: (T,) ids; the P places of the prefix hold an arbitrary id.
        prefix_start: index of the first prefix place, None without a prefix.
    """

    token_ids: tuple[int, ...]
    prefix_start: int | None


def personal_messages(messages: Sequence[Message], profile: str) -> tuple[Message, ...]:
    """The messages of the personal condition: what users wrote about themselves stands first.

    A system message of the prompt's own follows in the same turn. Serving, training and scoring
    come here, so that all read the same prompt. Without a profile nothing changes.
    """
    if not profile:
        return tuple(messages)
    own = f"{_PROFILE_HEAD}\n{profile}"
    if messages and messages[0]["role"] == "system":
        own = f"{own}\n\n{messages[0]['content']}"
        messages = messages[1:]
    return ({"role": "system", "content": own}, *messages)


class PromptFormat:
    """The chat template of one tokenizer, with room for P prefix tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prefix_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.prefix_tokens = prefix_tokens

    def encode(self, messages: Sequence[Message], *, with_prefix: bool) -> EncodedPrompt:
        """Token ids of `messages`, ready for a response to follow.

        Without a prefix the result is the template's own rendering (π_ref's prompt).

        Raises:
            ValueError: there is no message, the last one is not the user's, or the template leaves
                out or repeats one.
        """
        if not messages or messages[-1]["role"] != "user":
            raise ValueError("a prompt ends with a message of the user")
        pieces = _split_marks(self._render([m["role"] for m in messages], with_prefix))
        # By number: some templates show the system message in the last turn, not in the first.
        contents = {_text_mark(number): m["content"] for number, m in enumerate(messages)}
        marks = [*contents, _PREFIX_MARK] if with_prefix else [*contents]
        if any(pieces.count(mark) != 1 for mark in marks):
            raise ValueError("the chat template does not show each message exactly once")
        ids: list[int] = []
        prefix_start: int | None = None
        for piece in pieces:
            if piece == _PREFIX_MARK:
                prefix_start = len(ids)
                ids.extend([0] * self.prefix_tokens)
            elif piece in contents:
                ids.extend(self._tokenize(contents[piece], special=False))
            else:
                ids.extend(self._tokenize(piece, special=True))
        return EncodedPrompt(tuple(ids), prefix_start)

    def own_system_text(self) -> str:
        """The system message the template sends when none is given; empty without one."""
        marked = self._render(["user"], True)
        before, _, after = marked.partition(_PREFIX_MARK)
        plain = self._render(["user"], False)
        if not (plain.startswith(before) and plain.endswith(after)):
            return ""
        return plain[len(before) : len(plain) - len(after)]

    def _render(self, roles: Sequence[str], with_prefix: bool) -> str:
        """The template's text with marks where the prefix and the message texts belong."""
        turns = [{"role": role, "content": _text_mark(n)} for n, role in enumerate(roles)]
        if not with_prefix:
            return self._apply(turns)
        system = turns[0]["role"] == "system"
        head = f"{_PREFIX_MARK}\n{_text_mark(0)}" if system else _PREFIX_MARK
        rest = turns[1:] if system else turns
        try:
            text = self._apply([{"role": "system", "content": head}, *rest])
        except TemplateError:
            text = ""
        if _PREFIX_MARK in text:
            return text
        gap = "\n\n" if system else "\n"
        first = {"role": rest[0]["role"], "content": f"{head}{gap}{rest[0]['content']}"}
        return self._apply([first, *rest[1:]])

    def _apply(self, turns: list[dict[str, str]]) -> str:
        text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert isinstance(text, str)
        return text

    def _tokenize(self, text: str, *, special: bool) -> list[int]:
        return list(
            self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=not special)
        )


def _text_mark(number: int) -> str:
    """What stands for the text of the message of this number in a rendering."""
    return f"\ue000TEXT{number}\ue000"


def _split_marks(text: str) -> list[str]:
    """`text` cut at its marks, marks kept, empty pieces dropped."""
    return [piece for piece in _MARK.split(text) if piece]


def embed(
    embedding: nn.Module,
    ids: Tensor,
    starts: Sequence[int | None],
    prefixes: Sequence[Tensor | None],
) -> Tensor:
    """Input embeddings with each row's user vector in its prefix places.

    Args:
        embedding: the model's token embedding.
        ids: (B, T) token ids.
        starts: per row the first prefix place, None without a prefix.
        prefixes: per row the user vector (P, H), None without one.

    Returns:
        (B, T, H); gradients flow into the prefixes.
    """
    rows = embedding(ids)
    placed = []
    for row, start, prefix in zip(rows, starts, prefixes, strict=True):
        if start is None or prefix is None:
            placed.append(row)
            continue
        end = start + prefix.shape[0]
        placed.append(torch.cat([row[:start], prefix.to(row), row[end:]]))
    return torch.stack(placed)
