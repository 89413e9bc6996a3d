"""Run the notebooks from the command line (reproduce, notebooks), or point the Colab badges at a fork (badges)."""

import argparse
import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import nbclient
import nbformat
from nbclient.exceptions import CellExecutionError, DeadKernelError

from utils.disk import whole
from utils.environment import ROOT, detect, git, shorten
from utils.records import duration
from utils.report import as_text, comparable, load_frame, table_3, table_4, table_5, table_6

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
MINUTES = {"float32": (0.1, 0.4, 4.8, 13.9, 23.4, 0.2), "bfloat16": (0.1, 0.3, 1.8, 5.6, 6.2, 0.2)}  # a notebook


def main() -> int:
    """Read the command line and do what it says; the exit code is 0 where every notebook ran to its end."""
    parser = argparse.ArgumentParser(prog="python -m utils", description=__doc__)
    parser.add_argument("command", choices=("reproduce", "notebooks", "badges"))
    parser.add_argument("--repository", help="badges: owner/name on GitHub; default: the git remote")
    parser.add_argument("--branch", help="badges: default: the branch that is checked out")
    asked = parser.parse_args()
    if asked.command == "badges":
        repository, branch = (asked.repository, "main") if asked.repository else origin(ROOT)
        branch = asked.branch or branch
        set_badges(repository, branch, ROOT)
        print(f"Badges and setup cells open {repository}, branch {branch}.")
        return 0
    if asked.command == "notebooks":
        return 0 if run_committed(ROOT / "notebooks") else 1
    environment = detect()
    records = environment.runs / "records"
    before = len(list(records.glob("*.json")))
    dtype = environment.format_for(environment.model)[0]
    if environment.profile == "demo" and not before and environment.device == "cpu" and (took := MINUTES.get(dtype)):
        told = ", ".join(f"{number:02} {duration(60 * minutes)}" for number, minutes in enumerate(took))
        print(f"With two CPU cores in {dtype} this took {duration(60 * sum(took))} (measured): {told}.")
    if not run_notebooks(NOTEBOOKS, environment.runs / "notebooks", environment.profile):
        return 1
    frame = load_frame(records)
    own = frame[["model", "dtype", "quantization"]].eq([environment.model, dtype, environment.quantization])
    frame = comparable(frame[own.all(axis=1)])
    for table in (table_3, table_4, table_5, table_6):
        print(f"\n{as_text(table(frame))}")
    if before:
        print(f"\n{before} finished runs were found and read, none repeated but the one that 02 trains to show it.")
    print(f"\nRecords, adapters, figures and executed notebooks: {shorten(environment.runs)}/")
    return 0


def run_committed(target: Path) -> bool:
    """Execute the notebooks as they are committed: 00 to 02 in the demo profile, 03 to 05 on the published records.

    Those are put into a runs folder of their own, where sweep finds them. The published number formats are taken, no GPU.
    Example: run_committed(ROOT / "notebooks") -> True
    """
    published = {profile: ROOT / "figures" / "reference" / profile for profile in ("demo", "full")}
    dtypes = {profile: comparable(load_frame(folder))["dtype"].iloc[0] for profile, folder in published.items()}
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "DTYPE": dtypes["demo"]}
    if not run_notebooks(NOTEBOOKS[:3], target, "demo"):
        return False
    os.environ |= {"RUNS": str(ROOT / "runs" / "published"), "DTYPE": dtypes["full"]}
    shutil.rmtree(os.environ["RUNS"], ignore_errors=True)
    shutil.copytree(published["full"], Path(os.environ["RUNS"], "full", "records"))
    return run_notebooks(NOTEBOOKS[3:], target, "full")


def run_notebooks(notebooks: Sequence[Path], target: Path, profile: str) -> bool:
    """Execute notebooks in order, each in a fresh kernel, and write them to the target folder; say where one fails.

    Example: run_notebooks(NOTEBOOKS, Path("runs/demo/notebooks"), "demo") -> True
    """
    os.environ["PROFILE"] = profile  # the notebooks' kernels inherit it
    target.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    print(f"Running {len(notebooks)} notebooks, profile {profile}.", flush=True)
    for number, path in enumerate(notebooks, 1):
        begun = time.perf_counter()
        print(f"[{number}/{len(notebooks)}] {path.stem} ", end="", flush=True)
        notebook = nbformat.read(path, as_version=4)
        try:
            nbclient.execute(
                notebook, cwd=str(path.parent), timeout=None, kernel_name="python3", record_timing=False,
                extra_arguments=["--IPKernelApp.log_level=40"],
            )  # fmt: skip
        except (CellExecutionError, DeadKernelError) as error:  # memory that ran out kills a kernel
            nbformat.write(notebook, failed := target / f"{path.stem}.failed.ipynb")
            print(f"failed: {getattr(error, 'ename', type(error).__name__)}: {getattr(error, 'evalue', error)}")
            print(f"The notebook as far as it came: {shorten(failed)}")
            return False
        notebook.metadata.pop("widgets", None)  # without its state GitHub calls the notebook invalid
        with whole(target / path.name) as unfinished:
            nbformat.write(notebook, unfinished)
        now = time.perf_counter()
        print(f"{now - begun:.0f} s ({duration(now - start)} in all)", flush=True)
    return True


def set_badges(repository: str, branch: str, root: Path) -> None:
    """Point every Colab badge and every setup cell at a repository.

    Example: set_badges("someone/fork", "main", ROOT)
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(f"{repository!r} is not a GitHub repository; expected owner/name.")
    badge = r"(colab\.research\.google\.com/github/)[^)\s]+(/notebooks/)"
    setup = r'(REPOSITORY, BRANCH = )\\"[^\\]+\\", \\"[^\\]+\\"'  # as the JSON of a notebook writes it
    for path in (root / "README.md", *(root / "notebooks").glob("*.ipynb")):
        text = re.sub(badge, rf"\g<1>{repository}/blob/{branch}\g<2>", path.read_text(encoding="utf-8"))
        text = re.sub(setup, rf'\g<1>\\"{repository}\\", \\"{branch}\\"', text)
        path.write_text(text, encoding="utf-8")


def origin(root: Path) -> tuple[str, str]:
    """Return owner/name and branch as the checkout's git remote has them.

    Example: origin(ROOT) -> ("someone/fork", "main")
    """
    address = git("remote", "get-url", "origin", folder=root) or ""
    found = re.search(r"github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?$", address)
    if not found:
        advice = "name the repository: make badges REPO=owner/name."
        raise ValueError(f"This checkout has no GitHub remote named origin; {advice}")
    return found[1], git("symbolic-ref", "--short", "HEAD", folder=root) or "main"


if __name__ == "__main__":
    sys.exit(main())
