import os
import platform
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from utils import disk
from utils.disk import check_writable, clear_leftovers, whole
from utils.environment import ROOT


def write_folder(path, content):
    with whole(path) as unfinished:
        unfinished.mkdir()
        (unfinished / "weights").write_bytes(content)


def in_a_process(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", f"from tests.test_disk import *\n{code}", *map(str, arguments)], cwd=ROOT
    )


def test_a_file_and_a_folder_take_the_place_of_what_was_there(tmp_path):
    for content in (b"one", b"two"):
        with whole(tmp_path / "deep" / "file") as unfinished:
            unfinished.write_bytes(content)
        write_folder(tmp_path / "folder", content)
        assert (tmp_path / "deep" / "file").read_bytes() == content
        assert (tmp_path / "folder" / "weights").read_bytes() == content
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["deep", "file", "folder", "weights"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_breaks_off_leaves_what_was_there(tmp_path, error):
    write_folder(tmp_path / "folder", b"old")
    with pytest.raises(error), whole(tmp_path / "folder") as unfinished:
        unfinished.mkdir()
        (unfinished / "weights").write_bytes(b"new")
        raise error
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (tmp_path / "folder" / "weights").read_bytes() == b"old"


def test_everything_is_brought_to_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(disk.os, "fsync", lambda number: seen.append(Path(f"/proc/self/fd/{number}").readlink()))
    write_folder(tmp_path / "folder", b"x")
    assert [path.name for path in seen] == ["weights"]
    assert seen[0].parent.suffix == ".unfinished"


def test_a_disk_that_fills_up_is_one_sentence_and_leaves_what_was_there(tmp_path):
    write_folder(tmp_path / "folder", b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # the system refuses to let a file grow past this
    try:
        with pytest.raises(OSError, match=r"folder cannot be written to .*File too large.*environment variable RUNS"):
            write_folder(tmp_path / "folder", bytes(2000))
        with pytest.raises(OSError, match=r"Nothing can be written to .*File too large"):
            check_writable(tmp_path, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (tmp_path / "folder" / "weights").read_bytes() == b"old"


def test_room_is_asked_for_before_anything_is_done(tmp_path):
    check_writable(tmp_path / "new", 1)
    with pytest.raises(OSError, match=r"MiB are free, 1073741824.0 MiB are needed"):
        check_writable(tmp_path, 2**50)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_killed_process_loses_nothing_and_is_cleared_away(tmp_path, renames):
    """Killed while it writes, between the two renames that put a new folder in the place of the old, and after them."""
    write_folder(tmp_path / "adapters" / "folder", b"old")
    done = in_a_process(
        "left = int(sys.argv[2])\n"
        "def strike(event, arguments):\n"
        "    global left\n"
        "    if event == 'os.rename' or (event == 'os.remove' and left == 0):\n"
        "        if left == 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        left -= 1\n"
        "sys.addaudithook(strike)\n"
        "write_folder(Path(sys.argv[1]) / 'adapters' / 'folder', b'new')",
        tmp_path,
        renames,
    )
    assert done.returncode == -signal.SIGKILL
    assert len(clear_leftovers(tmp_path)) == (2 if renames == 1 else 1)
    assert [path.name for path in (tmp_path / "adapters").iterdir()] == ["folder"]
    assert (tmp_path / "adapters" / "folder" / "weights").read_bytes() == (b"new" if renames == 2 else b"old")
    assert clear_leftovers(tmp_path) == []


def test_what_a_living_process_or_another_machine_writes_stays(tmp_path):
    here, now = platform.node(), time.time()
    for name, age in (
        (f"a.json.{os.getpid()}-{here}.unfinished", 0),
        (f"b.json.{os.getpid()}-{here}.unfinished", 10 * 24 * 3600),  # older than this process: its number came again
        ("c.json.1-elsewhere.unfinished", 3600),
        ("d.json.1-elsewhere.unfinished", 25 * 3600),
        ("e.unfinished", 10 * 24 * 3600),  # not ours
        ("f.json", 0),
    ):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (now - age, now - age))
    assert sorted(name[0] for name in clear_leftovers(tmp_path)) == ["b", "d"]
    assert sorted(path.name[0] for path in tmp_path.iterdir()) == ["a", "c", "e", "f"]
