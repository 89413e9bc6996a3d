"""One function per figure; each returns a matplotlib Figure whose title says model, profile and dataset."""

import matplotlib.pyplot as plt
import pandas as pd
from datasets import DatasetDict
from IPython.display import display
from matplotlib.figure import Figure
from transformers import TrainerCallback

from utils import paper
from utils.stats import bootstrap_ci
from utils.tables import per_question
from utils.validation import answer_kind, words

# Okabe and Ito's palette: told apart with any colour vision.
BLUE, ORANGE, GREEN, RED, SKY, PURPLE, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#56B4E9",
    "#CC79A7",
    "#666666",
)
METRICS = {"em_strict": ("exact match", "em", BLUE), "f1_strict": ("token F1", "f1", ORANGE)}


def lengths(data: DatasetDict) -> Figure:
    """Return histograms of the words in texts, questions and answers, train beside test.

    Example: lengths(load_qa("bundled")).savefig("lengths.png")
    """
    figure, axes = _subplots(1, 3, figsize=(10, 3))
    for axis, column in zip(axes, ("text", "question", "answer"), strict=True):
        counts = [[len(words(row[column])) for row in data[split]] for split in ("train", "test")]
        axis.hist(counts, density=True, bins=12, color=[BLUE, ORANGE], label=["train", "test"])
        _axis(axis, f"words per {column}", "share of rows" if column == "text" else "")
    axes[0].legend(frameon=False)
    figure.suptitle(f"Lengths: {_data_name(data)}", fontsize=11)
    return figure


def answer_kinds(data: DatasetDict) -> Figure:
    """Return the share of each kind of answer (validation.answer_kind), train beside test.

    Example: answer_kinds(load_qa("bundled"))
    """
    kinds = ("number", "person", "place", "phrase", "long")
    figure, axis = _subplots(figsize=(7, 3))
    for offset, split, colour in ((0.2, "train", BLUE), (-0.2, "test", ORANGE)):
        found = [answer_kind(row["question"], row["answer"]) for row in data[split]]
        shares = [100 * found.count(kind) / len(found) for kind in kinds]
        axis.barh([i + offset for i in range(len(kinds))], shares, height=0.38, color=colour, label=split)
    axis.set_yticks(range(len(kinds)), kinds)
    axis.invert_yaxis()
    axis.legend(frameon=False)
    _axis(axis, "share of answers (%)", "")
    axis.set_title(f"Kinds of answer: {_data_name(data)}", fontsize=11)
    return figure


def tokens_per_word(table: pd.DataFrame) -> Figure:
    """Return bars of tokens per word; index: tokenizer, columns: language.

    Example: tokens_per_word(pd.DataFrame({"Romanian": [1.9], "English": [1.2]}, index=["Llama 3"]))
    """
    figure, axis = _subplots(figsize=(7, 2.6))
    table.iloc[::-1].plot.barh(ax=axis, color=[BLUE, ORANGE], width=0.7)
    for bars in axis.containers:
        axis.bar_label(bars, fmt="%.2f", padding=3)
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    axis.set_xlim(right=1.15 * table.to_numpy().max())
    _axis(axis, "tokens per word", "")
    return figure


