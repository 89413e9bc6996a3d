"""Figures of what the records decide: which differences hold, and in what way wrong answers are wrong."""

import pandas as pd
from matplotlib.figure import Figure

from utils import paper
from utils.claims import comparisons, is_found
from utils.data_plots import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, YELLOW, set_labels, subplots
from utils.failures import failure_counts
from utils.pooling import name, pooled, run_title


def forest(frame: pd.DataFrame, metric: str = "em") -> Figure:
    """Return a forest plot: each configuration's difference to the base model and to the paper's winner, with 95 % interval.

    Filled marks can be told from no difference (claims.is_found), hollow ones cannot.

    Example: forest(comparable(load_records(folder)))
    """
    table, pool = comparisons(frame, metric), pooled(frame)
    order = [name(run) for _, run in pool[pool["rank"].notna()].iterrows()]
    figure, axes = subplots(1, 2, figsize=(10, 1.4 + 0.3 * len(order)), sharey=True)
    for axis, against, colour in zip(axes, ("base", "winner"), (BLUE, ORANGE), strict=True):
        for _, row in table[table["against"] == against].iterrows():
            limits = [[row["difference"] - row["low"]], [row["high"] - row["difference"]]]
            fill = colour if is_found(row) else "white"
            place = order.index(row["configuration"])
            axis.errorbar(row["difference"], place, xerr=limits, fmt="o", color=colour, markerfacecolor=fill, capsize=3)
        axis.axvline(0, color=GREY, linestyle=":")
        axis.set_title(
            "against the base model" if against == "base" else f"against the paper's {name(paper.WINNER)}", fontsize=10
        )
        set_labels(axis, f"difference in {'exact match' if metric == 'em' else 'token F1'}", "")
    axes[0].set_yticks(range(len(order)), order)
    axes[0].invert_yaxis()
    figure.suptitle(f"{run_title(pool)}; filled: holds after Holm's correction", fontsize=11)
    return figure


def failures(frame: pd.DataFrame) -> Figure:
    """Return stacked bars: the share of right answers of each configuration, and of each kind of wrong ones.

    Example: failures(comparable(load_records(folder)))
    """
    counts, pool = failure_counts(frame), pooled(frame)
    runs = [counts.loc[[record["run_id"] for record in records]].sum() for records in pool["records"]]
    shares = pd.DataFrame([100 * run / run.sum() for run in runs])
    figure, axis = subplots(figsize=(10, 1.4 + 0.3 * len(shares)))
    left = 0 * shares["right"]
    for kind, colour in zip(
        shares.columns, (BLUE, GREY, SKY, GREEN, ORANGE, YELLOW, RED, PURPLE, "white"), strict=False
    ):
        axis.barh(shares.index, shares[kind], left=left, color=colour, edgecolor="white", linewidth=0.5, label=kind)
        left = left + shares[kind]
    axis.set_yticks(shares.index, [name(run) for _, run in pool.iterrows()])
    axis.invert_yaxis()
    axis.set_xlim(0, 100)
    axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1), title="answers, strict norm")
    set_labels(axis, "share of answers (%)", "")
    axis.set_title(run_title(pool), fontsize=11)
    return figure
