"""Where a measurement was made, and of what: machine, libraries, commit, model."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spacy_relx.engine.loading import LoadedModel

_LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "bitsandbytes", "spacy", "numpy", "spacy-relx")


def provenance() -> dict[str, Any]:
    """Command, date, commit, machine, threads and library versions, as every result file begins."""
    import torch

    return {
        "command": command(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine_facts(),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **library_versions()},
    }


def command() -> str:
    """The command line of this process, with folders of its own left out of the program's name."""
    program = Path(sys.argv[0])
    name = program.name if program.name != "__main__.py" else f"-m {program.parent.name}"
    if program.suffix == ".py" and program.name != "__main__.py":
        name = "/".join(program.parts[-2:])
    return shlex.join(["python", *name.split(" "), *sys.argv[1:]])


def commit() -> str | None:
    """The commit of the package's own repository, with `+changes` where files differ from it; None outside of one."""
    folder = Path(__file__).parent
    asked = ["git", "-C", str(folder), "describe", "--always", "--dirty=+changes", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def machine_facts() -> dict[str, Any]:
    """Processor, cores, memory, system, and the GPU if there is one."""
    import psutil  # type: ignore[import-untyped]  # comes with accelerate
    import torch

    facts: dict[str, Any] = {
        "processor": processor_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
        facts["gpu_memory_gib"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)
        facts["cuda"] = torch.version.cuda
    return facts


def usable_cores() -> int:
    """Cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def processor_name() -> str:
    """What the processor calls itself."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    return names[0].split(":")[1].strip() if names else platform.processor() or platform.machine()


def library_versions(names: tuple[str, ...] = _LIBRARIES) -> dict[str, str]:
    """Versions of the libraries that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def model_facts(loaded: LoadedModel) -> dict[str, Any]:
    """Which model was measured, and the fingerprints by which it is known again."""
    adapter = loaded.adapter_info
    return {
        "base": Path(loaded.spec.base).name if Path(loaded.spec.base).exists() else loaded.spec.base,
        "base_fingerprint": loaded.base_fingerprint,
        "adapter": loaded.spec.adapter,
        "adapter_sha256": adapter.get("sha256"),
        "fingerprint": loaded.fingerprint,
        "quantization": loaded.spec.quantization,
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "device": loaded.device.type,
    }
