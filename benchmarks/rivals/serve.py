"""Runs one rival in a process of its own, which may have an environment of its own. Standard library only.

    python serve.py RIVAL.py

Reads a JSON object a line and answers with one: {"do": "prepare", "task": {...}} -> what is measured (`n_units`,
`unit`, `facts`); {"do": "run"} -> {"seconds": ...}; {"do": "stop"} ends it. What goes wrong is {"error": ...}.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    """Serve until told to stop, or until nobody is there any more."""
    # Libraries print what they like; the answers have a channel of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf8")
    os.dup2(2, 1)
    rival = None
    for line in sys.stdin:
        message = json.loads(line)
        if message["do"] == "stop":
            return
        try:
            if message["do"] == "prepare":
                rival = load_module(Path(sys.argv[1])).prepare(message["task"])
                answer = {"n_units": rival.n_units, "unit": rival.unit, "facts": rival.facts}
            else:
                start = time.perf_counter()
                rival.run()
                answer = {"seconds": time.perf_counter() - start}
        except BaseException as error:  # the other side decides what it means
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def load_module(path: Path):
    """Import a rival from its file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
