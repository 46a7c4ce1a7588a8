"""A real Ray cluster on this machine, two actors, one of which is killed midway. `make test-ray` runs this."""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from spacy.language import Language
from test_blocks import TEXTS, rows, write_corpus
from tiny import pipeline

from spacy_relx.distributed.annotate import annotate_blocks
from spacy_relx.distributed.ray_data import _size, annotate_on_ray, connected
from spacy_relx.errors import ConfigError, DataError, RelxWarning

if TYPE_CHECKING:
    from collections.abc import Iterator

needs_ray = pytest.mark.skipif(
    os.environ.get("SPACY_RELX_TEST_RAY") != "1",
    reason="starting a Ray cluster takes more time and memory than CI has: make test-ray runs this",
)


class Mortal:
    """A component that kills its process once, at one document."""

    def __init__(self, nlp: Language, name: str, grave: str) -> None:
        self.grave = Path(grave)

    def __call__(self, doc: Any) -> Any:
        if TEXTS[11] in doc.text and not self.grave.exists():
            self.grave.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.05)  # so that no actor does everything before the other has begun
        return doc


Language.factory("mortal", func=Mortal, default_config={"grave": ""})


def make(base: str, grave: str) -> Language:
    nlp = pipeline(base)
    nlp.add_pipe("mortal", config={"grave": grave})
    return nlp


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason="Ray is not installed: make test-ray installs it")
    here = Path(__file__).parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (here, here.parent))))  # actors import this module
        ray.init(num_cpus=2, object_store_memory=200 * 2**20, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@needs_ray
def test_a_killed_actor_is_replaced_and_nothing_is_lost_or_doubled(
    cluster: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    path, out, grave = write_corpus(tmp_path / "in.jsonl"), tmp_path / "out", tmp_path / "grave"
    made = partial(make, str(tiny_llama), str(grave))
    counts: list[tuple[int, int]] = []
    summary = annotate_on_ray(
        made, path, out, n_actors=2, form="parquet", block_size=3, progress=lambda *now: counts.append(now)
    )
    assert grave.exists()
    assert int(grave.read_text()) != os.getpid()
    assert (summary.n_docs, summary.n_failed) == (len(TEXTS), 0)
    assert counts[-1] == (len(TEXTS), 0)
    found = rows(out)
    assert [row["id"] for row in found] == list(range(len(TEXTS)))
    # The same blocks in one process. The grave is there, so nobody dies.
    annotate_blocks(made, path, tmp_path / "one", form="parquet", block_size=3)
    assert found == rows(tmp_path / "one")
    assert sum(len(row["relations"]) for row in found) > 0
    assert annotate_on_ray(made, path, out, form="parquet", block_size=3).n_resumed == len(TEXTS)


@needs_ray
def test_what_a_cluster_cannot_do(cluster: Any, tiny_llama: Path, tmp_path: Path) -> None:
    path = write_corpus(tmp_path / "in.jsonl")
    made = partial(pipeline, str(tiny_llama))
    with pytest.raises(ConfigError, match="An actor takes 1 CPU and 1 GPU, and the cluster has 2 CPU, 0 GPU"):
        annotate_on_ray(made, path, tmp_path / "out", gpus_per_actor=1)
    with pytest.raises(DataError, match="is in the input"):
        annotate_on_ray(made, tmp_path, tmp_path / "out")


def test_room_for_actors() -> None:
    box = {"CPU": 64.0, "GPU": 8.0}
    assert _size(None, box, 1, 1) == 8
    assert _size(None, box, 4, 0) == 16
    assert _size(None, box, 1, 0.5) == 16
    with pytest.raises(ConfigError, match="An actor takes 100 CPU"):
        _size(None, box, 100, 0)
    assert _size(16, box, 4, 0) == 16
    with pytest.warns(
        RelxWarning, match=r"An actor takes 1 CPU and 1 GPU, and the cluster has .* of the 9 actors, 8 fit"
    ):
        assert _size(9, box, 1, 1) == 9
    with pytest.warns(RelxWarning, match="of the 1 actors, 0 fit. The others wait until it grows"):
        assert _size(1, {"CPU": 4}, 1, 1) == 1


class FakeRay(SimpleNamespace):
    """What `connected` asks of Ray; `running` clusters take nobody's settings, as Ray has it."""

    def __init__(self, running: set[str | None], *, is_used: bool = False) -> None:
        super().__init__(running=running, is_used=is_used, started=[])

    def is_initialized(self) -> bool:
        return self.is_used

    def init(self, address: str | None, **settings: Any) -> None:
        if address in self.running:
            if "object_store_memory" in settings:
                raise ValueError("When connecting to an existing cluster, object_store_memory must not be provided.")
        elif address not in (None, "local"):
            raise ConnectionError("nobody there")
        self.is_used = True
        self.started.append((address, "object_store_memory" in settings))

    def shutdown(self) -> None:
        self.is_used = False


@pytest.mark.parametrize(
    ("running", "address", "variable", "wanted"),
    [
        (set(), None, None, (None, True)),
        ({None}, None, None, (None, False)),  # `ray start` was here
        ({"first:1"}, None, "first:1", ("first:1", False)),
        ({"first:1", "other:1"}, "other:1", "first:1", ("other:1", False)),
        ({None}, "local", None, ("local", True)),
    ],
)
def test_which_cluster_is_used(
    monkeypatch: pytest.MonkeyPatch, running: set[str | None], address: str | None, variable: str | None, wanted: Any
) -> None:
    fake = FakeRay(running)
    monkeypatch.setitem(sys.modules, "ray", fake)  # type: ignore[arg-type]
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if variable:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    with connected(address):
        assert fake.is_used
        assert fake.started == [wanted]
    assert not fake.is_used


def test_a_cluster_in_use_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRay(set(), is_used=True)
    monkeypatch.setitem(sys.modules, "ray", fake)  # type: ignore[arg-type]
    with connected("elsewhere:1"):
        assert not fake.started
    assert fake.is_used


def test_no_cluster_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", FakeRay(set()))  # type: ignore[arg-type]
    with (
        pytest.raises(ConfigError, match="No Ray cluster was reached at nowhere:1: nobody there"),
        connected("nowhere:1"),
    ):
        pass
