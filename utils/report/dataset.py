"""A dataset in, what is in it out: the paper's Tables 1 and 2, lengths, kinds of answer, tokens a word."""

import numpy as np
import pandas as pd
from datasets import DatasetDict
from matplotlib.figure import Figure

from utils import paper
from utils.data.checks import answer_kind, words
from utils.report.style import BLUE, ORANGE, SIZE, captioned, finish, set_labels, subplots

SPLITS = {"train": BLUE, "test": ORANGE}


def table_1(data: DatasetDict) -> pd.DataFrame:
    """Return rows per phase and split, as published and in the loaded dataset (paper, table 1).

    Example: table_1(load_qa("bundled")).loc[0, "train, loaded"] -> 349
    """
    known, rows = all("topic" in data[split].column_names for split in data), []
    for phase in paper.TABLE_1:
        row = {"phase": str(phase["phase"]), "topics": len(phase["topics"])}
        for split in SPLITS:
            loaded = sum(topic in phase["topics"] for topic in data[split]["topic"]) if known else None
            row |= {f"{split}, paper": phase[split], f"{split}, loaded": loaded}
        rows.append(row)
    total = pd.DataFrame(rows).sum(numeric_only=True).to_dict()
    total |= {"phase": "all"} | {f"{split}, loaded": len(data[split]) for split in SPLITS}
    table = captioned([*rows, total], f"Table 1. Rows by phase. Loaded: {_name(data)}.")
    return table.astype({f"{split}, loaded": "Int64" for split in SPLITS})


def table_2(data: DatasetDict) -> pd.DataFrame:
    """Return the first training row, column by column, beside the paper's sample row (paper, table 2).

    Example: table_2(load_qa("bundled")).loc[2, "paper"] -> "Austria"
    """
    published, loaded = paper.TABLE_2["row"], data["train"][0]
    rows = [{"column": c, "paper": published[c], "loaded": loaded[c]} for c in paper.TABLE_2["columns"]]
    return captioned(rows, f"Table 2. A sample row. Loaded: {_name(data)}, train row 0.")


def lengths(data: DatasetDict) -> Figure:
    """Return histograms of the words in texts, questions and answers, as shares of rows, train beside test.

    Every bin holds whole numbers of words, as many in each; where there are at most 12 lengths, one.
    Example: lengths(load_qa("bundled")).savefig("lengths.png")
    """
    figure, axes = subplots(1, 3, height=3.2)
    for axis, column in zip(axes, ("text", "question", "answer"), strict=True):
        counts = [[len(words(text)) for text in data[split][column]] for split in SPLITS]
        low, high = min(map(min, counts)), max(map(max, counts))
        width = -(-(high - low + 1) // 12)  # words a bin, rounded up
        bins = np.arange(low - 0.5, high + 0.5 + width, width)
        shares = [np.full(len(some), 1 / len(some)) for some in counts]
        axis.hist(counts, bins=bins, weights=shares, color=list(SPLITS.values()), label=list(SPLITS))
        axis.xaxis.get_major_locator().set_params(integer=True)
        set_labels(axis, f"words per {column}", "share of rows" if column == "text" else "")
    return finish(figure, f"Lengths: {_name(data)}", axes[0])


def answer_kinds(data: DatasetDict) -> Figure:
    """Return the share of each kind of answer (data.checks.answer_kind), train beside test.

    Example: answer_kinds(load_qa("bundled"))
    """
    kinds = ("number", "person", "place", "phrase", "long")
    figure, axis = subplots(height=3.2)
    for offset, (split, colour) in zip((-0.2, 0.2), SPLITS.items(), strict=True):
        found = [answer_kind(row["question"], row["answer"]) for row in data[split]]
        shares = [100 * found.count(kind) / len(found) for kind in kinds]
        axis.barh(np.arange(len(kinds)) + offset, shares, height=0.38, color=colour, label=split)
    axis.set_yticks(range(len(kinds)), kinds)
    axis.invert_yaxis()
    set_labels(axis, "share of answers (%)", "")
    return finish(figure, f"Kinds of answer: {_name(data)}", axis)


def tokens_per_word(table: pd.DataFrame) -> Figure:
    """Return bars of tokens per word; index: tokenizer, columns: language.

    Example: tokens_per_word(pd.DataFrame({"Romanian": [1.9], "English": [1.2]}, index=["Llama 3"]))
    """
    figure, axis = subplots(height=1.6 + 0.7 * len(table))
    places = np.arange(len(table))
    for offset, language, colour in zip((0, 0.36), table.columns, (BLUE, ORANGE), strict=False):
        bars = axis.barh(places + offset, table[language], height=0.34, color=colour, label=language)
        axis.bar_label(bars, fmt="%.2f", padding=3, fontsize=SIZE)
    axis.set_yticks(places + 0.18, table.index)
    axis.invert_yaxis()
    axis.set_xlim(right=1.15 * table.to_numpy().max())
    set_labels(axis, "tokens per word", "")
    return finish(figure, "What a word costs", axis)


def _name(data: DatasetDict) -> str:
    return f"{data['train'].info.dataset_name} ({len(data['train'])} train, {len(data['test'])} test rows)"
