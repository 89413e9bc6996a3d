"""Kills sweeps at random moments and goes on each time: make torture. A line a kill, and what was lost in the end: nothing.

Every other kill comes by the clock, wherever the sweep is then; the others strike just before an operation on the disk
(a file opened to be written, a folder made, a rename, a removal), where a half-written file would be. Between kills the
sweep is started again on the same folder; once it has come to its end its table must be that of a sweep that nobody
disturbed, and the next folder is begun. At last two sweeps run at once on one folder.
"""

import argparse
import contextlib
import dataclasses
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from utils.config import RunConfig
from utils.data import load_qa
from utils.environment import detect, prepare
from utils.experiments import finished_record, run, sweep
from utils.models.adapter import has_adapter
from utils.paper import table_3_grid
from utils.records import identity_of, load_records, record_path
from utils.report import as_text, comparable, load_frame, table_3, table_4

CONFIGS = [RunConfig("tiny-llama", epochs=1, max_new_tokens=4, **fields) for fields in table_3_grid()[:5]]
CONFIGS = [CONFIGS[0].base(), *CONFIGS]
MOST_OPERATIONS = 80  # on the disk, into a sweep: about three runs
WRITES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")


def child(runs: Path, again: bool, operation: int | None, parent) -> None:
    """Sweep on a folder, in a process of its own; with `again` a finished run is repeated first, as 02 does.

    Tells the parent when the work begins, and kills itself before the given operation on the disk.
    """
    prepare()
    here = dataclasses.replace(detect("smoke"), device="cpu", dtype="float32", dataset="bundled", runs=runs)
    data, count = load_qa("bundled", 12, 6), 0

    def strike(event: str, arguments: tuple) -> None:
        nonlocal count
        if event == "open" and not set(str(arguments[1])) & set("wax+"):
            return
        if event in ("open", *WRITES) and str(arguments[0]).startswith(str(runs)):
            count += 1
            if count == operation:
                parent.send(f"{event} {Path(str(arguments[0])).name}")
                os.kill(os.getpid(), signal.SIGKILL)

    if operation:
        sys.addaudithook(strike)
    parent.send("begun")
    if again and finished_record(CONFIGS[1], data, here):
        run(CONFIGS[1], data, here)
    sweep(CONFIGS, data, here, say=lambda line: None)


def start(runs: Path, again: bool = False, operation: int | None = None):
    """Return a process that sweeps on a folder, begun, and the end of the pipe that it talks to."""
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(runs, again, operation, theirs))
    process.start()
    theirs.close()
    if not ours.poll(300) or ours.recv() != "begun":
        raise RuntimeError("A sweep did not begin.")
    return process, ours


def found(runs: Path) -> tuple[dict, set[str], set[str], list[str]]:
    """Return a folder's records by file name, names of adapters, of half-written things, and complaints."""
    records, complaints = load_records(runs / "records")
    named = {record_path(runs, record["run_id"], identity_of(record)).stem: record for record in records}
    complaints += [f"{len(records) - len(named)} records stand twice"] if len(records) > len(named) else []
    half = {path.name for path in runs.rglob("*") if path.suffix in (".unfinished", ".replaced")}
    return named, {path.name for path in (runs / "adapters").glob("*")} - half, half, complaints


def told(record: dict) -> list:
    """Return what a record says of its run, without the time it took."""
    return [record[part] for part in ("config", "status", "training", "metrics", "predictions", "table_4")]


def differences(runs: Path, expected: dict, table: str) -> list[str]:
    """Return in what a folder whose sweep has ended differs from the one that nobody disturbed."""
    records, adapters, half, wrong = found(runs)
    wrong += [f"{name} lost" for name in expected.keys() - records.keys()]
    wrong += [f"{name} too many" for name in records.keys() - expected.keys()]
    wrong += [
        f"{name} differs" for name, one in records.items() if name in expected and told(one) != told(expected[name])
    ]
    trained = {name for name, record in records.items() if record["config"]["rank"]}
    wrong += [f"adapter {name} without its record" for name in adapters - trained]
    wrong += [f"record {name} without its adapter" for name in trained if not has_adapter(runs / "adapters" / name)]
    wrong += [f"{name} left half written" for name in half]
    return wrong + (["another table"] if tables(runs) != table else [])


