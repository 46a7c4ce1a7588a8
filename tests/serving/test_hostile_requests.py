"""Clients that mean ill, and failures inside: answers stay small, and tell nothing that is not the client's."""

from __future__ import annotations

import json
import logging
import socket
from typing import TYPE_CHECKING, Any

import pytest
from service import PATIENCE, TEXT, Service, scripted_pipeline, serving

from spacy_relx.errors import ConfigError, ServerError
from spacy_relx.serving.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("one_thread")

SECRET = "http://10.0.0.7:8000/v1"
PLACE = "Apple is in Cupertino."
SCRIPT: dict[Any, Any] = {("Apple", "Steve Jobs"): {"founded_by": 0.9}}


@pytest.fixture(scope="module")
def service(tokenizer: Any) -> Iterator[Service]:
    nlp, _ = scripted_pipeline(tokenizer, SCRIPT)
    with serving(nlp, Limits(max_body_bytes=400_000, max_wait_ms=0, max_body_seconds=0.5), pool=False) as running:
        yield running


def many(item: str, n: int = 30_000) -> str:
    return ",".join([item] * n)


FIELDS = ",".join(f'"{i}": 1' for i in range(30_000))


@pytest.mark.parametrize(
    "body",
    [
        f'{{"documents": [{many("{}")}]}}',
        f'{{"documents": [{{"text": "a", "entities": [{many("{}")}]}}]}}',
        f'{{"documents": [{{"text": "a", "entities": [{{{FIELDS}}}]}}]}}',
        f'{{"documents": [{{"text": "a", {FIELDS}}}]}}',
        f"{{{FIELDS}}}",
        f'{{"documents": [{{"text": "a"}}], "{"k" * 300_000}": 1}}',
        json.dumps({"documents": [{"text": "a", "id": "i" * 300_000}]}),
    ],
    ids=["documents", "entities", "fields of an entity", "fields of a document", "fields", "a long name", "a long id"],
)  # fmt: skip
def test_a_wrong_body_costs_little_however_much_of_it_is_wrong(service: Service, body: str) -> None:
    response = service.client.post("/relations", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["errors"]
    assert len(response.content) < 5000


@pytest.mark.parametrize(
    "body", [b'{"documents": [{"text": "\xff\xfe"}]}', b'{"documents": [{"text": "a", "id": ' + b"9" * 5000 + b"}]}"]
)
def test_what_is_no_json_is_a_problem(service: Service, body: bytes) -> None:
    response = service.client.post("/relations", content=body, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["title"]) == (400, "Bad Request")


def test_a_long_entity_is_not_repeated(service: Service) -> None:
    text = "a" * 40_000
    given = [{"start_char": 1, "end_char": 39_999, "label": "X"}]
    (document,) = service.post({"text": text, "entities": given}).json()["documents"]
    assert "does not begin and end where a token does" in document["error"]
    assert len(document["error"]) < 500


def test_who_stops_in_the_middle_is_refused_and_keeps_the_service_from_nothing(
    service: Service, tokenizer: Any
) -> None:
    head = b"POST /relations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"

    def connect(running: Service) -> socket.socket:
        slow = socket.create_connection(running.server.servers[0].sockets[0].getsockname()[:2], PATIENCE)
        slow.sendall(head)
        return slow

    with connect(service) as slow:
        answer = b""
        while more := slow.recv(4096):  # the connection is closed, too
            answer += more
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not come within 0.5 seconds" in answer
    nlp, _ = scripted_pipeline(tokenizer, {})
    with serving(nlp, Limits(max_body_seconds=1.0)) as running:
        slow = connect(running)
    slow.close()  # the service has ended before


@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_a_time_for_bodies_that_cannot_be(value: float) -> None:
    with pytest.raises(ConfigError, match="max_body_seconds is"):
        Limits(max_body_seconds=value)


def test_a_server_that_fails_is_a_problem_of_its_own(
    service: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = ServerError(f"The server at {SECRET} refuses the key", for_all=True)
    monkeypatch.setitem(SCRIPT, ("Apple", "Cupertino"), error)
    with caplog.at_level(logging.ERROR):
        response = service.post(PLACE)
    assert (response.status_code, response.headers["content-type"]) == (502, "application/problem+json")
    assert response.json()["title"] == "Bad Gateway"
    assert "the log here says why" in response.json()["detail"]
    assert "10.0.0.7" not in response.text
    assert f"The server at {SECRET} refuses the key" in caplog.text
    description = service.client.get("/openapi.json").json()["paths"]["/relations"]["post"]["responses"]
    assert set(description) == {"200", "400", "408", "413", "422", "500", "502", "503"}
    assert service.metric('relx_http_requests_total{method="POST",route="/relations",status="502"}') == 1
    assert len(service.post(TEXT).json()["documents"][0]["relations"]) == 1


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            ServerError(f"The server at {SECRET} refuses a request"),
            "server that computes the model gave no usable answer",
        ),
        (OSError(2, "No such file", SECRET), "FileNotFoundError; the service's log says more"),
    ],
    ids=["server", "file"],
)
def test_a_document_that_fails_tells_its_sender_no_addresses_and_no_paths(
    service: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    monkeypatch.setitem(SCRIPT, ("Apple", "Cupertino"), error)
    with caplog.at_level(logging.ERROR):
        response = service.post(PLACE, TEXT)
    failed, good = response.json()["documents"]
    assert told in failed["error"]
    assert SECRET not in response.text
    assert SECRET in caplog.text
    assert len(good["relations"]) == 1