def loss_curves(frame: pd.DataFrame) -> Figure:
    """Return the training loss of every run, smoothed over a tenth of its steps.

    Example: loss_curves(as_frame(records))
    """
    figure, axis = _subplots(figsize=(8, 4))
    colours = plt.get_cmap("viridis")
    runs = [row for _, row in frame[frame["rank"].notna()].sort_values(["learning_rate", "trainable"]).iterrows()]
    for place, run in enumerate(runs):
        loss = pd.DataFrame(run["record"]["training"])
        smooth = loss["loss"].rolling(max(1, len(loss) // 10), min_periods=1).mean()
        label = f"r {run['rank']:.0f}  {','.join(run['target_modules'])}  {run['learning_rate']:.0e}"
        style = "--" if run["learning_rate"] > paper.TABLE_3_LEARNING_RATE else "-"
        axis.plot(loss["epoch"], smooth, style, color=colours(place / max(1, len(runs))), label=label, linewidth=1.4)
    axis.legend(
        frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1), title="rank, modules, learning rate"
    )
    _axis(axis, "epoch", "training loss (nats per answer token)")
    axis.set_ylim(bottom=0)
    axis.set_title(_run_name(frame), fontsize=11)
    return figure


def scores_by_rank(frame: pd.DataFrame) -> Figure:
    """Return exact match and token F1 against rank, with 95 % intervals, the base model and the paper's points.

    Example: scores_by_rank(as_frame(records))
    """
    runs, base = _rank_runs(frame)
    figure, axes = _subplots(1, 2, figsize=(10, 3.8), sharey=True)
    for axis, (column, (name, key, colour)) in zip(axes, METRICS.items(), strict=True):
        _points(axis, runs["rank"], runs, column, colour, f"measured, 95 % interval (n = {int(runs['n'].iloc[0])})")
        if base is not None:
            axis.axhline(base[column], color=GREY, linestyle=":", label=f"measured, base model ({base[column]:.3f})")
        published = [(row["rank"], row[key]) for row in paper.TABLE_3 if row["rank"] and row[key] is not None]
        if published:
            axis.plot(*zip(*published, strict=True), "D", color=RED, label="paper, Llama 3.2 3B")
        axis.set_xscale("log", base=2)
        axis.set_xticks(paper.RANKS, [str(rank) for rank in paper.RANKS])
        axis.set_ylim(0, 1)
        axis.legend(frameon=False, fontsize=8, loc="upper left")
        _axis(axis, "rank r (alpha = 4r; modules q, v; 1e-4)", name)
    figure.suptitle(_run_name(frame), fontsize=11)
    return figure


def scores_by_parameters(frame: pd.DataFrame) -> Figure:
    """Return exact match against the number of trainable parameters, one mark per module set and learning rate.

    Example: scores_by_parameters(as_frame(records))
    """
    figure, axis = _subplots(figsize=(8, 4))
    marks = {("q",): "s", ("q", "v"): "o", ("q", "k", "v", "o"): "^"}
    for (modules, rate), runs in frame[frame["rank"].notna()].groupby(["target_modules", "learning_rate"], sort=False):
        runs = runs.sort_values("trainable")
        colour = BLUE if rate <= paper.TABLE_3_LEARNING_RATE else ORANGE
        label = f"{', '.join(modules)} at {rate:.0e}"
        axis.plot(runs["trainable"], runs["em_strict"], marks.get(modules, "x") + "-", color=colour, label=label)
    axis.set_xscale("log")
    axis.set_ylim(0, 1)
    axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1), title="modules at learning rate")
    _axis(axis, "trainable parameters", "exact match")
    axis.set_title(_run_name(frame), fontsize=11)
    return figure


def module_bars(frame: pd.DataFrame) -> Figure:
    """Return exact match and token F1 by target modules at both learning rates, rank 2, with the paper's points.

    Example: module_bars(as_frame(records))
    """
    figure, axes = _subplots(1, 2, figsize=(10, 3.8), sharey=True)
    sets = paper.TARGET_MODULES
    series = (
        (paper.TABLE_6_LEARNING_RATE, paper.TABLE_6, BLUE, -0.2),
        (paper.TABLE_5_LEARNING_RATE, paper.TABLE_5, ORANGE, 0.2),
    )
    for axis, (column, (name, key, _)) in zip(axes, METRICS.items(), strict=True):
        for rate, table, colour, offset in series:
            same = frame[(frame["rank"] == paper.MODULES_RANK) & (frame["learning_rate"] == rate)]
            runs = (
                same.drop_duplicates("target_modules")
                .set_index("target_modules")
                .reindex(list(sets))
                .dropna(subset=["n"])
            )
            places = [sets.index(modules) + offset for modules in runs.index]
            axis.bar(places, runs[column], width=0.38, color=colour, label=f"measured, {rate:.0e}")
            _points(axis, places, runs, column, "black", None)
            published = [(i + offset, row[key]) for i, row in enumerate(table) if row[key] is not None]
            if published:
                label = f"paper, {rate:.0e}"
                axis.plot(*zip(*published, strict=True), "D", color=colour, markeredgecolor="black", label=label)
        axis.set_xticks(range(len(sets)), [", ".join(modules) for modules in sets])
        axis.set_ylim(0, 1)
        axis.legend(frameon=False, fontsize=8, loc="upper left")
        _axis(axis, "target modules (rank 2)", name)
    figure.suptitle(_run_name(frame), fontsize=11)
    return figure


