"""A server that fails: no pair is lost, none is asked twice without need, and the last word is a clear error."""

from __future__ import annotations

import email.utils
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import FACTORY, rows

from served.helpers import N_PAIRS, TEXTS, engine, questions, served
from served.server import FakeServer, Fault
from spacy_relx.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Start = Callable[..., tuple[FakeServer, str]]

FAULTS = [
    Fault("status", 429, {"Retry-After": "0"}),
    Fault("status", 500),
    Fault("status", 503, {"Retry-After": "soon"}),
    Fault("drop"),
    Fault("cut"),
    Fault("garbage"),
    Fault("wrong"),
    Fault("empty"),
    Fault("bare"),
]
APIS = ["vllm", "llama_cpp", "openai"]


def tokenizer_for(api: str, base: Path) -> Path | None:
    return None if api == "openai" else base


def check_repeated(bad: FakeServer, good: FakeServer, n_attempts: int, faults: list[Fault]) -> None:
    """Every question was answered once, and whatever failed was asked again."""
    assert sorted(questions(bad)) == sorted(questions(good))
    assert len(set(questions(bad))) == len(questions(bad)) >= N_PAIRS
    met = [request.fault for request in bad.asked if request.fault is not None]
    assert {fault.kind for fault in met} == {fault.kind for fault in faults}
    assert len(bad.asked) == len(good.asked) + len(met)
    assert n_attempts == len(bad.requests)


