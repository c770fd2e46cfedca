"""The web app's middleware, and request → user, with real Gradio pages behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from fastapi import FastAPI, Request, WebSocket
from starlette.responses import Response
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from backend.administration import Administration
from backend.auth import Accounts, SignedIn
from backend.errors import AttuneError, NotSignedIn, TooManyRequests
from backend.web import SESSION_COOKIE, SessionCookie, Visitors, client_address, create_web
from db.session import Database
from tests.backend.people import GOOD, HOME, cheap
from tests.conftest import Clock

BROWSER = {"Accept": "text/html,*/*"}
HERE = "http://testserver"


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    """SQLite is enough here: what both databases must do is tested in test_auth.py."""
    database = Database(sqlite_url)
    yield database
    database.close()


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    folder = tmp_path / "assets"
    folder.mkdir()
    (folder / "tokens.css").write_text(":root{}")
    return folder


def error_page(status: int, message: str, _request: Request) -> str:
    return f"<h1>{status}</h1>{message}"


def web(assets: Path, **options: Any) -> FastAPI:
    """The app with a few routes to call."""
    app = create_web(assets=assets, error_page=error_page, **options)

    @app.post("/act")
    async def act(request: Request) -> dict[str, object]:
        return {"bytes": len(await request.body()), "scheme": request.url.scheme}

    @app.get("/own-policy")
    async def own_policy() -> Response:
        return Response(headers={"Content-Security-Policy": "default-src 'none'"})

    @app.websocket("/socket")
    async def socket(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close()

    return app


@pytest.fixture
def client(assets: Path) -> TestClient:
    return TestClient(web(assets))


# Headers


def test_every_answer_carries_the_security_headers(client: TestClient) -> None:
    for response in (client.get("/assets/tokens.css"), client.get("/nothing"), client.post("/act")):
        headers = response.headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["connect-src"] == "'self'"
        assert policy["img-src"] == "'self' data: blob:"
        assert policy["frame-ancestors"] == policy["object-src"] == "'none'"
        assert policy["form-action"] == policy["base-uri"] == "'self'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["x-frame-options"] == "DENY"
        assert "camera=()" in headers["permissions-policy"]


def test_a_page_may_be_stricter_than_that(client: TestClient) -> None:
    policies = client.get("/own-policy").headers.get_list("content-security-policy")
    assert policies == ["default-src 'none'"]


def test_only_hugging_face_may_frame_an_embedded_app(assets: Path) -> None:
    client = TestClient(web(assets, embed=True, form_targets=("https://huggingface.co",)))
    headers = client.get("/nothing").headers
    policy = headers["content-security-policy"]
    assert "frame-ancestors https://huggingface.co" in policy
    assert "form-action 'self' https://huggingface.co" in policy
    assert "x-frame-options" not in headers


# Origins


@pytest.mark.parametrize(
    "headers",
    [
        {},  # no browser
        {"Origin": HERE},
        {"Origin": HERE, "Sec-Fetch-Site": "same-origin"},
        {"Origin": "https://attune.example"},
        {"Origin": "https://attune.example", "Sec-Fetch-Site": "cross-site"},  # a rewriting proxy
        {"Sec-Fetch-Site": "same-origin"},
    ],
)
def test_our_own_posts_pass(assets: Path, headers: dict[str, str]) -> None:
    client = TestClient(web(assets, public_url="https://attune.example/"))
    assert client.post("/act", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "https://testserver"},
        {"Origin": f"{HERE}:8080"},
        {"Origin": f"{HERE}.evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://[nonsense"},
        {"Origin": HERE, "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_posts_from_other_sites_are_refused(
    client: TestClient, headers: dict[str, str], method: str
) -> None:
    response = client.request(method, "/act", headers=headers)
    assert response.status_code == 403
    assert "content-security-policy" in response.headers


def test_a_web_socket_from_another_site_is_refused(client: TestClient) -> None:
    with client.websocket_connect("/socket", headers={"Origin": HERE}):
        pass
    with (
        pytest.raises(WebSocketDisconnect) as closed,
        client.websocket_connect("/socket", headers={"Origin": "https://evil.example"}),
    ):
        pass
    assert closed.value.code == 1008


def test_no_other_site_may_read(client: TestClient) -> None:
    evil = {"Origin": "https://evil.example"}
    response = client.get("/nothing", headers=evil)
    preflight = client.options("/act", headers={**evil, "Access-Control-Request-Method": "POST"})
    assert preflight.status_code == 400
    for answer in (response, preflight):
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("public_url", "scheme"), [("https://attune.example", "https"), ("", "http")]
)
def test_a_proxys_word_counts_only_where_we_are_known_by_https(
    assets: Path, public_url: str, scheme: str
) -> None:
    client = TestClient(web(assets, public_url=public_url))
    response = client.post("/act", headers={"X-Forwarded-Proto": "https, http"})
    assert response.json()["scheme"] == scheme


# Size, files, errors


def test_long_requests_are_refused_whether_or_not_they_say_so(assets: Path) -> None:
    client = TestClient(web(assets, max_body_bytes=1000))
    assert client.post("/act", content=b"x" * 1000).json()["bytes"] == 1000
    assert client.post("/act", content=b"x" * 1001).status_code == 413
    assert client.post("/act", content=iter([b"x" * 600] * 2)).status_code == 413


def test_assets_are_served_and_only_they(client: TestClient, assets: Path) -> None:
    response = client.get("/assets/tokens.css")
    assert response.headers["content-type"].startswith("text/css")
    again = client.get("/assets/tokens.css", headers={"If-None-Match": response.headers["etag"]})
    assert again.status_code == 304
    (assets.parent / "secret").write_text("x")
    assert client.get("/assets/..%2fsecret").status_code == 404


def test_a_person_sees_a_page_where_a_program_gets_json(client: TestClient) -> None:
    assert client.get("/nothing").json() == {"detail": "Not Found"}
    page = client.get("/nothing", headers=BROWSER)
    assert page.status_code == 404
    assert page.text == "<h1>404</h1>Not Found"
    script = client.get("/nothing", headers={**BROWSER, "Sec-Fetch-Mode": "cors"})
    assert script.json() == {"detail": "Not Found"}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TooManyRequests("Please wait.", retry_after_s=7), 429),
        (NotSignedIn("Please sign in."), 401),
        (AttuneError("Something else."), 500),
    ],
)
def test_expected_errors_have_their_status(assets: Path, error: AttuneError, status: int) -> None:
    app = web(assets)

    @app.get("/fails")
    def fails() -> None:
        raise error

    response = TestClient(app).get("/fails")
    assert (response.status_code, response.json()) == (status, {"detail": str(error)})
    assert response.headers.get("retry-after") == ("7" if status == 429 else None)
    if status == 401:
        page = TestClient(app).get("/fails?x=1", headers=BROWSER, follow_redirects=False)
        assert page.headers["location"] == "/login?next=/fails%3Fx%3D1"


# Cookies


@pytest.mark.parametrize(
    ("secure", "embed", "attributes"),
    [
        (False, False, "Path=/; HttpOnly; SameSite=Lax"),
        (True, False, "Path=/; HttpOnly; SameSite=Lax; Secure"),
        (True, True, "Path=/; HttpOnly; SameSite=None; Secure; Partitioned"),
    ],
)
def test_cookies_have_the_right_attributes(secure: bool, embed: bool, attributes: str) -> None:
    user = SignedIn(user=None, token="tok", browser="bro", lasts_s=60)  # type: ignore[arg-type]
    cookie = SessionCookie(secure=secure, embed=embed)
    response = Response()
    cookie.remember(response, user)
    cookie.forget(response)
    assert response.headers.getlist("set-cookie") == [
        f"attune_session=tok; Max-Age=60; {attributes}",
        f"attune_browser=bro; Max-Age=34560000; {attributes}",
        f"attune_session=; Max-Age=0; {attributes}",
    ]


# Gradio behind it


@pytest.fixture
def accounts(database: Database, clock: Clock) -> Accounts:
    return Accounts(database, passwords=cheap(), clock=clock)


def gradio_page(answer: str) -> gr.Blocks:
    """A page whose button tells who presses it."""

    def who(request: gr.Request) -> str:
        return f"{answer} {request.username}"

    with gr.Blocks(analytics_enabled=False) as page:
        shown = gr.Textbox()
        gr.Button("who").click(who, None, shown, api_name="who")
    return page


async def with_gradio(app: FastAPI, visitors: Visitors) -> None:
    """Two Gradio pages; a coroutine, because outside a loop Gradio opens some and leaves them."""
    for path, dependency in (("/lab", visitors.researcher_only), ("/", visitors.page_user)):
        gr.mount_gradio_app(
            app,
            gradio_page(path),
            path,
            auth_dependency=dependency,
            show_error=False,
            run_history=False,
            footer_links=[],
            ssr_mode=False,
        )


@pytest.fixture
def house(assets: Path, accounts: Accounts) -> Iterator[TestClient]:
    app = web(assets)
    asyncio.run(with_gradio(app, Visitors(accounts)))
    with TestClient(app, follow_redirects=False) as client:
        yield client


def call(client: TestClient, base: str, token: str | None) -> Any:
    headers = {"Cookie": f"{SESSION_COOKIE}={token}"} if token else {}
    return client.post(f"{base}/gradio_api/run/who", json={"data": []}, headers=headers)


def test_strangers_are_sent_to_the_sign_in_page(house: TestClient) -> None:
    page = house.get("/", headers=BROWSER)
    assert (page.status_code, page.headers["location"]) == (303, "/login")
    lab = house.get("/lab/?theme=dark", headers=BROWSER)
    assert (lab.status_code, lab.headers["location"]) == (303, "/login?next=/lab/%3Ftheme%3Ddark")
    for token in (None, "made-up", ""):
        assert call(house, "", token).status_code == 401
        assert call(house, "/lab", token).status_code == 401
    for path in ("/config", "/gradio_api/info", "/gradio_api/queue/data?session_hash=x"):
        assert house.get(path).status_code == 401


def test_the_handler_knows_who_presses(house: TestClient, accounts: Accounts) -> None:
    mara = accounts.sign_up("mara", GOOD, address=HOME)
    guest = accounts.guest(address=HOME)
    for signed_in in (mara, guest):
        answer = call(house, "", signed_in.token).json()
        assert answer["data"] == [f"/ {signed_in.user.id}"]
    accounts.sign_out(mara.token)
    assert call(house, "", mara.token).status_code == 401


def test_the_lab_is_for_researchers(
    house: TestClient, accounts: Accounts, database: Database, clock: Clock
) -> None:
    administration = Administration(database, clock=clock)
    invite = administration.first_admin_invite()
    chief = accounts.sign_up("chief", GOOD, address=HOME, invite=invite)
    mara = accounts.sign_up("mara", GOOD, address=HOME)
    cookie = {"Cookie": f"{SESSION_COOKIE}={mara.token}"}
    assert call(house, "/lab", mara.token).status_code == 403
    refused = house.get("/lab/", headers={**BROWSER, **cookie})
    assert refused.status_code == 403
    assert "This is for researchers." in refused.text
    administration.set_role(chief.user.id, mara.user.id, "researcher")
    assert call(house, "/lab", mara.token).json()["data"] == [f"/lab {mara.user.id}"]
    page = house.get("/lab/", headers={**BROWSER, **cookie})
    assert page.status_code == 200
    assert "gradio_config" in page.text


def test_gradios_own_doors_stay_shut(house: TestClient, accounts: Accounts) -> None:
    token = accounts.sign_up("mara", GOOD, address=HOME).token
    evil = {"Origin": "https://evil.example", "Cookie": f"{SESSION_COOKIE}={token}"}
    assert house.post("/gradio_api/run/who", json={"data": []}, headers=evil).status_code == 403
    read = house.get("/config", headers=evil)
    assert read.status_code == 200
    assert "access-control-allow-origin" not in read.headers
    assert "access-control-allow-credentials" not in read.headers


def test_gradios_files_show_beside_ours(house: TestClient, accounts: Accounts) -> None:
    cookie = {"Cookie": f"{SESSION_COOKIE}={accounts.sign_up('mara', GOOD, address=HOME).token}"}
    page = house.get("/", headers={**BROWSER, **cookie}).text
    script = page.split('src="./assets/', 1)[1].split('"', 1)[0]
    assert house.get(f"/assets/{script}").status_code == 200
    assert house.get("/assets/tokens.css").text == ":root{}"


def test_the_address_is_what_the_server_says() -> None:
    forged = [(b"x-forwarded-for", b"203.0.113.9")]
    scope = {"type": "http", "client": ("192.0.2.1", 5), "headers": forged}
    assert client_address(Request(scope)) == "192.0.2.1"
    assert client_address(Request({**scope, "client": None})) == "unknown"
