"""What importing brings in, what it does without, and the names that are promised."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import spacy_relx

PACKAGE = Path(spacy_relx.__file__).parent
HEAVY = ("transformers", "peft", "bitsandbytes", "accelerate", "gguf", "huggingface_hub")

BLOCK = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)
sys.meta_path.insert(0, Blocker())
"""


def run(code: str, *, blocked: tuple[str, ...] = (), cwd: Path | None = None) -> str:
    code = (BLOCK.format(blocked=blocked) if blocked else "import sys\n") + code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_public_names() -> None:
    assert sorted(spacy_relx.__all__) == [
        "AdapterMismatchError",
        "ChecksumError",
        "ConfigError",
        "DataError",
        "ExtensionError",
        "ModelError",
        "ModelNotFoundError",
        "OutputError",
        "PackBudgetError",
        "PromptError",
        "Relation",
        "RelationAnswer",
        "RelxError",
        "RelxWarning",
        "SchemaError",
        "ServerError",
        "TrainingError",
        "UnsafeCheckpointError",
        "__version__",
        "as_doc",
        "merge_docs",
    ]
    assert all(hasattr(spacy_relx, name) for name in spacy_relx.__all__)


#: Names that configs, command lines and other packages rely on. One may be added; none may go without a new version.
REGISTERED = {
    "spacy_factories": {"llama_relation_extractor"},
    "spacy_architectures": {
        "spacy-relx.Cached.v1",
        "spacy-relx.CausalLM.v1",
        "spacy-relx.Llama32GenTune.v1",
        "spacy-relx.OpenAICompatible.v1",
        "spacy-relx.SmolLM2.v1",
    },
    "spacy_misc": {
        "spacy-relx.EntityPairs.v1",
        "spacy-relx.GenTunePrompt.v1",
        "spacy-relx.Mixture.v1",
        "spacy-relx.Schema.v1",
    },
    "spacy_scorers": {"spacy-relx.relation_scorer.v1"},
    "spacy_readers": {
        "spacy-relx.DocBin.v1",
        "spacy-relx.biographical.v1",
        "spacy-relx.conll04.v1",
        "spacy-relx.fewrel.v1",
        "spacy-relx.gids.v1",
        "spacy-relx.kbp37.v1",
        "spacy-relx.nyt11.v1",
        "spacy-relx.pg_fiction.v1",
        "spacy-relx.rebel.v1",
        "spacy-relx.redocred.v1",
        "spacy-relx.retacred.v1",
        "spacy-relx.scierc.v1",
        "spacy-relx.semeval2010_task8.v1",
        "spacy-relx.tacred.v1",
        "spacy-relx.webnlg.v1",
        "spacy-relx.mixture.v1",
        "spacy-relx.wiki80.v1",
    },
    "spacy_cli": {"relx"},
}


@pytest.mark.parametrize("group", REGISTERED)
def test_registered_names(group: str) -> None:
    ours = {point.name: point for point in entry_points(group=group) if point.value.startswith("spacy_relx.")}
    assert REGISTERED[group] <= set(ours)
    assert all(callable(point.load()) for point in ours.values())


@pytest.mark.parametrize("group", sorted(set(REGISTERED) - {"spacy_cli"}))
def test_annotations_of_what_configs_name(group: str) -> None:
    """confection before 1.0 makes a model of a function's arguments; pydantic resolves their annotations."""
    known = vars(import_module("pydantic.v1.main"))
    for point in entry_points(group=group):
        if point.value.startswith("spacy_relx."):
            for argument in inspect.signature(point.load()).parameters.values():
                if isinstance(argument.annotation, str):
                    eval(argument.annotation, dict(known))  # a NameError is what its users would get


def test_the_package_and_spacy_work_without_torch() -> None:
    code = (
        "import spacy_relx, spacy\n"
        "nlp = spacy.blank('en')\n"
        "component = nlp.add_pipe('llama_relation_extractor')\n"
        "from spacy.tokens import Span\n"
        "doc = nlp.make_doc('Jobs founded Apple')\n"
        "doc._.relations = [((2, 3), 'founded_by', (0, 1))]\n"
        "print(doc._.triples, 'torch' in sys.modules)\n"
    )
    assert run(code, blocked=("torch",)) == "[('Apple', 'founded_by', 'Jobs')] False"


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import spacy_relx\n"
        f"heavy = {HEAVY!r}\n"
        "print(sorted(set(heavy) & set(sys.modules)))\n"
        "import spacy; nlp = spacy.blank('en')\n"
        "print(sorted(set(heavy) & set(sys.modules)))\n"
        "nlp.add_pipe('llama_relation_extractor')\n"
        "print(sorted(set(heavy) & set(sys.modules)))\n"
    )
    assert run(code).splitlines() == ["[]"] * 3


def test_the_factory_needs_no_import(tmp_path: Path) -> None:
    code = (
        "import spacy\n"
        "nlp = spacy.blank('en')\n"
        "nlp.add_pipe('llama_relation_extractor')\n"
        "nlp.initialize()\n"
        "print(nlp('Nobody is here.')._.relations, nlp.pipe_names)\n"
    )
    assert run(code, cwd=tmp_path) == "[] ['llama_relation_extractor']"


def test_the_engine_works_without_spacy() -> None:
    names = [
        f"spacy_relx.engine.{path.stem}" for path in sorted((PACKAGE / "engine").glob("*.py")) if path.stem[0] != "_"
    ]
    code = (
        "import importlib\n"
        f"for name in {['spacy_relx.engine', *names]!r}: importlib.import_module(name)\n"
        "print(sorted({'spacy', 'thinc'} & set(sys.modules)))\n"
    )
    assert run(code, blocked=("spacy", "thinc")) == "[]"


# Read from the sources.


def imported(path: Path, *, nested: bool) -> set[str]:
    """Names of the packages that a module imports: at module level, or (`nested`) anywhere."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if not nested and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


def modules(*, engine: bool) -> list[Path]:
    core = {"engine", "training"}
    paths = sorted(PACKAGE.rglob("*.py"))
    return [path for path in paths if (path.relative_to(PACKAGE).parts[0] in core) == engine]


@pytest.mark.parametrize("path", sorted((PACKAGE / "engine").glob("*.py")), ids=lambda path: path.stem)
def test_the_engine_has_never_heard_of_spacy(path: Path) -> None:
    spacy_side = ("relation", "candidates", "pipeline", "schema", "prompts", "scorer", "settings", "answers", "models")
    forbidden = {"spacy", "thinc", *(f"spacy_relx.{name}" for name in spacy_side)}
    for name in imported(path, nested=True):
        assert not {name, name.split(".")[0]} & forbidden, name


@pytest.mark.parametrize("path", modules(engine=False), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_torch_stays_inside_the_engine(path: Path) -> None:
    packages = {name.split(".")[0] for name in imported(path, nested=False)}
    assert not packages & {"torch", "transformers", "peft", "bitsandbytes", "accelerate", "gguf"}


def test_only_loading_imports_peft_and_bitsandbytes() -> None:
    found = {
        path.name
        for path in [*modules(engine=True), *modules(engine=False)]
        if {name.split(".")[0] for name in imported(path, nested=True)} & {"peft", "bitsandbytes"}
        and "training" not in path.parts
    }
    # One loads adapters; the other keeps bitsandbytes to its own code, before anything imports it.
    assert found == {"loading.py", "quiet.py"}
