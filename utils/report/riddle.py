"""The riddle put to the records: what rank 32 gains or loses against rank 2, and what that depends on."""

import textwrap
from collections.abc import Collection, Iterator
from dataclasses import fields

import pandas as pd
from matplotlib.figure import Figure

from utils import paper
from utils.config import RunConfig
from utils.records import run_name
from utils.report.frame import WORK, by_seed, comparable, find, pooled, run_title, what_differs
from utils.report.style import BLUE, ORANGE, SIZE, captioned, finish, set_labels, subplots
from utils.stats import paired_test

_TWO, _MOST = (paper.table_3_grid()[paper.RANKS.index(rank)] for rank in (2, 32))  # the paper's best rank and its worst
_METRICS = {"em": "exact match", "f1": "token F1"}
PAPER, MAIN = "paper, Llama 3.2 3B", "as in Table 3"
# Of a condition's runs these may differ; of a seed's draws each is a run.
_FREE = ("rank", "alpha", "target_modules", "learning_rate", "seed", "draw")


def rank_effect(runs: pd.DataFrame) -> pd.DataFrame:
    """Return rank 32 less rank 2 (q, v, 1e-4) under every condition in which both were run, the paper's own first.

    `runs` are finished runs of any settings (load_frame); a condition is what a set of them has in common. The first is
    what Table 3 is made of (comparable), which is also read under `ro` and `contains`. A row each: condition, metric,
    rank 2, rank 32, difference, low and high (95 %, paired by question, over seeds and draws where there are several),
    n, and runs: the seeds and draws that both ranks have. Where only some of Table 3's seeds were run under the other
    conditions, those seeds stand a second time, for them to be compared with. The paper's answers were not published:
    no interval there.
    Example: rank_effect(load_frame(folder)).loc[0, "difference"] -> -0.265 (the paper's exact match)
    """
    two, most = (next(row for row in paper.TABLE_3 if row["rank"] == fields["rank"]) for fields in (_TWO, _MOST))
    rows = [
        {"condition": PAPER, "metric": name, "rank 2": two[m], "rank 32": most[m], "difference": most[m] - two[m],
         "n": paper.TEST_ROWS} for m, name in _METRICS.items()
    ]  # fmt: skip
    for condition, pool in _conditions(runs):
        two, most = find(pool, _TWO), find(pool, _MOST)
        if two is None or most is None or not (shared := set(two["seeds"]) & set(most["seeds"])):
            continue
        further = {"ro": "exact match, ro", "contains": "contains"} if condition == MAIN else {}
        kept = [[r for s, r in zip(run["seeds"], run["records"], strict=True) if s in shared] for run in (two, most)]
        for metric, name in (_METRICS | further).items():
            low, high = (by_seed(records, metric) for records in kept)
            found = paired_test(high, low)
            row = {"condition": condition, "metric": name, "rank 2": low.mean(), "rank 32": high.mean()}
            row |= {key: found[key] for key in ("difference", "low", "high", "n")}
            rows.append(row | {"runs": _drawn(shared)})
    columns = ["condition", "metric", "rank 2", "rank 32", "difference", "low", "high", "n", "runs"]
    caption = "Rank 32 less rank 2; modules q, v; learning rate 1e-4; 95 % intervals, paired by question. Measured: "
    return captioned(rows, caption + run_title(pooled(comparable(runs))), columns)


def riddle(runs: pd.DataFrame) -> Figure:
    """Return the differences of `rank_effect` as a figure: exact match and token F1 of every condition, zero dotted.

    Left of zero the higher rank is worse. The paper's marks are hollow.
    Example: riddle(load_frame(folder))
    """
    table = rank_effect(runs)
    names = table.drop_duplicates("condition").set_index("condition")
    figure, axis = subplots(height=2.2 + 0.5 * len(names))
    for apart, name, colour in zip((-0.14, 0.14), _METRICS.values(), (BLUE, ORANGE), strict=True):
        for _, row in table[table["metric"] == name].iterrows():
            published, place = row["condition"] == PAPER, names.index.get_loc(row["condition"]) + apart
            reach = None if published else [[row["difference"] - row["low"]], [row["high"] - row["difference"]]]
            axis.errorbar(row["difference"], place, xerr=reach, capsize=3, color=colour, fmt="D" if published else "o",
                          markerfacecolor="white" if published else colour, label=name)  # fmt: skip
    axis.axvline(0, color="black", linestyle=":", linewidth=1)
    told = zip(names.index, names["n"], names["runs"].map(lambda run: f", {run}" if pd.notna(run) else ""), strict=True)
    labels = [f"{textwrap.fill(name, 22, break_on_hyphens=False)}\nn = {n}{run}" for name, n, run in told]
    axis.set_yticks(range(len(names)), labels, fontsize=SIZE)
    axis.invert_yaxis()
    set_labels(axis, "rank 32 less rank 2 (left of 0: rank 32 is worse)", "")
    return finish(figure, f"Filled marks: {run_title(pooled(comparable(runs)))}; bars are 95 % intervals.", axis)


def variants(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the scores of runs that differ from Table 3's in one setting or another, beside base, rank 2 and rank 32 there.

    A row each: run, condition, EM, EM ro, contains, F1, gap (F1 less EM), runs (the seeds and draws that were averaged).
    Example: variants(load_frame(folder)).set_index("condition").loc["epochs 5, not 3", "EM"]
    """
    rows = []
    for condition, pool in _conditions(runs):
        usual = [run["run_id"] for fields in (None, _TWO, _MOST) if (run := find(pool, fields)) is not None]
        for _, run in pool.iterrows():
            if not condition.startswith(MAIN) or run["run_id"] in usual:
                em, f1 = run["em_strict"], run["f1_strict"]
                scores = [em, run["em_ro"], run.get("contains"), f1, f1 - em]
                rows.append([run_name(run), condition, *scores, _drawn(run["seeds"])])
    columns = ["run", "condition", "EM", "EM ro", "contains", "F1", "gap", "runs"]
    return captioned(rows, f"Compared with: {run_title(pooled(comparable(runs)))}", columns)


def _conditions(runs: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    main, own = comparable(runs), ["run_id", *WORK]
    settings = [*WORK, *(f.name for f in fields(RunConfig) if f.name not in _FREE)]
    keys = [pd.MultiIndex.from_frame(frame[own].astype(str)) for frame in (runs, main)]
    others = runs[~keys[0].isin(keys[1])]
    found = [(MAIN, main)]
    some = sorted(set(others.loc[others["rank"].notna(), "seed"]))
    if 0 < len(some) < main["seed"].nunique():
        found.append((f"{MAIN}, {_drawn([(seed, 0) for seed in some])}", main[main["seed"].isin(some)]))
    groups = others.groupby(settings, sort=False, dropna=False)
    for condition, same in [*found, *((what_differs(same.iloc[0], main.iloc[-1]), same) for _, same in groups)]:
        yield condition, pooled(same.assign(seed=list(zip(same["seed"], same["draw"], strict=True)), draw=0))


def _drawn(pairs: Collection[tuple[int, int]]) -> str:
    seeds = sorted({seed for seed, _ in pairs})
    draws = f", {len(pairs)} draws" * (len(pairs) > len(seeds))
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}{draws}"
