"""What is fuzzed: each reader and each check of settings, given bytes that somebody else made.

A target may do nothing or raise a `RelxError`. Any other exception is a defect, and so is a hang or a lot of memory.
`scripts/fuzz.py` runs them under libFuzzer, `test_fuzz.py` on the seeds and on some mutations of them.
"""

from __future__ import annotations

import json
import math
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import spacy
from pydantic import ValidationError

from spacy_relx._annotated import read_annotated
from spacy_relx._inputs import Source
from spacy_relx._json import parse_json
from spacy_relx._progress import Progress
from spacy_relx.cache import entry_is_complete
from spacy_relx.candidates import make_entity_pairs
from spacy_relx.cli._pipeline import _read_config
from spacy_relx.data import DATASETS, read_docs, read_prompts
from spacy_relx.engine.adapter import Layers, full_tensors, lora_tensors, read_adapter, verify_adapter
from spacy_relx.engine.checkpoint import base_fingerprint, check_base_folder
from spacy_relx.engine.gguf import check_gguf
from spacy_relx.engine.remote import words
from spacy_relx.engine.remote.chat import ChatEngine, estimate
from spacy_relx.engine.remote.client import Client, PassingError
from spacy_relx.engine.remote.dialects import LlamaCpp, Vllm
from spacy_relx.engine.remote.spec import RemoteSpec
from spacy_relx.errors import DataError, RelxError, ServerError
from spacy_relx.evaluation.finished import read_prompt_records
from spacy_relx.evaluation.records import read_records
from spacy_relx.evaluation.thresholds import StoredThresholds
from spacy_relx.export import FORMATS, Options, export, read_brat
from spacy_relx.models import build_causal_lm
from spacy_relx.prompt_block import make_gentune_prompt
from spacy_relx.readers import make_docbin_reader
from spacy_relx.schema import load_schema
from spacy_relx.serving.answering import _entities
from spacy_relx.serving.limits import Limits
from spacy_relx.serving.messages import request_model
from spacy_relx.settings import DEFAULT_CONFIG, read_settings
from spacy_relx.training.label_wordings import read_wordings
from spacy_relx.training.mixture import mixture_from
from spacy_relx.training.rows import read_rows
from spacy_relx.training.settings import make_training
from spacy_relx.view import graph, render

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from spacy.language import Language

#: A text with a mention or two, for whatever needs a Doc.
TEXT = "Steve Jobs co-founded Apple in Cupertino."
_MOST = 2000  # documents, rows or records that are read of one input
_LAYERS = Layers(
    linear={f"model.layers.{i}.self_attn.{name}": (8, 8) for i in range(2) for name in ("q_proj", "v_proj")},
    parameters={"model.embed_tokens.weight": (16, 8), "model.norm.weight": (8,)},
    tied=True,
)


SEEDS = Path(__file__).parent / "seeds"
DATA_FILES = Path(__file__).parents[1] / "data" / "files"


#: Inputs that are worth giving to everything.
COMMON = {
    "empty": b"",
    "zeros": bytes(4096),
    "utf-16": "{}\n".encode("utf-16"),
    "latin-1": b'{"text": "caf\xe9"}\n',
    "deep": b"[" * 100_000,
    "deep values": b'{"text": ' * 50_000,
    "long number": b"9" * 5000,
    "null": b"null\n",
    "object": b"{}\n",
    "list": b"[1]\n",
    "string": b'"a"\n',
    "not a number": b"NaN\n",
    "surrogate": b'{"text": "\\ud800"}\n',
}


