"""One component called from several threads at once gives every Doc what it gives it alone."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from tiny import FACTORY, MENTIONS, model_block, pipeline, rows

from spacy_relx.engine import loading
from spacy_relx.errors import ConfigError, ModelError
from spacy_relx.models import build_causal_lm
from spacy_relx.shim import engine_shim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from spacy.language import Language

N_THREADS = 3
PEOPLE = [name for name, label in MENTIONS.items() if label == "PERSON"]
#: Every sentence is another, so that an answer given to the wrong Doc shows, and a cache helps nobody.
TEXTS = [
    f"{PEOPLE[i % 2]} came to Apple in {1900 + i}. {PEOPLE[i // 2 % 2]} saw Cupertino in {1950 + i}." for i in range(9)
]

pytestmark = pytest.mark.usefixtures("one_thread", "many_switches")


@pytest.fixture
def many_switches() -> Iterator[None]:
    """Threads take turns as often as Python can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(interval)


def in_threads(work: Callable[[int], Any], n_items: int = len(TEXTS)) -> list[Any]:
    """Do numbered work in threads that begin together."""
    start = threading.Barrier(N_THREADS)

    def part(first: int) -> list[tuple[int, Any]]:
        start.wait()
        return [(i, work(i)) for i in range(first, n_items, N_THREADS)]

    with ThreadPoolExecutor(N_THREADS) as pool:
        done = dict(item for items in pool.map(part, range(N_THREADS)) for item in items)
    return [done[i] for i in range(n_items)]


def said(doc: Any) -> str:
    """Everything that was found or written, to the last bit."""
    return str([rows(doc), [(a.head.text, a.tail.text, a.text, a.score) for a in doc._.relation_answers]])


def blocks(base: Path, folder: Path) -> dict[str, dict[str, Any]]:
    return {
        "packed": model_block(base),
        "reference": model_block(base, engine="reference"),
        "cached": {"@architectures": "spacy-relx.Cached.v1", "path": str(folder), "model": model_block(base)},
    }


@pytest.mark.parametrize(
    ("kind", "decoding"),
    [("packed", "constrained"), ("packed", "free"), ("reference", "constrained"), ("cached", "free")],
)
def test_threads_give_what_one_gives(tiny_llama: Path, tmp_path: Path, kind: str, decoding: str) -> None:
    def build(folder: str) -> Language:
        block = blocks(tiny_llama, tmp_path / folder)[kind]
        return pipeline(model=block, decoding=decoding, no_relation="no_relation", keep_no_relation=True)

    alone = build("alone")
    expected = [said(alone(text)) for text in TEXTS]
    assert len(set(expected)) == len(TEXTS)  # a mix-up would be seen
    together = build("together")  # cold: the threads meet where the weights are loaded, too
    assert in_threads(lambda i: said(together(TEXTS[i]))) == expected


def test_the_weights_are_loaded_once(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    load = loading.load_model

    def count(spec: Any, **kwargs: Any) -> Any:
        loads.append(spec.base)
        return load(spec, **kwargs)

    monkeypatch.setattr(loading, "load_model", count)
    nlp = pipeline(tiny_llama)
    in_threads(lambda i: nlp(TEXTS[i]))
    assert loads == [str(tiny_llama)]


@pytest.mark.parametrize("engine", ["packed", "reference"])
def test_the_model_computes_for_one_thread_at_a_time(tiny_llama: Path, engine: str) -> None:
    nlp = pipeline(tiny_llama, model=model_block(tiny_llama, engine=engine))
    decoder: Any = engine_shim(nlp.get_pipe(FACTORY).model).engine.loaded.model.get_decoder()
    inside: list[int] = []
    most: list[int] = []

    def enter(*args: Any) -> None:
        inside.append(threading.get_ident())
        time.sleep(0.001)  # another thread would come in here
        most.append(len(inside))

    decoder.register_forward_pre_hook(enter)
    decoder.register_forward_hook(lambda *args: inside.remove(threading.get_ident()))
    in_threads(lambda i: nlp(TEXTS[i]))
    assert max(most) == 1
    assert len(most) >= len(TEXTS)


def test_streams_in_threads_keep_their_documents(tiny_llama: Path) -> None:
    nlp = pipeline(tiny_llama)
    expected = [rows(nlp(text)) for text in TEXTS]

    def stream(i: int) -> list[Any]:
        order = TEXTS[i:] + TEXTS[:i]
        docs = list(nlp.pipe(order, batch_size=5))
        assert [doc.text for doc in docs] == order
        found = [rows(doc) for doc in docs]
        return found[len(TEXTS) - i :] + found[: len(TEXTS) - i]

    assert in_threads(stream, N_THREADS) == [expected] * N_THREADS


def test_components_that_share_a_model(tiny_llama: Path) -> None:
    """Each has prompts of its own, made with the one tokenizer."""
    nlp = pipeline(tiny_llama)
    one = nlp.get_pipe(FACTORY)
    components = [one, one.with_settings(top_k=2), one.with_settings(decoding="free", no_relation="no_relation")]
    with nlp.select_pipes(disable=[FACTORY]):
        docs = [nlp(text) for text in TEXTS]
        expected = [str(components[i % 3].predict([doc])[0].results) for i, doc in enumerate(docs)]
        fresh = [component.with_settings() for component in components]
        assert in_threads(lambda i: str(fresh[i % 3].predict([docs[i]])[0].results)) == expected


def test_a_failing_document_costs_no_other_threads(tiny_llama: Path) -> None:
    nlp = pipeline(tiny_llama)
    failed: list[str] = []
    nlp.set_error_handler(lambda name, proc, docs, error: failed.extend(doc.text for doc in docs))
    component = nlp.get_pipe(FACTORY)
    ask = component._prepare

    def prepare(doc: Any, *args: Any) -> Any:
        if doc.text in TEXTS[::4]:
            raise ValueError("this document fails")
        return ask(doc, *args)

    component._prepare = prepare
    found = in_threads(lambda i: [rows(doc) for doc in nlp.pipe([TEXTS[i]])])
    assert sorted(failed) == sorted(TEXTS[::4])
    assert [bool(docs) for docs in found] == [bool(i % 4) for i in range(len(TEXTS))]


@pytest.mark.parametrize("device", ["cuda:1", "cuda:0", "cpu"])
def test_the_device_is_what_the_config_says(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """Where there is no such GPU, the name has come as far as the library that would use it."""
    asked: list[str] = []
    choose = loading.choose_device

    def note(name: str) -> Any:
        asked.append(name)
        return choose("cpu")

    monkeypatch.setattr(loading, "choose_device", note)
    nlp = pipeline(tiny_llama, model=model_block(tiny_llama, device=device))
    reloaded = type(nlp).from_config(nlp.config)
    for each in (nlp, reloaded):
        assert engine_shim(each.get_pipe(FACTORY).model).spec.device == device
    nlp(TEXTS[0])
    assert asked == [device]


def test_a_gpu_that_is_not_there_is_named(tiny_llama: Path) -> None:
    with pytest.raises(ModelError, match=r"'cuda:99'.*torch sees \d+ CUDA devices"):
        engine_shim(build_causal_lm(str(tiny_llama), device="cuda:99")).engine  # noqa: B018
    with pytest.raises((ConfigError, ModelError), match="cuda:x"):
        engine_shim(build_causal_lm(str(tiny_llama), device="cuda:x")).engine  # noqa: B018
