"""Refuses to release what is not ready: the tag, the package, the changelog and the citation have to agree."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def problems(tag: str, root: Path = ROOT) -> list[str]:
    """Return what stands against releasing the files under `root` as `tag`, such as "v0.1.0"."""
    version = tag.removeprefix("v")
    found = []
    if not re.fullmatch(r"v\d+\.\d+\.\d+", tag):
        found.append(f"The tag is {tag!r}. Expected v and three numbers, such as v0.1.0.")
    places = {
        "pyproject.toml": rf'^version = "{re.escape(version)}"$',
        "spacy_relx/__init__.py": rf'^__version__ = "{re.escape(version)}"$',
        "CITATION.cff": rf"^version: {re.escape(version)}$",
        "CHANGELOG.md": rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$",
    }
    for name, line in places.items():
        if not re.search(line, (root / name).read_text(encoding="utf8"), re.MULTILINE):
            found.append(f"{name} has no line like {line}.")
    return found


if __name__ == "__main__":
    sys.exit("\n".join(problems(sys.argv[1])) or None)
