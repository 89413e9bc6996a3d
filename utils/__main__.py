"""Run the notebooks from the command line: `python -m utils reproduce` or `python -m utils notebooks`."""

import argparse
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from utils.environment import ROOT, detect, shorten
from utils.records import comparable, load_records
from utils.tables import as_text, table_3, table_4, table_5, table_6


def main() -> int:
    """Read the command line and do what it says; the exit code is 0 where every notebook ran to its end."""
    parser = argparse.ArgumentParser(prog="python -m utils", description=__doc__)
    parser.add_argument("command", choices=("reproduce", "notebooks"))
    command = parser.parse_args().command
    environment = detect()
    os.environ["PROFILE"] = environment.profile  # the notebooks' kernels inherit it
    target = environment.runs / "notebooks" if command == "reproduce" else ROOT / "notebooks"
    before = len(list((environment.runs / "records").glob("*.json")))
    if not run_notebooks(target, environment.profile):
        return 1
    if command == "reproduce":
        frame = comparable(load_records(environment.runs / "records"))
        for table in (table_3, table_4, table_5, table_6):
            print(f"\n{as_text(table(frame))}")
        if before:
            print(f"\n{before} finished runs were found and skipped; delete their records to run them again.")
        print(f"\nRecords, adapters, figures and executed notebooks: {shorten(environment.runs)}/")
    return 0


def run_notebooks(target: Path, profile: str) -> bool:
    """Execute the notebooks in order, each in a fresh kernel, and write them to the target folder.

    Example: run_notebooks(Path("runs/demo/notebooks"), "demo") -> True
    """
    notebooks = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    target.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    print(f"Running {len(notebooks)} notebooks, profile {profile}.", flush=True)
    for number, path in enumerate(notebooks, 1):
        begun = time.perf_counter()
        print(f"[{number}/{len(notebooks)}] {path.stem} ", end="", flush=True)
        notebook = nbformat.read(path, as_version=4)
        client = NotebookClient(
            notebook, timeout=None, kernel_name="python3", record_timing=False,
            extra_arguments=["--IPKernelApp.log_level=40"],
            resources={"metadata": {"path": str(ROOT / "notebooks")}},
        )  # fmt: skip
        try:
            client.execute()
        except CellExecutionError as error:
            nbformat.write(notebook, failed := target / f"{path.stem}.failed.ipynb")
            print(f"failed: {error.ename}: {error.evalue}\nThe notebook as far as it came: {failed}")
            return False
        notebook.metadata.pop("widgets", None)  # without its state GitHub calls the notebook invalid
        nbformat.write(notebook, target / path.name)
        now = time.perf_counter()
        print(f"{now - begun:.0f} s ({(now - start) / 60:.1f} min in all)", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
