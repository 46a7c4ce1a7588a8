"""What others build on is still there: public names, registered names, commands, with their parameters.

`api.json` is what was promised. Removing or changing anything of it fails here; a new name does not, and is recorded
with `pytest tests/test_api.py --update-golden` before a release.
"""

from __future__ import annotations

import inspect
import json
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import typer.main

import spacy_relx
from spacy_relx.cli import app
from spacy_relx.pipeline import RelationExtractor
from spacy_relx.settings import DEFAULT_CONFIG

SNAPSHOT = Path(__file__).parent / "api.json"
ROOT = Path(__file__).parents[1]
GROUPS = ("spacy_factories", "spacy_architectures", "spacy_misc", "spacy_readers", "spacy_scorers", "spacy_callbacks")


def parameters(function: Any) -> list[str]:
    """Names, kinds and defaults of the parameters, without types, which each Python writes in its own way."""
    found = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == "self":
            continue
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        word = " (by keyword)" if parameter.kind is parameter.KEYWORD_ONLY else ""
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        found.append(f"{stars}{parameter.name}{default if ' at 0x' not in default else '=…'}{word}")
    return found


def members(kind: type) -> dict[str, Any]:
    found: dict[str, Any] = {"()": parameters(kind)} if not issubclass(kind, BaseException) else {}
    for name in dir(kind):
        value = inspect.getattr_static(kind, name)
        if name.startswith("_") or getattr(value, "__module__", "spacy_relx").partition(".")[0] != "spacy_relx":
            continue
        if inspect.isfunction(value):
            found[name] = parameters(value)
        elif isinstance(value, property) or inspect.isdatadescriptor(value):
            found[name] = "attribute"
    return found


def described(value: Any) -> Any:
    if inspect.isclass(value):
        bases = [base.__name__ for base in value.__mro__[1:-1]] if issubclass(value, BaseException) else []
        return {**members(value), **({"is a": bases} if bases else {})}
    return parameters(value) if callable(value) else type(value).__name__


def commands(group: Any, path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= commands(command, f"{path}{name} ")
        else:
            found[path + name] = {
                str(p.name): sorted([*p.opts, *p.secondary_opts]) for p in command.params if not getattr(p, "hidden", 0)
            }
    return found


def public_api() -> dict[str, Any]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    registered: dict[str, Any] = {}
    for group in GROUPS:
        for name, place in project["entry-points"].get(group, {}).items():
            module, _, attribute = place.partition(":")
            registered[f"{group} {name}"] = parameters(getattr(import_module(module), attribute))
    return {
        "names": {name: described(getattr(spacy_relx, name)) for name in sorted(spacy_relx.__all__)},
        "registered": registered,
        "config": DEFAULT_CONFIG,
        "component": members(RelationExtractor),
        "commands": commands(typer.main.get_command(app)),
        "extensions": ["doc._.relation_answers", "doc._.relations", "doc._.triples", "span._.relations"],
    }


def broken(promised: Any, now: Any, where: str) -> list[str]:
    """What was promised and is not so any more; what is new breaks nothing."""
    if isinstance(promised, dict) and isinstance(now, dict):
        return [
            problem
            for key, value in promised.items()
            for problem in (broken(value, now[key], f"{where} > {key}") if key in now else [f"{where} > {key} is gone"])
        ]
    if "> commands" in where and isinstance(promised, list) and set(promised) <= set(now):
        return []
    if isinstance(promised, list) and isinstance(now, list) and promised == now[: len(promised)]:
        # Further parameters are fine where nobody has to give them.
        further = [p for p in now[len(promised) :] if isinstance(p, str) and "=" not in p and p[0] != "*"]
        return [f"{where} wants {further[0]}"] if further else []
    return [] if promised == now else [f"{where} was {promised!r}, is {now!r}"]


def test_nothing_that_was_promised_is_gone(update_golden: bool) -> None:
    now = json.loads(json.dumps(public_api()))
    if update_golden:
        SNAPSHOT.write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    problems = broken(json.loads(SNAPSHOT.read_text(encoding="utf-8")), now, "")
    assert not problems, "\n".join(problems)


def test_the_extensions_are_there() -> None:
    from spacy.tokens import Doc, Span

    for extension in public_api()["extensions"]:
        owner, name = extension.split("._.")
        assert {"doc": Doc, "span": Span}[owner].has_extension(name)


def test_what_breaks_is_seen() -> None:
    before = {"f": ["a", "b=1"], "commands": {"x": {"old": ["--old"]}}, "C": {"m": ["a"]}}
    assert broken(before, {**before, "new": []}, "") == []
    assert broken(before, {**before, "commands": {"x": {"old": ["--another", "--old"]}}}, "") == []
    assert broken(before, {**before, "f": ["a", "b=1", "c=2"]}, "") == []
    for now in (
        {"commands": {"x": {"old": ["--new"]}}},
        {"f": ["a"]},
        {"f": ["a", "b=2"]},
        {"f": ["a", "b=1", "c"]},
        {"C": {}},
    ):
        assert len(broken(before, before | now, "")) == 1
