import shutil
import subprocess

import pytest

from utils.__main__ import origin, set_badges
from utils.environment import ROOT

FILES = ["README.md", *(f"notebooks/{path.name}" for path in sorted((ROOT / "notebooks").glob("*.ipynb")))]


def links(root, repository="your-name/romanian-qa-lora", branch="main"):
    """Return how many badges and setup cells of each file name this repository and branch, and that no badge names another."""
    named = {}
    for name in FILES:
        text = (root / name).read_text(encoding="utf-8")
        badges = text.count(f"https://colab.research.google.com/github/{repository}/blob/{branch}/notebooks/")
        setup = text.count(f'REPOSITORY, BRANCH = \\"{repository}\\", \\"{branch}\\"')
        assert text.count("colab.research.google.com/github/") == badges
        named[name] = (badges, setup)
    return named


def test_every_badge_and_setup_cell_names_the_one_repository():
    named = links(ROOT)
    assert named.pop("README.md") == (6, 0)
    assert set(named.values()) == {(1, 1)}


def test_one_call_moves_them_all_to_a_fork(tmp_path):
    (tmp_path / "notebooks").mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path / name)
    set_badges("4ever/fork.of-it", "dev", tmp_path)
    named = links(tmp_path, "4ever/fork.of-it", "dev")
    assert named.pop("README.md") == (6, 0)
    assert set(named.values()) == {(1, 1)}


def test_a_name_that_is_no_repository_changes_nothing(tmp_path):
    shutil.copy(ROOT / "README.md", tmp_path)
    with pytest.raises(ValueError, match="owner/name"):
        set_badges("https://example.org/x", "main", tmp_path)
    assert (tmp_path / "README.md").read_text() == (ROOT / "README.md").read_text()


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