def tables(runs: Path) -> str:
    """Return Tables 3 and 4 of a folder's records as text."""
    frame = comparable(load_frame(runs / "records"))
    return f"{as_text(table_3(frame))}\n{as_text(table_4(frame))}"


def kill(runs: Path, number: int, latest: float, chance: random.Random) -> tuple[bool, list[str]]:
    """Start a sweep, kill it (`latest` seconds in, at most), print a line; return whether it still ran, and what was lost."""
    before, by_clock = found(runs)[0], number % 2 == 1
    delay, operation = chance.uniform(0, latest), None if by_clock else chance.randint(1, MOST_OPERATIONS)
    process, pipe = start(runs, again=chance.random() < 0.5, operation=operation)
    began = time.perf_counter()
    process.join(delay if by_clock else 300)
    process.kill()
    process.join()
    seconds = time.perf_counter() - began
    after, adapters, half, wrong = found(runs)
    wrong += [f"{name} lost" for name in before.keys() - after.keys()]
    wrong += [f"{name} changed" for name in before.keys() & after.keys() if told(before[name]) != told(after[name])]
    if process.exitcode not in (0, -signal.SIGKILL):
        wrong.append(f"the sweep ended with exit code {process.exitcode}")
    if process.exitcode == 0:
        return False, wrong
    moment = "by the clock"
    if not by_clock:
        moment = f"before disk operation {operation}"
        with contextlib.suppress(EOFError):  # a sweep that broke, or was too slow, never came so far
            moment += f" ({pipe.recv()})"
    kept = f"records {len(before)} -> {len(after)}, adapters {len(adapters)}, half written {len(half)}"
    print(
        f"kill {number}: {seconds:.2f} s into the sweep, {moment}; {kept}; {'; '.join(wrong) or 'nothing lost'}",
        flush=True,
    )
    return True, wrong


def main() -> int:
    """Do what the command line says; the exit code is 0 where nothing was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance, wrong, number, folders = random.Random(arguments.seed), [], 0, 0
    with tempfile.TemporaryDirectory() as place:
        undisturbed, runs = Path(place) / "undisturbed", None
        begun, began = start(undisturbed), time.perf_counter()
        finish(begun)
        seconds = time.perf_counter() - began
        expected, table = found(undisturbed)[0], tables(undisturbed)
        print(f"Undisturbed: {len(expected)} records in {seconds:.1f} s.", flush=True)
        while number < arguments.kills:
            runs = Path(place) / f"folder-{folders + 1}"
            running = True
            while running and number < arguments.kills:
                running, cost = kill(runs, number + 1, seconds / 2, chance)
                number, wrong = number + running, wrong + cost
            finish(start(runs))
            left, folders = differences(runs, expected, table), folders + 1
            said = "; ".join(left) or "records, adapters and table as undisturbed"
            print(f"folder {folders}, swept to its end: {said}", flush=True)
            wrong += left
        both = [start(Path(place) / "both") for _ in range(2)]
        for one in both:
            finish(one)
        left = differences(Path(place) / "both", expected, table)
        print(f"two sweeps at once on one folder: {'; '.join(left) or 'records, adapters and table as undisturbed'}")
    print(f"{number} kills, {folders} folders: {len(wrong + left)} differences.")
    return 1 if wrong + left else 0


def finish(begun) -> None:
    """Wait until a sweep has come to its end."""
    process, _ = begun
    process.join(600)
    if process.exitcode != 0:
        raise RuntimeError(f"A sweep that nobody killed ended with exit code {process.exitcode}.")


if __name__ == "__main__":
    # One server imports torch once and forks every sweep: a process of its own, begun in a moment.
    os.environ.update({"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"})
    os.environ["PYTHONWARNINGS"] = (
        "ignore:resource_tracker:UserWarning"  # of tqdm's lock in every process that was killed
    )
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["utils.experiments", "utils.report"])
    sys.exit(main())
