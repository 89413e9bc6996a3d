"""The paper's claims put to the records: every comparison paired by question, every table corrected for its size."""

import numpy as np
import pandas as pd

from utils import paper
from utils.config import RunConfig
from utils.models import add_lora, llama_3b_on_meta
from utils.pooling import by_seed, find, measured, name, pooled
from utils.stats import holm, paired_test

SUPPORTED, CONTRADICTED = "supported", "contradicted"
UNCLEAR, NOT_RUN = "not distinguishable at this n", "not run"
LEVEL = 0.05  # of Holm's corrected p-values: at most one table in twenty holds a false finding


def verdicts(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the paper's claims (paper.CLAIMS), each with its verdict and the comparison that decided it.

    A comparison is found where its p-value, after Holm's correction over the whole table, is below 0.05 and its
    interval leaves out 0. A claim is supported where all its comparisons are found in its favour, contradicted where
    one is found against it; the row shows the least favourable one. `frame` holds runs that records.comparable kept.

    Example: verdicts(frame).set_index("claim").loc["Rank 2 is the best rank", "verdict"]
    """
    pool = pooled(frame)
    found = {repr(c): _compare(pool, *c) for claim in paper.CLAIMS for c in claim["comparisons"]}
    _correct([result for result in found.values() if result])
    rows = []
    for claim in paper.CLAIMS:
        row = _shares(claim["trainable_percent"]) if "trainable_percent" in claim else None
        row = row or _decide([found[repr(c)] for c in claim["comparisons"]])
        rows.append({"claim": claim["claim"], **row})
    columns = ["claim", "compared", "metric", "difference", "95 %", "p (Holm)", "n", "seeds", "verdict"]
    table = pd.DataFrame(rows, columns=columns).astype({"difference": float, "p (Holm)": float})
    table[["n", "seeds"]] = table[["n", "seeds"]].astype("Int64")
    table.attrs["caption"] = f"The paper's claims. {measured(pool)} {_corrected(found.values())}"
    return table


def comparisons(frame: pd.DataFrame, metric: str = "em") -> pd.DataFrame:
    """Return every configuration against the base model and against the paper's winner, paired by question.

    Columns: configuration, against, difference, low, high, p, p (Holm), n, seeds. `metric` is "em" or "f1".

    Example: comparisons(frame).query("against == 'base'")["difference"].min()
    """
    pool, rows = pooled(frame), []
    for against, fields in (("base", None), ("winner", paper.WINNER)):
        other = find(pool, fields)
        for _, run in pool[pool["rank"].notna()].iterrows():
            if other is not None and run["run_id"] != other["run_id"] and (result := _paired(metric, [run], [other])):
                rows.append({"configuration": name(run), "against": against, **result})
    _correct(rows)
    columns = ["configuration", "against", "difference", "low", "high", "p", "p (Holm)", "n", "seeds"]
    table = pd.DataFrame([row | {"p": row["p_value"]} for row in rows], columns=columns)
    table.attrs["caption"] = (
        f"{'Exact match' if metric == 'em' else 'Token F1'} of each configuration less that of the base model and of the "
        f"paper's winner ({name(paper.WINNER)}). {measured(pool)} {_corrected(rows)}"
    )
    return table


def is_found(result: dict | pd.Series) -> bool:
    """Return whether a difference can be told from none: corrected p-value below 0.05, and 0 outside the interval.

    Example: is_found({"p (Holm)": 0.01, "low": 0.02, "high": 0.1}) -> True
    """
    return bool(result["p (Holm)"] < LEVEL and not result["low"] <= 0 <= result["high"])


def _compare(pool: pd.DataFrame, metric: str, better: list[dict | None], worse: list[dict | None]) -> dict | None:
    sides = [[find(pool, fields) for fields in side] for side in (better, worse)]
    if any(run is None for side in sides for run in side):
        return None
    result = _paired(metric, *sides)
    names = [name(s[0]) if len(s) == 1 else f"mean of {name(s[0])} … {name(s[-1])}" for s in sides]
    return result and {"compared": " − ".join(names), "metric": metric, **result}


def _paired(metric: str, better: list[pd.Series], worse: list[pd.Series]) -> dict | None:
    seeds = set.intersection(*(set(run["seeds"]) for run in (*better, *worse) if pd.notna(run["rank"])))
    if not seeds:
        return None

    def scores(run):
        pairs = zip(run["seeds"], run["records"], strict=True)
        records = [record for seed, record in pairs if seed in seeds or pd.isna(run["rank"])]
        return by_seed(records)[("em", "f1").index(metric)]

    return paired_test(*(np.mean([scores(run) for run in side], axis=0) for side in (better, worse)))


def _correct(results: list[dict]) -> None:
    for result, p in zip(results, holm([result["p_value"] for result in results]), strict=True):
        result["p (Holm)"] = p


def _decide(results: list[dict | None]) -> dict:
    done = [result for result in results if result]
    against = [result for result in done if is_found(result) and result["difference"] < 0]
    unclear = [result for result in done if not is_found(result)]
    if not against and len(done) < len(results):
        return {"compared": f"{len(done)} of {len(results)} comparisons have been run", "verdict": NOT_RUN}
    shown = min(against or unclear or done, key=lambda result: result["difference"])
    verdict = CONTRADICTED if against else UNCLEAR if unclear else SUPPORTED
    of = f" (the least of {len(results)})" if len(results) > 1 else ""
    row = shown | {"95 %": f"{shown['low']:+.2f} to {shown['high']:+.2f}", "verdict": verdict}
    return row | {"compared": shown["compared"] + of}


def _shares(published: tuple[dict, ...]) -> dict:
    wrong = []
    for row in published:  # the architecture decides it, so it is counted without weights
        model = add_lora(llama_3b_on_meta(), RunConfig("llama-3.2-3b", row["rank"]))
        trainable, total = model.get_nb_trainable_parameters()
        wrong += [row["rank"]] * (round(100 * trainable / total, 4) != row["trainable_percent"])
    compared = f"six ranks of Llama 3.2 3B, counted from its shape to four decimals: {len(wrong)} differ"
    return {"compared": compared, "verdict": CONTRADICTED if wrong else SUPPORTED}


def _corrected(results) -> str:
    return f"p-values corrected by Holm's method for {sum(bool(result) for result in results)} comparisons."
