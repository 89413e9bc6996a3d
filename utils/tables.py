"""The paper's tables, published values beside measured ones; each caption says what was measured on what."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd
from datasets import DatasetDict
from pandas.io.formats.style import Styler

from utils import paper
from utils.metrics import exact_match
from utils.pooling import by_seed, find, measured, pooled
from utils.stats import bootstrap_ci

PUBLISHED = (
    "Published: Llama 3.2 3B on OnnieNLP/InformationExtractionQA; a dash is a value this repository does not hold."
)


def table_1(data: DatasetDict) -> pd.DataFrame:
    """Return rows per phase and split, as published and in the loaded dataset (paper, table 1).

    Example: table_1(load_qa("bundled")).loc[0, "train, loaded"] -> 349
    """
    topics = {phase["phase"]: set(phase["topics"]) for phase in paper.TABLE_1}
    counts = {split: Counter(row.get("topic") for row in data[split]) for split in ("train", "test")}
    known = all("topic" in data[split].column_names for split in data)
    rows = []
    for phase in paper.TABLE_1:
        row = {"phase": str(phase["phase"]), "topics": len(phase["topics"])}
        for split in ("train", "test"):
            row[f"{split}, paper"] = phase[split]
            loaded = sum(n for topic, n in counts[split].items() if topic in topics[phase["phase"]])
            row[f"{split}, loaded"] = loaded if known else None
        rows.append(row)
    total = {"phase": "all", "topics": sum(row["topics"] for row in rows)}
    for split in ("train", "test"):
        total |= {f"{split}, paper": sum(row[f"{split}, paper"] for row in rows), f"{split}, loaded": len(data[split])}
    return _captioned([*rows, total], f"Table 1. Rows by phase. Loaded: {_name(data)}.")


def table_2(data: DatasetDict, index: int = 0) -> pd.DataFrame:
    """Return one training row, column by column, beside the paper's sample row (paper, table 2).

    Example: table_2(load_qa("bundled")).loc[2, "column"] -> "answer"
    """
    published = paper.TABLE_2["row"] or dict.fromkeys(paper.TABLE_2["columns"])
    row = data["train"][index]
    rows = [{"column": c, "paper": published[c], "loaded": row[c]} for c in paper.TABLE_2["columns"]]
    return _captioned(rows, f"Table 2. A sample row. Loaded: {_name(data)}, train row {index}. {PUBLISHED}")


def table_3(frame: pd.DataFrame) -> pd.DataFrame:
    """Return exact match and token F1 by rank: base model, then ranks 1 to 32 (paper, table 3).

    `frame` holds records as `records.as_frame` gives them; the seeds of a configuration are pooled. The measured share of trainable parameters is that of the
    model that was run.

    Example: table_3(frame).loc[2, "EM, measured"] -> 0.41 (rank 2)
    """
    rows, pool = [], pooled(frame)
    for published, fields in zip(paper.TABLE_3, [None, *paper.table_3_grid()], strict=True):
        run = find(pool, fields)
        row = {"rank": "base" if fields is None else str(fields["rank"])}
        row["trainable %, paper"] = published["trainable_percent"]
        row["trainable %, measured"] = None if run is None else run["trainable_percent"]
        rows.append(row | _scores(published, run))
    return _captioned(rows, f"Table 3. Ranks; modules q, v; learning rate 1e-4. {measured(pool)} {PUBLISHED}")


def table_4(frame: pd.DataFrame) -> pd.DataFrame:
    """Return what every rank answers to one question (paper, table 4), right by the strict and the ro norm or not.

    Of several seeds the first one's answer is shown.

    Example: table_4(frame).loc[0, "rank"] -> "base"
    """
    rows, pool = [], pooled(frame)
    for fields in (None, *paper.table_3_grid()):
        run = find(pool, fields)
        answer = None if run is None else run["record"]["table_4"]["answer"]
        rows.append(
            {
                "rank": "base" if fields is None else str(fields["rank"]),
                "answer, paper": paper.TABLE_4["answers"][fields and fields["rank"]],
                "answer, measured": answer,
                "EM strict": None if run is None else exact_match(answer, paper.TABLE_4_EXAMPLE["answer"]),
                "EM ro": None if run is None else exact_match(answer, paper.TABLE_4_EXAMPLE["answer"], "ro"),
            }
        )
    return _captioned(
        rows,
        f"Table 4. One question, every rank: {paper.TABLE_4_EXAMPLE['question']} Expected: "
        f"{paper.TABLE_4_EXAMPLE['answer']}. Our wording of the paper's example. {measured(pool)} {PUBLISHED}",
    )


def table_5(frame: pd.DataFrame) -> pd.DataFrame:
    """Return exact match and token F1 by target modules at learning rate 3e-4, rank 2 (paper, table 5).

    Example: table_5(frame).loc[0, "EM, paper"] -> 0.165 (q alone)
    """
    return _by_modules(
        frame, paper.TABLE_5, paper.table_5_grid(), "Table 5. Target modules; rank 2; learning rate 3e-4."
    )


def table_6(frame: pd.DataFrame) -> pd.DataFrame:
    """Return exact match and token F1 by target modules at learning rate 1e-4, rank 2 (paper, table 6).

    Example: table_6(frame).loc[1, "EM, paper"] -> 0.345 (q and v)
    """
    return _by_modules(
        frame, paper.TABLE_6, paper.table_6_grid(), "Table 6. Target modules; rank 2; learning rate 1e-4."
    )


def styled(table: pd.DataFrame) -> Styler:
    """Return the table as a notebook shows it: caption above, three decimals, a dash where there is no value.

    Example: styled(table_3(frame))
    """
    numbers = {c: "{:.4f}" if "%" in c else "{:.3f}" for c in table.select_dtypes("floating").columns}
    caption = [
        {"selector": "caption", "props": "caption-side: top; text-align: left; white-space: normal; max-width: 60em"}
    ]
    return (
        table.style.set_caption(table.attrs["caption"])
        .format(numbers, na_rep="–")
        .hide(axis="index")
        .set_table_styles(caption)
    )


def as_text(table: pd.DataFrame) -> str:
    """Return the table for a terminal, its caption on the line above.

    Example: print(as_text(table_6(frame)))
    """
    formats = {c: (lambda v, d=4 if "%" in c else 3: f"{v:.{d}f}") for c in table.select_dtypes("floating").columns}
    return f"{table.attrs['caption']}\n{table.to_string(index=False, na_rep='–', formatters=formats)}"


def interval(values: Sequence[float]) -> str:
    """Return the 95 % bootstrap interval over questions (and seeds) as text; none where all scored the same.

    Example: interval([1.0] * 82 + [0.0] * 118) -> "0.34–0.48"
    """
    low, high = bootstrap_ci(values)
    return f"{low:.2f}–{high:.2f}" if low < high else "no spread"


def _by_modules(frame: pd.DataFrame, published: Sequence[dict], grid: list[dict], title: str) -> pd.DataFrame:
    pool = pooled(frame)
    rows = [
        {"modules": ", ".join(fields["target_modules"])} | _scores(values, find(pool, fields))
        for values, fields in zip(published, grid, strict=True)
    ]
    return _captioned(rows, f"{title} {measured(pool)} {PUBLISHED}")


def _scores(published: dict, run: pd.Series | None) -> dict:
    row = {"EM, paper": published["em"], "EM, measured": None, "EM 95 %": None, "F1, paper": published["f1"]}
    row |= {"F1, measured": None, "F1 95 %": None}
    if run is not None:
        em, f1 = by_seed(run["records"])
        row |= {"EM, measured": run["em_strict"], "EM 95 %": interval(em)}
        row |= {"F1, measured": run["f1_strict"], "F1 95 %": interval(f1)}
    return row


def _name(data: DatasetDict) -> str:
    return f"{data['train'].info.dataset_name} ({len(data['train'])} train and {len(data['test'])} test rows)"


def _captioned(rows: list[dict], caption: str) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    numbers = [
        c for c in table.columns if c.endswith((", paper", ", measured")) and c.startswith(("EM", "F1", "trainable"))
    ]
    table = table.astype(dict.fromkeys(numbers, "float64"))
    table.attrs["caption"] = caption
    return table