def time_and_memory(frame: pd.DataFrame) -> Figure:
    """Return seconds of training and answering per run, and the process's peak memory after it.

    Example: time_and_memory(as_frame(records))
    """
    figure, axes = _subplots(1, 2, figsize=(10, 4.2), sharey=True)
    labels = ["base" if pd.isna(r["rank"]) else f"r {r['rank']:.0f}  {','.join(r['target_modules'])}  {r['learning_rate']:.0e}"
              for _, r in frame.iterrows()]  # fmt: skip
    axes[0].barh(labels, frame["train_seconds"], color=BLUE, label="training")
    axes[0].barh(
        labels, frame["answer_seconds"], left=frame["train_seconds"], color=ORANGE, label="answering the test rows"
    )
    axes[0].legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=2)
    axes[1].barh(labels, frame["peak_memory_gib"], color=GREY)
    axes[0].invert_yaxis()
    _axis(axes[0], "seconds", "")
    _axis(axes[1], "peak memory (GiB)", "")
    device = frame.iloc[0]["record"]["environment"]["device"]
    figure.suptitle(f"{_run_name(frame)}, {device}", fontsize=11)
    return figure


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
        figure, axis = _subplots(figsize=(7, 2.8))
        axis.plot(self.steps, self.loss, ".", color=SKY, label="each step")
        smooth = pd.Series(self.loss).rolling(10, min_periods=1).mean()
        axis.plot(self.steps, smooth, color=BLUE, label="mean of 10 steps")
        axis.set_xlim(0, state.max_steps + 1)
        axis.set_ylim(bottom=0)
        axis.legend(frameon=False)
        _axis(axis, f"step of {state.max_steps}", "loss (nats per token)")
        axis.set_title(self.title, fontsize=11)
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        elif self.handle:
            self.handle.update(figure)


def _subplots(*shape, **options):
    figure, axes = plt.subplots(*shape, layout="constrained", **options)
    plt.close(figure)  # a notebook then shows the returned figure once, not a second time at the end of its cell
    return figure, axes


def _points(axis, x, runs: pd.DataFrame, column: str, colour: str, label: str | None) -> None:
    which = list(METRICS).index(column)
    limits = [bootstrap_ci(per_question(record)[which]) for record in runs["record"]]
    below = [score - low for score, (low, _) in zip(runs[column], limits, strict=True)]
    above = [high - score for score, (_, high) in zip(runs[column], limits, strict=True)]
    style = "o-" if label else "none"
    axis.errorbar(x, runs[column], yerr=[below, above], fmt=style, color=colour, capsize=3, linewidth=1.4, label=label)


def _rank_runs(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series | None]:
    base = frame[frame["rank"].isna()]
    is_qv = frame["target_modules"].map(set) == {"q", "v"}
    runs = frame[frame["rank"].notna() & is_qv & (frame["learning_rate"] == paper.TABLE_3_LEARNING_RATE)]
    return runs.drop_duplicates("rank").sort_values("rank"), None if base.empty else base.iloc[0]


def _axis(axis, x: str, y: str) -> None:
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.spines[["top", "right"]].set_visible(False)


def _run_name(frame: pd.DataFrame) -> str:
    last = frame.iloc[-1]
    data = last["record"]["data"]
    return f"{last['model']}, profile {last['profile']}, {data['name']} ({data['train_rows']} train, {data['test_rows']} test rows)"


def _data_name(data: DatasetDict) -> str:
    return f"{data['train'].info.dataset_name} ({len(data['train'])} train, {len(data['test'])} test rows)"
