"""Forms without scripts: the fields that were sent, and the page again with what was wrong."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from backend.errors import AttuneError, TooManyRequests
from backend.web import status_of
from ui.server_pages import ServerPages


async def fields(request: Request) -> dict[str, str]:
    """The text fields of a posted form; files are not asked for and not kept."""
    async with request.form(max_files=0, max_fields=20) as form:
        return {name: value for name, value in form.items() if isinstance(value, str)}


def show_form(
    shown: ServerPages, request: Request, template: str, error: AttuneError | None, **values: Any
) -> Response:
    """A page with a form; `error`, its status and its sentence, where the form was refused."""
    language = shown.languages.of(request)
    response = shown.show(
        request,
        template,
        status_of(error) if error is not None else 200,
        error=language.sentence(error.sentence) if error is not None else None,
        **values,
    )
    if isinstance(error, TooManyRequests):
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response
