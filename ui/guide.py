"""The guide: what choosing does, in a page of plain words. Readable without an account."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from ui.server_pages import ServerPages


def add_guide(app: FastAPI, pages: ServerPages) -> None:
    """Put the guide at /guide; call before Gradio takes `/`."""

    def show(request: Request) -> Response:
        return pages.show(request, "guide.html")

    app.add_route("/guide", show, methods=["GET"])
