import shutil
import subprocess
import tomllib

import pytest

from utils.__main__ import origin, set_badges
from utils.environment import ROOT

FILES = [
    "pyproject.toml",
    "README.md",
    *(f"notebooks/{path.name}" for path in sorted((ROOT / "notebooks").glob("*.ipynb"))),
]


def links(root):
    """Return the repository and branch that each file names, as found in its text."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["badges"]
    repository, branch = settings["repository"], settings["branch"]
    named = {}
    for name in FILES[1:]:
        text = (root / name).read_text(encoding="utf-8")
        badges = text.count(f"https://colab.research.google.com/github/{repository}/blob/{branch}/notebooks/")
        setup = text.count(f'REPOSITORY, BRANCH = \\"{repository}\\", \\"{branch}\\"')
        assert text.count("colab.research.google.com/github/") == badges
        named[name] = (badges, setup)
    return repository, branch, named


def test_every_badge_and_setup_cell_names_the_one_repository():
    _, _, named = links(ROOT)
    assert named.pop("README.md") == (6, 0)
    assert set(named.values()) == {(1, 1)}


def test_one_call_moves_them_all_to_a_fork(tmp_path):
    (tmp_path / "notebooks").mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path / name)
    set_badges("someone/fork.of-it", "dev", tmp_path)
    repository, branch, named = links(tmp_path)
    assert (repository, branch) == ("someone/fork.of-it", "dev")
    assert named.pop("README.md") == (6, 0)
    assert set(named.values()) == {(1, 1)}


def test_a_name_that_is_no_repository_changes_nothing(tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with pytest.raises(ValueError, match="owner/name"):
        set_badges("https://example.org/x", "main", tmp_path)
    assert (tmp_path / "pyproject.toml").read_text() == (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    "address",
    ["https://github.com/someone/fork.git", "git@github.com:someone/fork.git", "https://github.com/someone/fork"],
)
def test_the_default_is_read_from_the_git_remote(tmp_path, address):
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "dev", str(tmp_path)], check=True)
    subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", address], check=True)
    assert origin(tmp_path) == ("someone/fork", "dev")


def test_without_a_github_remote_it_says_what_to_name(tmp_path):
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    with pytest.raises(ValueError, match="REPO=owner/name"):
        origin(tmp_path)
