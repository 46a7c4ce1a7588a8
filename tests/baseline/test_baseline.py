"""The baseline on a tiny encoder with random weights: it learns what it sees, and says what it did. No quality here."""

from __future__ import annotations

import json
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
import spacy
import torch
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin, Span
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel
from typer.testing import CliRunner

from spacy_relx import relation
from spacy_relx.baseline import Baseline, Recipe, classifier, run_baseline
from spacy_relx.baseline import train as training
from spacy_relx.baseline.markers import PairEncoder, keep_around
from spacy_relx.baseline.pairs import read_pairs
from spacy_relx.baseline.run import NEGATIVE
from spacy_relx.cli import app
from spacy_relx.errors import ConfigError, DataError, ModelError, ModelNotFoundError, UnsafeCheckpointError
from spacy_relx.evaluation.metrics import score
from spacy_relx.evaluation.records import MentionRecord, PairRecord, read_records

if TYPE_CHECKING:
    from pathlib import Path

relation.register()
NLP = spacy.blank("en")
SPECIAL = ["<s>", "</s>", "<pad>", "<unk>", "<mask>"]
PEOPLE = ["Ada", "Bob", "Cleo", "Dan", "Eve"]
FIRMS = ["Acme", "Bolt", "Corex", "Dyna", "Ergo"]
VERBS = {"founded": "founded_by", "joined": "works_for", "left": None, "sued": "opposes"}


def make_doc(person: str, verb: str, firm: str, label: str | None, name: str) -> Doc:
    doc = Doc(NLP.vocab, [person, verb, firm, "today", "."])
    doc.set_ents([Span(doc, 0, 1, "PERSON"), Span(doc, 2, 3, "ORG")])
    doc[0].is_sent_start = True
    for token in doc[1:]:
        token.is_sent_start = False
    doc._.relations = [((0, 1), label or "no_relation", (2, 3))]
    doc.user_data["id"] = name
    return doc


