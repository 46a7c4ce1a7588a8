"""Scores through a server are those of the same model in this process."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import FACTORY, pipeline, rows
from transformers import LlamaForCausalLM

from served.helpers import LABELS, TEXTS, engine, served
from served.server import FakeServer, random_log_probs
from spacy_relx.engine import prefix_tree
from spacy_relx.engine.remote.base import RemoteModel
from spacy_relx.engine.remote.chat import estimate
from spacy_relx.engine.remote.client import Client
from spacy_relx.engine.remote.dialects import LlamaCpp, Vllm
from spacy_relx.engine.remote.engine import RemoteEngine
from spacy_relx.engine.remote.spec import RemoteSpec
from spacy_relx.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Start = Callable[..., tuple[FakeServer, str]]

SERVERS: dict[str, dict[str, Any]] = {
    "vllm": {},
    "vllm that takes no token ids to report": {"reports_ids": False},
    "vllm with processed log-probabilities": {"processed": True, "reports_ids": False},
    "llama_cpp": {"api": "llama_cpp"},
}
COMPONENT = {"labels": LABELS, "no_relation": "no_relation", "keep_no_relation": True, "top_k": 5}


@pytest.fixture(scope="module")
def log_probs(tiny_llama: Path) -> Callable[[tuple[int, ...]], np.ndarray]:
    model = LlamaForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()
    lock = threading.Lock()

    @torch.inference_mode()
    def compute(ids: tuple[int, ...]) -> np.ndarray:
        with lock:
            values = model(torch.tensor([ids]), logits_to_keep=1).logits[0, -1].double().log_softmax(-1)
        return np.asarray(values)

    return compute


def assert_same(doc: Any, expected: Any) -> None:
    """The same relations, scores to 1e-4. Equally named ones are compared; near ties may come in another order."""
    found = {(*row[:-1],): row[-1] for row in rows(doc)}
    wanted = {(*row[:-1],): row[-1] for row in rows(expected)}
    assert found.keys() == wanted.keys()
    assert list(found.values()) == pytest.approx([wanted[key] for key in found], abs=1e-4)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("scoring", ["trie", "sequence"])
def test_scores_are_those_of_the_model(start: Start, tiny_llama: Path, log_probs: Any, kind: str, scoring: str) -> None:
    server, url = start(log_probs=log_probs, **SERVERS[kind])
    component = {**COMPONENT, "scoring": scoring}
    nlp = served(url, tiny_llama, component)
    if "processed" in kind and scoring == "sequence":
        with pytest.raises(ConfigError, match="--logprobs-mode raw_logprobs"):
            nlp(TEXTS[0])
        return
    local = pipeline(tiny_llama, **component)
    for text in TEXTS[2:] if scoring == "sequence" else TEXTS[1:]:
        assert_same(nlp(text), local(text))
    assert engine(nlp).work.n_forward >= len(server.answered) > 0


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("api", ["vllm", "llama_cpp"])
def test_free_answers_are_those_of_the_model(start: Start, tiny_llama: Path, log_probs: Any, api: str) -> None:
    _, url = start(api, log_probs)
    prompt = {"@misc": "spacy-relx.GenTunePrompt.v1", "max_new_tokens": 3}
    component = {**COMPONENT, "top_k": 1, "decoding": "free", "prompt": prompt}
    ours, local = served(url, tiny_llama, component)(TEXTS[1]), pipeline(tiny_llama, **component)(TEXTS[1])
    assert [a.text for a in ours._.relation_answers] == [a.text for a in local._.relation_answers] != []
    expected = [a.score for a in local._.relation_answers]
    assert [a.score for a in ours._.relation_answers] == pytest.approx(expected, abs=1e-4)


@given(
    api=st.sampled_from(["vllm", "llama_cpp"]),
    wanted=st.lists(st.integers(0, 49000), min_size=2, max_size=150, unique=True),
    ids=st.lists(st.integers(0, 49000), min_size=1, max_size=4),
    whole=st.booleans(),
    reports_ids=st.booleans(),
    spread=st.sampled_from([1.0, 4.0]),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_tokens_that_are_asked_about(
    api: str, wanted: list[int], ids: list[int], whole: bool, reports_ids: bool, spread: float
) -> None:
    """Whatever a server shows, all of the tokens or some: the tokens' shares are right to the stated tolerance."""

    def known(ids: tuple[int, ...]) -> np.ndarray:
        logits = random_log_probs(ids) * spread
        return logits - np.logaddexp.reduce(logits)

    server = FakeServer(api, known, reports_ids=reports_ids)
    with server.running() as url:
        remote = RemoteEngine(
            Client(RemoteSpec(url, "served", "x")), RemoteModel(None, {}, ""), Vllm() if api == "vllm" else LlamaCpp()
        )
        found = remote.look(tuple(ids), wanted, whole=whole, tolerance=1e-4)
        remote.close()
    truth = known(tuple(ids))
    assert sorted(found) == sorted(wanted)
    total = np.logaddexp.reduce([truth[token] for token in wanted])
    scale = 0.0 if whole else np.logaddexp.reduce(list(found.values())) - total
    for token, value in found.items():
        assert np.exp(value - scale - total) == pytest.approx(np.exp(truth[token] - total), abs=2e-4)
    assert len(server.asked) <= len(wanted)


