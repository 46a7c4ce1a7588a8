import io
import json
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span

from spacy_relx.corpus import Record, Source, annotate_corpus, process
from spacy_relx.errors import DataError, ModelNotFoundError


@Language.component("fake_ner", assigns=["doc.ents"])
def fake_ner(doc):
    doc.ents = [Span(doc, token.i, token.i + 1, "NAME") for token in doc if token.is_title]
    return doc


@Language.component("fake_relations", assigns=["doc._.relations"])
def fake_relations(doc):
    """Relate neighbours; fail, kill and vanish on demand."""
    if "fail" in doc.text:
        raise ValueError("this document fails")
    if "no-model" in doc.text:
        raise ModelNotFoundError("no model; fetch it")
    if os.environ.get("KILL_AT") and os.environ["KILL_AT"] in doc.text:
        os.kill(os.getpid(), signal.SIGKILL)
    if "unserialisable" in doc.text:
        doc.user_data["lock"] = object()
    ents = doc.ents
    doc._.relations = [(a, "next_to", b, round(1 / (2 + len(doc)), 6)) for a, b in pairwise(ents)]
    return doc


class Brittle:
    """A component that knows no error handler: a failure ends the stream."""

    def __init__(self, nlp, name):
        pass

    def __call__(self, doc):
        return fake_relations(doc)

    def pipe(self, stream, batch_size=1):
        docs = list(stream)
        yield from [self(doc) for doc in docs]


Language.factory("brittle_relations", func=Brittle)


def make_nlp(component="fake_relations"):
    nlp = spacy.blank("en")
    nlp.add_pipe("fake_ner")
    nlp.add_pipe(component)
    return nlp


TEXTS = [f"Ann met Bob{i} and Cid in Dale." for i in range(12)]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"text": t, "id": i, "tag": "ü"}) + "\n" for i, t in enumerate(TEXTS)))
    return Source(str(path))


