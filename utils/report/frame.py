"""Records in, the rows that tables and figures compare out: a run or a configuration each, and its scores by question."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from utils.config import DECODING, RunConfig
from utils.metrics import contains, exact_match, token_f1
from utils.records import load_records, run_name

# What two runs must share to be compared at all, and what training must share to be one experiment.
WORK = ["data_fingerprint", "model_id", "revision", "dtype", "quantization"]
TRAINING = ["epochs", "batch_size", "dropout", "loss_on", "rslora", "dora"]
_SAME = [*WORK, "model", "prompt_language", "shots", *DECODING, *TRAINING]


def load_frame(folder: Path) -> pd.DataFrame:
    """Return a folder's finished runs, a row each, as `as_frame` describes; attrs["complaints"] says what was left out.

    Example: load_frame(Path("figures/reference/full")).query("rank == 2")["em_strict"]
    """
    records, complaints = load_records(Path(folder))
    if not records:
        found = f" that can be read ({complaints[0].rstrip('.')})" if complaints else ""
        advice = "run 03_rank_sweep and 04_target_module_sweep first, or name a folder that holds some."
        raise FileNotFoundError(f"There are no records{found} in {folder}; {advice}")
    frame = as_frame(records)
    frame.attrs["complaints"] = complaints + frame.attrs["complaints"]
    return frame


def as_frame(records: Sequence[dict]) -> pd.DataFrame:
    """Return the finished records as a frame, a row each; a run that stands twice is kept once.

    Columns: run_id, every RunConfig field, every metric (em_strict ... em_ro, contains where it was taken), n, trainable,
    trainable_percent, profile, data, data_fingerprint, model_id, revision, dtype, quantization, record (the whole). The
    base model's rank is NaN. attrs["complaints"] has a sentence for each run that is not shown.
    Example: as_frame(sweep(configs, data, environment))["em_strict"].max()
    """
    rows, complaints = [], []
    for record in records:
        status = record.get("status", "finished")
        try:
            if status == "finished":
                rows.append(_flat(record))
            else:
                complaints.append(f"{record['run_id']} is left out: its status is {status}.")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            complaints.append(f"{record.get('run_id', 'A record')} is left out ({type(error).__name__}: {error}).")
    if not rows:
        raise ValueError(f"None of the {len(records)} runs can be shown: {' '.join(complaints) or 'there are none.'}")
    frame = pd.DataFrame(rows).drop_duplicates(["run_id", *WORK], ignore_index=True)
    frame.attrs["complaints"] = complaints
    return frame


def comparable(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the largest set of runs that differ in nothing but rank, alpha, modules, learning rate and seed.

    A folder fills with runs on other rows, of other models, formats or epochs; one table or figure must not mix them.
    The base model's run belongs to the set with its model, data and decoding. attrs["complaints"] names what is left
    out, and in what it differs.
    Of two sets as large, the one whose runs were trained for it is taken.
    Example: comparable(load_frame(folder))["epochs"].nunique() -> 1
    """
    if frame.empty:
        return frame
    base = frame["rank"].isna()
    runs = frame[~base | base.all()]
    sizes = runs.groupby(_SAME, sort=False, dropna=False)["run_id"].transform("size")
    trained = runs["record"].map(lambda record: bool(record.get("training")))  # not an adapter that answered again
    largest = frame.loc[(sizes + 0.5 * trained).idxmax()]
    differs = pd.DataFrame({name: _differs(frame[name], largest[name]) for name in _SAME})
    differs.loc[base, TRAINING] = False  # the base model is not trained
    out = differs.any(axis=1)
    kept = frame[~out].sort_values("rank", na_position="first", kind="stable", ignore_index=True)
    told = []
    for index, run in frame[out].iterrows():
        names = [name for name in _SAME[1:] if differs.loc[index, name]]
        what = [*other_rows(run, largest), *(f"{name} {run[name]}, not {largest[name]}" for name in names)]
        told.append(f"{run_name(run)} is left out of the comparison: {'; '.join(what)}.")
    kept.attrs["complaints"] = [*frame.attrs.get("complaints", []), *told]
    return kept


def other_rows(run: pd.Series, like: pd.Series) -> list[str]:
    """Return in what the rows of one run are not those of another; empty where they are the same.

    Example: other_rows(second, first) -> ["tested on bundled-more"]
    """
    if run["data_fingerprint"] == like["data_fingerprint"]:
        return []
    data, own = run["record"]["data"], like["record"]["data"]
    tested, usual = (one.get("test_name", one["name"]) for one in (data, own))
    told = [f"tested on {tested}"] * (tested != usual)
    told += [f"{data['train_rows']} training rows"] * (data["train_rows"] != own["train_rows"])
    told += [f"{data['test_rows']} test rows"] * (tested == usual and data["test_rows"] != own["test_rows"])
    return told or [f"rows {run['data_fingerprint']}"]


