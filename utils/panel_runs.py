"""The recorded runs as the panels list, compare and lay them out; no widgets."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import pandas as pd

from utils.config import RunConfig
from utils.environment import Environment
from utils.metrics import exact_match
from utils.panel_state import VARIANTS
from utils.records import adapter_folder, read_record
from utils.stats import bootstrap_ci


def load_history(folders: Sequence[Path]) -> tuple[list[dict], list[str]]:
    """Return the adapted runs recorded in these folders, the latest first, and a sentence for each unreadable file.

    Example: load_history([Path("runs/demo/records")])[0][0]["status"] -> "finished"
    """
    paths = [path for folder in folders for path in Path(folder).glob("*.json")]
    records, complaints = [], []
    for path in sorted(paths, key=lambda p: p.stat().st_mtime_ns, reverse=True):
        try:
            records.append(read_record(path))
        except ValueError as error:
            complaints.append(str(error))
    return [r for r in records if r["config"]["rank"] is not None and "metrics" in r], complaints


def history(records: Sequence[dict]) -> pd.DataFrame:
    """Return a line for each run: its settings, exact match with its 95 % interval, F1, minutes, and its status.

    Example: history(records).loc[0, "status"] -> "stopped"
    """
    columns = ("settings", "rows", "EM", "EM 95 %", "F1", "minutes", "status")
    return pd.DataFrame([_history_row(record) for record in records], columns=columns)


def describe(config: RunConfig) -> str:
    """Return the settings of an adapted run in a few words; what is at its default is left out.

    Example: describe(RunConfig("tiny-llama", rank=8, epochs=1)) -> "tiny-llama, r 8, q v, 1e-4, 1 epoch, seed 0"
    """
    words = [config.model, f"r {config.rank}", " ".join(config.target_modules), rate_text(config.learning_rate)]
    words.append(f"{config.epochs} epoch" + "s" * (config.epochs != 1))
    words += [name for name, flags in VARIANTS.items() if flags and all(getattr(config, flag) for flag in flags)]
    words += [f"alpha {config.alpha:g}"] * (config.alpha != 4 * config.rank)
    words += [f"batch {config.batch_size}"] * (config.batch_size != 4)
    words += ["loss on text"] * (config.loss_on == "text") + ["ro prompt"] * (config.prompt_language == "ro")
    return ", ".join([*words, f"seed {config.seed}"])


def rate_text(rate: float) -> str:
    """Return a learning rate as people write it.

    Example: rate_text(0.0003) -> "3e-4"
    """
    mantissa, exponent = f"{rate:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def compare(first: dict, second: dict) -> pd.DataFrame:
    """Return the questions that both runs answered, with the answers side by side and which of them is right.

    Example: compare(records[0], records[1]).columns -> question, reference, A, B, right
    """
    other = {(p["question"], p["reference"]): p["answer"] for p in second["predictions"]}
    rows = []
    for p in first["predictions"]:
        key = (p["question"], p["reference"])
        if key in other:
            answers = {"A": p["answer"], "B": other[key]}
            right = [name for name, answer in answers.items() if exact_match(answer, p["reference"], "ro")]
            rows.append({"question": key[0], "reference": key[1], **answers, "right": " and ".join(right) or "neither"})
    return pd.DataFrame(rows, columns=("question", "reference", "A", "B", "right"))


def saved_adapters(records: Iterable[dict], model: str, environment: Environment) -> dict[str, Path]:
    """Return the folders of the adapters saved for a model, by a name that tells their settings; the latest first.

    Example: list(saved_adapters(records, "tiny-llama", environment)) -> ["r 2, q v, 1e-4, 3 epochs, seed 0"]
    """
    found = {}
    for record in records:
        folder = adapter_folder(environment.runs, record["run_id"], record["data"]["fingerprint"])
        if record["config"]["model"] == model and (folder / "adapter_config.json").exists():
            name = describe(RunConfig.from_dict(record["config"])).removeprefix(f"{model}, ")
            name += "" if record["status"] == "finished" else f" ({record['status']})"
            rows = f", {record['data']['train_rows']} rows"
            found[name if name not in found else name + rows] = folder
    return found


def sweep_grid(configs: Iterable[RunConfig], finished: dict[str, dict], states: dict[str, str]) -> pd.DataFrame:
    """Return the grid of a sweep: exact match where a run is finished, else its state, "to do" where it has none.

    Example: sweep_grid(configs, {}, {}).loc[0, "rank 2"] -> "to do"
    """
    lines: dict[tuple, dict] = {}
    for config in configs:
        key = (" ".join(config.target_modules), rate_text(config.learning_rate), config.seed)
        record = finished.get(config.run_id)
        cell = f"EM {record['metrics']['em_strict']:.3f}" if record else states.get(config.run_id, "to do")
        lines.setdefault(key, {})[f"rank {config.rank}"] = cell
    names = ("modules", "learning rate", "seed")
    return pd.DataFrame([dict(zip(names, key, strict=True)) | cells for key, cells in lines.items()])


def _history_row(record: dict) -> tuple:
    metrics, timing = record["metrics"], record["timing"]
    low, high = _interval(tuple(exact_match(p["answer"], p["reference"]) for p in record["predictions"]))
    minutes = (timing["train_seconds"] + timing["answer_seconds"]) / 60
    held = "" if (how := record["environment"]["quantization"]) == "none" else f", {how}"
    return (
        describe(RunConfig.from_dict(record["config"])) + held,
        f"{record['data']['train_rows']} / {record['data']['test_rows']}",
        metrics["em_strict"], f"{low:.2f}–{high:.2f}", metrics["f1_strict"], minutes, record["status"],
    )  # fmt: skip


@lru_cache(maxsize=256)
def _interval(scores: tuple[float, ...]) -> tuple[float, float]:
    return bootstrap_ci(scores) if len(scores) > 1 else (scores[0], scores[0])
