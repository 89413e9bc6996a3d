"""The import rules of the house, held over the syntax trees."""

import ast

import pytest

from utils.environment import ROOT

HOUSE = ROOT / "utils"
FILES = sorted(HOUSE.rglob("*.py"))
ROAD = ("data", "models", "experiments")
# What a folder's files may take from utils; the root's files take only config, environment its colab, and records its disk.
ALLOWED = {
    "root": {"config", "colab", "disk"},
    "data": {"root", "data"},
    "models": {"root", "models"},
    "experiments": {"root", "data", "models", "experiments"},
    "report": {"root", "report", "data.checks"},
    "panel": {"root", "data", "models", "experiments", "report", "panel"},
}


def imported(path, top_level=False):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from ([f"utils.{a.name}" for a in node.names] if node.module == "utils" else [node.module])


def folder(path):
    return path.parent.name if path.parent != HOUSE else "root"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(HOUSE)))
def test_a_file_imports_only_what_its_floor_may(path):
    if path.name == "__main__.py":
        return  # the command: it runs whatever it is told to
    for name in imported(path):
        if not name.startswith("utils."):
            continue
        place = name.split(".")[1:]
        there = place[0] if (HOUSE / place[0]).is_dir() else "root"
        allowed = ALLOWED[folder(path)]
        if folder(path) == "root":
            assert place[0] in allowed, f"{path.name} imports {name}"
        else:
            assert there in allowed or ".".join(place[:2]) in allowed, f"{path.name} imports {name}"


def test_the_core_loads_without_torch():
    for path in [p for p in FILES if folder(p) == "root" and p.name != "__main__.py"]:
        names = {name.split(".")[0] for name in imported(path, top_level=True)}
        assert not names & {"torch", "transformers", "peft", "datasets"}, path


def test_the_house_stays_small():
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert sum(lines.values()) < 5230  # over the design's 4,000: lower it with what is cut
    assert sum(n for path, n in lines.items() if folder(path) == "panel") <= 850
    assert {str(path): n for path, n in lines.items() if n > 220} == {}
    for path in FILES:
        if path.name == "__init__.py" and path.parent != HOUSE:
            kinds = {type(node) for node in ast.parse(path.read_text(encoding="utf-8")).body}
            assert kinds <= {ast.Expr, ast.ImportFrom, ast.Assign}, f"{path} defines something"