def pooled(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row per configuration, whatever its seed: numbers averaged over the seeds that were run, base first.

    Runs on other rows, of another model or format are other configurations. `seeds` lists the seeds and `records` their
    records in that order; `record` is the first one's.
    Example: pooled(as_frame(sweep(configs, data, environment, seeds=(0, 1, 2)))).loc[0, "seeds"] -> (0, 1, 2)
    """
    settings, rows = [*WORK, *(f.name for f in fields(RunConfig) if f.name != "seed")], []
    order = ["rank", "shots", "trainable", "learning_rate", "seed"]
    ordered = frame.sort_values(order, na_position="first", kind="stable")
    for _, runs in ordered.groupby(settings, sort=False, dropna=False):
        row = runs.iloc[0].to_dict() | runs.select_dtypes("number").mean().to_dict()
        rows.append(row | {"seeds": tuple(runs["seed"]), "records": list(runs["record"])})
    return pd.DataFrame(rows, columns=[*frame.columns, "seeds", "records"]).drop(columns="seed")


def find(pool: pd.DataFrame, fields: dict | None) -> pd.Series | None:
    """Return the configuration with these fields (None: the base model) out of `pooled`, None where it is not there.

    Example: find(pooled(frame), paper.WINNER | {"epochs": 5})["em_strict"] -> 0.41
    """
    same = pd.Series(True, index=pool.index)
    for name, value in ({"rank": None} if fields is None else fields).items():
        modules = name == "target_modules"
        same &= ~_differs(pool[name].map(set) if modules else pool[name], set(value) if modules else value)
    return pool[same].iloc[0] if same.any() else None


def by_seed(records: Sequence[dict], metric: str) -> np.ndarray:
    """Return one metric of every question in several seeds' records: (questions, seeds).

    "em" is exact match and "f1" token F1, both strict; "ro" is exact match under that norm; "contains" as in metrics.

    Example: mean_interval(by_seed(pooled(frame).loc[0, "records"], "em"))
    """
    score = {"em": exact_match, "f1": token_f1, "ro": partial(exact_match, norm="ro"), "contains": contains}[metric]
    scores = [[score(p["answer"], p.get("references") or p["reference"]) for p in r["predictions"]] for r in records]
    return np.transpose(scores)


def measured(pool: pd.DataFrame) -> str:
    """Return the sentence a caption needs: which model, number format, rows, norm and seeds a pooled frame is from.

    Example: measured(pooled(frame)) -> "Measured: gemma-3-270m in bfloat16, ... 95 % intervals over questions alone."
    """
    if pool.empty:
        return "Measured: nothing yet."
    last = pool.iloc[-1]
    counts = pool.loc[pool["rank"].notna() | pool["rank"].isna().all(), "seeds"]  # the base model has one seed at most
    data, seeds = last["record"]["data"], sorted({seed for some in counts for seed in some})
    over = f"seed {seeds[0]}; 95 % intervals over questions alone."
    if len(seeds) > 1:
        fewest = counts.map(len).min()
        count = len(seeds) if fewest == len(seeds) else f"{fewest} to {len(seeds)}"
        over = f"means over {count} seeds ({', '.join(map(str, seeds))}); 95 % intervals over questions and seeds."
    where = f"{_model(last)}, dataset {last['data']} ({data['train_rows']} train and {data['test_rows']} test rows)"
    return f"Measured: {where}, strict norm, n = {last['n']:.0f} questions, {over}"


def run_title(pool: pd.DataFrame) -> str:
    """Return what a figure of a pooled frame shows: model and format, profile, dataset with its rows, seeds if several.

    Example: run_title(pooled(frame)) -> "gemma-3-270m in bfloat16, profile demo, bundled (78 train, 39 test rows)"
    """
    if pool.empty:
        return "nothing measured yet"
    last = pool.iloc[-1]
    data, seeds = last["record"]["data"], f", {len(last['seeds'])} seeds" if len(last["seeds"]) > 1 else ""
    return f"{_model(last)}, {data['name']} ({data['train_rows']} train, {data['test_rows']} test rows){seeds}"


def _model(run: pd.Series) -> str:
    quantized = f" ({run['quantization']})" if run["quantization"] not in (None, "none") else ""
    return f"{run['model']} in {run['dtype']}{quantized}, profile {run['profile']}"


def _differs(column: pd.Series, value) -> pd.Series:
    if value is None or value != value:  # None in a record, NaN in a frame
        return column.notna()
    return column.map(lambda own: own != value)


def _flat(record: dict) -> dict:
    model, machine, data = (record.get(part) or {} for part in ("model", "environment", "data"))
    return {
        "run_id": record["run_id"], **asdict(RunConfig.from_dict(record["config"])), **record["metrics"],
        "trainable": model.get("trainable"), "trainable_percent": model.get("trainable_percent"),
        "data": data["name"], "data_fingerprint": data["fingerprint"], "model_id": model.get("id"),
        "revision": model.get("revision"), "profile": machine.get("profile"), "dtype": machine.get("dtype"),
        "quantization": machine.get("quantization") or "none", "record": record,
    }  # fmt: skip
