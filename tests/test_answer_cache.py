"""A pipeline with an answer cache gives what it gave before without asking the model again."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest
import spacy
from spacy.lang.en import English
from tiny import FACTORY, LABELS, TEXT, build_adapter, build_base, model_block, pipeline, rows

from spacy_relx.engine.answer_store import FILE_NAME
from spacy_relx.engine.cached import CachedEngine
from spacy_relx.errors import ConfigError, RelxWarning

if TYPE_CHECKING:
    from pathlib import Path

    from spacy.language import Language
    from spacy.tokens import Doc

    from spacy_relx.engine.types import Work

pytestmark = pytest.mark.usefixtures("one_thread")

N_PAIRS = 5  # of the text
HASH_EMBED_CNN = {
    "pretrained_vectors": None,
    "width": 8,
    "depth": 1,
    "embed_size": 8,
    "window_size": 1,
    "maxout_pieces": 1,
    "subword_features": False,
}


def cached(model: dict[str, Any], path: Path | None = None, **settings: Any) -> dict[str, Any]:
    block = {"@architectures": "spacy-relx.Cached.v1", "model": model}
    return block | ({} if path is None else {"path": str(path)}) | settings


def outside(doc: Doc) -> list[tuple[str, str, str, float]]:
    return [(answer.head.text, answer.tail.text, answer.text, answer.score) for answer in doc._.relation_answers]


def work(nlp: Language) -> Work:
    counters: Work = nlp.get_pipe(FACTORY)._shim.engine.work
    return counters


@pytest.mark.parametrize("engine", ["packed", "reference"])
@pytest.mark.parametrize("decoding", ["constrained", "free"])
def test_a_second_run_asks_nothing(tiny_llama: Path, tmp_path: Path, decoding: str, engine: str) -> None:
    model = model_block(tiny_llama, engine=engine)
    config = {"decoding": decoding, "no_relation": "no_relation", "keep_no_relation": True}
    bare = pipeline(model=model, **config)(TEXT)
    for first in (True, False):
        nlp = pipeline(model=cached(model, tmp_path), **config)
        doc = nlp(TEXT)
        assert rows(doc) == rows(bare)
        if decoding == "free":
            assert outside(doc) == outside(bare)
        assert work(nlp).n_cached == (0 if first else N_PAIRS)
        assert (work(nlp).n_forward > 0) == first
    assert [rows(doc) for doc in nlp.pipe([TEXT, TEXT])] == [rows(bare)] * 2
    assert work(nlp).n_forward == 0


def test_what_changes_an_answer_asks_again(tiny_llama: Path, embedded_base: Path, tmp_path: Path) -> None:
    other_base = build_base(tmp_path / "base", embedded_base, seed=5)
    other_config = build_base(tmp_path / "config", embedded_base, rope_parameters={"rope_theta": 500.0})
    adapters = [str(build_adapter(tmp_path / f"adapter{seed}", seed=seed)) for seed in (1, 2)]
    changes: list[dict[str, Any]] = [
        {},
        {"labels": {name: LABELS[name] for name in reversed(LABELS)}},
        {"scoring": "sequence"},
        {"decoding": "free"},
        {"prompt": {"@misc": "spacy-relx.GenTunePrompt.v1", "cue": "Answer:"}},
        {"model": {"dtype": "bfloat16"}},
        {"model": {"adapter": adapters[0]}},
        {"model": {"adapter": adapters[1]}},
        {"model": {"adapter": adapters[1], "merge_adapter": False}},
        {"model": {"base": str(other_base)}},
        {"model": {"base": str(other_config)}},
    ]
    for n_cached in (0, N_PAIRS):
        for change in changes:
            model = cached(model_block(tiny_llama) | change.get("model", {}), tmp_path / "answers")
            nlp = pipeline(**change | {"model": model})
            n_pairs = len(nlp.get_pipe(FACTORY).candidate_pairs(nlp(TEXT)))
            assert work(nlp).n_cached == (n_pairs if n_cached else 0), change


def test_what_only_judges_answers_asks_nothing(tiny_llama: Path, tmp_path: Path) -> None:
    model = cached(model_block(tiny_llama), tmp_path)
    pipeline(model=model)(TEXT)
    nlp = pipeline(model=model, threshold=0.9)
    assert rows(nlp(TEXT)) == rows(pipeline(tiny_llama, threshold=0.9)(TEXT))
    assert work(nlp).n_cached == N_PAIRS


def test_a_new_text_asks_about_its_new_sentences(tiny_llama: Path, tmp_path: Path) -> None:
    nlp = pipeline(model=cached(model_block(tiny_llama), tmp_path))
    nlp(TEXT)
    before = work(nlp).n_prompts
    doc = nlp("Steve Jobs co-founded Apple in Cupertino. Apple is in Cupertino.")
    assert work(nlp).n_cached == 3
    assert work(nlp).n_prompts == before + 1
    expected = rows(pipeline(tiny_llama)(doc.text))
    assert [row[:-1] for row in rows(doc)] == [row[:-1] for row in expected]
    assert [row[-1] for row in rows(doc)] == pytest.approx([row[-1] for row in expected], abs=1e-5)


def test_answers_are_kept_in_the_cache_folder(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPACY_RELX_CACHE", str(tmp_path))
    pipeline(model=cached(model_block(tiny_llama)))(TEXT)
    assert (tmp_path / "answers" / FILE_NAME).is_file()


@pytest.mark.parametrize("way", ["disk", "bytes", "pickle"])
def test_a_saved_pipeline_goes_on_with_its_answers(tiny_llama: Path, tmp_path: Path, way: str) -> None:
    adapter = build_adapter(tmp_path / "adapter")
    nlp = pipeline(model=cached(model_block(tiny_llama, adapter=str(adapter)), tmp_path / "answers"))
    expected = rows(nlp(TEXT))
    if way == "disk":
        nlp.to_disk(tmp_path / "saved")
        copy = spacy.load(tmp_path / "saved")
    elif way == "bytes":
        copy = English.from_config(nlp.config, meta=nlp.meta).from_bytes(nlp.to_bytes())
    else:
        copy = pickle.loads(pickle.dumps(nlp))
    assert rows(copy(TEXT)) == expected
    assert work(copy).n_forward == 0
    assert work(copy).n_cached == N_PAIRS


def test_a_folder_that_is_no_good_costs_a_warning(tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "answers").write_text("no folder")
    nlp = pipeline(model=cached(model_block(tiny_llama), tmp_path / "answers"))
    with pytest.warns(RelxWarning, match="The answer cache .* cannot be used"):
        doc = nlp(TEXT)
    assert rows(doc) == rows(nlp(TEXT)) == rows(pipeline(tiny_llama)(TEXT))


def test_the_engine_below_can_be_had(tiny_llama: Path, tmp_path: Path) -> None:
    shim = pipeline(model=cached(model_block(tiny_llama), tmp_path)).get_pipe(FACTORY)._shim
    assert isinstance(shim.engine, CachedEngine)
    assert shim.computing_engine is shim.engine.engine
    assert shim.engine is shim.engine
    bare = pipeline(tiny_llama).get_pipe(FACTORY)._shim
    assert bare.computing_engine is bare.engine


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_bytes": 100}, r"max_bytes of the answer cache is 100\. Expected a whole number of at least 65536"),
        ({"path": " "}, r"path of the answer cache is ' '\. Expected a folder, or null"),
        ({"path": "a$b"}, r"model\.path"),
    ],
)
def test_unusable_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pipeline(model=cached(model_block("nowhere"), **settings))


def test_the_model_of_another_package_is_refused() -> None:
    with pytest.raises(ConfigError, match="Expected one of the architectures"):
        pipeline(model=cached({"@architectures": "spacy.HashEmbedCNN.v2", **HASH_EMBED_CNN}))
