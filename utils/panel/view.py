"""What the panels share: how one is displayed, how it follows a job, and controls with their label and their problem."""

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

    `refresh()` shows where the panel's job stands.
    """

    box: ipywidgets.Widget

    def __init__(self):
        """Remember the kernel's event loop, on which the panel will be kept up to date."""
        self._loop = self._following = None  # no loop in a script or a test: there is nobody to show anything to
        with contextlib.suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()

    def _ipython_display_(self):
        content = {"text/plain": f"{type(self).__name__}: run this notebook to use it.", "text/html": self.static()}
        widget = {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}
        display(content | {"application/vnd.jupyter.widget-view+json": widget}, raw=True)

    def follow(self, job: Job) -> None:
        """Start the job; refresh at once, twice a second on the kernel's loop while it runs, and once after.

        A button's callback must return before the next one can fire, and what a thread prints is not shown in Colab.
        So the thread only sets state, and this task, which gives the loop back between two looks, shows it.
        """

        async def look():
            while job.is_alive():
                self.refresh()
                await asyncio.sleep(EVERY)
            self.refresh()

        job.start()
        self.refresh()
        if self._loop is not None:
            self._following = asyncio.run_coroutine_threadsafe(look(), self._loop)  # held, or it may be collected


def control(kind: type, label: str, tip: str, **options) -> ipywidgets.Widget:
    """Return a widget with its label in front of it and the same width as its neighbours.

    Example: control(ipywidgets.IntText, "epochs", "Passes over the training rows", value=3)
    """
    tooltip = "tooltip" if "tooltip" in kind.class_trait_names() else "description_tooltip"  # its name in ipywidgets 7
    looks = {"style": {"description_width": "7.5em"}, "layout": {"width": "22em", "max_width": "98%"}}
    return kind(description=label, **{tooltip: tip}, **looks, **options)


def group(title: str, *children: ipywidgets.Widget) -> ipywidgets.VBox:
    """Return controls under a heading, as many side by side as there is room for.

    Example: group("Adapter", rank, alpha)
    """
    row = ipywidgets.Box(children, layout={"flex_flow": "row wrap", "align_items": "flex-start"})
    return ipywidgets.VBox([ipywidgets.HTML(f"<b>{html.escape(title)}</b>"), row])


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


def choose(widget: ipywidgets.Widget, value) -> None:
    """Set a widget's value; a selection that does not offer the value offers it from now on.

    Example: choose(rate, 2.5e-4)
    """
    if hasattr(widget, "options"):
        options = [option if isinstance(option, tuple) else (str(option), option) for option in widget.options]
        if value not in [offered for _, offered in options]:
            options.append((rate_text(value) if isinstance(value, float) else str(value), value))
            numbers = all(isinstance(offered, int | float) for _, offered in options)
            widget.options = sorted(options, key=lambda option: option[1]) if numbers else options
    widget.value = value


def rate_text(rate: float) -> str:
    """Return a learning rate as people write it.

    Example: rate_text(0.0003) -> "3e-4"
    """
    mantissa, exponent = f"{rate:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"
