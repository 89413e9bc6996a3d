"""What the panels share: how one is displayed, how it follows a job, its buttons and its sentences."""

import asyncio
import contextlib
import html
from collections.abc import Callable

import ipywidgets
from IPython.display import display

from utils.panel.jobs import Job

EVERY = 0.5  # seconds between two looks at a job: as fast as a person reads, slow enough to cost nothing
MUTED, WRONG = "var(--jp-ui-font-color2, #616161)", "var(--jp-error-color1, #d32f2f)"


class View:
    """A panel: `box` holds its widgets, `static()` returns what stands in a saved notebook, where widgets do not render.

    `refresh()` shows where the panel's `job` stands.
    """

    box: ipywidgets.Widget
    job: Job | None = None

    def __init__(self):
        self._loop = self._following = None  # no loop in a script or a test: there is nobody to show anything to
        with contextlib.suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()  # the kernel's

    def _ipython_display_(self):
        content = {"text/plain": f"{type(self).__name__}: run this notebook to use it.", "text/html": self.static()}
        widget = {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}
        display(content | {"application/vnd.jupyter.widget-view+json": widget}, raw=True)

    @property
    def busy(self) -> bool:
        """Whether the panel's job is at work."""
        return self.job is not None and self.job.is_alive()

    def follow(self, job: Job) -> None:
        """Start the job; refresh at once, twice a second on the kernel's loop while it runs, and once after.

        A button's callback must return before the next one can fire, and what a thread prints is not shown in Colab.
        So the thread only sets state, and this task, which gives the loop back between two looks, shows it.
        """

        async def look():
            while self.busy:
                self.refresh()
                await asyncio.sleep(EVERY)
            self.refresh()

        self.job = job
        job.start()
        self.refresh()
        if self._loop is not None:
            self._following = asyncio.run_coroutine_threadsafe(look(), self._loop)  # held, or it may be collected


def button(label: str, tip: str, act: Callable[[], None], style: str = "", **layout) -> ipywidgets.Button:
    """Return a button that calls `act`.

    Example: button("Stop", "End the run after its current step", job.stop)
    """
    made = ipywidgets.Button(description=label, tooltip=tip, button_style=style, layout=layout)
    made.on_click(lambda _: act())
    return made


def said(text: str, colour: str = MUTED) -> str:
    """Return a sentence as HTML that a screen reader reads out when it changes; nothing for an empty one.

    Example: said("Stopped after step 12.")
    """
    return f'<div role="status" style="color: {colour}; line-height: 1.4">{html.escape(text)}</div>' if text else ""
