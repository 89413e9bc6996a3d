"""Run the notebooks from the command line (reproduce, notebooks), or point the Colab badges at a fork (badges)."""

import argparse
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

from utils.disk import whole
from utils.environment import ROOT, detect, shorten
from utils.records import duration
from utils.report import as_text, comparable, load_frame, table_3, table_4, table_5, table_6


def main() -> int:
    """Read the command line and do what it says; the exit code is 0 where every notebook ran to its end."""
    parser = argparse.ArgumentParser(prog="python -m utils", description=__doc__)
    parser.add_argument("command", choices=("reproduce", "notebooks", "badges"))
    parser.add_argument("--repository", help="badges: owner/name on GitHub; default: the git remote")
    parser.add_argument("--branch", help="badges: default: the branch that is checked out")
    arguments = parser.parse_args()
    if arguments.command == "badges":
        found = origin(ROOT) if arguments.repository is None else (arguments.repository, "main")
        set_badges(arguments.repository or found[0], branch := arguments.branch or found[1], ROOT)
        print(f"Badges and setup cells open {arguments.repository or found[0]}, branch {branch}.")
        return 0
    environment = detect()
    os.environ["PROFILE"] = environment.profile  # the notebooks' kernels inherit it
    reproduce = arguments.command == "reproduce"
    before = len(list((environment.runs / "records").glob("*.json")))
    if not run_notebooks(environment.runs / "notebooks" if reproduce else ROOT / "notebooks", environment.profile):
        return 1
    if reproduce:
        frame = comparable(load_frame(environment.runs / "records"))
        for table in (table_3, table_4, table_5, table_6):
            print(f"\n{as_text(table(frame))}")
        if before:
            print(f"\n{before} finished runs were found and read, none repeated but the one that 02 trains to show it.")
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
            print(f"failed: {error.ename}: {error.evalue}\nThe notebook as far as it came: {shorten(failed)}")
            return False
        notebook.metadata.pop("widgets", None)  # without its state GitHub calls the notebook invalid
        with whole(target / path.name) as unfinished:
            nbformat.write(notebook, unfinished)
        now = time.perf_counter()
        print(f"{now - begun:.0f} s ({duration(now - start)} in all)", flush=True)
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
