"""Run the notebooks from the command line (reproduce, notebooks), time training beside stock trainers (bench), or point
the Colab badges at a fork (badges)."""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from utils.environment import ROOT, Environment, detect, prepare, shorten
from utils.records import comparable, load_records
from utils.tables import as_text, table_3, table_4, table_5, table_6


def main() -> int:
    """Read the command line and do what it says; the exit code is 0 where every notebook ran to its end."""
    parser = argparse.ArgumentParser(prog="python -m utils", description=__doc__)
    parser.add_argument("command", choices=("reproduce", "notebooks", "bench", "badges"))
    parser.add_argument("--repository", help="badges: owner/name on GitHub; default: the git remote")
    parser.add_argument("--branch", help="badges: default: the branch that is checked out")
    parser.add_argument("--rows", type=int, default=24, help="bench: rows that are counted; default: 24")
    arguments = parser.parse_args()
    command = arguments.command
    if command == "badges":
        repository, branch = arguments.repository, arguments.branch
        if not (repository and branch):
            found = origin(ROOT) if repository is None else (repository, "main")
            repository, branch = repository or found[0], branch or found[1]
        set_badges(repository, branch, ROOT)
        print(f"Badges and setup cells open {repository}, branch {branch}.")
        return 0
    if command == "bench":  # the demo profile's model on a GPU too: the full one's cannot be had without an account
        return run_bench(detect(os.environ.get("PROFILE") or "demo"), arguments.rows)
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


def run_bench(environment: Environment, rows: int) -> int:
    """Time the trainers, print what was found, write it to figures/; the exit code is 0 where the losses agree.

    Example: run_bench(detect("demo"), 24) -> 0
    """
    if importlib.util.find_spec("trl") is None:
        print("TRL is not installed, and the others are compared with it: make bench installs it.", file=sys.stderr)
        return 1
    from utils.bench import bench  # here, because it takes seconds to import and the other commands need none of it
    from utils.bench_report import losses_agree, save, table, verdict

    prepare()
    record = bench(environment, rows)
    print(f"\n{table(record).to_string(index=False)}\n\n{verdict(record)}")
    save(record, ROOT / "figures")
    print("Written: figures/reference/bench.json and figures/bench.png.")
    return 0 if losses_agree(record) else 1


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


def set_badges(repository: str, branch: str, root: Path) -> None:
    """Point every Colab badge and every setup cell at a repository; pyproject.toml keeps the one that is in force.

    Example: set_badges("someone/fork", "main", ROOT)
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(f"{repository!r} is not a GitHub repository; expected owner/name.")
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["badges"]
    patterns = (
        "github/{0}/blob/{1}/notebooks/",
        'REPOSITORY, BRANCH = \\"{0}\\", \\"{1}\\"',  # as the JSON of a notebook writes it
        'repository = "{0}"\nbranch = "{1}"',
    )
    for path in (root / "pyproject.toml", root / "README.md", *sorted((root / "notebooks").glob("*.ipynb"))):
        text = path.read_text(encoding="utf-8")
        for pattern in patterns:
            old = pattern.format(settings["repository"], settings["branch"])
            text = text.replace(old, pattern.format(repository, branch))
        path.write_text(text, encoding="utf-8")


def origin(root: Path) -> tuple[str, str]:
    """Return owner/name and branch as the checkout's git remote has them.

    Example: origin(ROOT) -> ("someone/fork", "main")
    """

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True).stdout.strip()

    found = re.search(r"github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?$", git("remote", "get-url", "origin"))
    if not found:
        raise ValueError(
            "This checkout has no GitHub remote named origin; name the repository: make badges REPO=owner/name."
        )
    return found[1], git("symbolic-ref", "--short", "HEAD") or "main"


if __name__ == "__main__":
    sys.exit(main())
