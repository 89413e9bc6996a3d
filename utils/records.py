"""One run, one JSON file: everything that a table or a figure shows is read from these files."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from utils.config import RunConfig

SCHEMA_VERSION = 1


def record_path(folder: Path, run_id: str, data_fingerprint: str) -> Path:
    """Return the file of one run on one dataset.

    Example: record_path(Path("runs/demo"), "r2-a8", "0a1b2c3d4e5f").name -> "r2-a8-data-0a1b2c3d4e5f.json"
    """
    return folder / f"{run_id}-data-{data_fingerprint}.json"


def adapter_folder(runs: Path, run_id: str, data_fingerprint: str) -> Path:
    """Return the folder of a run's adapter, named as its record is: other rows, another adapter.

    Example: adapter_folder(Path("runs/demo"), "r2-a8", "0a1b2c3d4e5f").parent.name -> "adapters"
    """
    return runs / "adapters" / record_path(runs, run_id, data_fingerprint).stem


def save_record(record: dict, folder: Path) -> Path:
    """Write the record as JSON and return its path; the file appears whole or not at all.

    Example: save_record(record, Path("runs/demo/records")).exists() -> True
    """
    path = record_path(folder, record["run_id"], record["data"]["fingerprint"])
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"schema_version": SCHEMA_VERSION, **record}, ensure_ascii=False, indent=1, allow_nan=False)
    unfinished = path.with_suffix(f".{os.getpid()}.unfinished")
    try:
        unfinished.write_text(content, encoding="utf-8")
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return path


def read_record(path: Path) -> dict:
    """Return one record; a file that is damaged or of another schema is an error that names it.

    Example: read_record(path)["metrics"]["em_strict"] -> 0.41
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        version = record["schema_version"]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"The record {path} cannot be read ({type(error).__name__}: {error}). Delete it, and the run is done again."
        ) from None
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"The record {path} has schema version {version}; this code reads version {SCHEMA_VERSION}. "
            "Move it away, and the run is done again."
        )
    return record


def load_records(folder: Path) -> pd.DataFrame:
    """Return the folder's records, a row each: settings, scores and sizes as columns, the whole in `record`.

    Columns: run_id, every RunConfig field, em_strict ... f1_ro, n, trainable, total, trainable_percent, train_seconds,
    answer_seconds, samples_per_second, peak_memory_gib, profile, data, data_fingerprint, record. The base model's
    rank is NaN.

    Example: load_records(Path("figures/reference")).query("rank == 2")["em_strict"]
    """
    records = [read_record(path) for path in sorted(Path(folder).glob("*.json"))]
    if not records:
        raise FileNotFoundError(
            f"There are no records in {folder}. Run 03_rank_sweep and 04_target_module_sweep first."
        )
    return as_frame(records)


def as_frame(records: list[dict]) -> pd.DataFrame:
    """Return the finished records as the frame that load_records describes; a run that stands twice is kept once.

    Example: as_frame(sweep(configs, data, environment))["em_strict"].max()
    """
    finished = [record for record in records if record.get("status", "finished") == "finished"]
    if not finished:
        raise ValueError(f"None of the {len(records)} runs finished; their records say why under 'error'.")
    return pd.DataFrame([_flat(record) for record in finished]).drop_duplicates(["run_id", "data_fingerprint"])


def comparable(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the largest set of runs that differ in nothing but rank, alpha, modules, learning rate and seed.

    A folder fills with runs on other rows, with other epochs, of other models; one table or figure must not mix them.
    The base model's run belongs to every set with its model, data and decoding.

    Example: comparable(load_records(folder))["epochs"].nunique() -> 1
    """
    answering = ["model", "data_fingerprint", "prompt_language", "max_new_tokens", "shots"]
    training = ["epochs", "batch_size", "dropout", "loss_on", "rslora", "dora"]
    adapted = frame[frame["rank"].notna()]
    if adapted.empty:
        return frame
    groups = adapted.groupby([*answering, *training], sort=False)
    largest = max((group for _, group in groups), key=len)
    base = frame[frame["rank"].isna()].merge(largest[answering].drop_duplicates(), on=answering)
    return pd.concat([base, largest], ignore_index=True)


def _flat(record: dict) -> dict:
    return {
        "run_id": record["run_id"],
        **asdict(RunConfig.from_dict(record["config"])),
        **record["metrics"],
        "trainable": record["model"]["trainable"],
        "total": record["model"]["total"],
        "trainable_percent": record["model"]["trainable_percent"],
        "train_seconds": record["timing"]["train_seconds"],
        "answer_seconds": record["timing"]["answer_seconds"],
        "samples_per_second": record["timing"]["samples_per_second"],
        "peak_memory_gib": record["memory"]["peak_bytes"] / 2**30,
        "profile": record["environment"]["profile"],
        "data": record["data"]["name"],
        "data_fingerprint": record["data"]["fingerprint"],
        "record": record,
    }
