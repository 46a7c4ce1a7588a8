"""Fuzzes what reads files and settings from elsewhere, for a bounded time.

Every target of `tests/fuzz/targets.py` gets its share of the time. With atheris (`pip install atheris`, Linux) the
fuzzer sees which paths an input takes and follows new ones; without it, the seeds are mutated blindly. An input that
raises anything but a `RelxError`, hangs for 20 s or takes 2 GB is kept in the folder of findings.
"""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Annotated

import typer

FUZZ = Path(__file__).resolve().parents[1] / "tests" / "fuzz"
HANG_SECONDS = 20
MEMORY_MB = 2048


def main(
    seconds: Annotated[float, typer.Option(min=1, help="Time for each target.")] = 30,
    target: Annotated[list[str] | None, typer.Option(help="Only this target; may be given again.")] = None,
    findings: Annotated[Path, typer.Option(help="Where inputs that broke something are kept.")] = Path("fuzz-findings"),
    inside: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Fuzz all targets one after the other; the exit code is 1 if something broke."""
    findings = findings.resolve()
    findings.mkdir(parents=True, exist_ok=True)
    if inside:
        assert target
        _fuzz_one(target[0], seconds, findings)
        return
    sys.path.insert(0, str(FUZZ))
    from targets import TARGETS

    unknown = set(target or ()) - set(TARGETS)
    if unknown:
        sys.exit(f"There is no target {min(unknown)!r}. Targets: {', '.join(TARGETS)}.")
    guided = importlib.util.find_spec("atheris") is not None
    print(f"{'Guided by coverage' if guided else 'Blind: atheris is not installed'}; {seconds:g} s for each target.")
    broken = []
    for name in target or TARGETS:
        # A process each: libFuzzer ends the process that it runs in.
        command = [sys.executable, __file__, "--inside", "--target", name, "--seconds", str(seconds)]
        done = subprocess.run([*command, "--findings", str(findings)], capture_output=True, text=True, check=False)
        if done.returncode:
            broken.append(name)
        print(f"{name}: {_summary(done.stdout + done.stderr, bool(done.returncode))}", flush=True)
    if broken:
        sys.exit(f"{len(broken)} targets broke: {', '.join(broken)}. The inputs are in {findings}.")


def _summary(output: str, failed: bool) -> str:
    if failed:
        return "BROKEN\n" + "\n".join(output.splitlines()[-40:])
    lines = [line for line in output.splitlines() if "DONE" in line or "Done " in line or "inputs" in line]
    return "; ".join(" ".join(line.split()) for line in lines) or "no output"


def _fuzz_one(name: str, seconds: float, findings: Path) -> None:
    sys.path.insert(0, str(FUZZ))
    if importlib.util.find_spec("atheris") is None:
        _fuzz_blindly(name, seconds, findings)
        return
    import atheris

    with atheris.instrument_imports(include=["spacy_relx"]):
        from targets import TARGETS, mutate

    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as folder:
        corpus, work = Path(folder) / "corpus", Path(folder) / "work"
        corpus.mkdir()
        work.mkdir()
        for number, data in enumerate(target.seeds.values()):
            (corpus / str(number)).write_bytes(data)

        def change(data: bytes, max_size: int, seed: int) -> bytes:
            rng = random.Random(seed)
            changed = mutate(target, data, rng) if rng.random() < 0.7 else atheris.Mutate(data, max_size)
            return bytes(changed[:max_size])

        arguments = [
            f"-max_total_time={int(seconds)}",
            f"-timeout={HANG_SECONDS}",
            f"-rss_limit_mb={MEMORY_MB}",
            "-max_len=65536",
            f"-artifact_prefix={findings}{os.sep}{name}-",
            "-print_final_stats=0",
        ]
        atheris.Setup([name, *arguments, str(corpus)], lambda data: target(data, work), custom_mutator=change)
        atheris.Fuzz()


def _fuzz_blindly(name: str, seconds: float, findings: Path) -> None:
    from targets import TARGETS, mutate

    target, rng = TARGETS[name], random.Random()
    seeds = list(target.seeds.values())
    end, n = time.monotonic() + seconds, 0
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            data = mutate(target, rng.choice(seeds), rng)
            n += 1
            try:
                target(data, Path(folder))
            except Exception:
                traceback.print_exc()
                kept = findings / f"{name}-{rng.randrange(1 << 32):08x}"
                kept.write_bytes(data)
                sys.exit(f"{kept} holds the input.")
    print(f"{n} inputs in {seconds:g} s")


if __name__ == "__main__":
    typer.run(main)
