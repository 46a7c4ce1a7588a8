"""Servers that render the prompts themselves and write one label."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tiny import rows

from served.helpers import LABELS, TEXTS, engine, served
from served.server import FakeServer, Fault
from spacy_relx.errors import ConfigError, ServerError

if TYPE_CHECKING:
    from collections.abc import Callable

    Start = Callable[..., tuple[FakeServer, str]]

APIS = ["vllm", "llama_cpp", "tgi", "openai"]


def choose(messages: list[dict[str, str]], choices: list[str]) -> list[float]:
    """The model likes one label for each head."""
    favourite = "works_for" if "Entity 1: Ada" in messages[-1]["content"] else "founded_by"
    return [0.7 if choice == favourite else 0.3 / (len(choices) - 1) for choice in choices]


@pytest.mark.parametrize("api", APIS)
def test_the_label_that_the_server_chooses(start: Start, api: str) -> None:
    server, url = start(api, choose=choose)
    nlp = served(url)
    doc = nlp(TEXTS[1])
    assert engine(nlp).api == api
    assert {(r.head.text, r.label) for r in doc._.relations} == {
        ("Ada Lovelace", "works_for"),
        ("Apple", "founded_by"),
        ("Cupertino", "founded_by"),
    }
    assert [r.score for r in doc._.relations] == pytest.approx([0.7] * 6, abs=1e-6)
    body = server.asked[0].body
    system, query = body["messages"]
    assert system["role"] == "system"
    assert "works_for" in system["content"]
    assert query["content"].startswith("Sentence: Apple hired")
    # The template's date is pinned where a server takes it.
    assert ("chat_template_kwargs" in body) == (api in ("vllm", "llama_cpp"))


@pytest.mark.parametrize(
    ("api", "version", "constraint"),
    [
        ("vllm", "0.12.1", {"structured_outputs": {"choice": ["a b", "c.d"]}}),
        ("vllm", "0.10.2", {"guided_choice": ["a b", "c.d"]}),
        ("llama_cpp", "", {"grammar": 'root ::= "a b" | "c.d"'}),
        ("tgi", "", {"response_format": {"type": "regex", "value": r"(a\ b|c\.d)"}}),
    ],
)
def test_what_keeps_a_server_to_the_labels(start: Start, api: str, version: str, constraint: dict[str, Any]) -> None:
    server, url = start(api, version=version)
    served(url, component={"labels": ["a b", "c.d"], "no_relation": None})(TEXTS[2])
    body = server.asked[0].body
    assert {name: body[name] for name in constraint} == constraint


def test_the_openai_api_gets_a_schema(start: Start) -> None:
    server, url = start("openai")
    served(url)(TEXTS[2])
    body = server.asked[0].body
    form = body["response_format"]["json_schema"]
    assert form["strict"]
    assert form["schema"]["properties"]["relation"]["enum"] == [*LABELS, "no_relation"]
    assert "max_completion_tokens" in body


def test_labels_that_types_forbid_are_no_choice(start: Start) -> None:
    server, url = start()
    labels = {"works_for": {"head": ["PERSON"]}, "in": {"head": ["ORG"]}, "led_by": {"head": ["ORG"]}}
    doc = served(url, component={"labels": labels, "no_relation": None})("Steve Jobs co-founded Apple.")
    # One label alone needs no server, as it needs no model.
    assert [row[-2:] for row in rows(doc)] == [["works_for", 1.0], ["in", pytest.approx(0.5)]]
    assert [request.body["structured_outputs"]["choice"] for request in server.asked] == [["in", "led_by"]]


def test_without_scores(start: Start) -> None:
    server, url = start(choose=choose)
    doc = served(url, require_scores=False)(TEXTS[2])
    assert {row[-1] for row in rows(doc)} == {1.0}
    assert "logprobs" not in server.asked[0].body


def test_a_server_without_scores_says_what_to_do(start: Start) -> None:
    _, url = start(fault=lambda number, body: Fault("bare"))
    with pytest.raises(ServerError, match=r"Set model\.require_scores to false"):
        served(url, max_retries=0)(TEXTS[2])


def test_a_server_that_does_not_keep_to_the_labels_is_told_of(start: Start) -> None:
    _, url = start(fault=lambda number, body: Fault("wrong"))
    with pytest.raises(ServerError, match=r"'nonsense'.* none of the 5 labels: the server did not keep to them"):
        served(url, max_retries=1)(TEXTS[2])


def test_free_answers(start: Start) -> None:
    _, url = start()
    doc = served(url, component={"decoding": "free"})(TEXTS[2])
    assert [row[-2:] for row in rows(doc)] == [["works_for", pytest.approx(0.7408, abs=1e-4)]] * 2


@pytest.mark.parametrize(("setting", "value"), [("top_k", 2), ("scoring", "sequence")])
def test_what_cannot_be_had_is_refused_before_anything_is_asked(setting: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{setting} is .*model\.tokenizer is null.*Expected top_k=1"):
        served("http://127.0.0.1:9/v1", component={setting: value})


def test_more_labels_than_a_server_gives_are_refused_later_too(start: Start) -> None:
    server, url = start()
    nlp = served(url)
    doc = nlp(TEXTS[2])
    with pytest.raises(ConfigError, match="top_k is 3"):
        nlp.get_pipe("llama_relation_extractor").ask([doc], top_k=3)
    assert json.dumps(server.asked[-1].body)
