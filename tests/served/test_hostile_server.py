"""A server that means ill: whatever it answers is one clear error, is soon over, and never shows the key."""

from __future__ import annotations

import gzip
import json
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from served.helpers import TEXTS, served
from served.server import FakeServer, Fault
from spacy_relx._inputs import Record
from spacy_relx._stream import process
from spacy_relx.engine.remote import client
from spacy_relx.engine.remote.client import PassingError
from spacy_relx.engine.remote.dialects import LlamaCpp, Vllm
from spacy_relx.engine.remote.spec import RemoteSpec
from spacy_relx.errors import ConfigError, ServerError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Start = Callable[..., tuple[FakeServer, str]]

KEY = "sk-0123456789-secret"


def message(content: str, **more: Any) -> bytes:
    return json.dumps({"choices": [{"message": {"content": content}, "finish_reason": "stop"} | more]}).encode()


def raw(content: bytes, status: int = 200, **headers: str) -> Fault:
    return Fault("raw", status=status, headers={k.replace("_", "-"): v for k, v in headers.items()}, content=content)


DEEP = b"[" * 100_000
FAULTS = {
    "nested too deeply": (raw(DEEP), "an answer that is no JSON"),
    "an error that is nested too deeply": (raw(DEEP, 400), "refuses a request"),
    "a label that is nested too deeply": (raw(message(DEEP.decode())), "which is none of the"),
    "a bomb in a packing that was not asked for": (raw(b"x", Content_Encoding="zstd"), "packed as 'zstd'"),
    "a packing in a packing": (raw(gzip.compress(b"{}"), Content_Encoding="gzip, gzip"), "packed as 'gzip, gzip'"),
    "a packing that is none": (raw(b"x" * 20, Content_Encoding="gzip"), "cannot be unpacked"),
    "endless": (raw(gzip.compress(b" " * 200_000), Content_Encoding="gzip"), "more than 150000 bytes"),
    "to no address": (raw(b"", 307, Location="http://["), r"redirects to http://\["),
    "to nowhere": (raw(b"", 302), "redirects to nowhere"),
    "the key in an address": (
        raw(b"", 307, Location=f"http://other/{KEY}?{KEY}"),
        r"redirects to http://other/\[key\] ",
    ),
    "the key in a label": (raw(message(KEY)), r"the answer '\[key\]'"),
    "the key in what is no JSON": (raw(KEY.encode()), r"no JSON: '\[key\]'"),
    "orders for the terminal": (raw(b'{"error": "\\u001b]0;owned\\u0007\\u202e"}', 400), r"\(400: \]0;owned\)"),
    "half a character": (raw(message("\ud800")), r"the answer '\\ud800'"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_hostile_answers_are_clear_errors(start: Start, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("SERVED_KEY", KEY)
    monkeypatch.setattr(client, "_MOST_BYTES", 150_000)
    fault, expected = FAULTS[name]
    _, url = start("openai", fault=lambda number, body: fault)
    nlp = served(url, api_key_env="SERVED_KEY", max_retries=1, require_scores=False)
    with pytest.raises(ServerError, match=expected) as caught:
        nlp(TEXTS[2])
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


NUMBERS = ["Infinity", "NaN", "1e999", "5.0", "1000.0", "1" + "0" * 400, "-1" + "0" * 400, '"x"', "null", "[]"]


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_that_are_no_log_probabilities(start: Start, number: str) -> None:
    token = {"token": "works_for", "logprob": 0, "top_logprobs": []}
    content = message("works_for", logprobs={"content": [token]}).replace(
        b'"logprob": 0', f'"logprob": {number}'.encode()
    )
    _, url = start("openai", fault=lambda n, body: raw(content))
    with pytest.raises(ServerError, match="no usable answer"):
        served(url, max_retries=0)(TEXTS[2])
    value = json.loads(number)
    logprobs: Any = {"tokens": ["token_id:1"], "token_logprobs": [value], "top_logprobs": [{"token_id:1": value}]}
    with pytest.raises(PassingError):
        Vllm().seen({"choices": [{"logprobs": logprobs}]})
    for item in (
        {"id": 1, "logprob": value, "top_logprobs": []},
        {"id": 1, "prob": value, "top_probs": [{"id": 1, "prob": value}]},
    ):
        with pytest.raises(PassingError):
            LlamaCpp().seen({"choices": [{"logprobs": {"content": [item]}}]})


@pytest.mark.parametrize("token", ["-1", "1e999", "99999999999999999999"])
def test_tokens_that_no_vocabulary_has(token: str) -> None:
    with pytest.raises(PassingError):
        Vllm().written(
            {
                "choices": [
                    {"finish_reason": "stop", "logprobs": {"tokens": [f"token_id:{token}"], "token_logprobs": [0]}}
                ]
            },
            frozenset(),
        )
    with pytest.raises(PassingError):
        LlamaCpp().written(
            {
                "choices": [
                    {"finish_reason": "stop", "logprobs": {"content": [{"id": json.loads(token), "logprob": 0}]}}
                ]
            },
            frozenset(),
        )


def test_half_a_character_in_a_free_answer_can_be_saved(start: Start) -> None:
    _, url = start("openai", fault=lambda number, body: raw(message("a\ud800b")))
    doc = served(url, component={"decoding": "free"}, require_scores=False)(TEXTS[2])
    assert {answer.text for answer in doc._.relation_answers} == {"a?b"}
    assert doc.to_bytes()


def test_a_version_of_five_thousand_digits(start: Start) -> None:
    _, url = start("vllm", version="9" * 5000 + ".1")
    assert served(url)(TEXTS[2])._.relations


@pytest.mark.parametrize("name", ["http://h/v1\r\nX-Other: y", "http://h/v1\n", "http://a b/v1", "http://h\x00/v1"])
def test_addresses_with_what_nobody_sees(name: str) -> None:
    with pytest.raises(ConfigError, match="white space or characters that nobody sees"):
        RemoteSpec(name, "m")


@pytest.mark.parametrize("name", ["http://../v1", f"http://{'a' * 300}/v1", "http://xn--a/v1"])
def test_addresses_that_no_network_takes(embedded_base: Path, name: str) -> None:
    with pytest.raises(ServerError, match="Nothing can be sent to"):
        served(name, max_retries=0)(TEXTS[2])


def test_a_refused_request_costs_its_document_and_a_refused_key_the_run(start: Start) -> None:
    """As in `annotate` and `serve`: what is about one document goes into its error, what is about all ends the run."""
    status = 400

    def fault(number: int, body: Any) -> Fault | None:
        return Fault("status", status) if "hired" in body["messages"][-1]["content"] else None

    _, url = start("openai", fault=fault)
    nlp = served(url, max_retries=0)
    records = [Record(i, text) for i, text in enumerate(TEXTS)]
    results = list(process(nlp, records))
    assert [result.record.id for result in results] == [0, 1, 2, 3]
    assert [result.error is None for result in results] == [True, False, True, True]
    assert "refuses a request (400" in str(results[1].error)
    status = 401
    with pytest.raises(ServerError, match="refuses the key"):
        list(process(nlp, records))
