"""The riddle put to the records: what rank 32 gains or loses against rank 2, and what that depends on."""

from collections.abc import Iterator
from dataclasses import fields

import pandas as pd
from matplotlib.figure import Figure

from utils import paper
from utils.config import RunConfig
from utils.report.frame import WORK, by_seed, comparable, find, measured, pooled
from utils.report.style import BLUE, ORANGE, SIZE, captioned, finish, set_labels, subplots
from utils.stats import paired_test

_TWO, _MOST = (paper.table_3_grid()[paper.RANKS.index(rank)] for rank in (2, 32))  # the paper's best rank and its worst
_METRICS = {"em": "exact match", "f1": "token F1"}
_PAPER = "paper, Llama 3.2 3B"


def rank_effect(runs: pd.DataFrame) -> pd.DataFrame:
    """Return rank 32 less rank 2 (q, v, 1e-4) under every condition in which both were run, the paper's own first.

    `runs` are finished runs of any settings (load_frame); a condition is what a set of them has in common. The first is
    what Table 3 is made of (comparable), which is also read under `ro` and `contains`. A row each: condition, metric,
    rank 2, rank 32, difference, low and high (95 %, paired by question, over seeds or draws where there are several),
    runs (how many seeds or draws, None for the paper, whose answers were not published: its rows have no interval).
    Example: rank_effect(load_frame(folder)).loc[0, "difference"] -> -0.265 (the paper's exact match)
    """
    two, most = (next(row for row in paper.TABLE_3 if row["rank"] == fields["rank"]) for fields in (_TWO, _MOST))
    rows = [
        {"condition": _PAPER, "metric": name, "rank 2": two[m], "rank 32": most[m], "difference": most[m] - two[m]}
        for m, name in _METRICS.items()
    ]
    main = comparable(runs)
    for condition, pool in _conditions(runs, main):
        two, most = find(pool, _TWO), find(pool, _MOST)
        if two is None or most is None or not (shared := set(two["seeds"]) & set(most["seeds"])):
            continue
        further = {"ro": "exact match, ro", "contains": "contains"} if condition == "as in Table 3" else {}
        for metric, name in (_METRICS | further).items():
            kept = [
                [r for seed, r in zip(run["seeds"], run["records"], strict=True) if seed in shared]
                for run in (two, most)
            ]
            low, high = (by_seed(records, metric) for records in kept)
            found = paired_test(high, low)
            row = {"condition": condition, "metric": name, "rank 2": low.mean(), "rank 32": high.mean()}
            rows.append(row | {key: found[key] for key in ("difference", "low", "high")} | {"runs": len(shared)})
    columns = ["condition", "metric", "rank 2", "rank 32", "difference", "low", "high", "runs"]
    caption = f"Rank 32 less rank 2; modules q, v; learning rate 1e-4. {measured(pooled(main))}"
    return captioned(rows, caption, columns).astype({"runs": "Int64"})


def riddle(runs: pd.DataFrame) -> Figure:
    """Return the differences of `rank_effect` as a figure: exact match and token F1 beside each other, zero dotted.

    Left of zero the higher rank is worse. The paper's marks are hollow.
    Example: riddle(load_frame(folder))
    """
    table = rank_effect(runs)
    names = list(dict.fromkeys(table["condition"]))
    figure, axis = subplots(height=1.9 + 0.42 * len(names))
    for place, (name, colour) in zip((-0.14, 0.14), zip(_METRICS.values(), (BLUE, ORANGE), strict=True), strict=True):
        for _, row in table[table["metric"] == name].iterrows():
            published = row["condition"] == _PAPER
            reach = None if published else [[row["difference"] - row["low"]], [row["high"] - row["difference"]]]
            axis.errorbar(
                row["difference"],
                names.index(row["condition"]) + place,
                xerr=reach,
                capsize=3,
                color=colour,
                fmt="D" if published else "o",
                markerfacecolor="white" if published else colour,
                label=name,
            )
    axis.axvline(0, color="black", linestyle=":", linewidth=1)
    axis.set_yticks(range(len(names)), names, fontsize=SIZE)
    axis.invert_yaxis()
    set_labels(axis, "score of rank 32 less score of rank 2 (left of 0, rank 32 is worse)", "")
    return finish(figure, table.attrs["caption"].split(" Measured")[0], axis)


def _conditions(runs: pd.DataFrame, main: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    yield "as in Table 3", pooled(main)
    own = ["run_id", *WORK]
    others = runs[~pd.MultiIndex.from_frame(runs[own]).isin(pd.MultiIndex.from_frame(main[own])) & runs["rank"].notna()]
    settings = [*WORK, *(f.name for f in fields(RunConfig) if f.name not in ("rank", "alpha", "seed", "draw"))]
    modules = ("target_modules", "learning_rate")
    like = main.iloc[-1]
    for _, same in others.groupby(settings, sort=False, dropna=False):
        first, told = same.iloc[0], []
        if first["data_fingerprint"] != like["data_fingerprint"]:
            told.append(f"tested on {first['record']['data'].get('test_name', first['data'])}")
        if first["temperature"]:
            told.append(f"sampled at {first['temperature']:g}/{first['top_p']:g}")
            same = same.assign(seed=same["draw"], draw=0)  # draws are averaged as seeds are
        named = [name for name in settings if name not in (*modules, "data_fingerprint", "temperature", "top_p")]
        told += [f"{name.replace('_', ' ')}: {first[name]}" for name in named if first[name] != like[name]]
        yield ", ".join(told), pooled(same)
