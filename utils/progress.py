"""One line that tells how far a sweep is, in a notebook and in a terminal."""

import sys
import time
from collections.abc import Iterable, Sequence

from IPython import get_ipython
from IPython.display import display
from transformers import TrainerCallback

from utils.config import RunConfig

EVERY = 0.5  # seconds between two states of the line: smooth to the eye, nothing to the run


class Line:
    """A line of text that is replaced in place; where nothing can be replaced (a file, a pipe) it keeps still.

    Example: Line().show("3 of 12 configurations")
    """

    def __init__(self):
        """Find out where the line will stand."""
        kernel = get_ipython()
        self._notebook = kernel is not None and getattr(kernel, "kernel", None) is not None
        self._handle, self._width = None, 0

    def show(self, text: str) -> None:
        """Put the text in the place of what stood there."""
        if self._notebook and self._handle is None:  # display_id updates render in Colab, JupyterLab and VS Code
            self._handle = display(_Plain(text), display_id=True)
        elif self._notebook:
            self._handle.update(_Plain(text))
        elif sys.stdout.isatty():
            print("\r" + text.ljust(self._width), end="", flush=True)
            self._width = len(text)

    def clear(self) -> None:
        """Leave a terminal's line free for what is printed next; a notebook's line has a place of its own."""
        if not self._notebook and sys.stdout.isatty() and self._width:
            print("\r" + " " * self._width + "\r", end="", flush=True)
            self._width = 0

    def keep(self) -> None:
        """Let a terminal's line stand, and go on below it."""
        if not self._notebook and sys.stdout.isatty() and self._width:
            print(flush=True)
            self._width = 0


class SweepProgress:
    """Configurations done, rows per second and time left, on one line; a context: leaving it shows the last state.

    Example: with SweepProgress(configs, 600) as progress: run(config, *rest, callbacks=[progress.watch([config])])
    """

    def __init__(self, configs: Iterable[RunConfig], rows: int):
        """Count what there is to train: rows times epochs of every configuration that has an adapter."""
        self.configs, self.rows = list(configs), rows
        self.trained, self.seconds, self.done, self.together = 0.0, 0.0, 0, 1
        self.line, self._shown, self._began, self._step_began = Line(), 0.0, time.perf_counter(), 0.0

    def __enter__(self) -> "SweepProgress":
        """Return itself; nothing is shown before there is something to tell."""
        return self

    def __exit__(self, *_) -> None:
        """Show where it ended."""
        self.show(force=True)
        self.line.keep()

    def watch(self, group: Sequence[RunConfig]) -> TrainerCallback:
        """Return the callback that counts the steps of the next training, that of all runs of a group at once."""
        self.together = len(group)
        return _Steps(self, sum(self.rows * config.epochs for config in group))

    def finished(self, config: RunConfig) -> None:
        """Count a configuration as done."""
        self.done += 1
        self.show(force=True)
        self.line.clear()

    def text(self) -> str:
        """Return the line.

        Example: progress.text() -> "3 of 12 configurations, 9.8 rows/s, about 12 min left"
        """
        parts = [f"{self.done} of {len(self.configs)} configurations"]
        work = sum(self.rows * c.epochs for c in self.configs if not c.is_base)
        if self.trained:
            speed = self.trained / self.seconds
            if self.done < len(self.configs) and self.together > 1:
                parts[0] += f", {self.together} together"
            parts.append(f"{speed:.1f} rows/s")
            if self.trained < work:
                parts.append(f"training for about {duration((work - self.trained) / speed)} more")
        if self.done == len(self.configs):
            parts.append(f"{duration(time.perf_counter() - self._began)} in all")
        elif self.trained >= work:
            parts.append("answering the test questions")
        return ", ".join(parts)

    def show(self, force: bool = False) -> None:
        """Bring the line up to date, not more often than an eye can follow."""
        now = time.perf_counter()
        if force or now - self._shown > EVERY:
            self._shown = now
            self.line.show(self.text())


class _Steps(TrainerCallback):
    def __init__(self, progress: SweepProgress, rows: int):
        self.progress, self.rows, self.began = progress, rows, 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        """Start the clock."""
        self.began = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        """Count a step's rows and seconds, and bring the line up to date."""
        progress, now = self.progress, time.perf_counter()
        progress.trained += self.rows / state.max_steps
        progress.seconds, self.began = progress.seconds + now - self.began, now
        progress.show()


class _Plain:
    def __init__(self, text: str):
        self.text = text

    def __repr__(self) -> str:
        return self.text


def duration(seconds: float) -> str:
    """Return a time as a person says it.

    Example: duration(200) -> "3 min"
    """
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 1.5 else f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
