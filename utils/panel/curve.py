"""Losses and records in; the loss curves out, as a figure and as HTML."""

import base64
import html
import io
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from utils.panel.settings import describe
from utils.report.style import BLUE, GREY, SKY, set_labels


def loss_figure(current: list[tuple[int, float]], steps: int, title: str, earlier: Sequence[dict] = ()) -> Figure:
    """Return the running training's loss, with the smoothed curves of earlier runs behind it for comparison.

    `current` holds (step, loss) pairs of a run of so many `steps` (0: as far as the curves go); `earlier` are records,
    the latest first.

    Example: loss_figure([(1, 4.2), (2, 3.9)], 9, "r 2 q,v 1e-4")
    """
    figure = Figure(figsize=(7.6, 3), layout="constrained")
    axis = figure.subplots()
    for place, record in enumerate(earlier):
        points = [(entry["step"], entry["loss"]) for entry in record["training"]]
        label = describe(record["config"]) + f" ({record['status']})" * (record["status"] != "finished")
        looks = {"color": GREY, "alpha": 0.9 - 0.2 * place, "linestyle": ("-", "--", "-.", ":")[place % 4]}
        axis.plot(*_smooth(points), label=label, **looks)
    if current:
        axis.plot(*zip(*current, strict=True), ".", color=SKY, markersize=4)
        axis.plot(*_smooth(current), color=BLUE, linewidth=1.8, label="this run")
    axis.set_xlim(left=0, right=steps + 1 if steps else None)  # a run that goes on shows how far it has to go
    axis.set_ylim(0, 1.05 * axis.dataLim.y1 if current or earlier else None)
    set_labels(axis, f"step of {steps}" if steps else "step", "loss (nats per token)", title)
    if current or earlier:
        axis.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def figure_html(figure: Figure, alt: str) -> str:
    """Return a figure as an HTML image with a description for those who do not see it.

    Example: figure_html(loss_figure([], 0, "no run yet"), "No run yet")[:4] -> "<img"
    """
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100)
    source = base64.b64encode(png.getvalue()).decode()
    return f'<img style="max-width: 100%; height: auto" alt="{html.escape(alt)}" src="data:image/png;base64,{source}">'


def _smooth(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    steps, losses = zip(*points, strict=True)
    return list(steps), pd.Series(losses).rolling(max(1, len(losses) // 10), min_periods=1).mean().tolist()
