"""The guide: what choosing does, in a page of plain words. Readable without an account."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from ui.server_pages import ServerPages


def add_guide(app: FastAPI, *, embed: bool) -> None:
    """Put the guide at /guide; call before Gradio takes `/`."""
    pages = ServerPages(embed=embed)

    def show(_request: Request) -> Response:
        return pages.show("guide.html")

    app.add_route("/guide", show, methods=["GET"])