@pytest.mark.parametrize("api", APIS)
def test_failed_requests_are_repeated_and_no_others(start: Start, embedded_base: Path, api: str) -> None:
    good, url = start(api)
    expected = [rows(doc) for doc in served(url, tokenizer_for(api, embedded_base)).pipe(TEXTS)]
    bad, url = start(api, fault=lambda number, body: FAULTS[number // 2 % len(FAULTS)] if number % 2 else None)
    nlp = served(url, tokenizer_for(api, embedded_base))
    assert [rows(doc) for doc in nlp.pipe(TEXTS)] == expected
    check_repeated(bad, good, engine(nlp).client.n_attempts, FAULTS)
    assert engine(nlp).work.n_prompts == N_PAIRS


def test_an_answer_that_does_not_come_is_asked_for_again(start: Start, embedded_base: Path) -> None:
    late = {1: Fault("slow", seconds=60.0), 4: Fault("drip", seconds=0.1)}
    good, url = start()
    expected = [rows(doc) for doc in served(url, embedded_base).pipe(TEXTS)]
    bad, url = start(fault=lambda number, body: late.get(number))
    nlp = served(url, embedded_base, timeout=3.0)
    assert [rows(doc) for doc in nlp.pipe(TEXTS)] == expected
    check_repeated(bad, good, engine(nlp).client.n_attempts, list(late.values()))


@given(plan=st.lists(st.sampled_from([None, *FAULTS]), max_size=30))
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_of_faults(embedded_base: Path, plan: list[Fault | None]) -> None:
    server = FakeServer(fault=lambda number, body: plan[number] if number < len(plan) else None)
    with server.running() as url:
        nlp = served(url, embedded_base, max_retries=40)
        docs = list(nlp.pipe(TEXTS))
    assert [len(rows(doc)) for doc in docs] == [8, 6, 2, 0]
    assert len(set(questions(server))) == len(questions(server))
    assert len(server.asked) == len(server.answered) + sum(fault is not None for fault in plan[: len(server.asked)])


@pytest.mark.parametrize(("api", "decoding"), [*((api, "constrained") for api in APIS), ("vllm", "free")])
def test_a_request_that_fails_for_good_costs_its_document(
    start: Start, embedded_base: Path, smollm2_tokenizer: Any, api: str, decoding: str
) -> None:
    """All documents are under way together, and one pair of the second never gets an answer."""

    def fault(number: int, body: dict[str, Any]) -> Fault | None:
        text = smollm2_tokenizer.decode(body["prompt"]) if "prompt" in body else body["messages"][-1]["content"]
        return Fault("status", 500) if "hired" in text and "Entity 1: Cupertino\nEntity 2: Apple" in text else None

    _, url = start(api)
    component = {"decoding": decoding}
    nlp = served(url, tokenizer_for(api, embedded_base), component)
    nlp("Apple is in Cupertino.")  # connected: documents are asked about together from now on
    expected = [rows(doc) for doc in nlp.pipe(TEXTS)]
    bad, url = start(api, fault=fault)
    nlp = served(url, tokenizer_for(api, embedded_base), component, max_retries=2)
    nlp("Apple is in Cupertino.")
    failed: list[tuple[str, str]] = []
    nlp.get_pipe(FACTORY).set_error_handler(
        lambda name, proc, docs, error: failed.extend((doc.text, str(error)) for doc in docs)
    )
    docs = list(nlp.pipe(TEXTS))
    assert [doc.text for doc in docs] == [TEXTS[0], *TEXTS[2:]]
    assert [rows(doc) for doc in docs] == [expected[0], *expected[2:]]
    assert [text for text, _ in failed] == [TEXTS[1]]
    assert "no usable answer in 3 attempts" in failed[0][1]
    assert "status 500: out of order" in failed[0][1]
    assert len(set(questions(bad))) == len(questions(bad))
    assert len([request for request in bad.asked if request.fault is not None]) == 3
    with pytest.raises(ServerError, match="no usable answer"):
        nlp.get_pipe(FACTORY).predict([_with_entities(nlp, TEXTS[1])])


def _with_entities(nlp: Any, text: str) -> Any:
    with nlp.select_pipes(disable=[FACTORY]):
        return nlp(text)


@pytest.mark.parametrize(
    ("fault", "message", "n_requests"),
    [
        (Fault("status", 401, message="who are you"), r"refuses the key \(401: who are you\).*api_key_env", 1),
        (Fault("status", 403), "refuses the key", 1),
        (Fault("status", 404, message="no such model"), r"no model 'served' \(404: no such model\)", 1),
        (
            Fault("status", 400, message="unknown field x"),
            r"refuses a request \(400: unknown field x\).*extra_body",
            16,
        ),
        (
            Fault("status", 307, {"Location": "http://elsewhere.example/v1"}),
            "redirects to http://elsewhere.example/v1",
            1,
        ),
    ],
)
def test_what_will_not_change_is_said_at_once(
    start: Start, embedded_base: Path, fault: Fault, message: str, n_requests: int
) -> None:
    server, url = start(fault=lambda number, body: fault)
    nlp = served(url, embedded_base, max_concurrency=1)
    docs = [_with_entities(nlp, text) for text in TEXTS]
    component = nlp.get_pipe(FACTORY)
    component.load()
    failed: list[str] = []
    component.set_error_handler(lambda name, proc, docs, error: failed.append(str(error)))
    assert [doc.text for doc in component.pipe(docs)] == TEXTS[3:]
    assert len(server.asked) == n_requests
    assert len(failed) == 3
    with pytest.raises(ServerError, match=message):
        component.predict(docs)


def test_nobody_there(embedded_base: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    nlp = served(url, embedded_base, max_retries=1)
    with pytest.raises(ServerError, match=r"in 2 attempts.*Start the server, or check model\.base_url"):
        nlp(TEXTS[0])


def test_a_server_that_goes_away_is_not_asked_about_every_pair(start: Start, embedded_base: Path) -> None:
    server = FakeServer()
    with server.running() as url:
        nlp = served(url, embedded_base, max_retries=1, max_concurrency=2)
        nlp(TEXTS[0])
    before = engine(nlp).client.n_attempts
    docs = [_with_entities(nlp, text) for text in TEXTS]
    with pytest.raises(ServerError, match="gave no usable answer"):
        nlp.get_pipe(FACTORY).predict(docs)
    assert engine(nlp).client.n_attempts - before <= 8  # two requests under way, two attempts each, and some slack


def test_tls_where_the_server_has_none(start: Start, embedded_base: Path) -> None:
    server, url = start()
    with pytest.raises(ServerError, match="No secure connection"):
        served(url.replace("http:", "https:"), embedded_base)(TEXTS[0])
    assert server.requests == []


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_the_pause_that_a_server_asks_for(
    start: Start, embedded_base: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    value = "7" if form == "seconds" else email.utils.formatdate(time.time() + 9, usegmt=True)
    server, url = start(fault=lambda number, body: Fault("status", 429, {"Retry-After": value}) if not number else None)
    assert rows(served(url, embedded_base)(TEXTS[2]))
    assert 6 < max(pauses) < 10
    assert len(server.asked) == 3


def test_a_pause_longer_than_the_patience_is_an_error_at_once(start: Start, embedded_base: Path) -> None:
    server, url = start(fault=lambda number, body: Fault("status", 429, {"Retry-After": "3600"}))
    with pytest.raises(ServerError, match=r"in 1 attempts.*429"):
        served(url, embedded_base, total_timeout=30.0, max_concurrency=1)(TEXTS[2])
    assert len(server.asked) <= 2


def test_the_models_there_are_named(start: Start, embedded_base: Path) -> None:
    _, url = start(models=("base", "re_gentune"))
    with pytest.raises(ServerError, match=r"no model 'served'\. Expected for model\.model one of: base, re_gentune"):
        served(url, embedded_base)(TEXTS[0])


@pytest.mark.parametrize("api", ["vllm", "llama_cpp"])
def test_another_tokenizer_is_found(start: Start, embedded_base: Path, smollm2_tokenizer: Any, api: str) -> None:
    def own(text: str) -> list[int]:
        return list(smollm2_tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    _, url = start(api, tokenize=own)
    assert rows(served(url, embedded_base)(TEXTS[2]))
    _, url = start(api, tokenize=lambda text: [*own(text), 5])
    with pytest.raises(ServerError, match="makes other tokens of a text"):
        served(url, embedded_base)(TEXTS[2])


def test_a_server_without_token_ids_takes_no_tokenizer(start: Start, embedded_base: Path) -> None:
    _, url = start("openai")
    with pytest.raises(ValueError, match="takes no token ids"):
        served(url, embedded_base)(TEXTS[0])
