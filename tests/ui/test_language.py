"""Which language somebody reads, what a catalogue may lack, and that ours lack nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from babel import Locale
from babel.messages.pofile import read_po

from backend.errors import ConfigurationError, TooManyRequests
from backend.wording import Counted, Sentence, msg
from dev.catalogues import texts, update
from tests.backend.people import GOOD
from tests.conftest import CATALOGUES, Clock
from tests.ui.visiting import Site, text
from ui import language
from ui.language import Language, Languages, forms, later, placeholders
from ui.translated import in_words

SHIPPED = sorted(language.CATALOGUES.glob("*.po"))


def reads(accept: str = "", kept: str = "", *, languages: Languages | None = None) -> str:
    """The code of the language somebody reads."""
    cookies = {language.COOKIE: kept} if kept else {}
    asking = SimpleNamespace(headers={"accept-language": accept}, cookies=cookies)
    return (languages or Languages()).of(asking).code


def written(folder: Path, code: str, body: str) -> Path:
    """A folder with one catalogue."""
    head = 'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=utf-8\\n"\n\n'
    (folder / f"{code}.po").write_text(head + body, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("accept", "kept", "code"),
    [
        ("", "", "en"),
        ("de-AT,de;q=0.9,en;q=0.8", "", "de"),
        ("fr,ja;q=0.2,de;q=0.9", "", "de"),
        ("de;q=0, ja", "", "ja"),
        ("DE", "", "de"),
        ("fr, de;q=nonsense, *", "", "en"),
        ("de", "ja", "ja"),
        ("de", "xx", "de"),
        ("de" * 9999, "../de", "en"),
    ],
)
def test_whose_choice_counts(accept: str, kept: str, code: str) -> None:
    assert reads(accept, kept) == code


def test_the_operator_decides_for_the_others() -> None:
    assert reads("fr", languages=Languages("de")) == "de"
    with pytest.raises(ConfigurationError, match="no catalogue for the language fr"):
        Languages("fr")


def test_a_file_dropped_in_is_a_language(tmp_path: Path) -> None:
    folder = written(tmp_path, "pt_BR", 'msgid "Skip"\nmsgstr "Pular"\n')
    languages = Languages(folders=(language.CATALOGUES, folder))
    assert [one.code for one in languages.offered] == ["de", "en", "ja", "pt-BR"]
    assert reads("pt-BR", languages=languages) == "pt-BR"
    assert reads(kept="pt-br", languages=languages) == "pt-BR"
    brazilian = next(one for one in languages.offered if one.code == "pt-BR")
    assert (brazilian.name, brazilian.direction) == ("português (Brasil)", "ltr")
    assert (brazilian.text("Skip"), brazilian.text("Undo")) == ("Pular", "Undo")


def test_what_cannot_be_filled_in_is_shown_in_english(tmp_path: Path) -> None:
    broken = "\n".join(
        f'msgid "{source}"\nmsgstr "{shown}"\n'
        for source, shown in (
            ("{count} of {most}", "{count} sur {moist}"),
            ("one {a}", "un {a.__class__}"),
            ("two {a}", "deux {"),
            ("three {a}", "trois"),
        )
    )
    languages = Languages(folders=(written(tmp_path, "fr", broken),))
    french = next(one for one in languages.offered if one.code == "fr")
    assert french.text("{count} of {most}", count=1, most=2) == "1 of 2"
    assert french.text("one {a}", a=1) == "one 1"
    assert french.text("two {a}", a=1) == "two 1"
    assert french.text("three {a}", a=1) == "trois"


@pytest.mark.parametrize(
    ("code", "body"), [("fr", 'msgid "x'), ("nonsense-x", ""), ("de", "\0\xff")]
)
def test_a_catalogue_that_cannot_be_read_is_named(tmp_path: Path, code: str, body: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{code}.po"):
        Languages(folders=(written(tmp_path, code, body),))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no folder of languages"):
        Languages(folders=(tmp_path / "gone",))


def test_plurals_are_the_languages_own() -> None:
    languages = Languages(folders=(language.CATALOGUES, CATALOGUES))
    known = {one.code: one for one in languages.offered}
    choices = Counted("{count} choice", "{count} choices")

    def said(code: str, count: int) -> str:
        return known[code].text(choices, count=count)

    assert [said("en", n) for n in (0, 1, 2)] == ["0 choices", "1 choice", "2 choices"]
    assert [said("de", n) for n in (1, 2)] == ["1 Entscheidung", "2 Entscheidungen"]
    assert said("ja", 1) == "選択 1 件"
    assert len({said("ar", n).replace(str(n), "") for n in (0, 1, 2, 3, 11, 100)}) == 6


def test_numbers_are_written_as_the_language_does() -> None:
    known = {one.code: one for one in Languages().offered}
    choices = Counted("{count} choice", "{count} choices")
    shown = {code: known[code].text(choices, count=12345) for code in ("en", "de", "ja")}
    assert shown == {"en": "12,345 choices", "de": "12.345 Entscheidungen", "ja": "選択 12,345 件"}
    assert known["de"].text("{name} of {most}", name="2000", most=2000) == "2000 of 2.000"
    percent = {code: known[code].percent(0.794) for code in ("en", "de", "ja")}
    assert percent == {"en": "79%", "de": "79\N{NO-BREAK SPACE}%", "ja": "79%"}
    error = Sentence("{count} of {most}", {"count": 1, "most": 4000})
    assert known["de"].sentence(error) == "1 of 4.000"


def test_an_error_is_said_in_the_readers_language() -> None:
    german = next(one for one in Languages().offered if one.code == "de")
    error = TooManyRequests(
        Counted(
            "Too many tries. Please wait a second and try again.",
            "Too many tries. Please wait {count} seconds and try again.",
        ),
        count=7,
        retry_after_s=7,
    )
    assert str(error) == "Too many tries. Please wait 7 seconds and try again."
    assert german.sentence(error.sentence).startswith("Zu viele Versuche. Bitte warte 7 Sekunden")
    assert german.sentence(Sentence("nobody's {text}", {"text": "x"})) == "nobody's x"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_our_catalogues_say_everything(path: Path) -> None:
    with path.open("rb") as file:
        catalogue = read_po(file, locale=Locale.parse(path.stem))
    wanted = {message.id for message in texts() if message.id}
    assert {message.id for message in catalogue if message.id} == wanted
    plurals = catalogue.num_plurals
    for message in catalogue:
        if not message.id:
            continue
        sources, said = forms(message.id), forms(message.string)
        assert len(said) == (plurals if len(sources) > 1 else 1), message.id
        for shown in said:
            assert shown.strip(), message.id
            assert placeholders(shown) is not None, shown
            assert tags(shown) == tags(sources[-1]), shown
        named = {frozenset(placeholders(source) or ()) for source in sources}
        assert placeholders(said[-1]) in named, message.id
        assert all(placeholders(shown) in named for shown in said), message.id


def test_people_read_one_word_per_thing() -> None:
    """A response is no answer, and what is made without a taste is everybody's."""
    of_verdicts = "That is not one of the answers."
    said = [text for message in texts() for text in forms(message.id) if text != of_verdicts]
    other = re.compile(r"\banswers\b|\b(?:an?|one|the|right) answer\b|\beveryone", re.IGNORECASE)
    assert [text for text in said if other.search(text)] == []


