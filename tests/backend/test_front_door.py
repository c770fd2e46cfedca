"""What the server answers before, while and after the real app is installed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from backend.errors import ConfigurationError, Unavailable
from backend.front_door import FrontDoor

BROWSER = {"Accept": "text/html,*/*"}


def page(phase: str, _request: Request) -> str:
    return f"<p>{phase}</p>"


@pytest.fixture
def door() -> FrontDoor:
    return FrontDoor(page, phase="loading the model")


@pytest.fixture
def client(door: FrontDoor) -> Iterator[TestClient]:
    with TestClient(door) as client:
        yield client


class House:
    """An app that notes when and in which task its lifespan begins and ends."""

    def __init__(self, *, broken: bool = False) -> None:
        self.events: list[str] = []
        self._broken = broken
        self._tasks: list[Any] = []
        self.app = FastAPI(lifespan=self._lifespan)
        self.app.add_api_route("/hello", self._hello)

    @property
    def one_task(self) -> bool:
        return len(self._tasks) == 2 and self._tasks[0] is self._tasks[1]

    @asynccontextmanager
    async def _lifespan(self, _app: FastAPI) -> AsyncIterator[dict[str, str]]:
        if self._broken:
            raise OSError("no room")
        self._note("open")
        yield {"greeting": "good evening"}
        self._note("closed")

    def _note(self, event: str) -> None:
        self.events.append(event)
        self._tasks.append(asyncio.current_task())

    async def _hello(self, request: Request) -> str:
        return str(request.state.greeting)


def test_it_is_healthy_and_says_what_it_waits_for(door: FrontDoor, client: TestClient) -> None:
    assert client.get("/healthz").text == "ok"
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()) == (503, {"status": "loading the model"})
    door.announce("opening the pages")
    assert client.get("/readyz").json() == {"status": "opening the pages"}


def test_a_person_sees_a_waiting_page(client: TestClient) -> None:
    response = client.get("/lab/", headers=BROWSER)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "2"
    assert response.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert response.text == "<p>loading the model</p>"


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_program_is_told_to_wait(client: TestClient, method: str) -> None:
    response = client.request(method, "/gradio_api/info")
    assert response.status_code == 503
    assert response.headers["content-type"].startswith("text/plain")


def test_a_web_socket_is_closed_while_waiting(client: TestClient) -> None:
    with (
        pytest.raises(WebSocketDisconnect) as closed,
        client.websocket_connect("/anywhere"),
    ):
        pass
    assert closed.value.code == 1013


def test_an_installed_app_gets_the_requests_and_its_lifespan(door: FrontDoor) -> None:
    house = House()
    missing: list[str | None] = ["the model"]
    with TestClient(door) as client:
        door.install(house.app, lambda: missing[0])
        assert house.events == ["open"]
        assert client.get("/hello").json() == "good evening"
        assert client.get("/healthz").text == "ok"
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()) == (503, {"status": "the model"})
        missing[0] = None
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"status": "live"})
        assert client.get("/nothing").status_code == 404
    assert house.events == ["open", "closed"]
    assert house.one_task
    assert door.failure is None


def test_installing_waits_until_the_server_serves(door: FrontDoor) -> None:
    house = House()
    early = threading.Thread(target=door.install, args=(house.app, lambda: None))
    early.start()
    with TestClient(door) as client:
        early.join(timeout=20)
        assert client.get("/hello").status_code == 200


def test_an_app_that_does_not_start_is_remembered(door: FrontDoor) -> None:
    with TestClient(door) as client:
        with pytest.raises(ConfigurationError, match="OSError: no room"):
            door.install(House(broken=True).app, lambda: None)
        assert door.failure is not None
        assert "no room" in door.failure
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json() == {"status": "could not start; the log says why"}
        assert "could not start" in client.get("/", headers=BROWSER).text


def test_a_failure_elsewhere_is_remembered(door: FrontDoor, client: TestClient) -> None:
    door.fail("the model's folder is empty")
    assert door.failure == "the model's folder is empty"
    assert "folder" not in client.get("/readyz").text  # for the log, not for strangers


def test_nothing_is_installed_after_the_end(door: FrontDoor) -> None:
    with TestClient(door):
        pass
    with pytest.raises(Unavailable):
        door.install(House().app, lambda: None)
