"""A name for a file or folder in; on the disk whole or not at all, out. What killed processes left is cleared away."""

import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

_LEFTOVER = re.compile(r"(?P<name>.+)\.(?P<pid>\d{1,9})-(?P<machine>.+)\.(?:unfinished|replaced)")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a name to write a file or a folder under; at the end it is brought to the disk and appears at `path` whole.

    What a killed process leaves under that name carries the process and its machine, for clear_leftovers.
    Example: with whole(folder / "ranks.png") as file: figure.savefig(file, format="png")
    """
    unfinished, replaced = (path.with_name(f"{path.name}.{mark()}.{kind}") for kind in ("unfinished", "replaced"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        for file in filter(Path.is_file, [unfinished, *unfinished.rglob("*")]):
            with file.open("rb") as written:
                os.fsync(written.fileno())
        if unfinished.is_dir():  # a folder cannot be renamed onto another
            with suppress(FileNotFoundError):
                path.rename(replaced)
        try:
            unfinished.replace(path)
        except OSError:
            if not (unfinished.is_dir() and path.is_dir()):  # else another process put the same there first
                raise
    except OSError as error:
        raise OSError(
            f"{path.name} cannot be written to {path.parent} ({error.strerror or error}). Free some space, "
            "or name another folder (environment variable RUNS; XDG_CACHE_HOME for a converted model); "
            "earlier records are untouched."
        ) from None
    finally:
        _discard(unfinished, path)
        _discard(replaced, path)


def clear_leftovers(folder: Path) -> list[str]:
    """Remove what killed processes left half written in a folder or a folder in it, and return its names.

    What a living process writes stays; so does, for a day, what another machine left, whose processes are not seen from
    here. A folder that was about to be replaced comes back.
    Example: clear_leftovers(Path("runs/demo")) -> ["r2-a8-0a1b2c3d4e.json.4711-laptop.unfinished"]
    """
    if not os.access(folder, os.W_OK):
        return []
    cleared = []
    for path in [*folder.glob("*"), *folder.glob("*/*")]:
        if (found := _LEFTOVER.fullmatch(path.name)) and not _is_writing(path, int(found["pid"]), found["machine"]):
            _discard(path, path.with_name(found["name"]))
            cleared.append(path.name)
    return cleared


def check_writable(folder: Path, room: int) -> None:
    """Raise an OSError that says what to do where `room` bytes cannot be written to a folder: before training, not after.

    Example: check_writable(detect("smoke").runs, 2**20)
    """
    probe = folder / f"probe.{mark()}.unfinished"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(bytes(1024))
        free = shutil.disk_usage(folder).free
        why = f"{free / 2**20:.1f} MiB are free, {room / 2**20:.1f} MiB are needed" if free < room else ""
    except OSError as error:
        why = error.strerror
    finally:
        _discard(probe, folder)
    if why:
        raise OSError(
            f"Nothing can be written to {folder} ({why}), where the run would be recorded. Free some space, "
            "or choose another folder with the environment variable RUNS."
        )


def mark() -> str:
    """Return this process's number and its machine's name, which stand in the name of what it has not finished.

    Example: mark() -> "4711-laptop"
    """
    return f"{os.getpid()}-{platform.node()}"


def _is_writing(path: Path, pid: int, machine: str) -> bool:
    with suppress(FileNotFoundError, psutil.Error):
        written = path.stat().st_mtime
        if machine != platform.node():
            return time.time() - written < 24 * 3600
        return psutil.Process(pid).create_time() < written + 60  # else the number has passed to a later process
    return False


def _discard(leftover: Path, path: Path) -> None:
    if leftover.suffix == ".replaced" and not os.path.exists(path):
        with suppress(OSError):
            leftover.rename(path)
    shutil.rmtree(leftover, ignore_errors=True)  # a file it leaves to the next line
    with suppress(OSError):
        leftover.unlink()
