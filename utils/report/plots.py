"""One function per figure of the runs; each returns a matplotlib Figure whose title says model, format, profile, dataset.

The paper's marks are hollow diamonds everywhere, measured ones are filled.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from utils import paper
from utils.config import rate_text
from utils.records import run_name
from utils.report.claims import comparisons
from utils.report.frame import by_seed, pooled, run_title
from utils.report.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SIZE, finish, set_labels, smooth, subplots
from utils.stats import mean_interval, wilson

METRICS = {"em": ("exact match", BLUE), "f1": ("token F1", ORANGE)}
_MODULE_MARKS = {"q": ("s", ORANGE), "q, v": ("o", BLUE), "q, k, v, o": ("^", GREEN)}
_OTHER_MARKS = (("v", PURPLE), ("P", RED), ("X", GREY))


def scores_by_rank(frame: pd.DataFrame | None = None) -> Figure:
    """Return exact match and token F1 against rank, the gap between them shaded, base models dotted.

    The paper's own scores (Table 3) stand alone, or, with a frame, beside the measured ones on the same scale. Bars are
    95 % intervals: Wilson's for the published exact matches; F1's spread was not published.
    Example: scores_by_rank(comparable(load_frame(folder)))
    """
    figure, axes = subplots(1, 1 if frame is None else 2, height=4.2, sharey=True, squeeze=False)
    published = pd.DataFrame(paper.TABLE_3)
    limits = {"em": [wilson(score, paper.TEST_ROWS) for score in published["em"][1:]], "f1": None}
    _by_rank(axes[0][0], published[1:], published[:1], limits, "D-")
    set_labels(axes[0][0], "rank r", "score", f"published: Llama 3.2 3B, n = {paper.TEST_ROWS}")
    title = "Modules q, v; alpha = 4r; learning rate 1e-4; bars are 95 % intervals."
    if frame is not None:
        pool = pooled(frame).rename(columns={"em_strict": "em", "f1_strict": "f1"})
        same = (pool["target_modules"].map(set) == {"q", "v"}) & (pool["learning_rate"] == paper.TABLE_3_LEARNING_RATE)
        runs = _by_papers_rule(pool[same]).sort_values("rank")
        limits = {metric: _limits(runs, metric) for metric in METRICS}
        _by_rank(axes[0][1], runs, pool[pool["rank"].isna()][:1], limits, "o-")
        about = "" if pool.empty else f"measured: {pool['model'].iloc[-1]}, n = {pool['n'].iloc[-1]:.0f}"
        set_labels(axes[0][1], "rank r", "", about)
        title += f" Measured: {run_title(runs if len(runs) else pool)}"
    axes[0][0].set_ylim(bottom=0)
    order = [label for name, _ in METRICS.values() for label in (name, f"base, {name}")]
    return finish(figure, title, axes[0][0], [*order, "the gap"].index)


def scores_by_parameters(frame: pd.DataFrame) -> Figure:
    """Return both scores with 95 % intervals against the number of trainable parameters, a mark per module set.

    Hollow marks are the higher learning rates. Marks of as many parameters stand a little apart.
    Example: scores_by_parameters(comparable(load_frame(folder)))
    """
    pool = pooled(frame)
    figure, axes = subplots(1, 2, height=4.4, sharey=True)
    groups = _by_papers_rule(pool).groupby(["learning_rate", "target_modules"])
    groups = sorted(groups, key=lambda group: (group[0][0], len(group[0][1])))
    for axis, (metric, (title, _)) in zip(axes, METRICS.items(), strict=True):
        for place, ((rate, modules), runs) in enumerate(groups):
            runs, (mark, colour) = runs.sort_values("trainable"), _mark(", ".join(modules))
            face, apart = colour if rate == groups[0][0][0] else "white", 1.12 ** (place - len(groups) / 2)
            looks = {"color": colour, "markerfacecolor": face, "label": f"{', '.join(modules)} at {rate_text(rate)}"}
            _bars(axis, apart * runs["trainable"], runs[f"{metric}_strict"], _limits(runs, metric), f"{mark}-", **looks)
        axis.set_xscale("log")
        set_labels(axis, "trainable parameters", "score" if metric == "em" else "", title)
    return finish(figure, run_title(pool), axes[0])


def module_bars(frame: pd.DataFrame) -> Figure:
    """Return exact match and token F1 by target modules at both learning rates, rank 2, with the paper's points.

    Example: module_bars(comparable(load_frame(folder)))
    """
    pool, sets = pooled(frame), paper.TARGET_MODULES
    runs = _by_papers_rule(pool)
    runs = runs[(runs["rank"] == paper.MODULES_RANK) & runs["target_modules"].isin(sets)]
    figure, axes = subplots(1, 2, height=4.2, sharey=True)
    slow, fast = (paper.TABLE_6_LEARNING_RATE, paper.TABLE_6), (paper.TABLE_5_LEARNING_RATE, paper.TABLE_5)
    for axis, (metric, (title, _)) in zip(axes, METRICS.items(), strict=True):
        for (rate, table), colour, offset in ((slow, BLUE, -0.2), (fast, ORANGE, 0.2)):
            same = runs[runs["learning_rate"] == rate]
            places, scores = [sets.index(m) + offset for m in same["target_modules"]], same[f"{metric}_strict"]
            axis.bar(places, scores, width=0.38, color=colour, label=f"measured, {rate_text(rate)}")
            _bars(axis, places, scores, _limits(same, metric), "none", color="black")
            axis.plot(np.arange(len(sets)) + offset, [row[metric] for row in table], "D", color="black", markersize=8,
                      markerfacecolor="white", markeredgewidth=1.6, zorder=5, label="paper, Llama 3.2 3B")  # fmt: skip
        axis.set_xticks(range(len(sets)), [", ".join(modules) for modules in sets])
        set_labels(axis, "target modules (rank 2)", "score" if metric == "em" else "", title)
    axes[0].set_ylim(bottom=0)
    return finish(figure, run_title(runs), axes[0], order=str)


def loss_curves(frame: pd.DataFrame) -> Figure:
    """Return the training loss of every configuration (its first seed), smoothed over a tenth of its steps.

    Colours are module sets and dashes the higher learning rates; each curve is named where it ends, on a scale on which
    the end can be seen.
    Example: loss_curves(comparable(load_frame(folder)))
    """
    pool, ends = pooled(frame), []
    figure, axis = subplots(height=4.8)
    adapted = pool[pool["rank"].notna()].sort_values(["learning_rate", "trainable"])
    for _, run in adapted.iterrows():
        loss, modules = pd.DataFrame(run["record"].get("training")), ", ".join(run["target_modules"])
        if loss.empty:
            continue
        losses, colour = smooth(loss["loss"]), _mark(modules)[1]
        slow = run["learning_rate"] == adapted["learning_rate"].min()
        axis.plot(loss["epoch"], losses, "-" if slow else "--", color=colour, linewidth=1.3, label=modules)
        ends.append((losses.iloc[-1], loss["epoch"].iloc[-1], run_name(run), colour))
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("")
    axis.set_xlim(0, max((epoch for _, epoch, _, _ in ends), default=1))
    # Names one above the other, at least a line apart, each with a thin line to the curve that it names.
    to_axis, place = (axis.transData + axis.transAxes.inverted()).transform, -1.0
    for value, epoch, name, colour in sorted(ends):
        place = max(place + 0.055, to_axis((epoch, value))[1])
        axis.annotate(name, (epoch, value), (1.04, place), textcoords="axes fraction", color=colour, fontsize=SIZE - 1,
                      va="center", arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6})  # fmt: skip
    set_labels(axis, "epoch", "training loss (nats per token),\nmean of the last tenth of the steps")
    return finish(figure, run_title(pool, first=True), axis, order=len)


def forest(frame: pd.DataFrame, metric: str = "em") -> Figure:
    """Return a forest plot: each configuration's difference to the base model and to the paper's winner, with 95 % interval.

    Filled marks can be told from no difference (claims.comparisons), hollow ones cannot.
    Example: forest(comparable(load_frame(folder)))
    """
    table, pool = comparisons(frame, metric), pooled(frame)
    order = [run_name(run) for _, run in pool[pool["rank"].notna()].iterrows()]
    figure, axes = subplots(1, 2, height=1.8 + 0.3 * len(order), sharey=True)
    titles = {"base": "less the base model", "winner": f"less {run_name(paper.WINNER)}"}
    for axis, (against, title), colour in zip(axes, titles.items(), (BLUE, ORANGE), strict=True):
        for _, row in table[table["against"] == against].iterrows():
            limits = [[row["difference"] - row["low"]], [row["high"] - row["difference"]]]
            looks = {"fmt": "o", "color": colour, "markerfacecolor": colour if row["found"] else "white", "capsize": 3}
            axis.errorbar(row["difference"], order.index(row["configuration"]), xerr=limits, **looks)
        axis.axvline(0, color=GREY, linestyle=":")
        axis.locator_params(axis="x", nbins=4)
        set_labels(axis, f"difference in {METRICS[metric][0]}", "", title)
    axes[0].set(yticks=range(len(order)), yticklabels=order, ylim=(len(order) - 0.5, -0.5))
    return finish(figure, f"{run_title(pool)}. Filled marks hold after Holm's correction over the differences shown.")


def _by_rank(axis, runs: pd.DataFrame, base: pd.DataFrame, limits: dict, mark: str) -> None:
    ranks, em, f1 = runs[["rank", "em", "f1"]].to_numpy(float).T
    axis.fill_between(ranks, em, f1, color=GREY, alpha=0.18, linewidth=0, label="the gap")
    for scores, apart, (metric, (name, colour)) in zip((em, f1), (0.97, 1.03), METRICS.items(), strict=True):
        face = "white" if mark == "D-" else colour
        _bars(axis, apart * ranks, scores, limits[metric], mark, color=colour, markerfacecolor=face, label=name)
        for level in base[metric]:
            axis.axhline(level, color=colour, linestyle=":", label=f"base, {name}")
    if len(runs):  # matplotlib has no logarithms of nothing
        axis.set_xscale("log", base=2)
    axis.set_xticks(ranks, [f"{rank:.0f}" for rank in ranks])
    for place, side, away in ((0, "left", 6), (-1, "right", -6))[: len(runs)]:
        axis.annotate(f"{f1[place] - em[place]:.2f}".lstrip("0"), (ranks[place], (em[place] + f1[place]) / 2), (away, 0),
                      textcoords="offset points", ha=side, va="center", fontsize=SIZE,
                      bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.5})  # fmt: skip


def _bars(axis, x: Sequence[float], scores: Sequence[float], limits: list | None, mark: str, **looks) -> None:
    reach = None
    if limits:
        low, high = np.transpose(limits)
        reach = np.maximum(0, [scores - low, high - scores])
    axis.errorbar(x, scores, yerr=reach, fmt=mark, capsize=3, **looks)


def _limits(runs: pd.DataFrame, metric: str) -> list[tuple[float, float]]:
    return [mean_interval(by_seed(records, metric)) for records in runs["records"]]


def _by_papers_rule(pool: pd.DataFrame) -> pd.DataFrame:
    return pool[pool["alpha"] == paper.ALPHA_PER_RANK * pool["rank"]]


def _mark(modules: str) -> tuple[str, str]:
    return _MODULE_MARKS.get(modules) or _OTHER_MARKS[sum(map(ord, modules)) % len(_OTHER_MARKS)]
