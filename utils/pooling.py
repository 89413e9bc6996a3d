"""Records as what tables and figures compare: a row per configuration, its seeds together, its scores by question."""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import pandas as pd

from utils.config import RunConfig
from utils.metrics import exact_match, token_f1
from utils.paper import ALPHA_PER_RANK


def pooled(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row per configuration, whatever its seed: numbers averaged over the seeds that were run, base first.

    `seeds` lists the seeds and `records` their records in that order; `record` is the first one's.

    Example: pooled(as_frame(sweep(configs, data, environment, seeds=(0, 1, 2)))).loc[0, "seeds"] -> (0, 1, 2)
    """
    settings = ["data_fingerprint", *(f.name for f in fields(RunConfig) if f.name != "seed")]
    rows = []
    ordered = frame.sort_values(["rank", "trainable", "learning_rate", "seed"], na_position="first", kind="stable")
    for _, runs in ordered.groupby(settings, sort=False, dropna=False):
        row = runs.iloc[0].to_dict() | runs.select_dtypes("number").mean().to_dict()
        rows.append(row | {"seeds": tuple(runs["seed"]), "records": list(runs["record"])})
    return pd.DataFrame(rows, columns=[*frame.columns, "seeds", "records"]).drop(columns="seed")


def find(pool: pd.DataFrame, fields: dict | None) -> pd.Series | None:
    """Return the configuration with these fields (None: the base model) out of records.pooled, None where it is not.

    Example: find(pooled(frame), paper.table_3_grid()[1])["em_strict"] -> 0.41
    """
    if fields is None:
        found = pool[pool["rank"].isna()]
    else:
        same = pool["target_modules"].map(set) == set(fields["target_modules"])
        for name in ("rank", "alpha", "learning_rate"):
            same &= pool[name] == fields[name]
        found = pool[same]
    return None if found.empty else found.iloc[0]


def name(run: pd.Series | dict) -> str:
    """Return what a configuration is called in a figure or table: rank, modules and learning rate, or "base".

    Example: name(paper.WINNER) -> "r 2 q,v 1e-04"; alpha follows where it is not 4 * rank
    """
    if pd.isna(run["rank"]):
        return "base"
    alpha = "" if run["alpha"] == ALPHA_PER_RANK * run["rank"] else f" alpha {run['alpha']:g}"
    return f"r {run['rank']:.0f} {','.join(run['target_modules'])} {run['learning_rate']:.0e}{alpha}"


def per_question(record: dict, norm: str = "strict") -> tuple[list[float], list[float]]:
    """Return exact match and token F1 of every question of a record, in the dataset's order.

    Example: em, f1 = per_question(record)
    """
    pairs = [(p["answer"], p.get("references", p["reference"])) for p in record["predictions"]]
    return [exact_match(a, r, norm) for a, r in pairs], [token_f1(a, r, norm) for a, r in pairs]


def by_seed(records: Sequence[dict], norm: str = "strict") -> tuple[np.ndarray, np.ndarray]:
    """Return exact match and token F1 of several seeds' records, each of the shape (questions, seeds).

    Example: bootstrap_ci(by_seed(pooled(frame).loc[0, "records"])[0])
    """
    em, f1 = zip(*(per_question(record, norm) for record in records), strict=True)
    return np.transpose(em), np.transpose(f1)


def measured(pool: pd.DataFrame) -> str:
    """Return the sentence a caption needs: which model, rows, norm and seeds the numbers of a pooled frame are from.

    Example: measured(pooled(frame)) -> "Measured: gemma-3-270m, ... seed 0; 95 % intervals over questions alone."
    """
    if pool.empty:
        return "Measured: nothing yet."
    last = pool.iloc[-1]
    adapted = pool[pool["rank"].notna()] if pool["rank"].notna().any() else pool  # the base model has one seed at most
    data, seeds = last["record"]["data"], sorted({seed for some in adapted["seeds"] for seed in some})
    fewest = adapted["seeds"].map(len).min()
    over = f"seed {seeds[0]}; 95 % intervals over questions alone."
    if len(seeds) > 1:
        count = len(seeds) if fewest == len(seeds) else f"{fewest} to {len(seeds)}"
        over = f"means over {count} seeds ({', '.join(map(str, seeds))}); 95 % intervals over questions and seeds."
    return (
        f"Measured: {last['model']}, profile {last['profile']}, dataset {last['data']} ({data['train_rows']} train and "
        f"{data['test_rows']} test rows), strict norm, n = {last['n']:.0f} questions, {over}"
    )


def run_title(frame: pd.DataFrame) -> str:
    """Return what a figure of these runs shows: model, profile, dataset with its rows, and seeds where there are several.

    Example: run_title(pooled(frame)) -> "gemma-3-270m, profile demo, bundled (78 train, 39 test rows)"
    """
    last = frame.iloc[-1]
    data = last["record"]["data"]
    seeds = f", {len(last['seeds'])} seeds" if len(last["seeds"]) > 1 else ""
    rows = f"{data['name']} ({data['train_rows']} train, {data['test_rows']} test rows)"
    return f"{last['model']}, profile {last['profile']}, {rows}{seeds}"
