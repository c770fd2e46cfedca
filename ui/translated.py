"""Gradio's pages in the language of whoever opens them.

Gradio builds a page's components once. What `later` marked in them is put into words here, in the
page and in the configuration that Gradio's script may fetch again; and the page says what language
it is in. Knows no page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.language import Language

_MARKED = re.compile("\ue000(.*?)\ue001", re.DOTALL)
_HTML_TAG = re.compile(r'<html(\s+)lang="en"')
_TRANSLATED = ("text/html", "application/json")


class Translated:
    """Middleware around one of Gradio's apps.

    Args:
        language_of: the language of a request.
    """

    def __init__(self, app: ASGIApp, *, language_of: Callable[[Request], Language]) -> None:
        self._app = app
        self._language_of = language_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        start: Message | None = None  # of a page that is held back until it is whole
        body = b""

        async def put_into_words(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start" and _has_texts(message):
                start = message
                return
            if start is None:
                await send(message)
                return
            body += message.get("body", b"")
            if message.get("more_body", False):
                return
            language = self._language_of(Request(scope))
            whole = in_words(body.decode(), language).encode()
            headers = MutableHeaders(raw=start["headers"])
            headers["Content-Length"] = str(len(whole))
            headers.add_vary_header("Cookie")
            headers.add_vary_header("Accept-Language")
            await send(start)
            await send({"type": "http.response.body", "body": whole})

        await self._app(scope, receive, put_into_words)


def in_words(page: str, language: Language) -> str:
    """`page` with every marked text in this language.

    Marked texts stand inside JSON and JavaScript strings, and so do what replaces them.
    """

    def text_of(found: re.Match[str]) -> str:
        text = language.text(json.loads(f'"{found.group(1)}"'))
        return json.dumps(text, ensure_ascii=False)[1:-1].replace("<", "\\u003c")

    # Said twice: Gradio's script writes over the first, and `language.js` mends it by the second.
    page = _HTML_TAG.sub(
        rf'<html\1lang="{language.code}" data-language="{language.code}"'
        rf' dir="{language.direction}"',
        page,
        count=1,
    )
    return _MARKED.sub(text_of, page)


def _has_texts(start: Message) -> bool:
    content_type = Headers(raw=start["headers"]).get("content-type", "")
    return content_type.startswith(_TRANSLATED)
