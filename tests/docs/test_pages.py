"""Every Python block of the documentation runs, and prints what the page says.

`make docs-outputs` writes the outputs anew, after a change of the packaged adapter, say; then read the diff.
"""

from __future__ import annotations

import re
import shlex
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import spacy
from markdown_blocks import Block, PageRun, fences, python_blocks, same_output, with_outputs
from thinc.api import Config
from typer.main import get_command

import spacy_relx
from spacy_relx.cli import app
from spacy_relx.cli._pipeline import FACTORY, entity_pipeline
from spacy_relx.engine.spec import EMBEDDED_ADAPTER
from spacy_relx.shim import EngineShim

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spacy.language import Language

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_PYTHON = [page for page in PAGES if python_blocks(page.read_text("utf8"))]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")  # no longer: other tests load for themselves
def shared_models() -> Iterator[None]:
    """Weights and the entity recogniser are loaded once for all pages; nothing that a page does changes them."""
    patch = pytest.MonkeyPatch()
    load_engine, load = EngineShim._load, spacy.load
    engines: dict[Any, Any] = {}

    def load_engine_once(shim: EngineShim) -> Any:
        key = shim.spec, shim.engine_name, shim.max_pack_tokens
        if key not in engines:
            engines[key] = load_engine(shim)
        return engines[key]

    patch.setattr(EngineShim, "_load", load_engine_once)
    loaded: dict[str, tuple[Language, list[str]]] = {}
    meta: dict[str, Any] = {}

    def load_clean(pipeline: Any, **kwargs: Any) -> Language:
        if pipeline != "en_core_web_sm" or kwargs:
            return load(pipeline, **kwargs)
        if pipeline not in loaded:
            nlp = load(entity_pipeline())
            loaded[pipeline] = nlp, nlp.pipe_names
            meta.update(nlp.meta)
        nlp, components = loaded[pipeline]
        for added in set(nlp.pipe_names) - set(components):
            nlp.remove_pipe(added)
        nlp.meta = dict(meta)
        return nlp

    patch.setattr(spacy, "load", load_clean)
    yield
    patch.undo()


@pytest.mark.model
@pytest.mark.usefixtures("shared_models", "embedded_base")
@pytest.mark.parametrize("page", WITH_PYTHON, ids=name)
def test_python_blocks_print_what_the_page_says(
    page: Path, update_docs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = page.read_text("utf8")
    run = PageRun(page)
    outputs: list[tuple[Block, str]] = []
    for block in python_blocks(text):
        outputs.append((block, run.run(block)))
    if update_docs:
        page.write_text(with_outputs(text, outputs), "utf8")
        return
    for block, printed in outputs:
        if not block.hidden:
            shown = block.output or ""
            assert same_output(printed, shown), (
                f"{name(page)}:{block.line} prints\n{printed}but the page says\n{shown}If the code is right, run "
                "`make docs-outputs` and read the diff."
            )


_IN_SHORT = re.compile(r"(<!-- the card's section \"In short\"; [^\n]* -->\n)(.*?)(?=<!-- end -->)", re.DOTALL)
_ADAPTER = re.compile(r"(?<=spacy_relx/adapters/)[\w.-]+(?=/README\.md)")


def test_the_readme_says_of_the_default_adapter_what_its_card_says(update_docs: bool) -> None:
    readme = (ROOT / "README.md").read_text("utf8")
    card = files(spacy_relx).joinpath("adapters", EMBEDDED_ADAPTER, "README.md").read_text("utf8")
    in_short = card.split("\n## In short\n")[1].split("\n## ")[0].strip()
    current = _ADAPTER.sub(EMBEDDED_ADAPTER, _IN_SHORT.sub(lambda found: f"{found[1]}{in_short}\n", readme))
    if update_docs:
        (ROOT / "README.md").write_text(current, "utf8")
    else:
        assert current == readme, "Run `make docs-outputs` and read the diff."


def commands(page: Path) -> list[list[str]]:
    """The words of each command of ours on a page, after the program's name."""
    lines = [
        line for _, code in fences(page.read_text("utf8"), "bash") for line in code.replace("\\\n", " ").splitlines()
    ]
    words = [shlex.split(line, comments=True) for line in lines if line.startswith("python -m spacy relx ")]
    return [line[4:] for line in words]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name)
def test_commands_and_options_on_the_pages_exist(page: Path) -> None:
    program = get_command(app)
    for words in commands(page):
        command = program
        options = set(command.params[0].opts)
        for word in words:
            if word in getattr(command, "commands", {}):
                command = command.commands[word]
                options |= {option for p in command.params for option in (*p.opts, *p.secondary_opts)} | {"--help"}
            elif word.startswith("-") and word != "-":
                assert word in options, (
                    f"{name(page)}: {' '.join(words)} has {word}, which {command.name} does not know."
                )
        assert command is not program, words


def config_blocks(page: Path) -> list[tuple[int, str]]:
    return [(line, code) for line, code in fences(page.read_text("utf8"), "ini") if f"[components.{FACTORY}" in code]


def with_parents(code: str) -> str:
    """A part of a config with the sections that its format wants above each section."""
    declared = set(re.findall(r"^\[(.+)\]$", code, re.MULTILINE))

    def section(header: re.Match[str]) -> str:
        parts = header[1].split(".")
        missing = [parent for n in range(1, len(parts)) if (parent := ".".join(parts[:n])) not in declared]
        declared.update(missing)
        return "".join(f"[{parent}]\n\n" for parent in missing) + header[0]

    return re.sub(r"^\[(.+)\]$", section, code, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("page", "line", "code"),
    [(page, line, code) for page in PAGES for line, code in config_blocks(page)],
    ids=lambda value: name(value) if isinstance(value, Path) else str(value) if isinstance(value, int) else "",
)
def test_config_blocks_on_the_pages_make_a_component(page: Path, line: int, code: str) -> None:
    settings = Config().from_str(with_parents(code))["components"][FACTORY]
    settings.pop("factory", None)
    component = spacy.blank("en").add_pipe(FACTORY, config=settings)
    assert component.labels
