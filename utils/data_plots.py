"""Figures of a dataset and of a run that goes on; the colours and the empty figure that all figures share."""

import matplotlib.pyplot as plt
import pandas as pd
from datasets import DatasetDict
from IPython.display import display
from matplotlib.figure import Figure
from transformers import TrainerCallback

from utils.validation import answer_kind, words

# Okabe and Ito's palette: told apart with any colour vision.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, YELLOW, GREY = "#56B4E9", "#CC79A7", "#F0E442", "#666666"


def lengths(data: DatasetDict) -> Figure:
    """Return histograms of the words in texts, questions and answers, train beside test.

    Example: lengths(load_qa("bundled")).savefig("lengths.png")
    """
    figure, axes = subplots(1, 3, figsize=(10, 3))
    for axis, column in zip(axes, ("text", "question", "answer"), strict=True):
        counts = [[len(words(row[column])) for row in data[split]] for split in ("train", "test")]
        axis.hist(counts, density=True, bins=12, color=[BLUE, ORANGE], label=["train", "test"])
        set_labels(axis, f"words per {column}", "share of rows" if column == "text" else "")
    axes[0].legend(frameon=False)
    figure.suptitle(f"Lengths: {_data_name(data)}", fontsize=11)
    return figure


def answer_kinds(data: DatasetDict) -> Figure:
    """Return the share of each kind of answer (validation.answer_kind), train beside test.

    Example: answer_kinds(load_qa("bundled"))
    """
    kinds = ("number", "person", "place", "phrase", "long")
    figure, axis = subplots(figsize=(7, 3))
    for offset, split, colour in ((0.2, "train", BLUE), (-0.2, "test", ORANGE)):
        found = [answer_kind(row["question"], row["answer"]) for row in data[split]]
        shares = [100 * found.count(kind) / len(found) for kind in kinds]
        axis.barh([i + offset for i in range(len(kinds))], shares, height=0.38, color=colour, label=split)
    axis.set_yticks(range(len(kinds)), kinds)
    axis.invert_yaxis()
    axis.legend(frameon=False)
    set_labels(axis, "share of answers (%)", "")
    axis.set_title(f"Kinds of answer: {_data_name(data)}", fontsize=11)
    return figure


def tokens_per_word(table: pd.DataFrame) -> Figure:
    """Return bars of tokens per word; index: tokenizer, columns: language.

    Example: tokens_per_word(pd.DataFrame({"Romanian": [1.9], "English": [1.2]}, index=["Llama 3"]))
    """
    figure, axis = subplots(figsize=(7, 2.6))
    table.iloc[::-1].plot.barh(ax=axis, color=[BLUE, ORANGE], width=0.7)
    for bars in axis.containers:
        axis.bar_label(bars, fmt="%.2f", padding=3)
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    axis.set_xlim(right=1.15 * table.to_numpy().max())
    set_labels(axis, "tokens per word", "")
    return figure


def _data_name(data: DatasetDict) -> str:
    return f"{data['train'].info.dataset_name} ({len(data['train'])} train, {len(data['test'])} test rows)"


class LiveLoss(TrainerCallback):
    """Draws the training loss while a run goes on, one figure updated in place.

    Example: fine_tune(model, tokenizer, rows, config, callbacks=[LiveLoss(config.run_id)])
    """

    def __init__(self, title: str, every: int = 10):
        """Update the figure every so many steps; more often costs more time than the steps themselves."""
        self.title, self.every, self.steps, self.loss, self.handle = title, every, [], [], None

    def on_train_begin(self, args, state, control, **kwargs):
        """Start from nothing: a run that ran out of memory begins again."""
        self.steps, self.loss = [], []

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Take up the step's loss and redraw where it is time to."""
        if not logs or "loss" not in logs:
            return
        self.steps.append(state.global_step)
        self.loss.append(float(logs["loss"]))
        if state.global_step % self.every and state.global_step != state.max_steps:
            return
        figure, axis = subplots(figsize=(7, 2.8))
        axis.plot(self.steps, self.loss, ".", color=SKY, label="each step")
        smooth = pd.Series(self.loss).rolling(10, min_periods=1).mean()
        axis.plot(self.steps, smooth, color=BLUE, label="mean of 10 steps")
        axis.set_xlim(0, state.max_steps + 1)
        axis.set_ylim(bottom=0)
        axis.legend(frameon=False)
        set_labels(axis, f"step of {state.max_steps}", "loss (nats per token)")
        axis.set_title(self.title, fontsize=11)
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        elif self.handle:
            self.handle.update(figure)


def subplots(*shape, **options):
    """Return pyplot's figure and axes, closed: a notebook then shows the figure once, not again at the end of its cell.

    Example: figure, axes = subplots(1, 2, figsize=(10, 4))
    """
    figure, axes = plt.subplots(*shape, layout="constrained", **options)
    plt.close(figure)
    return figure, axes


def set_labels(axis, x: str, y: str) -> None:
    """Name both axes and take the frame off the other two sides.

    Example: set_labels(axis, "rank", "exact match")
    """
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.spines[["top", "right"]].set_visible(False)