@dataclass(frozen=True)
class Target:
    """Something that reads what others wrote.

    Attributes:
        name: Its name, and that of its folder of seeds.
        suffix: Of the file that the bytes are put into.
        read: Called with that file.
        examples: Files of the data sets' tests that are seeds, too.
    """

    name: str
    suffix: str
    read: Callable[[Path], object]
    examples: tuple[str, ...] = ()

    @property
    def seeds(self) -> dict[str, bytes]:
        """The inputs that mutations begin with, some good and some that were trouble once."""
        own = sorted(path for path in (SEEDS / self.name).glob("*") if path.is_file())
        files = {path.name: path.read_bytes() for path in (*own, *(DATA_FILES / name for name in self.examples))}
        return files | {f"common {name}": data for name, data in COMMON.items()}

    @property
    def is_json(self) -> bool:
        """Whether its input is one JSON text, which is mutated as a tree."""
        return self.suffix == ".json"

    def __call__(self, data: bytes, folder: Path) -> bool:
        """Read some bytes; return whether they were accepted.

        Args:
            data: The bytes.
            folder: A folder to work in; it is left as it was.
        """
        path = folder / f"input{self.suffix}"
        path.write_bytes(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.read(path)
        except RelxError as error:
            if not str(error).strip():
                raise AssertionError(f"{self.name}: {type(error).__name__} says nothing") from error
            return False
        finally:
            path.unlink(missing_ok=True)
        return True


@lru_cache
def _blank() -> Language:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    return nlp


def _drain(items: Iterator[Any]) -> None:
    for _ in islice(items, _MOST):
        pass


def _json(path: Path) -> Any:
    """The settings in a file; what is no JSON object has none (whoever calls with settings has parsed them)."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


# Files of models


def _safetensors(path: Path) -> None:
    folder = path.parent / "model"
    folder.mkdir(exist_ok=True)
    path.replace(folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "llama", "tie_word_embeddings": true}')
    check_base_folder(folder)
    base_fingerprint(folder)


def _base_config(path: Path) -> None:
    folder = path.parent / "sharded"
    folder.mkdir(exist_ok=True)
    data = _json(path)
    for name in ("config.json", "model.safetensors.index.json"):
        (folder / name).write_text(json.dumps(data.get(name, {})))
    (folder / "part-1.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    check_base_folder(folder)
    base_fingerprint(folder)


def _adapter(path: Path) -> None:
    """The input is {config: adapter_config.json, header: of the weights}; the weights are as long as that says."""
    data = _json(path)
    folder = path.parent / "adapter"
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(data.get("config")))
    header = data.get("header")
    raw = json.dumps(header).encode()
    entries = header.values() if isinstance(header, dict) else ()
    places = [entry.get("data_offsets") for entry in entries if isinstance(entry, dict)]
    ends = [place[1] for place in places if isinstance(place, list) and len(place) == 2 and isinstance(place[1], int)]
    size = min(max([0, *ends]), 1 << 16)
    (folder / "adapter_model.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(size))
    adapter = read_adapter(folder)
    full_tensors(adapter)
    lora_tensors(adapter)
    verify_adapter(adapter, _LAYERS, lambda name: name.endswith("q_proj"), base="b", fingerprint="0" * 32)


def _manifest(path: Path) -> None:
    folder = path.parent / "entry"
    folder.mkdir(exist_ok=True)
    path.replace(folder / "manifest.json")
    entry_is_complete(folder, verify=True)


# Files of users


def _docbin(path: Path) -> None:
    make_docbin_reader(path, limit=_MOST)(_blank())
    _drain(iter(make_docbin_reader(path)(_blank())))


def _annotate_docbin(path: Path) -> None:
    for record in islice(Source(str(path)).read(_blank().vocab), _MOST):
        if record.error is None:
            record.make_doc(_blank())


def _annotated_docbin(path: Path) -> None:
    for doc in islice(read_annotated(path), _MOST):
        list(doc._.relations)


def _lines(path: Path) -> None:
    source = Source(str(path))
    source.count()
    for record in islice(source.read(_blank().vocab), _MOST):
        assert isinstance(record.text, str)
        assert record.error is None or record.error.strip()


def _progress(path: Path) -> None:
    path.replace(path.with_name("out.jsonl.progress.json"))
    path.with_name("out.jsonl").write_bytes(b"")
    Progress(path.with_name("out.jsonl"), {"input": {"path": "a"}, "options": {}}, resume=True, overwrite=False)


def _dataset(name: str) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        _drain(read_docs(DATASETS[name], path, _blank()))

    return read


def _brat(path: Path) -> None:
    """The input is {name of a file: its text}; half of a surrogate pair makes it no UTF-8."""
    folder = path.parent / "brat"
    folder.mkdir(exist_ok=True)
    data = _json(path)
    for name in ("x.txt", "x.ann", "visual.conf", "documents.tsv"):
        (folder / name).write_bytes(str(data.get(name, "")).encode("utf8", "surrogatepass"))
    for doc in read_brat(folder, _blank()):
        list(doc._.relations)


def _exports(path: Path) -> None:
    """What is read is written in every format and drawn, and what programs parse can be parsed."""
    docs = list(islice(read_annotated(path), 20))
    folder = path.parent / "exports"
    for format in FORMATS.values():
        output = folder / f"{format.name}{format.suffixes[0] if format.suffixes else ''}"
        try:
            export(docs, output, format.name, options=Options(overwrite=True))
        except DataError:  # an id that DocBins cannot hold
            if format.name != "docbin":
                raise AssertionError(format.name) from None
    ElementTree.parse(folder / "graphml.graphml")
    for line in (folder / "jsonl.jsonl").read_text("utf8").split("\n")[:-1]:
        json.loads(line)
    for doc in read_brat(folder / "brat", _blank()) if docs else ():
        list(doc._.relations)
    render(docs, page=True)
    page = graph(docs)
    start = page.index('id="data">') + len('id="data">')
    json.loads(page[start : page.index("</script>", start)])


# Messages


def _served(path: Path) -> None:
    """An answer of a model's server, taken for one of every kind; one that is understood is enough."""
    data = path.read_bytes()
    assert words.message_of(data, "key").isprintable()
    words.retry_after(data.decode("latin-1"))
    try:
        answer = parse_json(data)
    except ValueError as error:
        raise ServerError("no JSON") from error
    chat: Any = ChatEngine.__new__(ChatEngine)
    chat.client, chat.api = Client(RemoteSpec("http://localhost/v1", "m")), "openai"

    def log_probs() -> Iterator[float]:
        for dialect in (Vllm(), LlamaCpp()):
            for read in (dialect.seen, lambda each, d=dialect: d.written(each, frozenset({2}))):
                try:
                    found = read(answer)
                except PassingError:
                    continue
                yield from found.values.values() if hasattr(found, "values") else [found.log_prob]
        try:
            text, tokens, _ = chat._read(answer)
        except PassingError:
            return
        label = chat._label_in(text)
        yield estimate(text, label, [label, "works_for", "member_of"], tokens)

    found = list(log_probs())
    assert all(-math.inf < value <= 0.01 for value in found), found
    if not found:
        raise ServerError("no log-probabilities")


def _requests(path: Path) -> None:
    """A body for the service, up to the Docs with the given entities."""
    try:
        request: Any = request_model(Limits(max_documents=50)).model_validate(parse_json(path.read_bytes()))
    except ValidationError as error:
        if error.error_count() > 100:
            raise AssertionError(f"{error.error_count()} errors") from error
        raise DataError("422") from error
    except ValueError as error:
        raise DataError("400") from error
    for document in request.documents:
        doc = _blank().make_doc(document.text)
        doc.set_ents(_entities(doc, document.entities or []))


# Settings


def _component(path: Path) -> None:
    """The settings of the factory and of its blocks, as a config gives them."""
    data = _json(path)

    def block(name: str) -> dict[str, Any]:
        value = data.get(name)
        return {key: item for key, item in value.items() if key[:1] != "@"} if isinstance(value, Mapping) else {}

    def call(make: Callable[..., Any], name: str) -> Any:
        # spaCy's registry refuses an argument that a function does not have.
        known = make.__code__.co_varnames[: make.__code__.co_argcount]
        return make(**{key: value for key, value in block(name).items() if key in known})

    prompt = call(make_gentune_prompt, "prompt")
    call(make_entity_pairs, "candidates")
    call(make_training, "training")
    if isinstance(block("model").get("base"), str):
        call(build_causal_lm, "model")
    names = [name for name in DEFAULT_CONFIG if name not in ("model", "candidates", "scorer", "training", "prompt")]
    read_settings(prompt=prompt, **{name: data.get(name, DEFAULT_CONFIG[name]) for name in names})


def _mixture(path: Path) -> None:
    mixture_from(_json(path))


def _relations(path: Path) -> None:
    import spacy_relx  # noqa: F401  (registers the extension)

    doc = _blank()(TEXT)
    before = dict(doc.user_data)
    try:
        doc._.relations = _json(path).get("relations", [])
    except RelxError:
        assert doc.user_data == before
        raise
    for relation in doc._.relations:
        assert isinstance(relation.to_dict()["head"]["text"], str)
    doc.to_bytes()


TARGETS = {
    target.name: target
    for target in (
        Target("safetensors", ".safetensors", _safetensors),
        Target("base_config", ".json", _base_config),
        Target("adapter", ".json", _adapter),
        Target("gguf", ".gguf", check_gguf),
        Target("manifest", ".json", _manifest),
        Target("schema", ".json", lambda path: load_schema(path)),
        Target("wordings", ".json", lambda path: read_wordings(str(path))),
        Target("examples", ".json", lambda path: make_gentune_prompt(examples=str(path))),
        Target("component", ".json", _component),
        Target("component_config", ".cfg", lambda path: _read_config(path)),
        Target("mixture", ".json", _mixture),
        Target("relations", ".json", _relations),
        Target("corpus_docbin", ".spacy", _docbin),
        Target("annotate_docbin", ".spacy", _annotate_docbin),
        Target("annotated_docbin", ".spacy", _annotated_docbin),
        Target("annotate_lines", ".jsonl", _lines),
        Target("annotated_lines", ".jsonl", lambda path: _drain(read_annotated(path))),
        Target("brat", ".json", _brat),
        Target("exports", ".jsonl", _exports),
        Target("served", ".json", _served),
        Target("requests", ".json", _requests),
        Target("progress", ".json", _progress),
        Target("rows", ".jsonl", lambda path: _drain(read_rows(path))),
        Target("records", ".jsonl", lambda path: _drain(read_records(path)[1])),
        Target("prompt_records", ".jsonl", lambda path: _drain(read_prompt_records(path)[1])),
        Target("thresholds", ".json", lambda path: StoredThresholds.read(path)),
        Target("prompts", ".jsonl", lambda path: _drain(read_prompts(path)), ("mixture.jsonl",)),
        *(
            Target(f"dataset_{name}", Path(examples[0]).suffix, _dataset(name), tuple(examples))
            for name, *examples in (
                ("semeval2010_task8", "semeval.TXT"),
                ("conll04", "conll04_spans.json", "conll04_tags.json"),
                ("nyt11", "nyt.json"),
                ("gids", "gids.tsv"),
                ("redocred", "redocred.json"),
                ("rebel", "rebel.jsonl"),
                ("tacred", "tacred.json"),
                ("biographical", "columns.csv"),
                ("pg_fiction", "columns.jsonl"),
                ("kbp37", "kbp37.txt"),
                ("scierc", "scierc.txt"),
                ("fewrel", "fewrel.json"),
                ("wiki80", "wiki80.txt"),
                ("webnlg", "webnlg.json"),
            )
        ),
    )
}


# Mutations


_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 0.0, -0.0, 1e308, 0.5, float("nan"), float("inf")),
    *("", " ", "a", "\0", "\ud800", "\n", "$x", "${a.b}", "a.b", "..", "../../x", "/etc/passwd", "@misc", "*"),
    *("x" * 5000, "<|im_end|>", "\u202e", "\u200b", "float32", "(a+)+$", "[", "{labels}", "{0}", "%s"),
    *([], {}, [[]], [{}], {"": {}}, {"a": None}, ["a"] * 50),
)


