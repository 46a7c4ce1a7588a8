"""The corpus reader that keeps gold entities, by hand and as configs name it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import spacy
from spacy.tokens import Doc, DocBin, Span
from spacy.util import registry, resolve_dot_names

from spacy_relx import relation
from spacy_relx.errors import DataError
from spacy_relx.readers import make_docbin_reader

if TYPE_CHECKING:
    from pathlib import Path

relation.register()

WORDS = ["Ada", "Lovelace", "joined", "Acme-Corp", ".", "It", "grew", "."]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    nlp = spacy.blank("en")
    docs = []
    for _ in range(3):
        doc = Doc(nlp.vocab, WORDS, sent_starts=[i in (0, 5) for i in range(len(WORDS))])
        doc.ents = [Span(doc, 0, 2, label="PERSON"), Span(doc, 3, 4, label="ORG")]
        doc.spans["mentions"] = [Span(doc, 5, 6, label="ORG")]
        doc._.relations = [(doc.ents[0], "works_for", doc.ents[1])]
        doc.user_data["note"] = "gold"
        docs.append(doc)
    DocBin(docs=docs, store_user_data=True).to_disk(tmp_path / "gold.spacy")
    return tmp_path / "gold.spacy"


def test_the_predicted_doc_has_gold_entities_and_sentences_but_no_answers(corpus: Path) -> None:
    examples = list(make_docbin_reader(corpus)(spacy.blank("en")))
    assert len(examples) == 3
    for example in examples:
        predicted, gold = example.predicted, example.reference
        assert [token.text for token in predicted] == WORDS
        assert [(ent.text, ent.label_) for ent in predicted.ents] == [("Ada Lovelace", "PERSON"), ("Acme-Corp", "ORG")]
        assert [sent.start for sent in predicted.sents] == [0, 5]
        assert [span.text for span in predicted.spans["mentions"]] == ["It"]
        assert predicted._.relations == []
        assert predicted.user_data == {}
        assert gold._.triples == [("Ada Lovelace", "works_for", "Acme-Corp")]
        predicted._.relations = [(predicted.ents[1], "founded_by", predicted.ents[0])]
        assert len(gold._.relations) == 1


def test_without_gold_entities_it_is_bare_text_in_gold_tokens(corpus: Path) -> None:
    for example in make_docbin_reader(corpus, gold_entities=False)(spacy.blank("en")):
        predicted = example.predicted
        assert [token.text for token in predicted] == WORDS
        assert predicted.text == example.reference.text
        assert not predicted.ents
        assert not predicted.spans
        assert not predicted.has_annotation("SENT_START")
        assert not predicted.has_annotation("ENT_IOB")


def test_limit(corpus: Path) -> None:
    assert len(list(make_docbin_reader(corpus, limit=2)(spacy.blank("en")))) == 2
    assert len(list(make_docbin_reader(corpus, limit=9)(spacy.blank("en")))) == 3


def test_a_missing_corpus_is_named_when_it_is_read(tmp_path: Path) -> None:
    read = make_docbin_reader(tmp_path / "none.spacy")  # configs are resolved before the data are made
    with pytest.raises(DataError, match=r"none\.spacy' does not exist"):
        list(read(spacy.blank("en")))
    (tmp_path / "broken.spacy").write_bytes(b"not a DocBin")
    with pytest.raises(DataError, match=r"broken\.spacy' is not a DocBin"):
        list(make_docbin_reader(tmp_path / "broken.spacy")(spacy.blank("en")))


def test_a_config_names_it(corpus: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.config["corpora"] = {
        "dev": {"@readers": "spacy-relx.DocBin.v1", "path": str(corpus), "limit": 1},
        "train": {"@readers": "spacy-relx.DocBin.v1", "path": str(corpus), "gold_entities": False},
    }
    resolved = registry.resolve({"corpora": nlp.config["corpora"], "dev_corpus": "corpora.dev"})
    (dev,) = resolve_dot_names({"corpora": resolved["corpora"]}, ["corpora.dev"])
    assert len(list(dev(nlp))) == 1
    assert not next(iter(resolved["corpora"]["train"](nlp))).predicted.ents


def test_evaluation_between_gold_entities(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nlp = spacy.blank("en")
    pipe = nlp.add_pipe("llama_relation_extractor", config={"labels": ["works_for"]})

    def process(docs: list[Doc], **_: object) -> object:
        for doc in docs:
            pairs = pipe.candidates(doc)
            doc._.relations = [(head, "works_for", tail) for head, tail in pairs]
            yield doc

    monkeypatch.setattr(pipe, "pipe", process)
    scores = nlp.evaluate(list(make_docbin_reader(corpus)(nlp)))
    assert (scores["rel_micro_p"], scores["rel_micro_r"]) == (0.5, 1.0)
