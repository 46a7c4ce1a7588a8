"""What is kept is found again, by whichever process, within the size; and a file that is no good is no matter."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from spacy_relx.engine import answer_store
from spacy_relx.engine.answer_store import AnswerStore
from spacy_relx.errors import RelxWarning

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LARGE = 2**30

WRITERS = """
import hashlib, multiprocessing, random, sys
from pathlib import Path
from spacy_relx.engine.answer_store import AnswerStore

def entry(number):
    key = hashlib.sha256(str(number).encode()).digest()
    return key, key * (1 + number % 5)

def work(folders, seed, barrier):
    draw = random.Random(seed)
    for i, folder in enumerate(folders):
        store = AnswerStore(Path(folder), 2**30 if i % 2 else 2**15)
        barrier.wait(60)
        for _ in range(25):
            wanted = dict(entry(draw.randrange(400)) for _ in range(20))
            found = store.get(list(wanted))
            assert all(wanted[key] == value for key, value in found.items())
            store.put({key: value for key, value in wanted.items() if key not in found})
        assert store.is_usable

if __name__ == "__main__":
    barrier = multiprocessing.Barrier(3)
    processes = [multiprocessing.Process(target=work, args=(sys.argv[1:], n, barrier)) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(max(process.exitcode for process in processes))
"""

ENDLESS_WRITER = """
import os, sys
from pathlib import Path
from spacy_relx.engine.answer_store import AnswerStore
store = AnswerStore(Path(sys.argv[1]), 2**30)
while True:
    keys = [os.urandom(32) for _ in range(50)]
    store.put({key: key for key in keys})
    print(keys[0].hex(), flush=True)
"""


def entry(number: int, size: int = 100) -> tuple[bytes, bytes]:
    key = hashlib.sha256(str(number).encode()).digest()
    return key, (key * (size // len(key) + 1))[:size]


def entries(*numbers: int) -> dict[bytes, bytes]:
    return dict(entry(number) for number in numbers)


def test_what_was_put_is_found_by_another_store(tmp_path: Path) -> None:
    kept = entries(*range(1200))  # more than one query holds
    store = AnswerStore(tmp_path / "new" / "folder", LARGE)
    assert store.get(list(kept)) == {}
    store.put(kept)
    assert store.get([*kept, b"unknown"]) == kept
    assert AnswerStore(tmp_path / "new" / "folder", LARGE).get(list(kept)) == kept
    assert store.get([]) == {}


def test_nothing_is_opened_before_it_is_used(tmp_path: Path) -> None:
    AnswerStore(tmp_path / "answers", LARGE)
    assert not (tmp_path / "answers").exists()


def test_the_first_answer_stays(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path, LARGE)
    store.put({b"key": b"first"})
    store.put({b"key": b"second"})
    assert store.get([b"key"]) == {b"key": b"first"}


def test_the_file_stays_within_its_size(tmp_path: Path) -> None:
    max_bytes = 2**18
    store = AnswerStore(tmp_path, max_bytes)
    for start in range(0, 12_000, 100):
        store.put(entries(*range(start, start + 100)))
    keys = [entry(number)[0] for number in range(12_000)]
    left = [keys.index(key) for key in store.get(keys)]
    # Whole batches share their time of use, so the last of them is cut at any place.
    assert set(range(11_900, 12_000)) <= set(left)
    assert min(left) > 10_000
    assert 0.8 * max_bytes < len(left) * 208 <= max_bytes
    assert store.path.stat().st_size < 2 * max_bytes


def test_what_was_used_longest_ago_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_store, "_TOUCH_AFTER", 0)
    store = AnswerStore(tmp_path, 208 * 10)
    for number in range(10):
        store.put(entries(number))
    assert len(store.get([entry(0)[0], entry(3)[0]])) == 2
    for number in range(10, 16):
        store.put(entries(number))
    left = store.get([entry(number)[0] for number in range(16)])
    assert left.keys() == entries(0, 3, *range(8, 16)).keys()


def test_reading_soon_after_does_not_write(tmp_path: Path) -> None:
    AnswerStore(tmp_path, LARGE).put(entries(1))
    store = AnswerStore(tmp_path, LARGE)
    store.get([])
    with sqlite3.connect(store.path) as other:
        other.execute("BEGIN IMMEDIATE")  # a writer would have to wait
        assert store.get(list(entries(1))) == entries(1)
    other.close()


def test_an_entry_that_was_damaged_is_not_found_and_comes_anew(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path, LARGE)
    store.put(entries(1, 2, 3, 4))
    with sqlite3.connect(store.path) as other:
        values = [other.execute("SELECT value FROM answers WHERE key = ?", [entry(i)[0]]).fetchone()[0] for i in (1, 2)]
        changes = [(values[0][:-1] + b"?", 1), (values[1], 3), (17, 4)]  # one bit, the answer to another, no bytes
        other.executemany("UPDATE answers SET value = ? WHERE key = ?", [(v, entry(i)[0]) for v, i in changes])
    other.close()
    assert store.get(list(entries(1, 2, 3, 4))) == entries(2)
    store.put(entries(1, 2, 3, 4))
    assert store.get(list(entries(1, 2, 3, 4))) == entries(1, 2, 3, 4)


def no_folder(folder: Path) -> None:
    folder.write_text("a file where the folder should be")


def no_file(folder: Path) -> None:
    (folder / answer_store.FILE_NAME).mkdir(parents=True)


def garbage(folder: Path) -> None:
    folder.mkdir()
    (folder / answer_store.FILE_NAME).write_bytes(b"not a database " * 1000)


def cut_off(folder: Path) -> None:
    AnswerStore(folder, LARGE).put(entries(*range(2000)))
    content = (folder / answer_store.FILE_NAME).read_bytes()
    (folder / answer_store.FILE_NAME).write_bytes(content[: len(content) // 2])


def other_tables(folder: Path) -> None:
    folder.mkdir()
    with sqlite3.connect(folder / answer_store.FILE_NAME) as other:
        other.execute("CREATE TABLE answers (something INTEGER)")
    other.close()


@pytest.mark.parametrize("damage", [no_folder, no_file, garbage, cut_off, other_tables])
def test_what_is_wrong_with_the_file_is_said_once(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = tmp_path / "answers"
    damage(folder)
    store = AnswerStore(folder, LARGE)
    with pytest.warns(RelxWarning, match=r"The answer cache .* cannot be used \(.*Give a `path`"):
        assert store.get(list(entries(*range(2000)))) == {}
    assert not store.is_usable
    store.put(entries(1))  # a second warning would be an error
    assert store.get(list(entries(1))) == {}


def test_a_file_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a read-only file system, which stops the superuser, too."""
    AnswerStore(tmp_path, LARGE).put(entries(1))
    connect = sqlite3.connect

    def read_only(path: Path, **settings: Any) -> sqlite3.Connection:
        return connect(f"{path.as_uri()}?mode=ro", uri=True, **settings)

    monkeypatch.setattr(sqlite3, "connect", read_only)
    store = AnswerStore(tmp_path, LARGE)
    with pytest.warns(RelxWarning, match="cannot be used"):
        store.put(entries(2))
    assert store.get(list(entries(2))) == {}


def test_a_file_that_another_process_keeps_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_store, "_PATIENCE", 0.05)
    store = AnswerStore(tmp_path, LARGE)
    store.put(entries(1))
    with sqlite3.connect(store.path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.warns(RelxWarning, match="locked"):
            store.put(entries(2))
        other.execute("ROLLBACK")
    other.close()
    assert AnswerStore(tmp_path, LARGE).get(list(entries(1, 2))) == entries(1)


def test_processes_share_a_file(tmp_path: Path) -> None:
    """They make it together, too; every other file is too small for all that they put into it."""
    script = tmp_path / "writers.py"
    script.write_text(WRITERS)
    folders = [tmp_path / f"answers{i}" for i in range(4)]
    command = [sys.executable, "-W", "error::UserWarning", str(script), *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert (done.returncode, done.stderr) == (0, "")
    keys = [entry(number)[0] for number in range(400)]
    n_left = [len(AnswerStore(folder, LARGE).get(keys)) for folder in folders]
    assert min(n_left[1::2]) > 350 > 250 > max(n_left[::2]) > 0


def test_a_writer_that_is_killed_leaves_a_whole_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ENDLESS_WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline() for _ in range(5)]
        writer.send_signal(signal.SIGKILL)
    keys = [bytes.fromhex(line) for line in said]
    assert AnswerStore(tmp_path, LARGE).get(keys) == {key: key for key in keys}


def _in_child(store: AnswerStore, results: Any) -> None:
    results.put([store.get(list(entries(1))), store.put(entries(2)), os.getpid()])


@pytest.mark.skipif(sys.platform == "win32", reason="has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_opens_the_file_for_itself(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path, LARGE)
    store.put(entries(1))
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    children = [context.Process(target=_in_child, args=(store, results)) for _ in range(2)]
    for child in children:
        child.start()
    for _ in children:
        found, _, process = results.get(timeout=60)
        assert found == entries(1)
        assert process != os.getpid()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    store.put(entries(3))
    assert store.get(list(entries(1, 2, 3))) == entries(1, 2, 3)