def mutate_json(value: Any, random: random.Random) -> Any:
    """Return a JSON value with one to three of its parts changed, dropped, doubled or swapped."""
    value = json.loads(json.dumps(value))
    for _ in range(random.randint(1, 3)):
        value = _mutate_once(value, random)
    return value


def _mutate_once(value: Any, random: random.Random) -> Any:
    places: list[tuple[Any, Any]] = []

    def visit(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            visit(node[key])

    visit(value)
    if not places:
        return random.choice(_VALUES)
    node, key = random.choice(places)
    kind = random.randrange(5)
    if kind == 0:
        del node[key]
    elif kind == 1:
        other, other_key = random.choice(places)
        node[key] = json.loads(json.dumps(other[other_key]))
    elif kind == 2 and isinstance(node, dict):
        node[str(random.choice(_VALUES))] = node.pop(key)
    elif kind == 3 and isinstance(node[key], (int, float)) and not isinstance(node[key], bool):
        node[key] = random.choice((node[key] + 1, node[key] - 1, -node[key], node[key] * 1000, str(node[key])))
    else:
        node[key] = random.choice(_VALUES)
    return value


def mutate_bytes(data: bytes, random: random.Random) -> bytes:
    """Return bytes with some of them flipped, cut off, doubled or moved."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(changed) + 1)
        kind = random.randrange(5)
        if kind == 0:
            del changed[at:]
        elif kind == 1:
            changed[at:at] = bytes(random.randrange(256) for _ in range(random.randint(1, 9)))
        elif kind == 2:
            changed[at : at + random.randint(1, 8)] = b"\xff" * 8
        elif kind == 3:
            changed[at:at] = changed[at : at + random.randint(1, 40)]
        elif changed:
            changed[at % len(changed)] ^= 1 << random.randrange(8)
    return bytes(changed)


def mutate(target: Target, data: bytes, random: random.Random) -> bytes:
    """Return a mutation of a seed: JSON as a tree, JSON Lines line by line, a DocBin unpacked, and bytes elsewhere."""
    if target.suffix == ".spacy" and random.random() < 0.8:
        try:
            return zlib.compress(mutate_bytes(zlib.decompress(data), random))
        except zlib.error:
            return mutate_bytes(data, random)
    if target.suffix in (".json", ".jsonl") and random.random() < 0.8:
        lines = data.split(b"\n") if target.suffix == ".jsonl" else [data]
        i = random.randrange(len(lines))
        try:
            lines[i] = json.dumps(mutate_json(json.loads(lines[i]), random)).encode()
        except (ValueError, RecursionError):
            return mutate_bytes(data, random)
        return b"\n".join(lines)
    return mutate_bytes(data, random)