def write(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return Source(str(path))


def rows(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def docs(path):
    return list(DocBin().from_disk(path).get_docs(spacy.blank("en").vocab))


def content(path):
    """What counts as the same output: the bytes of JSON Lines, the Docs of a DocBin."""
    return path.read_bytes()


def test_rows(source, tmp_path):
    summary = annotate_corpus(make_nlp(), source, tmp_path / "new" / "out.jsonl")
    assert (summary.n_docs, summary.n_resumed, summary.n_failed, summary.errors) == (12, 0, 0, None)
    row = rows(tmp_path / "new" / "out.jsonl")[3]
    assert list(row) == ["id", "text", "ents", "relations", "meta"]
    assert row["id"] == 3
    assert row["meta"] == {"tag": "ü"}
    assert row["ents"][1] == {"start": 2, "end": 3, "start_char": 8, "end_char": 12, "label": "NAME", "text": "Bob3"}
    assert row["relations"][0]["head"]["text"] == "Ann"
    assert row["relations"][0]["label"] == "next_to"


def test_no_litter(source, tmp_path):
    for name in ("out.jsonl", "out.spacy"):
        annotate_corpus(make_nlp(), source, tmp_path / name)
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"in.jsonl", *(n + s for n in ("out.jsonl", "out.spacy") for s in ("", ".progress.json"))}


@pytest.mark.parametrize("suffix", ["jsonl", "spacy"])
@pytest.mark.parametrize("kill_at", ["Bob0", "Bob7", "Bob11"])
def test_killed_run_goes_on_to_the_same_bytes(source, tmp_path, suffix, kill_at):
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    annotate_corpus(make_nlp(), source, whole, batch_size=2, shard_size=3)
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_corpus import *\n"
        f"annotate_corpus(make_nlp(), Source({source.path!r}), {str(cut)!r}, batch_size=2, shard_size=3)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], env={**os.environ, "KILL_AT": kill_at}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert suffix == "jsonl" or not cut.exists()
    summary = annotate_corpus(make_nlp(), source, cut, batch_size=2, shard_size=3)
    assert summary.n_docs == 12
    expected = {"Bob0": (0, 0), "Bob7": (7, 6), "Bob11": (11, 9)}[kill_at][suffix == "spacy"]
    assert summary.n_resumed == expected
    assert content(cut) == content(whole)
    assert not (tmp_path / "cut.spacy.parts").exists()


@pytest.mark.parametrize("end", range(0, 700, 53))
def test_cut_anywhere(source, tmp_path, end):
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    annotate_corpus(make_nlp(), source, whole)
    annotate_corpus(make_nlp(), source, cut)
    cut.write_bytes(cut.read_bytes()[:end])
    state = json.loads((tmp_path / "cut.jsonl.progress.json").read_text())
    (tmp_path / "cut.jsonl.progress.json").write_text(json.dumps({**state, "complete": False}))
    annotate_corpus(make_nlp(), source, cut)
    assert content(cut) == content(whole)


@pytest.mark.parametrize("suffix", ["jsonl", "spacy"])
def test_interrupted_run_keeps_what_it_has(source, tmp_path, suffix):
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    annotate_corpus(make_nlp(), source, whole)

    def interrupt(n_done, n_failed):
        if n_done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        annotate_corpus(make_nlp(), source, cut, progress=interrupt, shard_size=2)
    assert annotate_corpus(make_nlp(), source, cut, shard_size=4).n_resumed == 5
    assert content(cut) == content(whole)


def test_unlisted_shard_is_written_anew(source, tmp_path):
    whole, cut = tmp_path / "whole.spacy", tmp_path / "cut.spacy"
    annotate_corpus(make_nlp(), source, whole)

    def stop(n_done, n_failed):
        if n_done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        annotate_corpus(make_nlp(), source, cut, progress=stop, shard_size=4)
    # As if the run had been killed after it wrote the second shard, before it noted that.
    progress = tmp_path / "cut.spacy.progress.json"
    progress.write_text(json.dumps({**json.loads(progress.read_text()), "shards": [4]}))
    assert annotate_corpus(make_nlp(), source, cut, shard_size=4).n_resumed == 4
    assert content(cut) == content(whole)


def test_finished_run_is_left_alone_and_a_removed_output_made_again(source, tmp_path):
    for name in ("out.jsonl", "out.spacy"):
        out = tmp_path / name
        annotate_corpus(make_nlp(), source, out)
        before = content(out)
        summary = annotate_corpus(make_nlp(), source, out)
        assert (summary.n_docs, summary.n_resumed) == (12, 12)
        out.unlink()
        assert annotate_corpus(make_nlp(), source, out).n_resumed == 0
        assert content(out) == before


def test_changed_input_or_options_are_an_error_that_names_the_way_out(source, tmp_path):
    out = tmp_path / "out.jsonl"
    annotate_corpus(make_nlp(), source, out, options={"threshold": 0.5})
    with pytest.raises(DataError, match=r"options threshold was 0\.5, is 0\.7.*--overwrite"):
        annotate_corpus(make_nlp(), source, out, options={"threshold": 0.7})
    other = spacy.blank("en")
    other.add_pipe("fake_relations")
    with pytest.raises(DataError, match="pipeline_config has changed"):
        annotate_corpus(other, source, out, options={"threshold": 0.5})
    with open(source.path, "a") as file:
        file.write('{"text": "one more"}\n')
    with pytest.raises(DataError, match="input files has changed"):
        annotate_corpus(make_nlp(), source, out, options={"threshold": 0.5})
    assert annotate_corpus(make_nlp(), source, out, overwrite=True).n_docs == 13
    assert len(rows(out)) == 13


def test_foreign_output_is_not_touched(source, tmp_path):
    out = tmp_path / "out.jsonl"
    out.write_text("mine\n")
    with pytest.raises(DataError, match="exists"):
        annotate_corpus(make_nlp(), source, out)
    assert out.read_text() == "mine\n"
    assert annotate_corpus(make_nlp(), source, out, overwrite=True).n_docs == 12
    with pytest.raises(DataError, match="exists"):
        annotate_corpus(make_nlp(), source, out, resume=False)


def test_two_runs_at_once(source, tmp_path):
    out = tmp_path / "out.jsonl"

    def second(n_done, n_failed):
        if n_done == 1:
            with pytest.raises(DataError, match="Another run"):
                annotate_corpus(make_nlp(), source, out)

    annotate_corpus(make_nlp(), source, out, progress=second)
    assert len(rows(out)) == 12


def test_output_inside_the_input(tmp_path):
    (tmp_path / "a.txt").write_text("Ann")
    with pytest.raises(DataError, match="is in the input"):
        annotate_corpus(make_nlp(), Source(str(tmp_path)), tmp_path / "out.jsonl")
    with pytest.raises(DataError, match="no known kind"):
        annotate_corpus(make_nlp(), Source(str(tmp_path)), "out.csv")


@pytest.mark.parametrize("component", ["fake_relations", "brittle_relations"])
@pytest.mark.parametrize("suffix", ["jsonl", "spacy"])
def test_failing_doc_costs_no_other(tmp_path, component, suffix):
    texts = ["Ann met Bob.", "fail Ann", "Cid met Dan.", "", "also fail", "Eve met Fay."]
    source, out = write(tmp_path / "in.jsonl", texts), tmp_path / f"out.{suffix}"
    summary = annotate_corpus(make_nlp(component), source, out, batch_size=4)
    assert (summary.n_docs, summary.n_failed) == (6, 2)
    errors = rows(summary.errors)
    assert [(e["index"], e["id"]) for e in errors] == [(1, "in.jsonl:2"), (4, "in.jsonl:5")]
    assert "ValueError: this document fails" in errors[0]["error"]
    if suffix == "jsonl":
        assert [row["text"] for row in rows(out)] == texts
        assert ["error" in row for row in rows(out)] == [False, True, False, False, True, False]
        assert [len(row["relations"]) for row in rows(out)] == [1, 0, 1, 0, 0, 1]
    else:
        assert [doc.text for doc in docs(out)] == texts
        assert ["error" in doc.user_data for doc in docs(out)] == [False, True, False, False, True, False]
        assert [len(doc._.relations) for doc in docs(out)] == [1, 0, 1, 0, 0, 1]


def test_a_trained_component_that_cannot_hold_an_error_handler_is_no_obstacle(tmp_path):
    nlp = make_nlp()
    parser = nlp.add_pipe("parser", first=True)
    parser.add_label("dep")
    nlp.initialize()
    source = write(tmp_path / "in.jsonl", ["Ann met Bob.", "This will fail.", "Cid met Dora."])
    summary = annotate_corpus(nlp, source, tmp_path / "out.jsonl")
    assert summary.n_failed == 1
    assert [len(row["relations"]) for row in rows(tmp_path / "out.jsonl")] == [1, 0, 1]


def test_failures_are_listed_once_after_a_restart(tmp_path):
    source, out = write(tmp_path / "in.jsonl", ["fail", "Ann", "fail too", "Bob"]), tmp_path / "out.spacy"

    def stop(n_done, n_failed):
        if n_done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        annotate_corpus(make_nlp(), source, out, progress=stop, shard_size=2)
    progress = tmp_path / "out.spacy.progress.json"  # the last shard was lost, the error log was not
    progress.write_text(json.dumps({**json.loads(progress.read_text()), "shards": [2]}))
    summary = annotate_corpus(make_nlp(), source, out, shard_size=2)
    assert summary.n_failed == 2
    assert [row["index"] for row in rows(summary.errors)] == [0, 2]
    assert annotate_corpus(make_nlp(), source, out).n_failed == 2


def test_on_error_raise_stops_in_front_of_the_document(tmp_path):
    source, out = write(tmp_path / "in.jsonl", ["Ann", "fail", "Bob"]), tmp_path / "out.jsonl"
    for _ in range(2):
        with pytest.raises(DataError, match=r"Document 1 \('in.jsonl:2'\) failed"):
            annotate_corpus(make_nlp(), source, out, on_error="raise")
        assert [row["text"] for row in rows(out)] == ["Ann"]
    assert annotate_corpus(make_nlp(), source, out).n_docs == 3


def test_missing_model_is_not_a_failure_of_every_document(tmp_path):
    source = write(tmp_path / "in.jsonl", ["Ann", "no-model", "Bob"])
    for component in ("fake_relations", "brittle_relations"):
        with pytest.raises(ModelNotFoundError):
            annotate_corpus(make_nlp(component), source, tmp_path / f"{component}.jsonl")


def test_bad_lines_keep_their_place(tmp_path):
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_bytes(b'{"text": "Ann"}\n\n{"txt": 1}\n{oops\n[1]\n"\xff"\n{"text": "\\ud800"}\n{"text": "Bob"}\n')
    summary = annotate_corpus(make_nlp(), Source(str(path)), out)
    assert (summary.n_docs, summary.n_failed) == (7, 5)
    errors = [row["error"] for row in rows(summary.errors)]
    assert "'text', but has 'txt'; see --text-key" in errors[0]
    assert "not JSON" in errors[1]
    assert rows(out)[-1]["id"] == "in.jsonl:8"


def test_what_cannot_be_serialised_is_a_failure(tmp_path):
    source = write(tmp_path / "in.jsonl", ["Ann", "unserialisable", "Bob"])
    summary = annotate_corpus(make_nlp(), source, tmp_path / "out.spacy")
    assert summary.n_failed == 1
    assert [doc.text for doc in docs(tmp_path / "out.spacy")] == ["Ann", "unserialisable", "Bob"]


def test_folder_of_all_kinds(tmp_path):
    folder = tmp_path / "in"
    (folder / "b").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "no.txt").write_text("no")
    (folder / "a.txt").write_text("Ann met\nBob.")
    (folder / "b" / "c.jsonl").write_text('{"body": "Cid", "id": "x", "meta": {"k": 1}, "l": 2}\n')
    (folder / "notes.md").write_text("no")
    DocBin(docs=[spacy.blank("en")("Dan")]).to_disk(folder / "d.spacy")
    source = Source(str(folder), text_key="body")
    assert source.count() == 3
    annotate_corpus(make_nlp(), source, tmp_path / "out.jsonl")
    found = [(row["id"], row["text"], row["meta"]) for row in rows(tmp_path / "out.jsonl")]
    assert found == [("a.txt", "Ann met\nBob.", {}), ("x", "Cid", {"l": 2, "k": 1}), ("d.spacy:1", "Dan", {})]


