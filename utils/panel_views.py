"""What the panels show, as figures and HTML: curves, tables, a text with its answer marked; no widgets."""

import base64
import html
import io
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from utils.config import RunConfig
from utils.data_plots import BLUE, GREY, SKY
from utils.panel_costs import minutes_text
from utils.panel_runs import describe


def loss_figure(current: list[tuple[int, float]], steps: int, title: str, earlier: Sequence[dict] = ()) -> Figure:
    """Return the running training's loss, with the smoothed curves of earlier runs behind it for comparison.

    `current` holds (step, loss) pairs of a run of so many `steps` (0: as far as the curves go); `earlier` are records,
    the latest first.

    Example: loss_figure([(1, 4.2), (2, 3.9)], 9, "r2-a8-qv")
    """
    figure = Figure(figsize=(7.6, 3), layout="constrained")
    axis = figure.subplots()
    for place, record in enumerate(earlier):
        points = [(entry["step"], entry["loss"]) for entry in record["training"]]
        label = describe(RunConfig.from_dict(record["config"])).split(", ", 1)[1]
        label += f" ({record['status']})" * (record["status"] != "finished")
        axis.plot(
            *_smooth(points),
            color=GREY,
            alpha=0.9 - 0.2 * place,
            linestyle=("-", "--", "-.", ":")[place % 4],
            label=label,
        )
    if current:
        axis.plot(*zip(*current, strict=True), ".", color=SKY, markersize=4)
        axis.plot(*_smooth(current), color=BLUE, linewidth=1.8, label="this run")
    axis.set_xlim(left=0, right=steps + 1 if steps else None)  # a run that goes on shows how far it has to go
    axis.set_ylim(0, 1.05 * axis.dataLim.y1 if current or earlier else None)
    axis.set_xlabel(f"step of {steps}" if steps else "step")
    axis.set_ylabel("loss (nats per token)")
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(title, fontsize=10)
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


def table_html(table: pd.DataFrame, wrap: str = "anywhere", **formats) -> str:
    """Return a table as HTML that follows the notebook's theme and wraps within its place, with "normal" at spaces only.

    Example: table_html(compare(a, b))
    """
    cell = f"text-align: left; white-space: normal; overflow-wrap: {wrap}; vertical-align: top; padding: 2px 8px; line-height: 1.3"
    styles = [
        {"selector": "td, th", "props": cell},
        {"selector": "th, td:last-child", "props": "overflow-wrap: normal"},
    ]
    return (
        table.style.format(na_rep="–", escape="html", **formats).hide(axis="index").set_table_styles(styles).to_html()
    )


def history_line(row: tuple) -> str:
    """Return one run of `history` as a line of HTML.

    Example: history_line(next(history(records).itertuples(index=False)))
    """
    settings, rows, em, between, f1, minutes, status = row
    scores = f"EM {em:.3f} ({between}), F1 {f1:.3f}, rows {rows}, {minutes_text(minutes)}, {status}"
    return f'<div style="line-height: 1.3">{html.escape(settings)}<br><b>{html.escape(scores)}</b></div>'


def marked(text: str, answer: str | None) -> str:
    """Return the text as HTML with the answer marked where it is a span of it.

    Example: marked("a < b", "b") -> "a &lt; <mark>b</mark>"
    """
    span = find_span(text, answer)
    if span is None:
        return html.escape(text)
    parts = [html.escape(part) for part in (text[: span[0]], text[slice(*span)], text[span[1] :])]
    return f"{parts[0]}<mark>{parts[1]}</mark>{parts[2]}"


def find_span(text: str, answer: str | None) -> tuple[int, int] | None:
    """Return where the answer stands in the text, None where it does not; case, cedillas and a last full stop forgiven.

    Example: find_span("Pe stemă e vulturul pleșuv.", "Vulturul pleşuv.") -> (11, 26)
    """
    wanted = _comparable(answer or "").strip(" .,;:!?„”\"'")
    start = _comparable(text).find(wanted) if wanted else -1
    return None if start < 0 else (start, start + len(wanted))


def _smooth(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    steps, losses = zip(*points, strict=True)
    return list(steps), pd.Series(losses).rolling(max(1, len(losses) // 10), min_periods=1).mean().tolist()


def _comparable(text: str) -> str:
    folded = text.replace("ş", "ș").replace("ţ", "ț").replace("Ş", "Ș").replace("Ţ", "Ț")
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in folded)  # a letter stays one letter: places hold
