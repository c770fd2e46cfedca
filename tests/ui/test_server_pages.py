"""Templates: nothing sent is code, nothing is loaded from elsewhere, no path leads away."""

from __future__ import annotations

import re
from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from ui.language import Languages
from ui.server_pages import ErrorPage, ServerPages, WaitingPage, local_path

LANGUAGES = Languages()


def asking(**headers: str) -> Request:
    """Somebody's request for a page."""
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": raw}
    return Request({**scope, "scheme": "http", "server": ("here", 80)})


def test_the_waiting_page_is_whole_in_itself() -> None:
    page = WaitingPage(LANGUAGES)("loading <the> model", asking())
    assert "Loading &lt;the&gt; model …" in page
    assert '<meta http-equiv="refresh" content="2">' in page
    assert "--accent:" in page  # the tokens stand in it
    assert not re.search(r"(?:src|href)=|url\(|@import|<script", page)


@pytest.mark.parametrize(
    ("status", "message", "shown"),
    [
        (403, "This is for researchers.", "This is for researchers."),
        (404, "Not Found", "The address may be mistyped"),
        (500, "<b>", "&lt;b&gt;"),
        (500, "", "Something went wrong on our side."),
    ],
)
def test_an_error_has_a_page(status: int, message: str, shown: str) -> None:
    page = ErrorPage(LANGUAGES)(status, message, asking())
    assert shown in page
    assert '<a class="button" href="/">' in page


def test_an_embedded_page_may_be_framed_by_hugging_face() -> None:
    pages = ServerPages(LANGUAGES, embed=True)
    page = pages.show(asking(), "error.html", title="x", message="y")
    assert "frame-ancestors https://huggingface.co" in page.headers["content-security-policy"]


@given(
    st.one_of(
        st.text(),
        st.text(alphabet="/\\:.@?#%\t\n ax", max_size=12),
        st.text(alphabet="/\\:.@?#%\t\n ax", max_size=12).map(lambda tail: f"/{tail}"),
    )
)
def test_a_local_path_stays_here(target: str) -> None:
    path = local_path(target)
    # A browser drops tabs and line breaks and takes a backslash for a slash.
    seen = re.sub(r"[\t\r\n]", "", path).replace("\\", "/")
    assert urlsplit(urljoin("https://attune.example/login", seen)).netloc == "attune.example"
    assert path.startswith("/")


@pytest.mark.parametrize("target", ["/", "/lab/", "/lab/?theme=dark#rounds", "/invite/a_B-9"])
def test_a_path_of_ours_is_kept(target: str) -> None:
    assert local_path(target) == target