def test_one_document_a_line(tmp_path):
    (tmp_path / "in.txt").write_bytes("\ufeffAnn\r\n\nBob ö".encode())
    source = Source(str(tmp_path / "in.txt"), per_line=True)
    assert source.count() == 2
    records = source.read(spacy.blank("en").vocab)
    assert [(r.id, r.text) for r in records] == [
        ("in.txt:1", "Ann"),
        ("in.txt:3", "Bob ö"),
    ]


@pytest.mark.parametrize(
    ("path", "message"), [("nowhere", "does not exist"), ("x.csv", "no known kind"), ("", "no file")]
)
def test_unusable_inputs(tmp_path, path, message):
    (tmp_path / "x.csv").write_text("")
    with pytest.raises(DataError, match=message):
        Source(str(tmp_path / path)).files()


def test_broken_docbin(tmp_path):
    (tmp_path / "in.spacy").write_bytes(b"no")
    with pytest.raises(DataError, match="is not a DocBin"):
        annotate_corpus(make_nlp(), Source(str(tmp_path / "in.spacy")), tmp_path / "out.jsonl")


def test_docbin_keeps_its_entities_and_user_data(tmp_path):
    vocab = spacy.blank("en").vocab
    gold = Doc(vocab, words=["Ann", "met", "the", "crew", "."])
    gold.ents = [Span(gold, 0, 1, "PERSON"), Span(gold, 2, 4, "GROUP")]
    gold.user_data |= {"id": "gold", "meta": {"split": "dev"}, "other": 1}
    none = Doc(vocab, words=["Ann", "met", "Bob"])
    none.ents = []
    plain = Doc(vocab, words=["Cid", "met", "Dan"])
    DocBin(docs=[gold, none, plain], store_user_data=True).to_disk(tmp_path / "in.spacy")
    annotate_corpus(make_nlp(), Source(str(tmp_path / "in.spacy")), tmp_path / "out.spacy")
    out = docs(tmp_path / "out.spacy")
    assert [[e.label_ for e in doc.ents] for doc in out] == [["PERSON", "GROUP"], [], ["NAME", "NAME"]]
    assert [len(doc._.relations) for doc in out] == [1, 0, 1]
    assert out[0].user_data["other"] == 1
    assert [doc.user_data["id"] for doc in out] == ["gold", "in.spacy:2", "in.spacy:3"]
    annotate_corpus(make_nlp(), Source(str(tmp_path / "in.spacy")), tmp_path / "out.jsonl")
    assert rows(tmp_path / "out.jsonl")[0]["meta"] == {"split": "dev"}


