"""The tests on the oldest and the newest of everything that is supported; `nox --list` says what there is.

Run `nox -s lowest newest` before a release, and `nox -s tests` with several Pythons installed. Arguments after `--` go
to pytest.
"""

from __future__ import annotations

import json
from pathlib import Path

import nox

nox.options.sessions = ["tests"]
nox.options.reuse_existing_virtualenvs = True

PYTHONS = ("3.11", "3.12", "3.13")
#: The oldest releases that are tested. Each is the lowest that pyproject.toml allows, or the lowest that the others
#: allow beside it: transformers 5.0 wants newer tokenizers, huggingface-hub and accelerate than this package does.
LOWEST = {
    "spacy": "3.8.2",
    "thinc": "8.3.2",
    "torch": "2.6.0",
    "transformers": "5.0.0",
    "peft": "0.18.0",
    "accelerate": "1.2.1",
    "pydantic": "2.8.0",
    "safetensors": "0.4.3",
    "srsly": "2.4.7",
    "typer": "0.16.0",
}
#: What answers golden documents, saved pipelines and promises; the whole of the tests takes a quarter of an hour.
CORE = ("tests/test_compatibility.py", "tests/test_api.py", "tests/test_determinism.py", "tests/test_component.py")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All tests, with what `make test` installs."""
    _install(session, "-c", "constraints.txt")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """The core of the tests on the oldest releases."""
    pins = Path(session.create_tmp()) / "lowest.txt"
    pins.write_text("".join(f"{name}=={version}\n" for name, version in LOWEST.items()), encoding="utf-8")
    _install(session, "-c", str(pins))
    # Plugins that integrations bring along, such as langsmith's, want a newer pydantic, and the core needs none.
    session.run("python", "-m", "pytest", *(session.posargs or CORE), env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})


@nox.session(python=PYTHONS[-1])
def newest(session: nox.Session) -> None:
    """The core of the tests on the newest releases, pre-releases of this package's dependencies among them."""
    _install(session, "--upgrade", "--upgrade-strategy", "eager", "--pre")
    session.run("python", "-m", "pytest", *(session.posargs or CORE))


@nox.session(python=PYTHONS[0])
def golden(session: nox.Session) -> None:
    """The same scores on the oldest and the newest torch and transformers, to 1e-4."""
    found = []
    for pins in (LOWEST, {}):
        session.install("-e", ".", *(f"{name}=={version}" for name, version in pins.items()), "--upgrade")
        out = Path(session.create_tmp()) / f"{'lowest' if pins else 'newest'}.json"
        session.run("python", "benchmarks/determinism.py", "--pairs", "20", "--runs", "float32", "--answers", str(out))
        found.append(json.loads(out.read_text(encoding="utf-8"))["float32"])
    for (label, score), (other_label, other_score) in zip(*found):
        if label != other_label or abs(score - other_score) > 1e-4:
            session.error(f"{label} {score} on the oldest releases, {other_label} {other_score} on the newest")


def _install(session: nox.Session, *arguments: str) -> None:
    session.install("-e", ".", "--group", "test", *arguments)
    session.run("python", "-m", "spacy_relx", "fetch")
