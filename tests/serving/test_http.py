"""The service over real HTTP on loopback: answers, limits, overload, bad input, stopping, and its own description."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from service import PATIENCE, TEXT, Gate, Service, scripted_pipeline, serving
from tiny import FACTORY, MENTIONS, pipeline
from typer.testing import CliRunner

from spacy_relx.cli import app as commands
from spacy_relx.errors import ConfigError, ModelNotFoundError
from spacy_relx.serving import create_app
from spacy_relx.serving.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("one_thread")

SCRIPT = {("Apple", "Steve Jobs"): {"founded_by": 0.9}, ("Steve Jobs", "Apple"): {"works_for": 0.8}}
LIMITS = Limits(max_body_bytes=2000, max_documents=3, max_chars=100, max_waiting=6, max_batch=4, max_wait_ms=1)


@pytest.fixture(scope="module")
def service(tokenizer: Any) -> Iterator[Service]:
    """A service whose answers are known."""
    nlp, _ = scripted_pipeline(tokenizer, SCRIPT)
    with serving(nlp, LIMITS) as running:
        yield running


def found(response: httpx.Response) -> list[list[tuple[Any, ...]]]:
    """What a response says, without the offsets."""
    assert response.status_code == 200, response.text
    return [
        [(r["head"]["text"], r["label"], r["tail"]["text"], round(r["score"], 4)) for r in document["relations"]]
        for document in response.json()["documents"]
    ]


# Answers.


def test_texts_become_entities_and_relations(service: Service) -> None:
    response = service.post({"text": TEXT, "id": 7}, {"text": "Nobody.", "id": "two"})
    assert response.headers["content-type"] == "application/json"
    first, second = response.json()["documents"]
    assert (first["id"], first["error"]) == (7, None)
    assert first["entities"][1] == {
        "start": 3, "end": 4, "start_char": 19, "end_char": 24, "label": "ORG", "text": "Apple",
    }  # fmt: skip
    assert found(response) == [
        [("Steve Jobs", "works_for", "Apple", 0.8), ("Apple", "founded_by", "Steve Jobs", 0.9)],
        [],
    ]
    assert second == {"id": "two", "entities": [], "relations": [], "error": None}


def test_given_entities_are_kept(service: Service) -> None:
    text = "Steve Jobs met Ann at Apple."
    given = [
        {"start_char": 22, "end_char": 27, "label": "ORG"},
        {"start_char": 15.0, "end_char": 18, "label": "PERSON"},
    ]
    response = service.post({"text": text, "entities": given}, {"text": text}, {"text": text, "entities": []})
    assert [[entity["text"] for entity in document["entities"]] for document in response.json()["documents"]] == [
        ["Ann", "Apple"],
        ["Steve Jobs", "Apple"],
        [],
    ]


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (
            [(1, 3)],
            "'pp', characters 1 to 3, does not begin and end where a token does. The tokens there are 'Apple', 0 to",
        ),
        ([(0, 6)], "characters 0 to 6, but the text has 5"),
        ([(5, 5)], "characters 5 to 5, but the text has 5"),
        ([(2, 5), (0, 5)], "overlap at character 2"),
        ([(10**30, 10**31)], "but the text has 5"),
    ],
)
def test_a_document_that_fails_costs_no_other(service: Service, places: list[tuple[int, int]], message: str) -> None:
    entities = [{"start_char": start, "end_char": end, "label": "X"} for start, end in places]
    bad, good = service.post({"text": "Apple", "entities": entities}, TEXT).json()["documents"]
    assert message in bad["error"]
    assert (bad["entities"], bad["relations"]) == ([], [])
    assert len(good["relations"]) == 2


def test_concurrent_requests_get_their_own_answers(tiny_llama: Path) -> None:
    people = [name for name, label in MENTIONS.items() if label == "PERSON"]
    texts = [f"{people[i % 2]} came to Apple in {1900 + i}." for i in range(20)]
    nlp = pipeline(tiny_llama)
    expected = [[(*r.triple, round(r.score, 4)) for r in nlp(text)._.relations] for text in texts]
    assert len({str(each) for each in expected}) > len(texts) / 2  # a mix-up would be seen
    with serving(nlp, Limits(max_wait_ms=20)) as running:
        with ThreadPoolExecutor(10) as pool:
            answers = list(pool.map(lambda text: found(running.post(text))[0], texts))
        assert running.metric("relx_batch_documents_sum") == len(texts)
    # Other documents in a pack change a score in its last digits only.
    assert [[r[:3] for r in answer] for answer in answers] == [[r[:3] for r in each] for each in expected]
    for answer, each in zip(answers, expected):
        assert [r[3] for r in answer] == pytest.approx([r[3] for r in each], abs=2e-4)


def test_requests_share_a_pass(tokenizer: Any) -> None:
    gate = Gate()
    nlp, engine = scripted_pipeline(tokenizer, gate)
    with serving(nlp) as running, ThreadPoolExecutor(12) as pool:
        first = pool.submit(running.post, TEXT)
        assert gate.entered.wait(PATIENCE)
        later = [pool.submit(running.post, TEXT) for _ in range(11)]
        running.wait_for(12)
        gate.open.set()
        assert all(len(found(future.result())[0]) == 2 for future in [first, *later])
    assert [len(call) for call in engine.calls] == [2, 22]


def test_without_pooling_every_document_has_a_pass(tokenizer: Any) -> None:
    nlp, engine = scripted_pipeline(tokenizer, SCRIPT)
    with serving(nlp, pool=False) as running:
        running.post(TEXT, TEXT, TEXT)
    assert [len(call) for call in engine.calls] == [2, 2, 2]


# Overload and stopping.


def test_overload_is_told_and_loses_nothing(tokenizer: Any) -> None:
    gate = Gate()
    nlp, engine = scripted_pipeline(tokenizer, gate)
    with serving(nlp, LIMITS) as running, ThreadPoolExecutor(30) as pool:
        futures = [pool.submit(running.post, TEXT) for _ in range(6)]
        running.wait_for(6)
        refused = list(pool.map(lambda _: running.post(TEXT), range(20)))
        gate.open.set()
        responses = [future.result() for future in futures]
        assert found(running.post(TEXT))  # there is room again
        assert running.metric('relx_http_requests_total{method="POST",route="/relations",status="503"}') == 20
        assert running.metric('relx_documents_total{outcome="ok"}') == 7
    assert [response.status_code for response in refused] == [503] * 20
    assert all(int(response.headers["retry-after"]) >= 1 for response in refused)
    assert refused[0].headers["content-type"] == "application/problem+json"
    assert "6 documents are waiting" in refused[0].json()["detail"]
    assert all(len(found(response)[0]) == 2 for response in responses)
    assert len(engine.pairs) == 2 * 7  # a refused document costs nothing


def test_stopping_answers_what_was_accepted(tokenizer: Any) -> None:
    gate = Gate()
    nlp, _ = scripted_pipeline(tokenizer, gate)
    with serving(nlp) as running, ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(running.post, TEXT) for _ in range(8)]
        running.wait_for(8)
        running.server.should_exit = True
        while running.server.servers[0].is_serving():
            time.sleep(0.01)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{running.url}/health", timeout=PATIENCE)
        gate.open.set()
        assert all(len(found(future.result())[0]) == 2 for future in futures)


def test_sigterm_under_load_loses_no_accepted_request(tiny_llama: Path, tmp_path: Path) -> None:
    pipeline(tiny_llama).to_disk(tmp_path / "pipeline")
    options = ["--pipeline", str(tmp_path / "pipeline"), "--port", "0", "--max-wait", "3000"]
    command = [sys.executable, "-m", "spacy_relx", "serve", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process, ThreadPoolExecutor(12) as pool:
        assert process.stderr is not None
        try:
            lines: list[str] = []
            while not (place := re.search(r"running on (http://127\.0\.0\.1:\d+)", lines[-1] if lines else "")):
                lines.append(process.stderr.readline())
                assert lines[-1], "".join(lines)
            drain = threading.Thread(target=process.stderr.read)
            drain.start()
            body = {"documents": [{"text": TEXT}]}
            with httpx.Client(base_url=place[1], timeout=PATIENCE) as client:
                futures: list[Future[httpx.Response]] = []
                while client.get("/health").json()["waiting_documents"] < 12:
                    if all(future.done() for future in futures):  # they did not all come in the time that a batch waits
                        futures = [pool.submit(client.post, "/relations", json=body) for _ in range(12)]
                process.send_signal(signal.SIGTERM)
                answers = [found(future.result()) for future in futures]
            assert answers == [answers[0]] * 12
            assert answers[0][0]
            assert process.wait(PATIENCE) in (0, -signal.SIGTERM)
            drain.join(PATIENCE)
        finally:
            process.kill()


# Bad input.


@pytest.mark.parametrize(
    ("body", "status", "path", "message"),
    [
        (b"{", 422, "[1]", "JSON decode error"),
        (b"[" * 1900, 400, None, None),
        (b"{}", 422, "documents", "Field required"),
        (b'{"documents": []}', 422, "documents", "at least 1 item"),
        (b'{"documents": [{"text": 5}]}', 422, "documents[0].text", "valid string"),
        (b'{"documents": [{"text": "\\ud800"}]}', 422, "documents[0].text", "unicode"),
        (b'{"documents": [{"text": "a", "id": NaN}]}', 422, "documents[0].id.constrained-str", "valid string"),
        (b'{"documents": [{"text": "a", "id": 1.5}]}', 422, "documents[0].id.constrained-str", "valid string"),
        (b'{"documents": [{"text": "a", "txet": "b"}]}', 422, "documents[0].txet", "not permitted"),
        (b'{"documents": [{"text": "a"}], "labels": []}', 422, "labels", "not permitted"),
        (json.dumps({"documents": [{"text": "a"}] * 4}).encode(), 422, "documents", "at most 3 items"),
        (json.dumps({"documents": [{"text": "a" * 101}]}).encode(), 422, "documents[0].text", "at most 100 characters"),
        (b"x" * 2001, 413, None, "more than 2000 bytes"),
    ],
)  # fmt: skip
def test_bad_bodies_are_problems(
    service: Service, body: bytes, status: int, path: str | None, message: str | None
) -> None:
    response = service.client.post("/relations", content=body, headers={"content-type": "application/json"})
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["status"], problem["type"]) == (status, "about:blank")
    if path is not None:
        assert problem["errors"][0]["path"] == path
        assert message in problem["errors"][0]["message"]
    elif message is not None:
        assert message in problem["detail"]


def test_a_body_of_unknown_length_has_a_limit_too(service: Service) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b" " * 500

    try:
        response = service.client.post("/relations", content=endless(), headers={"content-type": "application/json"})
    except httpx.TransportError:  # it was cut off while it was still sending
        return
    assert response.status_code == 413


def test_other_ways_and_methods(service: Service) -> None:
    for method, path, status in (("GET", "/relations", 405), ("POST", "/health", 405), ("GET", "/nowhere", 404)):
        response = service.client.request(method, path)
        assert (response.status_code, response.json()["status"]) == (status, status)
    plain = {"content-type": "text/plain"}
    assert (
        service.client.post("/relations", content=b'{"documents": [{"text": "a"}]}', headers=plain).status_code == 422
    )


def test_a_model_that_fails_is_a_problem_and_the_service_goes_on(tokenizer: Any) -> None:
    script = {**SCRIPT, ("Apple", "Cupertino"): ModelNotFoundError("gone")}
    nlp, _ = scripted_pipeline(tokenizer, script)
    with serving(nlp) as running:
        response = running.post("Apple is in Cupertino.")
        assert response.status_code == 500
        assert response.headers["connection"] == "close"
        assert "gone" not in response.text
        assert response.json()["title"] == "Internal Server Error"
        assert len(found(running.post(TEXT))[0]) == 2


# What it tells about itself.


def test_health_metrics_and_description(tokenizer: Any) -> None:
    nlp, _ = scripted_pipeline(tokenizer, SCRIPT)
    with serving(nlp, LIMITS) as running:
        assert running.client.get("/health").json()["live"] is True
        assert running.client.get("/health/ready").status_code == 200
        running.post(TEXT)
        running.client.get("/nowhere/else")
        running.client.request("PROPFIND", "/relations")
        text = running.client.get("/metrics").text
        assert running.client.get("/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")
        description = running.client.get("/openapi.json").json()
    for line in (
        'relx_documents_total{outcome="ok"} 1.0',
        "relx_relations_total 2.0",
        "relx_batch_documents_sum 1.0",
        "relx_waiting_documents 0.0",
        'relx_http_requests_total{method="GET",route="other",status="404"} 1.0',
        'relx_http_requests_total{method="other",route="/relations",status="405"} 1.0',
    ):
        assert line in text.splitlines()
    schemas = description["components"]["schemas"]
    assert schemas["Request"]["properties"]["documents"]["maxItems"] == 3
    assert schemas["Document"]["properties"]["text"]["maxLength"] == 100
    assert "HTTPValidationError" not in schemas
    assert set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(description))) <= set(schemas)


# Settings.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_batch": 0}, "max_batch is 0. Expected at least 1"),
        ({"max_wait_ms": -1}, "max_wait_ms is -1. Expected at least 0"),
        ({"max_documents": 9, "max_waiting": 8}, "the largest request could never be accepted"),
    ],
)
def test_limits_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Limits(**settings)


def test_a_pipeline_without_relations_is_refused() -> None:
    nlp = pipeline()
    nlp.remove_pipe(FACTORY)
    with pytest.raises(ConfigError, match="no relation extractor among"):
        create_app(nlp)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "spacy_relx.serving.app", raising=False)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(
        ConfigError, match=r"Serving needs fastapi. Install it with `pip install 'spacy-relx\[serve\]'`"
    ):
        create_app(pipeline())


def test_the_command_says_what_it_cannot_use() -> None:
    result = CliRunner().invoke(commands, ["serve", "--max-waiting", "1"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: max_waiting is 1, which is less than max_documents (64)")
    assert CliRunner().invoke(commands, ["serve", "--port", "70000"]).exit_code == 2


def test_a_model_that_is_not_there_is_told_before_the_service_listens(tmp_path: Path) -> None:
    pipeline(tmp_path / "no-model").to_disk(tmp_path / "pipeline")
    result = CliRunner().invoke(commands, ["serve", "--pipeline", str(tmp_path / "pipeline"), "--port", "0"])
    assert result.exit_code == 1
    assert "no-model" in result.stderr
    assert "Traceback" not in result.stderr
