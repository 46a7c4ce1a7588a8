"""The component in training: labels from the data, updates, what is saved, and what stands beside it."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import spacy
import torch
from lessons import (
    EVERYTHING,
    LABELS,
    LESSONS,
    adam,
    annotated,
    examples,
    learner,
    masters,
    part,
    scores,
    session,
    train_config,
    write_corpus,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from spacy.cli._util import app
from spacy.language import Language
from spacy.training.initialize import init_nlp
from spacy.training.loop import train_while_improving
from thinc.api import SGD
from tiny import FACTORY, build_adapter
from torch.utils.checkpoint import checkpoint
from typer.testing import CliRunner

from spacy_relx.engine import decoder, loading
from spacy_relx.errors import ConfigError, DataError, RelxWarning, SchemaError, TrainingError
from spacy_relx.relation import Relation

if TYPE_CHECKING:
    from spacy.tokens import Doc
    from spacy.training import Example

pytestmark = pytest.mark.usefixtures("one_thread")

#: Texts of which no other test of a cached prefix knows.
LATER = ("Ada Lovelace left Apple.", "Apple hired Ada Lovelace in Cupertino.")


@pytest.fixture
def never_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(spec: Any, progress: Any = None) -> Any:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(loading, "load_model", refuse)


def begun(base: Path, docs: list[Example] | None = None, **config: Any) -> Language:
    """A pipeline that is initialised with the lessons."""
    nlp = learner(base, **config)
    nlp.initialize(lambda: docs or examples())
    return nlp


def taught(base: Path, n_steps: int = 3, **config: Any) -> Language:
    """A pipeline that has learned a little."""
    nlp = begun(base, **config)
    optimizer = adam()
    for _ in range(n_steps):
        nlp.update(examples(), sgd=optimizer)
    return nlp


def assert_same(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, abs=tolerance)


def differ(first: dict[Any, float], second: dict[Any, float]) -> bool:
    assert first.keys() == second.keys()
    return max(abs(first[key] - second[key]) for key in first) > 1e-3


def assert_same_weights(first: Language, second: Language, tolerance: float = 1e-6) -> None:
    ours, theirs = masters(first), masters(second)
    assert ours.keys() == theirs.keys()
    for name, matrix in ours.items():
        assert torch.allclose(matrix, theirs[name], atol=tolerance, rtol=1e-4), name


# Labels and data.


@pytest.mark.usefixtures("never_loads")
def test_labels_come_from_the_data_where_the_config_names_none() -> None:
    nlp = learner("nowhere/at-all", labels=None)
    general = part(nlp).labels
    assert len(general) > len(LABELS)
    nlp.initialize(lambda: examples(annotated({"Steve Jobs met Ada Lovelace.": []})))
    assert part(nlp).labels == general
    nlp.initialize(lambda: examples())
    assert part(nlp).labels == tuple(LABELS)
    assert not part(nlp)._shim.is_loaded


@pytest.mark.usefixtures("never_loads")
def test_labels_of_the_config_stay() -> None:
    labels = {"works for": {"head": ["PERSON"]}, "founded by": {}, "based in": {}, "married to": {"symmetric": True}}
    nlp = begun(Path("nowhere"), labels=labels)
    assert part(nlp).labels == tuple(labels)
    assert part(nlp).schema["married to"].symmetric


def test_labels_that_mean_no_relation_are_none_of_the_labels() -> None:
    docs = annotated()
    steve, ada = docs[-1].ents
    docs[-1]._.relations = [Relation(steve, ada, "no_relation"), Relation(ada, steve, "Other")]
    assert part(begun(Path("nowhere"), examples(docs), labels=None)).labels == tuple(LABELS)


@pytest.mark.usefixtures("never_loads")
def test_without_data_nothing_is_initialised() -> None:
    for labels in (None, LABELS):
        nlp = learner("nowhere/at-all", labels=labels)
        before = part(nlp).label_data
        nlp.initialize()
        assert part(nlp).label_data == before


@pytest.mark.parametrize("initialised", [False, True])
def test_updates_need_no_data_beforehand(tiny_llama: Path, initialised: bool) -> None:
    """`optimizer = nlp.initialize()` begins many a loop, and spaCy then gives the components a Doc of its own."""
    nlp = learner(tiny_llama)
    if initialised:
        nlp.initialize()
    optimizer = adam()
    losses = [nlp.update(batch, sgd=optimizer)[FACTORY] for batch in (examples(), examples()[3:], examples())]
    assert losses[2] < losses[0]


@pytest.mark.usefixtures("never_loads")
def test_init_labels_writes_what_initialize_reads(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "train.spacy")
    config = train_config(learner("nowhere/at-all", labels=None), corpus)
    config.to_disk(tmp_path / "train.cfg")
    done = CliRunner().invoke(app, ["init", "labels", str(tmp_path / "train.cfg"), str(tmp_path / "labels")])
    assert done.exit_code == 0, done.output
    path = tmp_path / "labels" / f"{FACTORY}.json"
    reader = {"@readers": "spacy.read_labels.v1", "path": str(path), "require": True}
    config["initialize"]["components"] = {FACTORY: {"labels": reader}}
    # Of the labels in the file, this corpus has but one.
    write_corpus(corpus, annotated({"Apple moved to Cupertino.": LESSONS["Apple moved to Cupertino."]}))
    expected = part(begun(Path("nowhere"), labels=None)).label_data
    assert part(init_nlp(config)).label_data == expected
    path.write_text('["works for"]')
    with pytest.raises(SchemaError, match=rf"{FACTORY}.labels is \['works for'\]"):
        init_nlp(config)


@pytest.mark.usefixtures("never_loads")
def test_a_label_that_the_schema_lacks_is_refused() -> None:
    with pytest.raises(DataError, match=r"'Apple' 3..4, founded by, 'Steve Jobs' 0..2.*Expected one of: based in"):
        begun(Path("nowhere"), labels=["based in", "works for"])


@pytest.mark.usefixtures("never_loads")
def test_a_relation_outside_the_entities_is_refused() -> None:
    docs = annotated()
    docs[1].ents = docs[1].ents[:1]
    with pytest.raises(DataError, match=r"number 1 has the relation.*'Apple'.*is not an entity of the Doc"):
        begun(Path("nowhere"), examples(docs))


@pytest.mark.usefixtures("never_loads")
def test_a_corpus_without_relations_cannot_be_learned_from() -> None:
    docs = annotated({text: [] for text in LESSONS})
    nlp = begun(Path("nowhere"), examples(docs))
    with pytest.raises(DataError, match=r"no gold relations.*frozen_components"):
        nlp.update(examples(docs))


# Updates, and what is saved of them.


@pytest.mark.parametrize("averages", [False, True])
def test_scores_between_updates_are_those_of_a_fresh_load(tiny_llama: Path, tmp_path: Path, averages: bool) -> None:
    nlp = begun(tiny_llama)
    optimizer = adam(0.02, use_averages=averages)
    seen = [scores(nlp)]
    for number in range(2):
        for _ in range(2):
            nlp.update(examples(), sgd=optimizer)
        seen.append(scores(nlp))
        assert differ(seen[-2], seen[-1])
        nlp.to_disk(tmp_path / str(number))
        assert_same(scores(spacy.load(tmp_path / str(number))), seen[-1])
    assert_same(scores(spacy.load(tmp_path / "1"), LATER), scores(nlp, LATER))
    if averages:
        with nlp.use_params(optimizer.averages):
            inside = scores(nlp)
            nlp.to_disk(tmp_path / "averages")
            assert_same(scores(nlp, LATER), scores(spacy.load(tmp_path / "averages"), LATER))
        assert differ(inside, seen[-1])
        assert scores(nlp) == seen[-1]
        assert_same(scores(spacy.load(tmp_path / "averages")), inside)
        nlp.update(examples(), sgd=optimizer)
        assert differ(scores(nlp), inside)


def test_parameters_of_others_change_nothing(tiny_llama: Path) -> None:
    nlp = taught(tiny_llama)
    before = scores(nlp)
    for params in ({}, {(0, "W"): torch.zeros(1).numpy()}):
        with nlp.use_params(params):
            assert scores(nlp) == before


def test_docs_that_nobody_annotated_teach_nothing(tiny_llama: Path) -> None:
    nlp, data = learner(tiny_llama), examples()
    optimizer = nlp.initialize(lambda: data)
    nlp.update(data, sgd=optimizer)
    before = {name: value.clone() for name, value in masters(nlp).items()}
    for example in (others := examples()):
        example.reference.user_data = {}
    with pytest.warns(RelxWarning, match=r"learns nothing from them.*frozen_components"):
        nlp.update(others, sgd=optimizer)
    assert all((masters(nlp)[name] == value).all() for name, value in before.items())
    stated = examples()[:1]
    stated[0].reference._.relations = []  # somebody looked, and none hold
    nlp.update(stated, sgd=optimizer)
    assert any((masters(nlp)[name] != value).any() for name, value in before.items())


def test_other_components_are_trained_without_loading_a_model() -> None:
    nlp = learner("nowhere/at-all")  # as it is loaded: nothing initialises it
    for example in (others := examples()):
        example.reference.user_data = {}
    with pytest.warns(RelxWarning, match="learns nothing"):
        nlp.update(others, sgd=adam())


def test_labels_from_the_data_may_be_called_anything(tmp_path: Path) -> None:
    nlp, data = learner("nowhere/at-all", labels=None), examples()
    for example in data:
        example.reference._.relations = [
            replace(relation, label="pays $x ${now}.") for relation in example.reference._.relations
        ]
    nlp.initialize(lambda: data)
    assert part(nlp).labels == ("pays $x ${now}.",)
    nlp.to_disk(tmp_path / "saved")
    assert part(spacy.load(tmp_path / "saved")).labels == ("pays $x ${now}.",)


def test_initialising_again_begins_anew(tiny_llama: Path) -> None:
    nlp, data = learner(tiny_llama), examples()
    first = []
    for _ in range(2):
        optimizer = nlp.initialize(lambda: data)
        first.append(nlp.update(data, sgd=optimizer)[FACTORY])
        assert nlp.update(data, sgd=optimizer)[FACTORY] < first[-1]
    assert first[0] == first[1]


def test_only_the_adapter_is_saved(tiny_llama: Path, tmp_path: Path) -> None:
    nlp = taught(tiny_llama)
    nlp.to_disk(tmp_path / "nlp")
    tensors = load_file(tmp_path / "nlp" / FACTORY / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert len(tensors) == 2 * 7 * 2  # matrices, projections, layers
    assert sum(tensor.numel() for tensor in tensors.values()) == session(nlp).weights.n_parameters
    assert sum(path.stat().st_size for path in (tmp_path / "nlp").rglob("*") if path.is_file()) < 250_000


@pytest.mark.parametrize("way", ["bytes", "pickle", "pickle of a copy"])
def test_copies_carry_the_adapter(tiny_llama: Path, way: str) -> None:
    nlp = taught(tiny_llama)
    expected = scores(nlp)
    if way == "bytes":
        other = learner(tiny_llama).from_bytes(nlp.to_bytes())
    else:
        other = learner(tiny_llama)
        copy = pickle.loads(pickle.dumps(part(nlp)))
        if way == "pickle of a copy":
            copy = pickle.loads(pickle.dumps(copy))
        other.remove_pipe(FACTORY)
        other.add_pipe("sentencizer")
        other._components.append((FACTORY, copy))
    assert_same(scores(other), expected)
    assert_same(scores(nlp), expected, 0.0)


def test_workers_have_the_adapter(tiny_llama: Path) -> None:
    nlp = taught(tiny_llama)
    docs = [example.predicted for example in examples()]
    here = [doc._.relations[0].score for doc in nlp.pipe([doc.copy() for doc in docs]) if doc._.relations]
    there = [doc._.relations[0].score for doc in nlp.pipe(docs, n_process=2) if doc._.relations]
    assert here
    assert there == pytest.approx(here, abs=1e-5)


def test_a_copy_learns_on(tiny_llama: Path) -> None:
    nlp = taught(tiny_llama)
    other = learner(tiny_llama).from_bytes(nlp.to_bytes())
    start = part(other).get_loss(examples())[0]
    assert start == pytest.approx(part(nlp).get_loss(examples())[0], abs=1e-4)
    optimizer = adam()
    for _ in range(3):
        other.update(examples(), sgd=optimizer)
    assert part(other).get_loss(examples())[0] < start - 0.1
    assert part(nlp).get_loss(examples())[0] == pytest.approx(start, abs=1e-4)


# Learning.


def test_a_handful_of_docs_is_learned(tiny_llama: Path, tmp_path: Path) -> None:
    lessons = {text: LESSONS[text] for text in list(LESSONS)[1:]}
    docs = examples(annotated(lessons))
    nlp = begun(tiny_llama, docs, training={"rank": 32, "alpha": 64}, threshold=None)
    optimizer = adam(0.01, beta2=0.99)
    assert nlp.evaluate(docs)["rel_micro_f"] < 0.5
    losses = [nlp.update(docs, sgd=optimizer)[FACTORY] for _ in range(40)]
    assert losses[0] > 10
    assert losses[-1] < 1
    assert nlp.evaluate(docs)["rel_micro_f"] > 0.9
    nlp.to_disk(tmp_path / "nlp")
    assert spacy.load(tmp_path / "nlp").evaluate(examples(annotated(lessons)))["rel_micro_f"] > 0.9


# Parts of a step.


def once(nlp: Language, batches: list[list[Example]], **settings: Any) -> None:
    """Train with spaCy's loop on given batches."""
    defaults = {"dropout": 0.0, "accumulate_gradient": 1, "eval_frequency": 99, "patience": 0, "max_steps": 0}
    steps = train_while_improving(
        nlp,
        SGD(0.05, L2=0.0, grad_clip=0.0, use_averages=False),
        ((0, batch) for batch in batches),
        lambda: (0.0, {}),
        exclude=[],
        annotating_components=[],
        before_update=None,
        **defaults | settings,
    )
    assert len(list(steps)) == len(batches)


