"""Other people's words on our pages: prompts exactly as typed, responses as harmless Markdown.

Model and user text is data. None of it reaches `gr.HTML`, which compiles its value as a template;
all of it goes through one of these two into `gr.Markdown`, which sanitizes once more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# What Markdown shows literally within a paragraph: code between equal runs of backticks, formulas.
# Where this is narrower than Markdown, code shows `&lt;`; nowhere is it wider.
_LITERAL = re.compile(
    r"(?<![`\\])(?P<run>`{1,3})(?!`)[^\n]+?(?<!`)(?P=run)(?!`)"
    r"|\$\$(?:(?!\n\s*\n).)*?\$\$|\\\[(?:(?!\n\s*\n).)*?\\\]|\\\((?:(?!\n\s*\n).)*?\\\)",
    re.DOTALL,
)
_FENCE = re.compile(r"(?P<indent> {0,3})(?P<fence>`{3,}(?=[^`]*$)|~{3,})")
_LINES = re.compile(r"[^\n]*\n|[^\n]+")


def plain(text: str) -> str:
    """`text` as Markdown that shows exactly these characters, whatever they are.

    Every character that could mean something to Markdown or HTML becomes a character reference,
    line breaks included, so the result is one inert line (show it with `white-space: pre-wrap`).
    """
    return "".join(c if c.isalnum() or c == " " else f"&#{ord(c)};" for c in text.strip())


def paragraphs(lines: Iterable[str]) -> str:
    """The same of each line, a paragraph each."""
    return "\n\n".join(plain(line) for line in lines)


def response(text: str) -> str:
    """A response as Markdown without HTML and images: tags show as the characters they are.

    An image would be fetched by whoever reads the response, from wherever the model says.
    """
    return _harmless(text)[0]


def closed_response(text: str) -> str:
    """The same where something follows: code that was never closed ends with the response."""
    shown, fence = _harmless(text)
    return f"{shown}\n{fence}" if fence else shown


def _harmless(text: str) -> tuple[str, str]:
    """The text, with tags only in fenced code; and the fence that was never closed, or nothing."""
    shown: list[str] = []
    words: list[str] = []  # since the last code
    indent = fence = ""
    for line in _LINES.findall(text.replace("\r\n", "\n").replace("\r", "\n")):
        if fence and line.strip() and not line.startswith(indent):
            fence = ""  # the list item ends that the code stood in
        if fence:
            shown.append(line)
            if _closes(line, fence):
                fence = ""
        elif opened := _FENCE.match(line):
            indent, fence = opened["indent"], opened["fence"]
            shown += (_prose("".join(words)), line)
            words.clear()
        else:
            words.append(line)
    return "".join((*shown, _prose("".join(words)))), fence


def _closes(line: str, fence: str) -> bool:
    bare = line.strip()
    return len(bare) >= len(fence) and set(bare) == {fence[0]}


def _prose(text: str) -> str:
    shown: list[str] = []
    end = 0
    for literal in _LITERAL.finditer(text):
        shown += (_without_tags(text[end : literal.start()]), literal.group())
        end = literal.end()
    return "".join((*shown, _without_tags(text[end:])))


def _without_tags(text: str) -> str:
    return text.replace("<", "&lt;").replace("![", "!&#91;")