def tags(shown: str) -> list[str]:
    """The markup in a text; outside of it nothing may end an attribute or begin a tag."""
    found = re.findall(r"<[^>]*>", shown)
    assert not set('"<>`') & set(re.sub(r"<[^>]*>", "", shown)), shown
    return sorted(found)


def test_a_catalogue_keeps_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "de.po"
    path.write_bytes((language.CATALOGUES / "de.po").read_bytes())
    update(path, texts())
    assert path.read_bytes() == (language.CATALOGUES / "de.po").read_bytes()
    fresh = tmp_path / "fr.po"
    update(fresh, texts())
    assert 'msgid "Skip"\nmsgstr ""' in fresh.read_text("utf-8")
    assert Languages(folders=(tmp_path,)).offers("fr")


def test_marked_texts_stay_inside_the_strings_they_stand_in() -> None:
    class Hostile(Language):
        def __init__(self) -> None:
            self.code, self.direction = "xx", "rtl"

        def text(self, text: str | Counted, /, **values: object) -> str:
            return f'"{text}"</script>\\'

    page = f'<html lang="en"><script>f("{later(msg("a"))}")</script>{{"b": "{later("x")}"}}'
    assert in_words(page, Hostile()) == (
        '<html lang="xx" data-language="xx" dir="rtl">'
        '<script>f("\\"a\\"\\u003c/script>\\\\")</script>'
        '{"b": "\\"x\\"\\u003c/script>\\\\"}'
    )


@pytest.fixture
def site(sqlite_url: str, clock: Clock) -> Iterator[Site]:
    opened = Site(sqlite_url, clock)
    yield opened
    opened.close()


def test_a_choice_is_kept_with_the_account(site: Site) -> None:
    member = site.member()
    at = {"language": "de", "next": "/account"}
    assert member.post("/language", data=at).headers["location"] == "/account"
    assert "Abmelden" in text(member.get("/account"))
    elsewhere = site.visitor()
    elsewhere.headers["Accept-Language"] = "ja"
    assert "ログイン" in text(elsewhere.get("/login"))
    elsewhere.post("/login", data={"username": "mara", "password": GOOD})
    assert '<html lang="de" dir="ltr">' in elsewhere.get("/account").text
    elsewhere.post("/language", data={"language": "", "next": "/account"})
    assert '<html lang="ja" dir="ltr">' in elsewhere.get("/account").text


def test_a_form_is_answered_in_the_readers_language(site: Site) -> None:
    visitor = site.visitor()
    visitor.headers["Accept-Language"] = "de"
    form = {"username": "mara", "password": "short"}
    assert "mindestens 10 Zeichen" in text(visitor.post("/signup", data=form))
    form = {"username": "<b>", "password": GOOD}
    assert "Ein Name hat 3 bis 32 Buchstaben" in text(visitor.post("/signup", data=form))
    assert "Hier ist nichts" in text(visitor.get("/nowhere"))


def test_what_is_not_offered_changes_nothing(site: Site) -> None:
    visitor = site.visitor()
    for wrong in ("xx", "de; Path=/", "../de"):
        answer = visitor.post("/language", data={"language": wrong, "next": "//evil.example"})
        assert answer.headers["location"] == "/"
        assert "set-cookie" not in answer.headers
    assert visitor.get("/language").status_code == 303
