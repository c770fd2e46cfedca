"""Other people's words on our pages: prompts exactly as typed, responses as harmless Markdown.

Model and user text is data. None of it reaches `gr.HTML`, which compiles its value as a template;
all of it goes through one of these two into `gr.Markdown`, which sanitizes once more.
"""

from __future__ import annotations

import re

# What Markdown shows literally anyway: fenced and inline code (an open fence too, while a response
# is still streaming in), formulas.
_LITERAL = re.compile(
    r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]+`"
    r"|\$\$.*?\$\$|\\\[.*?\\\]|\\\(.*?\\\)",
    re.DOTALL,
)


def plain(text: str) -> str:
    """`text` as Markdown that shows exactly these characters, whatever they are.

    Every character that could mean something to Markdown or HTML becomes a character reference,
    line breaks included, so the result is one inert line (show it with `white-space: pre-wrap`).
    """
    return "".join(c if c.isalnum() or c == " " else f"&#{ord(c)};" for c in text.strip())


def response(text: str) -> str:
    """A response as Markdown without HTML and images: tags show as the characters they are.

    An image would be fetched by whoever reads the response, from wherever the model says.
    """
    shown: list[str] = []
    end = 0
    for literal in _LITERAL.finditer(text):
        shown += (_without_tags(text[end : literal.start()]), literal.group())
        end = literal.end()
    return "".join((*shown, _without_tags(text[end:])))


def closed_response(text: str) -> str:
    """The same where something follows: code that was never closed ends with the response."""
    shown = response(text)
    for fence in ("```", "~~~"):
        if len(re.findall(rf"^ {{0,3}}{fence}", shown, re.MULTILINE)) % 2:
            shown += f"\n{fence}"
    return shown


def _without_tags(text: str) -> str:
    return text.replace("<", "&lt;").replace("![", "!&#91;")
