"""Texts as Markdown: prompts literal, responses without HTML and images."""

from __future__ import annotations

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ui.markup import closed_response, plain, response


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
        ("``a`<b>`` <i>", "``a`<b>`` &lt;i>"),
        (
            "1. do\n   ```html\n   <p>\n   ```\n2. <b>",
            "1. do\n   ```html\n   <p>\n   ```\n2. &lt;b>",
        ),
        ("~~~~\n<p>\n~~~\n<p>\n~~~~\n<b>", "~~~~\n<p>\n~~~\n<p>\n~~~~\n&lt;b>"),
    ],
)
def test_response(text: str, shown: str) -> None:
    assert response(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "Use ~~~ like <b>this</b> ![x](https://example.org/x.png) here",
        "Type ``` to open a block. Then <u>write</u>",
        "```a``` b\n<b>",
        "``a<b>`",
        "\\`<b>`",
        "a\n    ```\n<b>",
        "1. a\n   ```\n<b>",
        "~~~\r x\r~~~\r<b>",
        "$$ a\n\n<b> $$",
    ],
)
def test_what_only_looks_like_code_has_no_tags_either(text: str) -> None:
    assert "<" not in response(text)
    assert "![" not in response(text)


def test_code_that_was_never_closed_ends_with_the_response() -> None:
    assert closed_response("a\n~~~~\nb\n~~~") == "a\n~~~~\nb\n~~~\n~~~~"
    assert closed_response("```\na\n```") == "```\na\n```"
    assert closed_response("1. a\n   ```\nb") == "1. a\n   ```\nb"
