"""Templates: nothing sent is code, nothing is loaded from elsewhere, no path leads away."""

from __future__ import annotations

import re
from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ui.server_pages import ServerPages, error_page, local_path, waiting_page


def test_the_waiting_page_is_whole_in_itself() -> None:
    page = waiting_page("loading <the> model")
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
    ],
)
def test_an_error_has_a_page(status: int, message: str, shown: str) -> None:
    page = error_page(status, message)
    assert shown in page
    assert '<a class="button" href="/">' in page


def test_an_embedded_page_may_be_framed_by_hugging_face() -> None:
    page = ServerPages(embed=True).show("error.html", title="x", message="y")
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
