"""`spacy train`: from a config and a corpus to a small folder that answers."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
import spacy
import torch
from lessons import EVERYTHING, LESSONS, annotated, examples, learner, part, train_config, write_corpus
from safetensors.torch import load_file
from spacy.cli.train import train as train_command
from spacy.training.initialize import init_nlp
from spacy.training.loop import train
from tiny import FACTORY

from spacy_relx.errors import ConfigError, DataError

if TYPE_CHECKING:
    from pathlib import Path

    from spacy.language import Language

pytestmark = pytest.mark.usefixtures("one_thread")

#: Three Docs that are learned within 40 steps.
EASY = {text: LESSONS[text] for text in list(LESSONS)[1:]}
SETTINGS: dict[str, Any] = {
    "max_steps": 40,
    "eval_frequency": 10,
    "optimizer": {"@optimizers": "Adam.v1", "learn_rate": 0.01, "beta2": 0.99, "L2": 0.0, "use_averages": False},
    "batcher": {"@batchers": "spacy.batch_by_sequence.v1", "size": 3},
}


def easy_learner(base: Path, **config: Any) -> Language:
    return learner(base, training={"rank": 32, "alpha": 64}, **{"threshold": None} | config)


def table(out: str) -> tuple[list[str], list[list[str]]]:
    """Names and rows of what spaCy's logger printed."""
    lines = [line.split() for line in out.splitlines()]
    head = next(i for i, line in enumerate(lines) if line[:2] == ["E", "#"])
    return lines[head], [line for line in lines[head + 2 :] if line[:1] and line[0].isdigit()]


