"""What a model's licence asks of those who pass a pipeline on; so far, that of the Llama models.

Saved pipelines carry the notice, in the component's folder and in their meta, which `spacy package` prints in the
README, and saving one under a name that the licence does not want is a warning. Whether somebody distributes a pipeline
is theirs to know; this module only tells them what follows.
"""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy_relx.errors import RelxWarning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spacy_relx.engine.spec import ModelSpec

NOTICE_FILE = "NOTICE"
BUILT_WITH = "Built with Llama"
#: What spaCy calls a pipeline that nobody has named, and what one with a Llama base is called instead.
UNNAMED, LLAMA_NAME = "pipeline", "Llama_pipeline"

# Meta's own names, with a generation; TinyLlama, OpenLLaMA and others have licences of their own.
_LLAMA = re.compile(r"(^|/)meta-llama/|(^|[/_.\- ])(meta-)?llama-?([2-9])(\.\d+)?(?!\d)", re.IGNORECASE)

# Attribution wording. Source: Llama 3.2 Community License Agreement, section 1.b.
_LLAMA_32 = (
    "Llama 3.2 is licensed under the Llama 3.2 Community License, Copyright © Meta Platforms, Inc. All Rights Reserved."
)
_LINKS = {
    "2": ("https://ai.meta.com/llama/license/", "https://ai.meta.com/llama/use-policy/"),
    "3": ("https://www.llama.com/llama3/license/", "https://www.llama.com/llama3/use-policy/"),
    "3.1": ("https://www.llama.com/llama3_1/license/", "https://www.llama.com/llama3_1/use-policy/"),
    "3.2": ("https://www.llama.com/llama3_2/license/", "https://www.llama.com/llama3_2/use-policy/"),
    "3.3": ("https://www.llama.com/llama3_3/license/", "https://www.llama.com/llama3_3/use-policy/"),
    "4": ("https://www.llama.com/llama4/license/", "https://www.llama.com/llama4/use-policy/"),
}


def notice_for(spec: ModelSpec, family: str | None = None) -> str | None:
    """Return the notice that goes with a model, or None where its licence asks for none that is known here.

    A model counts as Meta's by its name, by the name that a local folder's `config.json` gives, or by the base that its
    adapter was trained on.

    Args:
        spec: The model. Nothing is fetched or loaded.
        family: What the architecture is known to be for, such as "Llama-3.2".
    """
    names = _names(spec) if family is None else (family, *_names(spec))
    for name in names:
        found = _LLAMA.search(name)
        if found is not None:
            return _notice(_version(name))
    return None


def add_to_meta(meta: dict[str, Any], notice: str) -> None:
    """Put a notice into a pipeline's meta, once, and give an unnamed pipeline a name that begins with Llama."""
    notes = meta.get("notes") or ""
    if notice not in notes:
        meta["notes"] = f"{notes}\n\n{notice}" if notes else notice
    if meta.get("name", UNNAMED) == UNNAMED:
        meta["name"] = LLAMA_NAME


def advice_on_name(name: str) -> str | None:
    """Return what is wrong with the name of a pipeline on a Llama base, or None if it begins as the licence wants."""
    if name.lower().startswith("llama"):
        return None
    return (
        f"The pipeline is called {name!r} and has a Llama base, whose licence wants the name of what was made with it "
        f'to begin with "Llama". Before passing it on, set nlp.meta["name"] = "Llama_{name}" and save it again, or '
        "give `spacy package` such a name with --name."
    )


def warn_of_name(meta_file: Path) -> None:
    """Warn if a saved pipeline's meta has a name that a Llama base does not go with; no file, no warning."""
    for name in _written(meta_file, "name"):
        if (advice := advice_on_name(name)) is not None:
            warnings.warn(advice, RelxWarning, stacklevel=2)


def _names(spec: ModelSpec) -> Iterator[str]:
    yield spec.base
    yield from _written(Path(spec.base).expanduser() / "config.json", "_name_or_path")
    if spec.adapter is not None:
        yield spec.adapter
        yield from _written(Path(spec.adapter).expanduser() / "adapter_config.json", "base_model_name_or_path")


def _written(path: Path, key: str) -> Iterator[str]:
    """The value of a key of a JSON file, if there is such a file and it has a string there."""
    try:
        value = json.loads(path.read_text(encoding="utf8")).get(key)
    except (OSError, ValueError, AttributeError):
        return
    if isinstance(value, str):
        yield value


def _version(name: str) -> str | None:
    found = re.search(r"llama-?([2-9](?:\.\d+)?)(?!\d)", name, re.IGNORECASE)
    return None if found is None else found[1]


def _notice(version: str | None) -> str:
    family = "Llama" if version is None else f"Llama {version}"
    lines = [f"{BUILT_WITH}.", ""]
    if version == "3.2":
        lines += [_LLAMA_32, ""]
    licence, policy = _LINKS.get(version or "", ("https://www.llama.com/license/", "https://www.llama.com/use-policy/"))
    lines += [
        f"This pipeline uses a {family} model. Whoever passes on the model, something made from it such as an adapter, "
        "or a product with it:",
        "",
        f"- gives a copy of its licence along: {licence}",
        f'- shows "{BUILT_WITH}" on a related web page, in the interface or in the documentation;',
        '- begins the name of a model that was made with it with "Llama";',
        "- keeps the notice of copyright that came with it;",
        f"- keeps to its Acceptable Use Policy: {policy}",
    ]
    return "\n".join(lines)
