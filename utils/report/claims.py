"""The paper's claims put to the records, and to its own published numbers; every table corrected for its size."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from utils import paper
from utils.records import run_name
from utils.report.frame import by_seed, find, measured, pooled
from utils.report.style import captioned
from utils.stats import LEVEL, holm, paired_test, unpaired_test, wilson

SUPPORTED, CONTRADICTED = "supported", "contradicted"
UNCLEAR, NOT_RUN = "not distinguishable at this n", "not run"


def verdicts(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the paper's claims (paper.CLAIMS) in its words, each with its verdict and the comparison that decided it.

    A comparison is found where its p-value, after Holm's correction over the whole table, is below 0.05 and its
    interval leaves out 0. A claim is supported where all its comparisons are found in its favour, contradicted where
    one is found against it; the row shows the least favourable one. "could show" is the smallest difference that so
    many questions could have shown there, uncorrected (stats.paired_test). `frame` holds runs that `comparable` kept.
    Example: verdicts(frame).set_index("claim").loc["Rank 2 is the best rank", "verdict"]
    """
    pool = pooled(frame)
    found = {repr(c): _compare(pool, *c) for claim in paper.CLAIMS for c in claim["comparisons"]}
    done = [result for result in found.values() if result]
    _correct(done)
    rows = []
    for claim in paper.CLAIMS:
        shares = claim.get("trainable_percent")
        row = _shares(shares) if shares else _decide([found[repr(c)] for c in claim["comparisons"]])
        rows.append({"claim": claim["claim"], "the paper's words": claim["quote"], **row})
    columns = ["claim", "the paper's words", "compared", "metric", "difference", "95 %", "p (Holm)", "could show",
               "verdict"]  # fmt: skip
    could = "Intervals and “could show”, the smallest difference that it could have shown, are for one comparison by itself."
    table = captioned(rows, f"The paper's claims. {measured(pool)} {_corrected(done)} {could}", columns)
    return table.astype({"difference": float, "p (Holm)": float, "could show": float})


def comparisons(frame: pd.DataFrame, metric: str = "em") -> pd.DataFrame:
    """Return every configuration against the base model and against the paper's winner, paired by question.

    A row each: configuration, against ("base" or "winner"), what stats.paired_test gives for the `metric` ("em" or
    "f1"), p (Holm), and found: whether that is below 0.05 and the interval leaves out 0.
    Example: comparisons(frame).query("against == 'base'")["difference"].min()
    """
    pool, rows = pooled(frame), []
    for against, fields in (("base", None), ("winner", paper.WINNER)):
        other = find(pool, fields)
        for _, run in pool[pool["rank"].notna()].iterrows():
            if other is not None and run["run_id"] != other["run_id"] and (result := _paired(metric, [run], [other])):
                rows.append({"configuration": run_name(run), "against": against, **result})
    _correct(rows)
    return pd.DataFrame(rows, columns=None if rows else ["against"])


def published_scores() -> pd.DataFrame:
    """Return every published score: exact match with Wilson's 95 % interval (n = 200), token F1, and the gap between them.

    F1 has no interval: its spread over the questions was not published.
    Example: published_scores().loc[1, ["EM", "95 %", "gap"]].tolist() -> [0.395, "0.33–0.46", 0.119] (rank 1)
    """
    rows = {}  # by table and name, for Tables 3 and 6 share a configuration
    for fields in (None, *paper.table_3_grid(), *paper.table_5_grid(), *paper.table_6_grid()):
        name = run_name(fields or {"rank": None})
        for row in paper.published(fields):
            interval = "{:.2f}–{:.2f}".format(*wilson(row["em"], paper.TEST_ROWS))
            scores = {"EM": row["em"], "95 %": interval, "F1": row["f1"], "gap": row["f1"] - row["em"]}
            rows[row["table"], name] = {"table": row["table"], "configuration": name, **scores}
    what = "exact match with Wilson's 95 % interval, token F1, and the gap between the two."
    return captioned(list(rows.values()), f"What the paper published, n = {paper.TEST_ROWS}: {what}")


