"""What all figures and tables share: colours, an empty figure, labels large enough to read, a table as HTML or text."""

import html
import textwrap
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from utils.disk import whole

# Okabe and Ito's palette: told apart with any colour vision.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, YELLOW, GREY = "#56B4E9", "#CC79A7", "#F0E442", "#666666"
WIDTH, SIZE = 7.2, 10.5  # inches and points: where a page shows a figure 400 pixels wide, letters are 8 pixels high


def subplots(*shape, height: float = 3.8, **options):
    """Return pyplot's figure and axes, closed: a notebook then shows the figure once, not again at the end of its cell.

    Example: figure, axes = subplots(1, 2, sharey=True)
    """
    figure, axes = plt.subplots(*shape, figsize=(WIDTH, height), layout="constrained", **options)
    plt.close(figure)
    return figure, axes


def set_labels(axis, x: str, y: str, title: str = "") -> None:
    """Name both axes, and the panel where it has a title, and take the frame off the other two sides.

    Example: set_labels(axis, "rank", "exact match")
    """
    axis.set_xlabel(x, fontsize=SIZE)
    axis.set_ylabel(y, fontsize=SIZE)
    axis.set_title(title, fontsize=SIZE, parse_math=False)  # it may name a file
    axis.tick_params(labelsize=SIZE)
    axis.spines[["top", "right"]].set_visible(False)


def finish(figure: Figure, title: str, axis=None, order=None) -> Figure:
    """Set the figure's title and, where an axis is given, its legend below all panels; `order` is a key for its labels.

    Example: return finish(figure, run_title(pool), axes[0])
    """
    figure.suptitle(textwrap.fill(title, 84), fontsize=SIZE, parse_math=False)  # a file's name may hold dollars
    if axis is not None:
        handles, labels = axis.get_legend_handles_labels()
        named = dict(zip(labels[::-1], handles[::-1], strict=True))  # of a label's several marks the first
        labels = sorted(named, key=order or labels.index)
        looks = {"loc": "outside lower center", "ncols": 3, "frameon": False, "fontsize": SIZE}
        figure.legend([named[label] for label in labels], labels, **looks)
    return figure


def smooth(losses: Sequence[float]) -> pd.Series:
    """Return a training's losses, each the mean of the last tenth of the steps.

    Example: smooth([4.0, 2.0]).tolist() -> [4.0, 2.0]
    """
    return pd.Series(losses).rolling(max(1, len(losses) // 10), min_periods=1).mean()


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG or SVG, as the path ends; the file appears whole or not at all, the same each time.

    Example: save_figure(forest(frame), Path("runs/demo/figures/forest.png"))
    """
    dated = {"Date": None} if path.suffix == ".svg" else {}
    with whole(path) as unfinished, plt.rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(unfinished, format=path.suffix[1:], dpi=150, metadata=dated)  # a page shows it twice as sharp


def styled(table: pd.DataFrame) -> Styler:
    """Return the table as a notebook shows it: caption above, three decimals, a dash where there is no value, text left.

    What a cell holds is shown as text, never taken for HTML.
    Example: styled(table_3(frame))
    """
    looks = {"caption": "caption-side: top; text-align: left; white-space: normal; max-width: min(60em, 85vw)"}
    looks["td"] = "vertical-align: top"
    looks |= {f".col{table.columns.get_loc(c)}": "text-align: left" for c in _texts(table)}
    view = table.reset_index(drop=True).style.format(_formats(table), na_rep="–", escape="html")
    view = view.format_index(escape="html", axis="columns").hide(axis="index")
    view = view.set_table_styles([{"selector": where, "props": props} for where, props in looks.items()])
    # Named after what it shows: the same table gives the same HTML, run after run.
    view = view.set_uuid(f"{zlib.crc32(as_text(table).encode()):08x}")
    return view.set_caption(html.escape(table.attrs["caption"])) if "caption" in table.attrs else view


def as_text(table: pd.DataFrame) -> str:
    """Return the table for a terminal, its caption on the line above.

    Example: print(as_text(table_6(frame)))
    """
    shown = table.fillna(dict.fromkeys(_texts(table), "–"))
    text = shown.to_string(index=False, na_rep="–", formatters=_formats(table))
    return f"{table.attrs['caption']}\n{text}" if "caption" in table.attrs else text


def captioned(rows: Sequence[dict], caption: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Return rows as a table with its caption; `columns` picks and orders its columns.

    Example: captioned([{"rank": 2, "EM, measured": 0.41}], "Table 3.")
    """
    table = pd.DataFrame(rows, columns=columns)
    table.attrs["caption"] = caption
    return table


def _formats(table: pd.DataFrame) -> dict[str, Callable]:
    digits = {column: 4 if "trainable" in column else 3 for column in table.select_dtypes("floating")}
    shown = {column: f"{{:.{n}f}}".format for column, n in digits.items()}
    return shown | {c: lambda p: "< 0.001" if p < 0.001 else f"{p:.3f}" for c in digits if c in ("p", "p (Holm)")}


def _texts(table: pd.DataFrame) -> pd.Index:
    return table.select_dtypes(exclude="number").columns