def test_prompts_come_in_the_order_of_what_they_share(start: Start, embedded_base: Path) -> None:
    """A server that keeps what it computed last computes no token of the pairs' prefix tree twice."""
    server, url = start()
    nlp = served(url, embedded_base, max_concurrency=1)
    component = nlp.get_pipe(FACTORY)
    with nlp.select_pipes(disable=[FACTORY]):
        docs = [nlp(text) for text in TEXTS]
    component.load()
    component.ask(docs, pool=True)
    prompts = [tuple(request.body["prompt"]) for request in server.asked[:16]]
    computed, before = 0, ()
    for ids in prompts:
        shared = next((i for i, (a, b) in enumerate(zip(ids, before)) if a != b), min(len(ids), len(before)))
        computed, before = computed + len(ids) - shared, ids
    assert computed == len(prefix_tree.build(prompts))
    assert computed < sum(map(len, prompts)) / 4


def test_what_all_prompts_share_is_computed_before_they_come_together(start: Start, embedded_base: Path) -> None:
    server, url = start(seconds=0.05)
    nlp = served(url, embedded_base, max_concurrency=3)
    nlp(TEXTS[0])
    under_way = [request.n_under_way for request in server.asked]
    assert under_way[:2] == [1, 1]
    assert 2 <= max(under_way) <= 3
    nlp(TEXTS[1])  # the server knows it now
    assert max(request.n_under_way for request in server.asked[len(under_way) : len(under_way) + 3]) >= 2


def test_threads_share_what_may_be_under_way(start: Start, embedded_base: Path) -> None:
    server, url = start(seconds=0.01)
    nlp = served(url, embedded_base, max_concurrency=3)
    expected = Counter(map(str, (rows(nlp(text)) for text in TEXTS * 2)))
    found: list[str] = []
    threads = [threading.Thread(target=lambda t=text: found.append(str(rows(nlp(t))))) for text in TEXTS * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(found) == expected
    assert max(request.n_under_way for request in server.asked) <= 3


LABEL = st.text("abc_", min_size=1, max_size=4)


@given(labels=st.lists(LABEL, min_size=2, max_size=5, unique=True), seed=st.integers(0, 2**32 - 1), data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_estimate_never_claims_too_much(labels: list[str], seed: int, data: st.DataObject) -> None:
    """A model that writes characters: the estimate is its probability of the label among all, or less."""
    random = np.random.default_rng(seed)
    alphabet = [*"abc_", "$", "x"]  # `$` ends an answer, `x` is in no label
    ended = [label + "$" for label in labels]
    known: dict[str, np.ndarray] = {}

    def after(written: str) -> np.ndarray:
        return known.setdefault(written, random.dirichlet(np.ones(len(alphabet))))

    def probability(text: str) -> float:
        """Of a text, where only labels may be written."""
        result = 1.0
        for i, character in enumerate(text):
            allowed = {label[i] for label in ended if label[:i] == text[:i] and len(label) > i}
            p = after(text[:i])
            result *= p[alphabet.index(character)] / sum(p[alphabet.index(a)] for a in allowed)
        return result

    said = data.draw(st.sampled_from(ended))
    n_top = data.draw(st.integers(0, len(alphabet)))
    tokens = []
    for i, character in enumerate(said):
        p = after(said[:i])
        top = sorted(range(len(alphabet)), key=lambda j: -p[j])[:n_top]
        tokens.append(
            (character, float(np.log(p[alphabet.index(character)])), {alphabet[j]: float(np.log(p[j])) for j in top})
        )
    score = np.exp(estimate(said, said, ended, tokens))
    assert score <= probability(said) + 1e-9
    if n_top == len(alphabet):
        assert score == pytest.approx(probability(said))