def published_claims() -> pd.DataFrame:
    """Return what the published exact matches alone can bear: each comparison of the paper's claims, not paired by question.

    A configuration that two tables publish is taken from the table it is compared within; against the base model each of
    its values stands. Columns: claim (all that it bears on), compared, table, difference, z, p, p (Holm), verdict.
    Example: published_claims().query("compared == 'r 2 q,v 1e-4 − r 32 q,v 1e-4'")["z"].round(1).tolist() -> [5.9]
    """
    rows, n = {}, paper.TEST_ROWS
    tested = [(claim["claim"], c) for claim in paper.CLAIMS if not claim["ours"] for c in claim["comparisons"]]
    for claim, (metric, (better,), (worse,)) in tested:
        if metric != "em":
            continue
        compared = " − ".join(run_name(fields or {"rank": None}) for fields in (better, worse))
        for one in paper.published(better):
            for other in paper.published(worse):
                if one["table"] == other["table"] or worse is None:
                    row = {"claim": [], "compared": compared, "table": one["table"]}
                    row |= unpaired_test(one["em"], n, other["em"], n)
                    rows.setdefault((compared, one["table"]), row)["claim"].append(claim)
    what = f"The paper's exact matches as shares of {n} questions (two-proportion z test): no answers are published to pair."
    table = captioned(list(rows.values()), f"{what} {_corrected(rows)}").rename(columns={"p_value": "p"})
    table["claim"], table["p (Holm)"] = table["claim"].map("; ".join), holm(table["p"])
    signs = np.where(table["difference"] > 0, SUPPORTED, CONTRADICTED)
    table["verdict"] = np.where(table["p (Holm)"] < LEVEL, signs, UNCLEAR)
    return table


def _compare(pool: pd.DataFrame, metric: str, better: list[dict | None], worse: list[dict | None]) -> dict | None:
    sides = [[find(pool, fields) for fields in side] for side in (better, worse)]
    if any(run is None for side in sides for run in side):
        return None
    result = _paired(metric, *sides)
    names = [run_name(s[0]) if len(s) == 1 else f"mean of {run_name(s[0])} … {run_name(s[-1])}" for s in sides]
    return result and {"compared": " − ".join(names), "metric": metric, **result}


def _paired(metric: str, better: list[pd.Series], worse: list[pd.Series]) -> dict | None:
    several = [set(run["seeds"]) for run in (*better, *worse) if pd.notna(run["rank"]) or len(run["seeds"]) > 1]
    if not (seeds := set.intersection(*several)):
        return None

    def scores(run):
        pairs = zip(run["seeds"], run["records"], strict=True)
        kept = [r for seed, r in pairs if seed in seeds or (pd.isna(run["rank"]) and len(run["seeds"]) == 1)]
        return by_seed(kept, metric)

    return paired_test(*(np.mean([scores(run) for run in side], axis=0) for side in (better, worse)))


def _correct(results: list[dict]) -> None:
    for result, p in zip(results, holm([result["p_value"] for result in results]), strict=True):
        result |= {"p (Holm)": p, "found": p < LEVEL and not result["low"] <= 0 <= result["high"]}


def _decide(results: list[dict | None]) -> dict:
    done = [result for result in results if result]
    against = [result for result in done if result["found"] and result["difference"] < 0]
    unclear = [result for result in done if not result["found"]]
    if not against and len(done) < len(results):
        return {"compared": f"{len(done)} of {len(results)} comparisons have been run", "verdict": NOT_RUN}
    shown = min(against or unclear or done, key=lambda result: result["difference"])
    of = f" (the least of {len(results)})" if len(results) > 1 else ""
    verdict = CONTRADICTED if against else UNCLEAR if unclear else SUPPORTED
    row = shown | {"95 %": f"{shown['low']:+.2f} to {shown['high']:+.2f}", "could show": shown["could_show"]}
    return row | {"compared": shown["compared"] + of, "verdict": verdict}


def _shares(published: Sequence[dict]) -> dict:
    counted = [(paper.trainable_parameters(row["rank"]), row["trainable_percent"]) for row in published]
    wrong = sum(round(100 * n / (paper.BASE_PARAMETERS + n), 4) != percent for n, percent in counted)
    compared = f"six ranks of Llama 3.2 3B, counted from its shape to four decimals: {wrong} differ"
    return {"compared": compared, "verdict": CONTRADICTED if wrong else SUPPORTED}


def _corrected(results: Sequence) -> str:
    return f"p-values corrected by Holm's method for {len(results)} comparisons."
