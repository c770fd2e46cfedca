"""Texts as Markdown: prompts literal, responses without HTML and images."""

from __future__ import annotations

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ui.markup import plain, response


@given(st.text())
def test_plain_says_exactly_the_text(text: str) -> None:
    numbered = [int(part.split(";")[0]) for part in plain(text).split("&#")[1:]]
    assert all(not chr(number).isalnum() for number in numbered)
    kept = "".join(
        piece if index == 0 else chr(int(piece.split(";", 1)[0])) + piece.split(";", 1)[1]
        for index, piece in enumerate(plain(text).split("&#"))
    )
    assert kept == text.strip()


@given(st.text(alphabet="ab <>&*_`#$\\![](){}|~-+.\n\t\"'1"))
def test_plain_leaves_nothing_that_means_something(text: str) -> None:
    assert not set(plain(text)) & set("<>*_`$\\![](){}|~-+.\n\t\"'")


def test_plain_is_what_html_reads_as_the_text() -> None:
    assert html.unescape(plain("<b>${7*7}</b> & *x*")) == "<b>${7*7}</b> & *x*"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a <b>bold</b> move", "a &lt;b>bold&lt;/b> move"),
        ("<script>x</script>", "&lt;script>x&lt;/script>"),
        ("![x](https://example.org/x.png)", "!&#91;x](https://example.org/x.png)"),
        ("1. one\n2. *two*", "1. one\n2. *two*"),
        ("use `a<b` here <i>", "use `a<b` here &lt;i>"),
        ("```html\n<p>\n```\n<p>", "```html\n<p>\n```\n&lt;p>"),
        ("```html\n<p> still being writ", "```html\n<p> still being writ"),
        ("$$a<b$$ and a<b", "$$a<b$$ and a&lt;b"),
    ],
)
def test_response(text: str, shown: str) -> None:
    assert response(text) == shown