def test_an_accumulated_gradient_is_that_of_the_whole_batch(tiny_llama: Path) -> None:
    whole, halves, by_hand, wrong = (begun(tiny_llama) for _ in range(4))
    once(whole, [examples()] * 2)
    once(halves, [examples()] * 2, accumulate_gradient=2)
    optimizer = SGD(0.05, L2=0.0, grad_clip=0.0, use_averages=False)
    for _ in range(2):
        losses: dict[str, float] = {}
        for batch in (examples()[:1], examples()[1:]):
            by_hand.update(batch, sgd=False, losses=losses)
        part(by_hand).finish_update(optimizer)
        wrong.update(examples()[:1], sgd=optimizer)
        wrong.update(examples()[1:], sgd=optimizer)
    assert_same_weights(whole, halves)
    assert_same_weights(whole, by_hand)
    with pytest.raises(AssertionError):
        assert_same_weights(whole, wrong)


def test_gradient_checkpointing_is_the_same_training(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = taught(tiny_llama)
    layers: list[Any] = []

    def counted(forward: Any, *args: Any, **kwargs: Any) -> Any:
        layers.append(forward)
        return checkpoint(forward, *args, **kwargs)

    monkeypatch.setattr(decoder, "checkpoint", counted)
    found = taught(tiny_llama, training={"gradient_checkpointing": True})
    assert len(layers) == 3 * 2  # steps, layers
    assert_same_weights(found, expected)
    assert_same(scores(found), scores(expected))
    assert len(layers) == 3 * 2
    with pytest.raises(ConfigError, match=r"training.gradient_checkpointing is 'yes'. Expected true or false"):
        learner(tiny_llama, training={"gradient_checkpointing": "yes"})


def test_a_step_without_rows_changes_nothing(tiny_llama: Path) -> None:
    nlp = begun(tiny_llama, training={"mixture": EVERYTHING | {"negatives_alone": 0}})
    optimizer = adam(use_averages=True)
    nlp.update(examples(), sgd=optimizer)
    before, kept = masters(nlp), scores(nlp)
    empty = examples(annotated({"Steve Jobs met Ada Lovelace.": [], "Nothing is here.": []}))
    assert nlp.update(empty, sgd=optimizer) == {FACTORY: 0.0}
    assert all(torch.equal(before[name], matrix) for name, matrix in masters(nlp).items())
    assert session(nlp).n_updates == 1
    assert scores(nlp) == kept


def test_dropout_is_for_gradients_alone(tiny_llama: Path) -> None:
    nlp = taught(tiny_llama)
    before, loss = scores(nlp), part(nlp).get_loss(examples())[0]

    def gradient(share: float, seed: int) -> tuple[torch.Tensor, float]:
        torch.manual_seed(seed)
        reported = nlp.update(examples(), drop=share, sgd=False)[FACTORY]
        added = torch.cat([master.grad.flatten().clone() for master in session(nlp).weights.masters.values()])
        session(nlp).step.reset()
        return added, reported

    plain, reported = gradient(0.0, 1)
    assert reported == pytest.approx(loss, abs=1e-5)
    assert torch.equal(plain, gradient(0.0, 2)[0])
    dropped, other = gradient(0.5, 1)
    assert not torch.allclose(plain, dropped, rtol=0.01)
    assert abs(other - loss) > 1e-3
    assert torch.equal(dropped, gradient(0.5, 1)[0])
    assert not torch.allclose(dropped, gradient(0.5, 2)[0], rtol=0.01)
    assert part(nlp).get_loss(examples())[0] == loss
    assert scores(nlp) == before


def test_losses_are_added_to_what_is_there(tiny_llama: Path) -> None:
    nlp = begun(tiny_llama)
    loss = part(nlp).get_loss(examples())[0]
    losses = {FACTORY: 1.0, "tagger": 2.0}
    nlp.update(examples(), sgd=False, losses=losses)
    assert losses == {FACTORY: pytest.approx(1 + loss), "tagger": 2.0}


# What training starts from.


def test_an_adapter_is_trained_on(tiny_llama: Path, tmp_path: Path) -> None:
    adapter = build_adapter(tmp_path / "adapter", metadata={"threshold": 0.9})
    weights = adapter / "adapter_model.safetensors"
    rounded = {name: tensor.bfloat16() for name, tensor in load_file(weights).items()}  # as a trained one is saved
    with safe_open(weights, "pt") as file:
        save_file(rounded, weights, metadata=file.metadata())
    files = {path.name: path.read_bytes() for path in adapter.iterdir()}
    nlp = begun(tiny_llama, model={"adapter": str(adapter)}, threshold=None)
    before = scores(nlp)
    assert part(nlp).default_threshold == 0.9
    stored = load_file(weights)
    part(nlp).get_loss(examples())
    assert {f"base_model.model.{name}" for name in masters(nlp)} == stored.keys()
    for name, matrix in masters(nlp).items():
        assert torch.equal(matrix, stored[f"base_model.model.{name}"].float())
    assert session(nlp).weights.rank == 4
    assert_same(scores(nlp), before, 1e-3)  # where the adapter was merged
    assert part(nlp).default_threshold == 0.5  # a threshold was calibrated for other weights
    loss = part(nlp).get_loss(examples())[0]
    optimizer = adam()
    for _ in range(3):
        nlp.update(examples(), sgd=optimizer)
    assert part(nlp).get_loss(examples())[0] < loss
    nlp.to_disk(tmp_path / "nlp")
    saved = tmp_path / "nlp" / FACTORY / "adapter"
    assert json.loads((saved / "adapter_config.json").read_text())["target_modules"] == ["q_proj"]
    loaded = spacy.load(tmp_path / "nlp")
    assert_same(scores(loaded), scores(nlp))
    assert part(loaded).default_threshold == 0.5
    assert {path.name: path.read_bytes() for path in adapter.iterdir()} == files


def test_a_4_bit_base_is_trained_on_a_processor(tiny_llama: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="4-bit weights need bitsandbytes, which is in the extra `gpu`")
    nlp = begun(tiny_llama, model={"quantization": "nf4"})
    optimizer = adam()
    losses = [nlp.update(examples(), sgd=optimizer)[FACTORY] for _ in range(3)]
    assert losses[-1] < losses[0] - 0.1
    nlp.to_disk(tmp_path / "nlp")
    assert_same(scores(spacy.load(tmp_path / "nlp")), scores(nlp))


def test_the_reference_engine_is_not_trained(tiny_llama: Path) -> None:
    nlp = begun(tiny_llama, model={"engine": "reference"})
    with pytest.raises(TrainingError, match=r"reference engine.*cannot be trained.*engine='packed'"):
        nlp.update(examples())


# Other components.


def tagged() -> list[Example]:
    docs = annotated()
    for doc in docs:
        for token in doc:
            token.tag_ = "NAME" if token.text.istitle() else "WORD"
    found = examples(docs)
    for example in found:
        for token in example.predicted:
            token.tag_ = ""
    return found


def with_tagger(base: Path) -> Language:
    nlp = learner(base)
    nlp.add_pipe("tagger", first=True)
    nlp.initialize(tagged)
    return nlp


def test_another_component_learns_beside_it(tiny_llama: Path) -> None:
    nlp = with_tagger(tiny_llama)
    optimizer = adam(0.01)
    first, last = (nlp.update(tagged(), sgd=optimizer, losses={}) for _ in range(2))
    for _ in range(8):
        last = nlp.update(tagged(), sgd=optimizer, annotates=["tagger"])
    assert last.keys() == {"tagger", FACTORY}
    assert all(last[name] < first[name] for name in last)
    found = nlp.evaluate(tagged())
    assert found["tag_acc"] > 0.9
    assert found["rel_micro_f"] is not None


def test_frozen_it_stays_as_it_is(tiny_llama: Path) -> None:
    nlp = with_tagger(tiny_llama)
    optimizer = adam(0.01)
    nlp.update(tagged(), sgd=optimizer)
    before = masters(nlp)
    losses = nlp.update(tagged(), sgd=optimizer, exclude=[FACTORY])
    assert FACTORY not in losses
    assert all(torch.equal(before[name], matrix) for name, matrix in masters(nlp).items())
    nlp.update(tagged(), sgd=optimizer, exclude=["tagger"])
    assert not all(torch.equal(before[name], matrix) for name, matrix in masters(nlp).items())


class Witness:
    """Sees in training what the components before it have set."""

    def __init__(self) -> None:
        self.seen: list[list[tuple[str, str, str]]] = []

    def __call__(self, doc: Doc) -> Doc:
        return doc

    def update(self, examples: list[Example], **kwargs: Any) -> None:
        self.seen = [[relation.triple for relation in example.predicted._.relations] for example in examples]


@Language.factory("relx_tests_witness")
def make_witness(nlp: Any, name: str) -> Witness:  # confection before 1.0 cannot resolve a class of spaCy here
    return Witness()


def test_its_relations_may_be_set_on_the_way(tiny_llama: Path) -> None:
    nlp = learner(tiny_llama, threshold=0.0)
    witness: Any = nlp.add_pipe("relx_tests_witness")
    nlp.initialize(examples)
    for _ in range(2):
        nlp.update(examples(), sgd=adam(), annotates=[FACTORY])
        assert any(witness.seen)
    nlp.update(examples(), sgd=adam())
    assert not any(witness.seen)
