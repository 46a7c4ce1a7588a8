"""A rival in a process of its own, from this side: started, asked, stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy_relx.benchmark.engine_run import Contestant

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVER = Path(__file__).with_name("serve.py")


class Unavailable(Exception):
    """A rival that cannot be run here; the message says why."""


class Remote:
    """One rival in its process.

    Args:
        module: The rival's file; see `rivals/__init__.py` for what is in it.
        python: The interpreter of its environment.
        threads: Threads that its libraries may use.
    """

    def __init__(self, module: Path, python: Path = Path(sys.executable), threads: int = 1) -> None:
        self._name = module.stem
        variables = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        self._process = subprocess.Popen(
            [python, SERVER, module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf8",
            env={**os.environ, **variables, "TOKENIZERS_PARALLELISM": "false"},
        )

    def prepare(self, task: Mapping[str, Any]) -> Contestant:
        """Give it its work, and run it once, so that what comes first is paid for.

        Raises:
            Unavailable: If it cannot do the work.
        """
        told = self._ask({"do": "prepare", "task": task})
        self.run()
        return Contestant(self.run, int(told["n_units"]), str(told["unit"]), dict(told["facts"]))

    def run(self) -> float:
        """Do the work once; return the seconds that it took there.

        Raises:
            Unavailable: If it fails.
        """
        return float(self._ask({"do": "run"})["seconds"])

    def close(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            try:
                self._send({"do": "stop"})
                self._process.wait(10)
            except (OSError, subprocess.TimeoutExpired):
                self._process.kill()
                self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def _ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdout is not None
        try:
            self._send(message)
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise Unavailable(f"{self._name}: its process ended with the exit code {self._process.wait(10)}.")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Unavailable(f"{self._name}: {answer['error']}")
        return answer
