"""One function per figure of the runs; each returns a matplotlib Figure whose title says model, format, profile, dataset.

The paper's marks are hollow diamonds everywhere, measured ones are filled.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from utils import paper
from utils.records import run_name
from utils.report.claims import comparisons, is_found
from utils.report.frame import by_seed, pooled, run_title
from utils.report.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SIZE, finish, set_labels, subplots
from utils.stats import mean_interval, wilson

METRICS = {"em_strict": ("exact match", "em", BLUE), "f1_strict": ("token F1", "f1", ORANGE)}
_MODULE_MARKS = {"q": ("s", ORANGE), "q, v": ("o", BLUE), "q, k, v, o": ("^", GREEN)}
_OTHER_MARKS = (("v", PURPLE), ("P", RED), ("X", GREY))


def scores_by_rank(frame: pd.DataFrame | None = None) -> Figure:
    """Return exact match and token F1 against rank, the gap between them shaded, base models dotted.

    The paper's own scores (Table 3) stand alone, or, with a frame, beside the measured ones on the same scale. Bars are
    95 % intervals: Wilson's for the published exact matches; F1's spread was not published.

    Example: scores_by_rank(comparable(load_frame(folder)))
    """
    pool = None if frame is None else pooled(frame)
    figure, axes = subplots(1, 1 if pool is None else 2, height=4.2, sharey=True, squeeze=False)
    em, f1 = ([row[key] for row in paper.TABLE_3] for key in ("em", "f1"))
    limits = [wilson(score, paper.TEST_ROWS) for score in em[1:]]
    _panel(axes[0][0], paper.RANKS, (em[1:], f1[1:]), (limits, None), (em[0], f1[0]), "white")
    set_labels(axes[0][0], "rank r", "score", f"published: Llama 3.2 3B, n = {paper.TEST_ROWS}")
    if pool is not None:
        base, runs = pool[pool["rank"].isna()], _by_papers_rule(pool)
        same = (runs["target_modules"].map(set) == {"q", "v"}) & (runs["learning_rate"] == paper.TABLE_3_LEARNING_RATE)
        runs = runs[same].sort_values("rank")
        limits = [_limits(runs, which) for which in (0, 1)]
        levels = (None, None) if base.empty else (base.iloc[0]["em_strict"], base.iloc[0]["f1_strict"])
        _panel(axes[0][1], runs["rank"].astype(int), (runs["em_strict"], runs["f1_strict"]), limits, levels, None)
        about = [f"measured: {run['model']}, n = {run['n']:.0f}" for _, run in pool[-1:].iterrows()]
        set_labels(axes[0][1], "rank r", "", "".join(about))
    axes[0][0].set_ylim(bottom=0)
    title = "Modules q, v; alpha = 4r; learning rate 1e-4; bars are 95 % intervals."
    names = [metric for metric, _, _ in METRICS.values()]
    order = [names[0], f"base, {names[0]}", names[1], f"base, {names[1]}", "the gap"].index
    return finish(figure, title if pool is None else f"{title} Measured: {run_title(pool)}", axes[0][0], order)


def scores_by_parameters(frame: pd.DataFrame) -> Figure:
    """Return both scores with 95 % intervals against the number of trainable parameters, a mark per module set.

    Hollow marks are the higher learning rates. Marks of as many parameters stand a little apart.

    Example: scores_by_parameters(comparable(load_frame(folder)))
    """
    pool = pooled(frame)
    figure, axes = subplots(1, 2, height=4.4, sharey=True)
    groups = _by_papers_rule(pool).groupby(["learning_rate", "target_modules"])
    groups = sorted(groups, key=lambda group: (group[0][0], len(group[0][1])))
    for axis, (which, (metric, _, _)) in zip(axes, enumerate(METRICS.values()), strict=True):
        for place, ((rate, modules), some) in enumerate(groups):
            some, (mark, colour) = some.sort_values("trainable"), _mark(", ".join(modules))
            face, apart = colour if rate == groups[0][0][0] else "white", 1.06 ** (place - len(groups) / 2)
            _bars(axis, apart * some["trainable"], some[list(METRICS)[which]], _limits(some, which), f"{mark}-", colour,
                  face, f"{', '.join(modules)} at {_rate(rate)}")  # fmt: skip
        axis.set_xscale("log")
        set_labels(axis, "trainable parameters", "score" if which == 0 else "", metric)
    return finish(figure, run_title(pool), axes[0])


def module_bars(frame: pd.DataFrame) -> Figure:
    """Return exact match and token F1 by target modules at both learning rates, rank 2, with the paper's points.

    Example: module_bars(comparable(load_frame(folder)))
    """
    pool, sets = pooled(frame), paper.TARGET_MODULES
    runs = _by_papers_rule(pool)
    figure, axes = subplots(1, 2, height=4.2, sharey=True)
    slow, fast = (paper.TABLE_6_LEARNING_RATE, paper.TABLE_6), (paper.TABLE_5_LEARNING_RATE, paper.TABLE_5)
    at_rank = runs[(runs["rank"] == paper.MODULES_RANK) & runs["target_modules"].isin(sets)]
    for axis, (which, (metric, key, _)) in zip(axes, enumerate(METRICS.values()), strict=True):
        for (rate, table), colour, offset in ((slow, BLUE, -0.2), (fast, ORANGE, 0.2)):
            same = at_rank[at_rank["learning_rate"] == rate]
            places, scores = [sets.index(m) + offset for m in same["target_modules"]], same[list(METRICS)[which]]
            axis.bar(places, scores, width=0.38, color=colour, label=f"measured, {_rate(rate)}")
            _bars(axis, places, scores, _limits(same, which), "none", "black", "black", None)
            axis.plot(np.arange(len(sets)) + offset, [row[key] for row in table], "D", color="black", markersize=8,
                      markerfacecolor="white", markeredgewidth=1.6, zorder=5, label="paper, Llama 3.2 3B")  # fmt: skip
        axis.set_xticks(range(len(sets)), [", ".join(modules) for modules in sets])
        set_labels(axis, "target modules (rank 2)", "score" if which == 0 else "", metric)
    axes[0].set_ylim(bottom=0)
    return finish(figure, run_title(pool), axes[0], order=str)


def loss_curves(frame: pd.DataFrame) -> Figure:
    """Return the training loss of every configuration (its first seed), smoothed over a tenth of its steps.

    Colours are module sets and dashes the higher learning rates; each curve is named where it ends, on a scale on which
    the end can be seen.

    Example: loss_curves(comparable(load_frame(folder)))
    """
    pool = pooled(frame)
    figure, axis = subplots(height=4.8)
    slowest, ends = pool.loc[pool["rank"].notna(), "learning_rate"].min(), []
    for _, run in pool[pool["rank"].notna()].sort_values(["learning_rate", "trainable"]).iterrows():
        loss, modules = pd.DataFrame(run["record"].get("training")), ", ".join(run["target_modules"])
        if loss.empty:
            continue
        smooth = loss["loss"].rolling(max(1, len(loss) // 10), min_periods=1).mean()
        style, colour = "-" if run["learning_rate"] == slowest else "--", _mark(modules)[1]
        axis.plot(loss["epoch"], smooth, style, color=colour, linewidth=1.3, label=modules)
        rate = "" if run["learning_rate"] == slowest else f" {_rate(run['learning_rate'])}"
        ends.append((smooth.iloc[-1], loss["epoch"].iloc[-1], f"r {run['rank']:.0f}{rate}", colour))
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("")
    axis.set_xlim(0, max((epoch for _, epoch, _, _ in ends), default=1))
    _name_ends(axis, ends)
    set_labels(axis, "epoch", "training loss (nats per token)")
    return finish(figure, run_title(pool), axis, order=len)


def forest(frame: pd.DataFrame, metric: str = "em") -> Figure:
    """Return a forest plot: each configuration's difference to the base model and to the paper's winner, with 95 % interval.

    Filled marks can be told from no difference (claims.is_found), hollow ones cannot.

    Example: forest(comparable(load_frame(folder)))
    """
    table, pool = comparisons(frame, metric), pooled(frame)
    order = [run_name(run) for _, run in pool[pool["rank"].notna()].iterrows()]
    figure, axes = subplots(1, 2, height=1.8 + 0.3 * len(order), sharey=True)
    titles = {"base": "less the base model", "winner": f"less {run_name(paper.WINNER)}"}
    for axis, (against, title), colour in zip(axes, titles.items(), (BLUE, ORANGE), strict=True):
        for _, row in table[table["against"] == against].iterrows():
            limits = [[row["difference"] - row["low"]], [row["high"] - row["difference"]]]
            fill, place = colour if is_found(row) else "white", order.index(row["configuration"])
            axis.errorbar(row["difference"], place, xerr=limits, fmt="o", color=colour, markerfacecolor=fill, capsize=3)
        axis.axvline(0, color=GREY, linestyle=":")
        set_labels(axis, f"difference in {'exact match' if metric == 'em' else 'token F1'}", "", title)
    axes[0].set_yticks(range(len(order)), order)
    axes[0].invert_yaxis()
    return finish(figure, f"{run_title(pool)}; filled: holds after Holm's correction")


def _panel(axis, ranks: Sequence[int], scores, limits, base, face: str | None) -> None:
    mark = "D-" if face else "o-"
    em, f1 = (np.asarray(some, dtype=float) for some in scores)
    axis.fill_between(ranks, em, f1, color=GREY, alpha=0.18, linewidth=0, label="the gap")
    for some, limit, level, (name, _, colour) in zip((em, f1), limits, base, METRICS.values(), strict=True):
        _bars(axis, ranks, some, limit, mark, colour, face or colour, name)
        if level is not None:
            axis.axhline(level, color=colour, linestyle=":", label=f"base, {name}")
    if len(em):  # matplotlib has no logarithms of nothing
        axis.set_xscale("log", base=2)
    axis.set_xticks(list(ranks), [str(rank) for rank in ranks])
    for place in sorted({0, len(em) - 1} if len(em) else ()):
        axis.annotate(f"{f1[place] - em[place]:.2f}".lstrip("0"), (list(ranks)[place], (em[place] + f1[place]) / 2),
                      ha="left" if place == 0 else "right", va="center", fontsize=SIZE, xytext=(6 if place == 0 else -6, 0),
                      textcoords="offset points",
                      bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.5})  # fmt: skip


def _bars(axis, x, scores, limits, mark: str, colour: str, face: str, label: str | None) -> None:
    reach = None
    if limits:
        reach = [[max(0, s - low) for s, (low, _) in zip(scores, limits, strict=True)],
                 [max(0, high - s) for s, (_, high) in zip(scores, limits, strict=True)]]  # fmt: skip
    axis.errorbar(x, scores, yerr=reach, fmt=mark, color=colour, markerfacecolor=face, capsize=3, label=label)


def _limits(runs: pd.DataFrame, which: int) -> list[tuple[float, float]]:
    return [mean_interval(by_seed(records)[which]) for records in runs["records"]]


def _name_ends(axis, ends: list[tuple]) -> None:
    # Names one above the other, at least a line apart, each with a thin line to the curve that it names.
    to_axis = (axis.transData + axis.transAxes.inverted()).transform
    place = -1.0
    for value, epoch, name, colour in sorted(ends):
        place = max(place + 0.055, to_axis((epoch, value))[1])
        axis.annotate(name, (epoch, value), (1.04, place), textcoords="axes fraction", color=colour, fontsize=SIZE - 1,
                      va="center", arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6})  # fmt: skip


def _by_papers_rule(pool: pd.DataFrame) -> pd.DataFrame:
    return pool[pool["alpha"] == paper.ALPHA_PER_RANK * pool["rank"]]


def _mark(modules: str) -> tuple[str, str]:
    return _MODULE_MARKS.get(modules) or _OTHER_MARKS[sum(map(ord, modules)) % len(_OTHER_MARKS)]


def _rate(rate: float) -> str:
    mantissa, exponent = f"{rate:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"
