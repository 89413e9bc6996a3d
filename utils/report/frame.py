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
    The base model's run belongs to the set with its model, data and decoding; of two sets as large, the one whose runs
    were trained for it is taken, then the one with more questions. attrs["complaints"] names what is left out, and why.
    Example: comparable(load_frame(folder))["epochs"].nunique() -> 1
    """
    if frame.empty:
        return frame
    base = frame["rank"].isna()
    runs = frame[~base | base.all()]
    sizes = runs.groupby(_SAME, sort=False, dropna=False)["run_id"].transform("size")
    trained = runs["record"].map(lambda record: bool(record.get("training")))  # not an adapter that answered again
    largest = frame.loc[(sizes + 0.5 * trained + runs["n"] * 1e-6).idxmax()]
    differs = pd.DataFrame({name: _differs(frame[name], largest[name]) for name in _SAME})
    differs.loc[base, TRAINING] = False  # the base model is not trained
    out = differs.any(axis=1)
    kept = frame[~out].sort_values("rank", na_position="first", kind="stable", ignore_index=True)
    runs = [run for _, run in frame[out].iterrows()]
    told = [f"{run_name(run)} is left out of the comparison: {what_differs(run, largest)}." for run in runs]
    kept.attrs["complaints"] = [*frame.attrs.get("complaints", []), *told]
    return kept


def what_differs(run: pd.Series, like: pd.Series) -> str:
    """Return in words what one run has otherwise than another, but for what may differ within a table, and the draw.

    Example: what_differs(second, first) -> "tested on bundled-more"
    """
    told, data, own = [], run["record"]["data"], like["record"]["data"]
    if run["data_fingerprint"] != like["data_fingerprint"]:
        tested, usual = (one.get("test_name", one["name"]) for one in (data, own))
        told += [f"tested on {tested}"] * (tested != usual)
        told += [f"{data['train_rows']} training rows"] * (data["train_rows"] != own["train_rows"])
        told += [f"{data['test_rows']} test rows"] * (data["test_rows"] != own["test_rows"])
        told = told or [f"rows {run['data_fingerprint']}"]
    if (run["temperature"], run["top_p"]) != (like["temperature"], like["top_p"]):
        drawn = f"sampled, temperature {run['temperature']:g}, top-p {run['top_p']:g}"
        told += [drawn if run["temperature"] else "greedy"]
    for name in [name for name in _SAME[1:] if name not in ("temperature", "top_p", "draw")]:
        same = run[name] == like[name] or (pd.isna(run[name]) and pd.isna(like[name]))
        if not same and not (pd.isna(run["rank"]) and name in TRAINING):
            told.append(f"{name.replace('shots', 'solved examples').replace('_', ' ')} {run[name]}, not {like[name]}")
    return "; ".join(told) or "another draw"


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
        means = runs.drop(columns=settings).mean(numeric_only=True)  # of 7 learning rates of 1e-4 it would be another
        rows.append({**runs.iloc[0], **means, "seeds": tuple(runs["seed"]), "records": list(runs["record"])})
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
    """Return the sentence a caption needs: which model, format, rows, norm, seeds and kinds of CPU a pooled frame is from.

    Example: measured(pooled(frame)) -> "Measured: gemma-3-270m in bfloat16, ... 95 % intervals over questions alone."
    """
    if pool.empty:
        return "Measured: nothing yet."
    seeds, count = _seeds(pool)
    over = f"seed {seeds[0]}; 95 % intervals over questions alone."
    if len(seeds) > 1:
        names = ", ".join(map(str, seeds))
        over = f"means over {count} seeds ({names}); 95 % intervals over questions and these seeds."
    machines = {r["environment"].get("dtype_reason", "") for records in pool["records"] for r in records}
    told = f" Not all on one kind of machine: {'; '.join(sorted(machines))}." if len(machines) > 1 else ""
    return f"Measured: {_work(pool.iloc[-1])}, strict norm, n = {pool.iloc[-1]['n']:.0f} questions, {over}{told}"


def run_title(pool: pd.DataFrame, first: bool = False) -> str:
    """Return what a figure shows: model, format, profile, rows, seeds if several (`first`: it shows the first of them alone).

    Example: run_title(pooled(frame)) -> "gemma-3-270m in bfloat16, profile demo, bundled (78 train, 39 test rows)"
    """
    if pool.empty:
        return "nothing measured yet"
    seeds, count = _seeds(pool)
    return _work(pool.iloc[-1]) + ("" if len(seeds) == 1 else f", seed {seeds[0]}" if first else f", {count} seeds")


def _seeds(pool: pd.DataFrame) -> tuple[list[int], int | str]:
    counts = pool.loc[pool["rank"].notna() | pool["rank"].isna().all(), "seeds"]  # the base model has one seed at most
    seeds, fewest = sorted({seed for some in counts for seed in some}), counts.map(len).min()
    return seeds, len(seeds) if fewest == len(seeds) else f"{fewest} to {len(seeds)}"


def _work(run: pd.Series) -> str:
    quantized = f" ({run['quantization']})" if run["quantization"] not in (None, "none") else ""
    data, tested = run["record"]["data"], run["record"]["data"].get("test_name", run["data"])
    of = f" of {tested}" if tested != run["data"] else ""
    rows = f"{run['data']} ({data['train_rows']} train, {data['test_rows']} test rows{of})"
    return f"{run['model']} in {run['dtype']}{quantized}, profile {run['profile']}, {rows}"


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
