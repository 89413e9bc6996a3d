"""One function per figure; each returns a matplotlib Figure whose title says model, profile and dataset."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from utils import paper
from utils.data_plots import (
    BLUE,
    GREY,
    ORANGE,
    RED,
    LiveLoss,
    answer_kinds,
    lengths,
    set_labels,
    subplots,
    tokens_per_word,
)
from utils.pooling import by_seed, name, pooled, run_title
from utils.stats import bootstrap_ci
from utils.verdict_plots import failures, forest

__all__ = [
    "LiveLoss", "answer_kinds", "failures", "forest", "lengths", "loss_curves", "module_bars", "scores_by_parameters",
    "scores_by_rank", "time_and_memory", "tokens_per_word",
]  # fmt: skip
PAPER_MARK = {
    "markersize": 10,
    "markerfacecolor": "none",
    "markeredgewidth": 2,
    "zorder": 5,
}  # a point below stays seen
METRICS = {"em_strict": ("exact match", "em", BLUE), "f1_strict": ("token F1", "f1", ORANGE)}


def loss_curves(frame: pd.DataFrame) -> Figure:
    """Return the training loss of every configuration (its first seed), smoothed over a tenth of its steps.

    Example: loss_curves(as_frame(records))
    """
    frame = pooled(frame)
    figure, axis = subplots(figsize=(8, 4))
    colours = plt.get_cmap("viridis")
    runs = [row for _, row in frame[frame["rank"].notna()].sort_values(["learning_rate", "trainable"]).iterrows()]
    for place, run in enumerate(runs):
        loss = pd.DataFrame(run["record"]["training"])
        smooth = loss["loss"].rolling(max(1, len(loss) // 10), min_periods=1).mean()
        style = "--" if run["learning_rate"] > paper.TABLE_3_LEARNING_RATE else "-"
        axis.plot(
            loss["epoch"], smooth, style, color=colours(place / max(1, len(runs))), label=name(run), linewidth=1.4
        )
    axis.legend(
        frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1), title="rank, modules, learning rate"
    )
    set_labels(axis, "epoch", "training loss (nats per answer token)")
    axis.set_ylim(bottom=0)
    axis.set_title(run_title(frame), fontsize=11)
    return figure


def scores_by_rank(frame: pd.DataFrame) -> Figure:
    """Return exact match and token F1 against rank, with 95 % intervals, the base model and the paper's points.

    Example: scores_by_rank(as_frame(records))
    """
    frame = pooled(frame)
    runs, base = _rank_runs(frame)
    figure, axes = subplots(1, 2, figsize=(10, 3.8), sharey=True)
    for axis, (column, (metric, key, colour)) in zip(axes, METRICS.items(), strict=True):
        _points(axis, runs["rank"], runs, column, colour, f"measured, 95 % interval (n = {int(runs['n'].iloc[0])})")
        if base is not None:
            axis.axhline(base[column], color=GREY, linestyle=":", label=f"measured, base model ({base[column]:.3f})")
        published = [(row["rank"], row[key]) for row in paper.TABLE_3 if row["rank"] and row[key] is not None]
        if published:
            axis.plot(*zip(*published, strict=True), "D", **PAPER_MARK, color=RED, label="paper, Llama 3.2 3B")
        axis.set_xscale("log", base=2)
        axis.set_xticks(paper.RANKS, [str(rank) for rank in paper.RANKS])
        axis.set_ylim(0, 1)
        axis.legend(frameon=False, fontsize=8, loc="upper left")
        set_labels(axis, "rank r (alpha = 4r; modules q, v; 1e-4)", metric)
    figure.suptitle(run_title(frame), fontsize=11)
    return figure


def scores_by_parameters(frame: pd.DataFrame) -> Figure:
    """Return both scores against the number of trainable parameters, one mark per module set and learning rate.

    Example: scores_by_parameters(as_frame(records))
    """
    frame = pooled(frame)
    figure, axes = subplots(1, 2, figsize=(10, 3.8), sharey=True)
    marks = {("q",): "s", ("q", "v"): "o", ("q", "k", "v", "o"): "^"}
    groups = list(_papers_alpha(frame).groupby(["learning_rate", "target_modules"]))
    for axis, (column, (metric, _, _)) in zip(axes, METRICS.items(), strict=True):
        for (rate, modules), runs in groups:
            runs = runs.sort_values("trainable")
            colour = BLUE if rate <= paper.TABLE_3_LEARNING_RATE else ORANGE
            style = {"marker": marks.get(modules, "x"), "color": colour, "label": f"{', '.join(modules)} at {rate:.0e}"}
            axis.plot(runs["trainable"], runs[column], **style)
        axis.set_xscale("log")
        axis.set_ylim(0, 1)
        set_labels(axis, "trainable parameters", metric)
    axes[1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1), title="modules at learning rate")
    figure.suptitle(run_title(frame), fontsize=11)
    return figure


def module_bars(frame: pd.DataFrame) -> Figure:
    """Return exact match and token F1 by target modules at both learning rates, rank 2, with the paper's points.

    Example: module_bars(as_frame(records))
    """
    frame = pooled(frame)
    figure, axes = subplots(1, 2, figsize=(10, 3.8), sharey=True)
    sets = paper.TARGET_MODULES
    series = (
        (paper.TABLE_6_LEARNING_RATE, paper.TABLE_6, BLUE, -0.2),
        (paper.TABLE_5_LEARNING_RATE, paper.TABLE_5, ORANGE, 0.2),
    )
    for axis, (column, (metric, key, _)) in zip(axes, METRICS.items(), strict=True):
        for rate, table, colour, offset in series:
            same = frame[(frame["rank"] == paper.MODULES_RANK) & (frame["learning_rate"] == rate)]
            runs = (
                same.drop_duplicates("target_modules")
                .set_index("target_modules")
                .reindex(list(sets))
                .dropna(subset=["n"])
            )
            places = [sets.index(modules) + offset for modules in runs.index]
            axis.bar(places, runs[column], width=0.38, color=colour, label=f"measured, {rate:.0e}")
            _points(axis, places, runs, column, "black", None)
            published = [(i + offset, row[key]) for i, row in enumerate(table) if row[key] is not None]
            if published:
                label = f"paper, {rate:.0e}"
                axis.plot(
                    *zip(*published, strict=True), "D", color=colour, markeredgecolor="black", zorder=5, label=label
                )
        axis.set_xticks(range(len(sets)), [", ".join(modules) for modules in sets])
        axis.set_ylim(0, 1)
        axis.legend(frameon=False, fontsize=8, loc="upper left")
        set_labels(axis, "target modules (rank 2)", metric)
    figure.suptitle(run_title(frame), fontsize=11)
    return figure


def time_and_memory(frame: pd.DataFrame) -> Figure:
    """Return seconds of training and answering per run (seeds averaged), and the process's peak memory after it.

    Runs that were trained together show an equal share of their time, and the axis says so.

    Example: time_and_memory(as_frame(records))
    """
    frame = pooled(frame)
    figure, axes = subplots(1, 2, figsize=(10, 4.2), sharey=True)
    labels = [name(run) for _, run in frame.iterrows()]
    axes[0].barh(labels, frame["train_seconds"], color=BLUE, label="training")
    axes[0].barh(
        labels, frame["answer_seconds"], left=frame["train_seconds"], color=ORANGE, label="answering the test rows"
    )
    axes[0].legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=2)
    axes[1].barh(labels, frame["peak_memory_gib"], color=GREY)
    axes[0].invert_yaxis()
    shared = any(record["timing"].get("together", 1) > 1 for record in frame["record"])
    set_labels(axes[0], "seconds (an equal share each where trained together)" if shared else "seconds", "")
    set_labels(axes[1], "peak memory (GiB)", "")
    device = frame.iloc[0]["record"]["environment"]["device"]
    figure.suptitle(f"{run_title(frame)}, {device}", fontsize=11)
    return figure


def _points(axis, x, runs: pd.DataFrame, column: str, colour: str, label: str | None) -> None:
    which = list(METRICS).index(column)
    limits = [bootstrap_ci(by_seed(records)[which]) for records in runs["records"]]
    below = [score - low for score, (low, _) in zip(runs[column], limits, strict=True)]
    above = [high - score for score, (_, high) in zip(runs[column], limits, strict=True)]
    style = "o-" if label else "none"
    axis.errorbar(x, runs[column], yerr=[below, above], fmt=style, color=colour, capsize=3, linewidth=1.4, label=label)


def _papers_alpha(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["alpha"] == paper.ALPHA_PER_RANK * frame["rank"]]


def _rank_runs(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series | None]:
    base, runs = frame[frame["rank"].isna()], _papers_alpha(frame)
    is_qv = runs["target_modules"].map(set) == {"q", "v"}
    runs = runs[is_qv & (runs["learning_rate"] == paper.TABLE_3_LEARNING_RATE)]
    return runs.drop_duplicates("rank").sort_values("rank"), None if base.empty else base.iloc[0]
