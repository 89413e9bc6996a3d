"""The paper's Tables 3 to 6, published values beside measured ones; each caption says what was measured on what."""

from collections.abc import Sequence

import pandas as pd

from utils import paper
from utils.config import rate_text
from utils.metrics import exact_match
from utils.records import run_name
from utils.report.frame import by_seed, find, measured, pooled, run_title
from utils.report.style import captioned
from utils.stats import mean_interval

PUBLISHED = f"Published: Llama 3.2 3B on {paper.HUB_DATASET}, n = {paper.TEST_ROWS}."
RIGHT, WRONG, SILENT, MISSING = "✓", "✗", "(no answer)", float("nan")


def table_3(frame: pd.DataFrame) -> pd.DataFrame:
    """Return exact match and token F1 by rank: base model, then ranks 1 to 32 (paper, table 3).

    `frame` holds runs as `as_frame` gives them; the seeds of a configuration are pooled. The measured share of
    trainable parameters is that of the model that was run.
    Example: table_3(frame).loc[2, "EM, paper"] -> 0.41 (rank 2)
    """
    grid, rows = [None, *paper.table_3_grid()], []
    pool = _of(grid, frame)
    for row, fields in zip(paper.TABLE_3, grid, strict=True):
        run = find(pool, fields)
        share = MISSING if run is None or fields is None else run["trainable_percent"]
        shares = {"trainable %, paper": row["trainable_percent"], "trainable %, measured": share}
        rows.append({"rank": "base" if fields is None else fields["rank"]} | shares | _scores(row, run))
    return captioned(rows, f"Table 3. Ranks; modules q, v; learning rate 1e-4. {measured(pool)} {PUBLISHED}")


def table_4(frame: pd.DataFrame) -> pd.DataFrame:
    """Return what every rank answers to one question (paper, table 4), right (✓) by the strict and the ro norm or not (✗).

    Of several seeds the first one's answer is shown. A record that was asked another question shows none.
    Example: table_4(frame).loc[3, ["rank", "answer, paper", "strict, paper"]].tolist() -> [4, "Pleșuv", "✓"]
    """
    grid, rows, example = [None, *paper.table_3_grid()], [], paper.TABLE_4_EXAMPLE
    pool = _of(grid, frame)
    for fields in grid:
        run, rank = find(pool, fields), fields and fields["rank"]
        row = {"rank": "base" if rank is None else rank}
        asked = (run is not None and run["record"].get("table_4")) or {}
        for whose, answer in (("paper", paper.TABLE_4["answers"][rank]), ("measured", asked.get("answer"))):
            shown = whose == "paper" or asked.get("question") == example["question"]
            row[f"answer, {whose}"] = (answer or SILENT) if shown else None
            for norm in ("strict", "ro"):
                right = exact_match(answer, example["answer"], norm)
                row[f"{norm}, {whose}"] = (RIGHT if right else WRONG) if shown else None
        rows.append(row)
    title = f"Table 4. One question, every rank: {example['question']} Expected: {example['answer']}."
    return captioned(rows, f"{title} Measured: {run_title(pool, first=True)}. {PUBLISHED}")


def table_5(frame: pd.DataFrame) -> pd.DataFrame:
    """Return exact match and token F1 by target modules at learning rate 3e-4, rank 2 (paper, table 5).

    Example: table_5(frame).loc[0, "EM, paper"] -> 0.165 (q alone)
    """
    return _by_modules(frame, 5, paper.TABLE_5, paper.table_5_grid())


def table_6(frame: pd.DataFrame) -> pd.DataFrame:
    """Return exact match and token F1 by target modules at learning rate 1e-4, rank 2 (paper, table 6).

    Example: table_6(frame).loc[1, "EM, paper"] -> 0.345 (q and v)
    """
    return _by_modules(frame, 6, paper.TABLE_6, paper.table_6_grid())


def run_table(records: Sequence[dict]) -> pd.DataFrame:
    """Return a row per run, whatever was varied: its name, seed, and scores side by side, exact match with its interval.

    Example: styled(run_table(sweep(configs, data, environment)))
    """
    rows = []
    for record in (r for r in records if r["status"] == "finished"):
        config, metrics = record["config"], record["metrics"]
        row = {"run": run_name(config), "prompt": config["prompt_language"], "seed": config["seed"]}
        row |= {"draw": str(config["draw"])} if config.get("temperature") else {}
        row |= {"EM": metrics["em_strict"], "EM 95 %": interval(by_seed([record], "em"))}
        rows.append(row | {"EM ro": metrics["em_ro"], "contains": metrics["contains"], "F1": metrics["f1_strict"]})
    model, machine, data = (records[-1][part] for part in ("model", "environment", "data"))
    questions = f"{data['test_rows']} questions of {data.get('test_name', data['name'])}"
    return captioned(rows, f"{model['id']} in {machine['dtype']}, {questions}; strict norm where none is named.")


def interval(scores: Sequence[float]) -> str:
    """Return the 95 % interval of a mean score as text (stats.mean_interval).

    Example: interval([1.0] * 82 + [0.0] * 118) -> "0.34–0.48"
    """
    return "{:.2f}–{:.2f}".format(*mean_interval(scores))


def _by_modules(frame: pd.DataFrame, number: int, published: Sequence[dict], grid: Sequence[dict]) -> pd.DataFrame:
    pool, pairs = _of(grid, frame), zip(published, grid, strict=True)
    rows = [{"modules": ", ".join(own["target_modules"])} | _scores(row, find(pool, own)) for row, own in pairs]
    title = f"Table {number}. Target modules; rank 2; learning rate {rate_text(grid[0]['learning_rate'])}."
    return captioned(rows, f"{title} {measured(pool)} {PUBLISHED}")


def _of(grid: Sequence[dict | None], frame: pd.DataFrame) -> pd.DataFrame:
    return (pool := pooled(frame)).loc[[run.name for fields in grid if (run := find(pool, fields)) is not None]]


def _scores(published: dict, run: pd.Series | None) -> dict:
    row = {}
    for metric, name in (("em", "EM"), ("f1", "F1")):
        row |= {f"{name}, paper": published[metric], f"{name}, measured": MISSING, f"{name} 95 %": None}
        if run is not None:
            row[f"{name}, measured"] = run[f"{metric}_strict"]
            row[f"{name} 95 %"] = interval(by_seed(run["records"], metric))
    return row
