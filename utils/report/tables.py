"""The paper's Tables 3 to 6, published values beside measured ones; each caption says what was measured on what."""

from collections.abc import Sequence

import pandas as pd

from utils import paper
from utils.metrics import exact_match
from utils.records import run_name
from utils.report.frame import by_seed, find, measured, per_question, pooled
from utils.report.style import captioned
from utils.stats import mean_interval

PUBLISHED = f"Published: Llama 3.2 3B on {paper.HUB_DATASET}, n = {paper.TEST_ROWS}."
RIGHT, WRONG, SILENT = "✓", "✗", "(no answer)"


def table_3(frame: pd.DataFrame) -> pd.DataFrame:
    """Return exact match and token F1 by rank: base model, then ranks 1 to 32 (paper, table 3).

    `frame` holds runs as `as_frame` gives them; the seeds of a configuration are pooled. The measured share of
    trainable parameters is that of the model that was run.

    Example: table_3(frame).loc[2, "EM, paper"] -> 0.41 (rank 2)
    """
    rows, pool = [], pooled(frame)
    for row, fields in zip(paper.TABLE_3, [None, *paper.table_3_grid()], strict=True):
        run = find(pool, fields)
        shares = {
            "trainable %, paper": row["trainable_percent"],
            "trainable %, measured": None if run is None or fields is None else run["trainable_percent"],
        }
        rows.append({"rank": "base" if fields is None else fields["rank"]} | shares | _scores(row, run))
    return captioned(rows, f"Table 3. Ranks; modules q, v; learning rate 1e-4. {measured(pool)} {PUBLISHED}")


def table_4(frame: pd.DataFrame) -> pd.DataFrame:
    """Return what every rank answers to one question (paper, table 4), right (✓) by the strict and the ro norm or not (✗).

    Of several seeds the first one's answer is shown. A record that was asked another question shows none.

    Example: table_4(frame).loc[3, ["rank", "answer, paper", "strict, paper"]].tolist() -> [4, "Pleșuv", "✓"]
    """
    rows, pool, example = [], pooled(frame), paper.TABLE_4_EXAMPLE
    for fields in (None, *paper.table_3_grid()):
        run, rank = find(pool, fields), fields and fields["rank"]
        asked = (run is not None and run["record"].get("table_4")) or {}
        rows.append(
            {"rank": "base" if rank is None else rank}
            | _judged("paper", paper.TABLE_4["answers"][rank], True)
            | _judged("measured", asked.get("answer"), asked.get("question") == example["question"])
        )
    title = f"Table 4. One question, every rank: {example['question']} Expected: {example['answer']}."
    return captioned(rows, f"{title} {measured(pool)} {PUBLISHED}")


def table_5(frame: pd.DataFrame) -> pd.DataFrame:
    """Return exact match and token F1 by target modules at learning rate 3e-4, rank 2 (paper, table 5).

    Example: table_5(frame).loc[0, "EM, paper"] -> 0.165 (q alone)
    """
    title = "Table 5. Target modules; rank 2; learning rate 3e-4."
    return _by_modules(frame, paper.TABLE_5, paper.table_5_grid(), title)


def table_6(frame: pd.DataFrame) -> pd.DataFrame:
    """Return exact match and token F1 by target modules at learning rate 1e-4, rank 2 (paper, table 6).

    Example: table_6(frame).loc[1, "EM, paper"] -> 0.345 (q and v)
    """
    title = "Table 6. Target modules; rank 2; learning rate 1e-4."
    return _by_modules(frame, paper.TABLE_6, paper.table_6_grid(), title)


def interval(values: Sequence[float]) -> str:
    """Return the 95 % interval of a mean score as text (stats.mean_interval).

    Example: interval([1.0] * 82 + [0.0] * 118) -> "0.34–0.48"
    """
    low, high = mean_interval(values)
    return f"{low:.2f}–{high:.2f}"


def _by_modules(frame: pd.DataFrame, published: Sequence[dict], grid: list[dict], title: str) -> pd.DataFrame:
    pool = pooled(frame)
    rows = [
        {"modules": ", ".join(fields["target_modules"])} | _scores(row, find(pool, fields))
        for row, fields in zip(published, grid, strict=True)
    ]
    return captioned(rows, f"{title} {measured(pool)} {PUBLISHED}")


def _scores(published: dict, run: pd.Series | None) -> dict:
    row = {"EM, paper": published["em"], "EM, measured": None, "EM 95 %": None, "F1, paper": published["f1"]}
    row |= {"F1, measured": None, "F1 95 %": None}
    if run is not None:
        em, f1 = by_seed(run["records"])
        row |= {"EM, measured": run["em_strict"], "EM 95 %": interval(em)}
        row |= {"F1, measured": run["f1_strict"], "F1 95 %": interval(f1)}
    return row


def _judged(whose: str, answer: str | None, asked: bool) -> dict:
    row = {f"answer, {whose}": (answer or SILENT) if asked else None}
    for norm in ("strict", "ro"):
        right = exact_match(answer, paper.TABLE_4_EXAMPLE["answer"], norm)
        row[f"{norm}, {whose}"] = (RIGHT if right else WRONG) if asked else None
    return row


def run_table(records: Sequence[dict]) -> pd.DataFrame:
    """Return a row per run, whatever was varied: its name, seed, and scores side by side, exact match with its interval.

    Example: styled(run_table(sweep(configs, data, environment)))
    """
    rows = []
    for record in (r for r in records if r["status"] == "finished"):
        em, metrics = per_question(record)[0], record["metrics"]
        row = {"run": run_name(record["config"]), "prompt": record["config"]["prompt_language"]}
        row |= {"seed": record["config"]["seed"], "EM": metrics["em_strict"], "EM 95 %": interval(em)}
        rows.append(row | {"EM ro": metrics["em_ro"], "contains": metrics["contains"], "F1": metrics["f1_strict"]})
    last = records[-1]
    return captioned(
        rows, f"{last['model']['id']} in {last['environment']['dtype']}, {last['data']['test_rows']} questions of "
        f"{last['data'].get('test_name', last['data']['name'])}; strict norm where none is named."
    )  # fmt: skip