def test_standard_input_and_output(monkeypatch, capfdbinary):
    lines = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in TEXTS[:2])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    annotate_corpus(make_nlp(), Source("-"), "-")
    sys.stdout.flush()
    found = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert [(row["id"], len(row["relations"])) for row in found] == [("stdin:1", 3), ("stdin:2", 3)]


def test_standard_input_that_changed_is_noticed(monkeypatch, tmp_path):
    def feed(texts):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))

    def stop(n_done, n_failed):
        if n_done == 2:
            raise KeyboardInterrupt

    for suffix in ("jsonl", "spacy"):
        out = tmp_path / f"out.{suffix}"
        feed(TEXTS)
        with pytest.raises(KeyboardInterrupt):
            annotate_corpus(make_nlp(), Source("-"), out, progress=stop)
        feed(["Other.", "Texts."])
        with pytest.raises(DataError, match="The input has changed"):
            annotate_corpus(make_nlp(), Source("-"), out)
        feed(TEXTS[:1])
        with pytest.raises(DataError, match="but the input only 1"):
            annotate_corpus(make_nlp(), Source("-"), out)
        feed(TEXTS)
        assert annotate_corpus(make_nlp(), Source("-"), out).n_docs == 12


def test_worker_processes_give_the_same(tmp_path):
    source = write(tmp_path / "in.jsonl", [*TEXTS[:5], "fail here", *TEXTS[5:]])
    annotate_corpus(make_nlp(), source, tmp_path / "one.jsonl")
    summary = annotate_corpus(make_nlp(), source, tmp_path / "two.jsonl", n_process=2, batch_size=3)
    assert summary.n_failed == 1
    assert content(tmp_path / "one.jsonl") == content(tmp_path / "two.jsonl")


def test_the_corpus_is_never_held():
    n_read = 0

    def endless():
        nonlocal n_read
        while True:
            n_read += 1
            yield Record(n_read, "Ann met Bob.")

    stream = process(make_nlp(), endless(), batch_size=8)
    for _ in range(50):
        next(stream)
    assert n_read < 50 + 4 * 8


def test_error_handler_is_given_back():
    nlp = make_nlp()
    before = nlp.default_error_handler
    list(process(nlp, [Record(0, "fail")]))
    assert nlp.default_error_handler is before