def corpus() -> list[Doc]:
    """Twenty documents of one pair each; the verb tells the relation."""
    people = zip(PEOPLE, FIRMS)
    return [
        make_doc(person, verb, firm, VERBS[verb], f"{person}-{verb}") for (person, firm), verb in product(people, VERBS)
    ]


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random RoBERTa of two layers whose vocabulary is letters."""
    folder = tmp_path_factory.mktemp("encoder")
    letters = [f"{mark}{chr(c)}" for mark in ("", "##") for c in range(33, 127)]
    words = [w for pair in (PEOPLE, FIRMS, VERBS) for w in pair]
    vocab = {piece: i for i, piece in enumerate([*SPECIAL, *letters, *words])}
    tokenizer = Tokenizer(WordPiece(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(name, vocab[name]) for name in SPECIAL[:2]]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>", mask_token="<mask>",
        model_max_length=128,
    ).save_pretrained(folder)  # fmt: skip
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(vocab), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=130, pad_token_id=2, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(encoder: Path) -> Any:
    return PreTrainedTokenizerFast.from_pretrained(encoder, local_files_only=True)


def tiny(encoder: Path, **kwargs: Any) -> Baseline:
    recipe = {"epochs": 2, "learning_rate": 2e-3, "batch_size": 8, "max_tokens": 64} | kwargs.pop("recipe", {})
    return Baseline(str(encoder), Recipe(**recipe), device="cpu", local_files_only=True, **kwargs)


# Pairs.


def test_given_pairs_hold_the_negative_ones() -> None:
    pairs = list(read_pairs(corpus(), "given"))
    assert len(pairs) == 20
    assert [pair.gold for pair in pairs[:4]] == [("founded_by",), ("works_for",), (), ("opposes",)]
    assert (pairs[0].head.text, pairs[0].head.type, pairs[0].doc) == ("Ada", "PERSON", "Ada-founded")
    assert all(pair.enumerated and not pair.scores for pair in pairs)


def test_all_pairs_of_gold_entities() -> None:
    doc = make_doc("Ada", "founded", "Acme", "founded_by", "x")
    doc._.relations = [((0, 1), "founded_by", (2, 3)), ((0, 1), "lives_in", (3, 4)), ((2, 3), "Other", (3, 4))]
    pairs = list(read_pairs([doc, doc], "gold_entities"))[:3]
    assert [(p.head.text, p.tail.text, p.gold, p.enumerated) for p in pairs] == [
        ("Ada", "Acme", ("founded_by",), True),
        ("Acme", "Ada", (), True),
        ("Ada", "today", ("lives_in",), False),
    ]
    assert {p.doc for p in read_pairs([doc, doc], "gold_entities")} == {"x", "x#2"}
    with pytest.raises(DataError, match="predicted_entities"):
        list(read_pairs([doc], "predicted_entities"))


# Markers.


def shown(tokenizer: Any, text: str, head: tuple[int, int], tail: tuple[int, int], max_tokens: int = 64) -> str:
    """What the encoder reads, with markers in brackets; types are A and B, which has no markers of its own."""
    encode = PairEncoder(tokenizer, ["A"], len(tokenizer), max_tokens)
    marks = {len(tokenizer) + i: s for i, s in enumerate(["{1?", "?1}", "{2?", "?2}", "{1A", "A1}", "{2A", "A2}"])}
    pair = PairRecord("d", text, MentionRecord(*head, "", "A"), MentionRecord(*tail, "", "B"))
    row = encode(pair)
    assert len(row.ids) <= max_tokens
    pieces = [marks.get(i) or tokenizer.convert_ids_to_tokens(i) for i in row.ids]
    assert (pieces[row.head_at], pieces[row.tail_at]) == ("{1A", "{2?")
    return " ".join(pieces)


def test_markers_stand_around_the_mentions(tokenizer: Any) -> None:
    assert shown(tokenizer, "Ada founded Acme", (0, 3), (12, 16)) == "<s> {1A Ada A1} founded {2? Acme ?2} </s>"
    assert shown(tokenizer, "Acme sued Bob", (10, 13), (0, 4)) == "<s> {2? Acme ?2} sued {1A Bob A1} </s>"


def test_markers_of_nested_and_touching_mentions(tokenizer: Any) -> None:
    text = "Acme sued Bob"
    assert shown(tokenizer, text, (0, 9), (0, 4)) == "<s> {1A {2? Acme ?2} sued A1} Bob </s>"
    assert shown(tokenizer, text, (5, 13), (10, 13)) == "<s> Acme {1A sued {2? Bob ?2} A1} </s>"
    assert shown(tokenizer, text, (0, 4), (5, 9)) == "<s> {1A Acme A1} {2? sued ?2} Bob </s>"


def test_a_text_cannot_hold_a_marker_or_a_special_token(tokenizer: Any) -> None:
    row = shown(tokenizer, "Ada </s> Acme", (0, 3), (9, 13))
    assert row.count("</s>") == 1


def test_a_long_text_is_cut_around_the_pair(tokenizer: Any) -> None:
    text = "left " * 50 + "Ada sued Acme" + " joined" * 50
    row = shown(tokenizer, text, (250, 253), (259, 263), max_tokens=20)
    assert "left {1A Ada A1} sued {2? Acme ?2} joined" in row
    far = "Ada" + " left" * 60 + " Acme"
    row = shown(tokenizer, far, (0, 3), (len(far) - 4, len(far)), max_tokens=20)
    assert row.startswith("<s> {1A Ada A1} left")
    assert row.endswith("left {2? Acme ?2} </s>")


@given(st.data())
def test_what_is_kept_fits_and_holds_the_beginning_of_both_mentions(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 60))
    budget = data.draw(st.integers(8, 60))
    spans = []
    for _ in range(2):
        start = data.draw(st.integers(0, n - 1))
        spans.append((start, data.draw(st.integers(start + 1, n))))
    kept = list(keep_around(n, *spans, budget))
    assert kept == sorted(set(kept))
    assert len(kept) <= budget
    assert len(kept) == n or n > budget
    assert all(start in kept for start, _ in spans)
    if max(end for _, end in spans) - min(start for start, _ in spans) <= budget:
        assert all(set(range(*span)) <= set(kept) for span in spans)


# Training and answers.


@pytest.mark.usefixtures("one_thread")
def test_it_memorises_twenty_pairs(encoder: Path) -> None:
    docs = corpus()
    seen: list[tuple[str, int, int]] = []
    info, records = run_baseline(
        docs,
        docs,
        tiny(encoder, recipe={"epochs": 30, "learning_rate": 1e-2}),
        dataset="tiny",
        progress=lambda *now: seen.append(now),
    )
    losses = info.counts["losses"]
    assert losses[-1] < 0.1 < 1.0 < losses[0]
    assert score(info, records).micro.f == 1.0
    assert info.labels == ("founded_by", "opposes", "works_for")
    assert info.negative == NEGATIVE
    assert (info.counts["n_training"], info.counts["n_asked"], info.counts["n_cut"]) == (20, 20, 0)
    assert seen[-1] == ("test", 20, 20)
    assert ("train", 90, 90) in seen
    for record in records:
        assert sum(value for _, value in record.scores) == pytest.approx(1.0, abs=1e-5)
        assert [value for _, value in record.scores] == sorted((v for _, v in record.scores), reverse=True)
        assert record.answer == (None if record.scores[0][0] == NEGATIVE else record.scores[0][0])


@pytest.mark.usefixtures("one_thread")
def test_batches_do_not_change_answers(encoder: Path) -> None:
    model = classifier.build(encoder, classes=["a", "b"], types=["ORG"], max_tokens=64, device="cpu", seed=0)
    model.train(False)
    texts = ["Ada sued Acme", "Ada sued Acme" + " today" * 7]
    rows = [model.pairs(PairRecord("", t, MentionRecord(0, 3, "Ada"), MentionRecord(9, 13, "Acme"))) for t in texts]
    with torch.inference_mode():
        together = model.logits(rows)
        alone = torch.cat([model.logits([row]) for row in rows])
    torch.testing.assert_close(together, alone)


@pytest.mark.usefixtures("one_thread")
def test_an_interrupted_training_ends_as_an_uninterrupted_one(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = corpus()
    _, whole = run_baseline(docs, docs, tiny(encoder, recipe={"epochs": 3}, folder=tmp_path / "a"), dataset="tiny")

    save, n_saved = training.storage.save, 0

    def stop_after_two(*args: Any) -> None:
        nonlocal n_saved
        save(*args)
        n_saved += 1
        if n_saved == 2:
            raise KeyboardInterrupt

    interrupted = tiny(encoder, recipe={"epochs": 3}, folder=tmp_path / "b")
    with monkeypatch.context() as patch:
        patch.setattr(training.storage, "save", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            run_baseline(docs, docs, interrupted, dataset="tiny")
    steps: list[int] = []
    info, resumed = run_baseline(
        docs,
        docs,
        interrupted,
        dataset="tiny",
        progress=lambda stage, n, _: steps.append(n) if stage == "train" else None,
    )
    assert steps == [7, 8, 9]
    assert resumed == whole
    assert len(info.counts["losses"]) == 3
    # Trained to the end: it is only asked.
    steps.clear()
    assert run_baseline(docs, docs, interrupted, dataset="tiny")[1] == whole
    assert not steps
    about = json.loads((tmp_path / "b" / classifier.ABOUT).read_text())
    assert about["classes"] == ["founded_by", "opposes", "works_for", NEGATIVE]
    assert {path.suffix for path in (tmp_path / "b").iterdir()} == {".safetensors", ".json"}


@pytest.mark.usefixtures("one_thread")
def test_a_folder_of_another_training_is_refused(encoder: Path, tmp_path: Path) -> None:
    docs = corpus()
    run_baseline(docs, docs, tiny(encoder, recipe={"epochs": 1}, folder=tmp_path), dataset="tiny")
    with pytest.raises(ConfigError, match="another recipe"):
        run_baseline(docs, docs, tiny(encoder, recipe={"epochs": 1, "seed": 1}, folder=tmp_path), dataset="tiny")
    with pytest.raises(ConfigError, match="another training data"):
        run_baseline(docs[1:], docs, tiny(encoder, recipe={"epochs": 1}, folder=tmp_path), dataset="tiny")
    (tmp_path / classifier.WEIGHTS).write_bytes(b"rubbish")
    with pytest.raises(ModelError, match="is damaged"):
        run_baseline(docs, docs, tiny(encoder, recipe={"epochs": 1}, folder=tmp_path), dataset="tiny")


@pytest.mark.usefixtures("one_thread")
def test_pairs_never_asked_and_labels_never_seen_are_kept_and_counted(encoder: Path) -> None:
    doc = make_doc("Ada", "founded", "Acme", "founded_by", "x")
    doc._.relations = [((0, 1), "new_label", (2, 3)), ((0, 1), "founded_by", (3, 4))]
    baseline = tiny(encoder, recipe={"epochs": 1}, protocol="gold_entities")
    info, records = run_baseline(corpus(), [doc], baseline, dataset="tiny")
    assert info.counts["gold_labels_not_trained"] == {"new_label": 1}
    assert [(r.enumerated, bool(r.scores)) for r in records] == [(True, True), (True, True), (False, False)]
    assert info.counts["n_not_enumerated"] == 1
    assert info.counts["n_training"] == 40  # both orders of every pair


@pytest.mark.usefixtures("one_thread")
def test_long_texts_are_counted(encoder: Path) -> None:
    info, _ = run_baseline(
        corpus(), corpus(), tiny(encoder, recipe={"epochs": 1, "max_tokens": 14}), dataset="tiny"
    )  # "today" and "." are five and one pieces
    assert info.counts["n_cut"] == info.counts["n_training_cut"] == 20


# Refusals.


def test_nothing_to_learn_or_to_ask(encoder: Path) -> None:
    docs = corpus()
    with pytest.raises(DataError, match="training Docs have no pairs"):
        run_baseline([], docs, tiny(encoder), dataset="tiny")
    with pytest.raises(DataError, match="test Docs have no pairs"):
        run_baseline(docs, [], tiny(encoder), dataset="tiny")
    with pytest.raises(DataError, match="two classes"):
        run_baseline(docs[:1], docs, tiny(encoder), dataset="tiny")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"learning_rate": 2.0}, "learning_rate is 2.0"),
        ({"batch_size": True}, "batch_size is True"),
    ],
)
def test_recipes_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe(**settings)


def test_the_published_recipe_is_the_default() -> None:
    assert Recipe() == Recipe(epochs=3, learning_rate=2e-5, batch_size=16, max_tokens=256)


def test_lengths_that_do_not_fit(encoder: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_tokens is 256, but .* reads 127"):
        run_baseline(corpus(), corpus(), tiny(encoder, recipe={"max_tokens": 256}), dataset="tiny")
    # The longest that is let through can be read.
    model = classifier.build(encoder, classes=["a", "b"], types=[], max_tokens=127, device="cpu", seed=0)
    row = model.pairs(PairRecord("", "left " * 200, MentionRecord(0, 4, "left"), MentionRecord(5, 9, "left")))
    assert len(row.ids) == 127
    assert model.logits([row]).shape == (1, 2)
    with pytest.raises(ConfigError, match=r"max_tokens is 9\. Expected at least 14"):
        run_baseline(corpus(), corpus(), tiny(encoder, recipe={"max_tokens": 9}), dataset="tiny")


def test_encoders_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no folder"):
        classifier.find_encoder("./nowhere")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UnsafeCheckpointError, match=r"pytorch_model\.bin"):
        classifier.build(tmp_path, classes=["a", "b"], types=[], max_tokens=64, device="cpu", seed=0)


@pytest.mark.usefixtures("one_thread")
def test_a_loss_that_is_no_number_stops(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch.nn.functional, "cross_entropy", lambda logits, targets: (logits * float("nan")).sum(), raising=True
    )
    with pytest.raises(ModelError, match="loss is nan at step 1"):
        run_baseline(corpus(), corpus(), tiny(encoder), dataset="tiny")


# The command.


@pytest.mark.usefixtures("one_thread")
def test_command(encoder: Path, tmp_path: Path) -> None:
    path = tmp_path / "conll04" / "train.spacy"
    path.parent.mkdir()
    DocBin(docs=corpus(), store_user_data=True).to_disk(path)
    out = tmp_path / "run.jsonl"
    arguments = ["baseline", path, path, "--encoder", encoder, "--out", out, "--epochs", 1, "--max-tokens", 64]
    result = CliRunner().invoke(app, [str(a) for a in [*arguments, "--device", "cpu", "--local-files-only"]])
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(out)
    assert "20 pairs answered: P " in result.stderr
    info, records = read_records(out)
    assert (info.dataset, info.split, info.protocol) == ("conll04", "test", "given")
    assert info.settings["recipe"]["epochs"] == 1
    assert len(list(records)) == 20


def test_command_errors(encoder: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "no.spacy"
    arguments = ["baseline", nowhere, nowhere, "--encoder", encoder, "--out", tmp_path / "run.jsonl"]
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 1
    assert "does not exist" in result.stderr