def test_a_corpus_is_learned_from_the_command(
    tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nlp = easy_learner(tiny_llama, labels=None)
    path = tmp_path / "train.cfg"
    corpus = write_corpus(tmp_path / "train.spacy", annotated(EASY))
    train_config(nlp, corpus, **SETTINGS).to_disk(path)
    train_command(path, tmp_path / "out", overrides={"training.max_steps": 35})
    names, rows = table(capsys.readouterr().out)
    assert names[:3] == ["E", "#", "LOSS"]
    assert {"REL_MICRO_F", "SCORE"} <= set(names)
    assert [row[1] for row in rows] == ["0", "10", "20", "30", "35"][: len(rows)]
    found = [float(row[-1]) for row in rows]
    assert found[0] < 0.7
    assert max(found) > 0.9
    best = tmp_path / "out" / "model-best"
    loaded = spacy.load(best)
    assert set(part(loaded).labels) == {label for triples in EASY.values() for _, label, _ in triples}
    scored = loaded.evaluate(examples(annotated(EASY)))
    assert scored["rel_micro_f"] == pytest.approx(max(found), abs=0.01)
    performance = json.loads((best / "meta.json").read_text())["performance"]
    assert performance["rel_micro_f"] == pytest.approx(scored["rel_micro_f"])
    assert f"{FACTORY}_loss" in performance
    tensors = load_file(best / FACTORY / "adapter" / "adapter_model.safetensors")
    assert all("lora_" in name for name in tensors)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    size = sum(file.stat().st_size for file in best.rglob("*") if file.is_file())
    assert size < sum(2 * tensor.numel() for tensor in tensors.values()) + 100_000
    doc = loaded(annotated(EASY)[0].copy())
    assert [relation.triple for relation in doc._.relations] == EASY[doc.text]


def trained(nlp: Language, corpus: Path, folder: Path | None = None, **settings: Any) -> tuple[Language, list[Any]]:
    out = io.StringIO()
    if folder is not None:
        folder.mkdir()
    done, _ = train(init_nlp(train_config(nlp, corpus, **settings)), folder, stdout=out, stderr=io.StringIO())
    return done, table(out.getvalue())[1]


def test_training_stops_where_the_f_score_no_longer_rises(tiny_llama: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "train.spacy", annotated(EASY))
    _, rows = trained(easy_learner(tiny_llama), corpus, **SETTINGS | {"max_steps": 0, "patience": 15})
    found = [float(row[-1]) for row in rows]
    best = 10 * found.index(max(found))
    assert max(found) > 0.9
    assert int(rows[-1][1]) == best + 10  # the loop ends 15 steps after the best, between two evaluations


def test_model_last_has_the_averages(tiny_llama: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "train.spacy", annotated(EASY))
    optimizer = SETTINGS["optimizer"] | {"use_averages": True}
    settings = SETTINGS | {"optimizer": optimizer, "max_steps": 6, "eval_frequency": 6}
    nlp, rows = trained(easy_learner(tiny_llama, threshold=0.0), corpus, tmp_path / "out", **settings)
    assert [row[1] for row in rows] == ["0", "6"]
    loaded = spacy.load(tmp_path / "out" / "model-last")
    assert 100 * loaded.evaluate(examples(annotated(EASY)))["rel_micro_f"] == pytest.approx(
        100 * float(rows[-1][-1]), abs=1
    )
    ours = {f"base_model.model.{name}": m for name, m in part(nlp)._shim.training.weights.written().items()}  # type: ignore[union-attr]
    saved = load_file(tmp_path / "out" / "model-last" / FACTORY / "adapter" / "adapter_model.safetensors")
    assert not all(torch.equal(ours[name], saved[name]) for name in saved)


def test_a_trained_pipeline_is_trained_on(tiny_llama: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "train.spacy", annotated(EASY))
    settings = SETTINGS | {"max_steps": 30, "eval_frequency": 30}
    _, rows = trained(easy_learner(tiny_llama), corpus, tmp_path / "first", **settings)
    config = train_config(easy_learner(tiny_llama), corpus, **settings | {"max_steps": 3, "eval_frequency": 3})
    config["components"][FACTORY] = {"source": str(tmp_path / "first" / "model-last")}
    nlp = init_nlp(config)
    untouched = nlp.evaluate(examples(annotated(EASY)))["rel_micro_f"]
    assert 100 * untouched == pytest.approx(float(rows[-1][-2]), abs=0.01) == 100
    out = io.StringIO()
    train(nlp, None, stdout=out, stderr=io.StringIO())
    again = table(out.getvalue())[1]
    assert float(again[0][2]) < float(rows[0][2]) / 3
    assert float(again[-1][-1]) > float(rows[0][-1])


def test_demonstrations_cannot_be_drawn_from_data_that_nobody_gave(tiny_llama: Path, tmp_path: Path) -> None:
    """spaCy initialises no sourced component; with a factory and the trained adapter, the same is possible."""
    corpus = write_corpus(tmp_path / "train.spacy", annotated(EASY))
    drawn = {"mixture": EVERYTHING | {"examples": [1, 2]}}
    settings = SETTINGS | {"max_steps": 2, "eval_frequency": 2}
    trained(learner(tiny_llama, training=drawn), corpus, tmp_path / "first", **settings)
    first = tmp_path / "first" / "model-last"
    config = train_config(learner(tiny_llama), corpus, **settings)
    config["components"][FACTORY] = {"source": str(first)}
    with pytest.raises(ConfigError, match=r"mixture.examples is \[1, 2\].*not initialised.*give it a factory, and the"):
        train(init_nlp(config), None, stdout=io.StringIO(), stderr=io.StringIO())
    with pytest.raises(ConfigError, match="not initialised with training data"):
        spacy.load(first).update(examples(annotated(EASY)))
    adapter = str(first / FACTORY / "adapter")
    trained(learner(tiny_llama, model={"adapter": adapter}, training=drawn), corpus, tmp_path / "second", **settings)


def test_no_demonstrations_need_no_data(tiny_llama: Path) -> None:
    nlp = learner(tiny_llama, training={"mixture": EVERYTHING | {"examples": [0]}})
    assert part(nlp).get_loss(examples())[0] == part(learner(tiny_llama)).get_loss(examples())[0]


def test_a_frozen_extractor_is_evaluated_and_kept(tiny_llama: Path, tmp_path: Path) -> None:
    docs = annotated(EASY)
    for doc in docs:
        for token in doc:
            token.tag_ = "NAME" if token.text.istitle() else "WORD"
    corpus = write_corpus(tmp_path / "train.spacy", docs)
    nlp = easy_learner(tiny_llama)
    nlp.add_pipe("tagger", first=True)
    settings = SETTINGS | {"max_steps": 4, "eval_frequency": 4, "frozen_components": [FACTORY]}
    done, rows = trained(nlp, corpus, tmp_path / "out", **settings)
    assert len(rows) == 2
    assert part(done)._shim.training is None
    assert not (tmp_path / "out" / "model-last" / FACTORY / "adapter").exists()
    assert part(spacy.load(tmp_path / "out" / "model-last")).labels == part(nlp).labels


def test_a_corpus_without_relations_is_an_error(tiny_llama: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "train.spacy", annotated({text: [] for text in EASY}))
    with pytest.raises(DataError, match="no gold relations"):
        trained(easy_learner(tiny_llama), corpus, **SETTINGS)
