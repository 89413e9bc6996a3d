"""A run as one JSON file: which run it is, where it lies, how it is written and read."""

import hashlib
import json
import math
from collections.abc import Mapping
from functools import reduce
from pathlib import Path

from utils.config import problems, rate_text, varied
from utils.disk import whole

SCHEMA_VERSION = 1
_NUMBER = (int, float)
# What tables, figures and panels read of every record, and of one that did not fail.
_PARTS = {"run_id": str, "data.name": str, "data.fingerprint": str, "data.train_rows": int, "data.test_rows": int}
_PARTS |= {f"config.{name}": object for name in (
    "model", "rank", "alpha", "target_modules", "learning_rate", "epochs", "seed", "prompt_language")}  # fmt: skip
_RESULTS = {"metrics.em_strict": _NUMBER, "metrics.f1_strict": _NUMBER, "metrics.n": int, "timing.train_seconds": _NUMBER,
            "timing.answer_seconds": _NUMBER, "training": list, "predictions": list}  # fmt: skip


def identity_of(record: dict) -> str:
    """Return ten hex digits that tell the work of a record from any other: another model, format or row gives others.

    A finished record is used again only where its identity is the same.
    Example: record_path(folder, record["run_id"], identity_of(record)).exists() -> True once it is saved
    """
    model, machine = record["model"], record["environment"]
    told = [varied(record["config"]), record["data"]["fingerprint"], model["id"], model["revision"]]
    told += [machine["dtype"], machine["quantization"]]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:10]


def record_path(folder: Path, run_id: str, identity: str) -> Path:
    """Return the file of one run; runs that differ in rows, model or format lie beside each other.

    Example: record_path(Path("runs/demo"), "r2-a8", "0a1b2c3d4e").name -> "r2-a8-0a1b2c3d4e.json"
    """
    if Path(run_id).name != run_id or run_id.startswith("."):
        raise ValueError(f"{run_id!r} is not the name of a run; expected a name without folders in it.")
    return folder / f"{run_id}-{identity}.json"


def adapter_folder(runs: Path, run_id: str, identity: str) -> Path:
    """Return the folder of a run's adapter, named as its record is.

    Example: adapter_folder(Path("runs/demo"), "r2-a8", "0a1b2c3d4e").parent.name -> "adapters"
    """
    return runs / "adapters" / record_path(runs, run_id, identity).stem


def save_record(record: dict, folder: Path) -> Path:
    """Write the record as JSON and return its path; the file appears whole or not at all.

    Example: save_record(record, Path("runs/demo/records")).exists() -> True
    """
    path = record_path(folder, record["run_id"], identity_of(record))
    content = json.dumps({"schema_version": SCHEMA_VERSION, **record}, ensure_ascii=False, indent=1, allow_nan=False)
    with whole(path) as unfinished:
        unfinished.write_text(content, encoding="utf-8")
    return path


def read_record(path: Path) -> dict:
    """Return one record; a file that is damaged, foreign or of another schema is an error that names it.

    Example: read_record(path)["metrics"]["em_strict"] -> 0.41
    """
    try:
        text = path.read_text(encoding="utf-8")
        record = json.loads(text, parse_constant=_number, parse_float=_number, parse_int=_number)
        if (version := record["schema_version"]) != SCHEMA_VERSION:
            raise ValueError(f"its schema version is {version!r:.40}, this code reads version {SCHEMA_VERSION}")
        _check(record, path.parent)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, OSError) as error:
        raise ValueError(
            f"{path.name} is no record that can be read ({type(error).__name__}: {error}). Delete it or move it away; "
            "its run is then done again."
        ) from None
    return record


def load_records(folder: Path) -> tuple[list[dict], list[str]]:
    """Return a folder's records and a sentence for each file that is none; what cannot be read counts nowhere.

    Example: records, complaints = load_records(Path("figures/reference/demo"))
    """
    records, complaints = [], []
    for path in sorted(Path(folder).glob("*.json")):
        try:
            records.append(read_record(path))
        except ValueError as error:
            complaints.append(str(error))
    return records, complaints


def run_name(config: Mapping) -> str:
    """Return what people call a run: rank, modules and learning rate, or "base"; what differs from the paper follows.

    Example: run_name({"rank": 2, "alpha": 8.0, "target_modules": ("q", "v"), "learning_rate": 1e-4}) -> "r 2 q,v 1e-4"
    """
    rank, shots = config["rank"], config.get("shots") or 0
    if rank is None or rank != rank:  # None in a record, NaN in a frame
        return f"base, {shots:g} solved" if shots else "base"
    parts = [f"r {rank:.0f} {','.join(config['target_modules'])} {rate_text(config['learning_rate'])}"]
    if config["alpha"] != 4 * rank:  # the paper's
        parts.append(f"alpha {config['alpha']:g}")
    parts += [flag for flag in ("rslora", "dora") if config.get(flag)]
    if config.get("temperature"):
        parts.append(f"sampled at {config['temperature']:g}/{config['top_p']:g}")
    if config.get("loss_on", "answer") != "answer":
        parts.append(f"loss on {config['loss_on']}")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Return a time as a person says it.

    Example: duration(200) -> "3 min"
    """
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 1.5 else f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _number(text: str) -> int | float:
    number = int(text) if text.lstrip("-").isdigit() else float(text)
    if (isinstance(number, int) and abs(number) >= 2**63) or not math.isfinite(number):
        raise ValueError(f"{text:.40} is no number that a record holds")
    return number


def _check(record: dict, folder: Path) -> None:
    if (status := record.get("status", "finished")) not in ("finished", "stopped", "failed"):
        raise ValueError(f"status is {status!r:.40}")
    failed = status == "failed"
    for place, kind in (_PARTS if failed else _PARTS | _RESULTS).items():
        if not isinstance(value := reduce(lambda part, name: part[name], place.split("."), record), kind):
            raise TypeError(f"{place} is {value!r:.40}")
    config = record["config"]
    if wrong := problems(config):
        raise ValueError(" and ".join(f"{name} {what}" for name, what in wrong.items()))
    record_path(folder, record["run_id"], identity_of(record))
    if not failed:  # adding and joining tell numbers and texts from anything else
        sum(record["metrics"].values()) + sum(e["step"] + e["epoch"] + e["loss"] for e in record["training"])
        for p in record["predictions"]:
            references = p.get("references") or [p["reference"]]
            "".join([*references, p.get("question", ""), p.get("generation", ""), p["answer"] or ""])
        if not 0 < len(record["predictions"]) == record["metrics"]["n"] or not 0 <= record["metrics"]["em_strict"] <= 1:
            raise ValueError("its metrics are not those of its predictions")
