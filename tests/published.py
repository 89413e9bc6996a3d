"""`make reference`: the runs that this repository publishes, gone on with where they stopped; `make results`: what README shows.

Adapters and records lie in runs/full, so the notebooks of the full profile read them; finished records are copied, as they
come, to figures/reference/full. README's table and the figures are made from those alone.
"""

import json
import shutil
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import median

import pandas as pd
from datasets import DatasetDict
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from utils import paper
from utils.config import RunConfig
from utils.data import load_qa
from utils.disk import whole
from utils.environment import ROOT, Environment, detect, git, prepare
from utils.experiments.runs import answer_again, finished_record, run, sweep
from utils.paper import WINNER, table_3_grid, table_5_grid, table_6_grid
from utils.records import duration, identity_of, load_records, read_record, record_path, run_name
from utils.report import comparable, load_frame, pooled, riddle, save_figure, scores_by_rank
from utils.report.frame import by_seed, find
from utils.report.style import BLUE, GREY, SIZE, finish, set_labels, subplots
from utils.report.tables import interval

MODEL, DRAWS = "gemma-3-270m", 5
RATE = 5.0  # rows/s of a compiled run on two cores with AMX, where none has been measured yet
PUBLISHED = ROOT / "figures" / "reference" / "full"
BEGIN, END = "<!-- made by make results from figures/reference/full -->", "<!-- end -->"


def grid(seed: int) -> list[RunConfig]:
    """Return the base model and the paper's eleven configurations with one seed."""
    fields = [row for table in (table_3_grid, table_5_grid, table_6_grid) for row in table()]
    configs = [RunConfig(MODEL, seed=seed, **row) for row in fields if row["rank"] is not None]
    return [configs[0].base(), *dict.fromkeys(configs)]


def further() -> list[RunConfig]:
    """Return what is run beside the grid, seed 0: loss on the text, a base with solved examples, one and five epochs."""
    two, highest = (RunConfig(MODEL, **WINNER | {"rank": rank, "alpha": 4 * rank}) for rank in (2, 32))
    on_text = [replace(config, loss_on="text") for config in (two, highest)]
    return [*on_text, replace(two.base(), shots=3), replace(two, epochs=1), replace(two, epochs=5)]


def sampled() -> list[tuple[RunConfig, RunConfig]]:
    """Return the greedy runs of ranks 2 and 32 and, beside each, the same adapter answering by sampling: five draws each.

    0.6 and 0.9 are what the generation_config of Llama 3.2 has, and so what generate() does unless it is told otherwise.
    """
    greedy = [c for c in grid(0) if c.rank in (2, 32) and c.target_modules == ("q", "v") and c.learning_rate == 1e-4]
    return [(c, replace(c, temperature=0.6, top_p=0.9, draw=draw)) for draw, c in product(range(DRAWS), greedy)]


def work(data: DatasetDict, more: DatasetDict) -> list[tuple[RunConfig, DatasetDict, RunConfig | None]]:
    """Return all that is done, in order: a configuration, its rows and, where nothing is trained, whose adapter answers."""
    drawn = [(asked, data, config) for config, asked in sampled()]
    second = [(config, more, None if config.is_base else config) for config in grid(0)]
    first, others, seeds = (
        [(config, data, None) for config in configs] for configs in (grid(0), further(), [*grid(1)[1:], *grid(2)[1:]])
    )
    return [*first, *drawn, *second, *others, *seeds]  # what needs the adapters of this machine comes first


def seconds(config: RunConfig, rows: DatasetDict, adapter: RunConfig | None, rate: float) -> float:
    """Return about how long one piece of work takes, from the rows/s that training an adapter has."""
    trained = 0 if config.is_base or adapter else len(rows["train"]) * config.epochs / rate
    answering = rate if not config.is_base else rate / 3 / (1 + config.shots)  # the base model writes all its 64 tokens
    return (
        trained * (2.5 if config.loss_on == "text" else 1) + len(rows["test"]) / answering
    )  # text: the head on all tokens


def publish(plan: list[tuple[RunConfig, DatasetDict, RunConfig | None]], environment: Environment) -> None:
    """Copy the plan's finished records to figures/reference/full: a line a part keeps each under 150 KB."""
    for config, rows, _ in plan:
        record = finished_record(config, rows, environment)
        if record and record["environment"]["dirty"] is False:
            path = record_path(PUBLISHED, record["run_id"], identity_of(record))
            record["published"] = True  # without its adapter
            parts = (f"{json.dumps(name)}: {json.dumps(part, ensure_ascii=False)}" for name, part in record.items())
            if not path.exists():
                with whole(path) as unfinished:
                    unfinished.write_text("{" + ",\n".join(parts) + "}\n", encoding="utf-8")


def results(frame: pd.DataFrame) -> str:
    """Return README's table of results as Markdown: published scores beside measured ones, a line a configuration."""
    pool, lines = pooled(frame), []
    for fields in (None, *table_3_grid(), *table_5_grid(), *table_6_grid()[::2]):  # q,v at 1e-4 stands in Table 3
        run, published = find(pool, fields), paper.published(fields)
        cells = [run_name(fields or {"rank": None})]
        cells += [" / ".join(f"{row[metric]:.3f}" for row in published) for metric in ("em", "f1")]
        if run is not None:
            em = f"**{run['em_strict']:.3f}** ({interval(by_seed(run['records'], 'em'))})"
            cells += [em, *(f"{run[name]:.3f}" for name in ("f1_strict", "em_ro", "contains")), len(run["seeds"])]
        lines.append(cells + ["not run"] * (run is None))
    head = ["", "EM, paper", "F1, paper", "EM, measured (95 %)", "F1", "EM under `ro`", "contains", "seeds"]
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def speeds(path: Path = ROOT / "figures" / "reference" / "bench.json") -> Figure:
    """Return `make bench` as a figure: a panel for each kind of CPU, a bar a trainer, the products' own limit dotted."""
    told = json.loads(path.read_text(encoding="utf-8"))["cpus"]
    cpus = {kind: entry for kind, entry in told.items() if "per_row" in entry and "method" not in entry}
    figure, axes = subplots(1, len(cpus), height=2.6, sharex=True, sharey=True, squeeze=False)
    for axis, (kind, entry) in zip(axes[0], cpus.items(), strict=True):
        rows = entry["trainers"]
        ours = [BLUE if row["trainer"].startswith("ours") else GREY for row in rows]
        bars = axis.barh([row["trainer"] for row in rows], [row["samples_per_second"] for row in rows], color=ours)
        axis.bar_label(bars, [f"{row['samples_per_second']:.1f}" for row in rows], padding=3, fontsize=SIZE)
        axis.axvline(entry["ceiling_samples_per_second"], color="black", linestyle=":", linewidth=1)
        set_labels(axis, "rows/s", "", kind)
    axes[0][0].invert_yaxis()
    return finish(figure, "One adapter, Gemma 3 270M in bfloat16; dotted: what the products alone allow.")


def write_results(readme: Path = ROOT / "README.md", figures: Path = ROOT / "figures") -> None:
    """Put the table into README, between its two marks, and draw the figures that it shows, as PNG and SVG."""
    runs = load_frame(PUBLISHED)
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
    with whole(readme) as unfinished:
        unfinished.write_text(
            f"{before}{BEGIN}\n{results(comparable(runs))}\n{END}{rest.split(END)[1]}", encoding="utf-8"
        )
    drawn = {"scores_by_rank": scores_by_rank(comparable(runs)), "riddle": riddle(runs), "speeds": speeds()}
    for name, figure in drawn.items():
        for ending in ("png", "svg"):
            save_figure(figure, figures / f"{name}.{ending}")


def said(record: dict) -> list[str]:
    """Return what a run's model wrote, question by question: the same for the same adapter."""
    return [prediction["generation"] for prediction in record["predictions"]]


def main() -> None:
    """Do what is not done yet: seed 0, what is asked beside it, then the other seeds; and write what README shows."""
    if sys.argv[1:] == ["results"]:
        return write_results()
    if git("status", "--porcelain", "--untracked-files=no"):
        raise SystemExit(
            "The tree has changes that are not committed: a published record names the commit it was made by."
        )
    prepare()
    environment = detect("full")
    data, more = load_qa("bundled"), load_qa("bundled", test_source="bundled-more")
    plan = work(data, more)
    for path in PUBLISHED.glob("*.json"):
        if not (there := environment.runs / "records" / path.name).exists():
            with whole(there) as unfinished:
                shutil.copy(path, unfinished)
    left = [piece for piece in plan if not finished_record(*piece[:2], environment)]
    speeds = [r["timing"]["samples_per_second"] for r in load_records(environment.runs / "records")[0]]
    rate = median([speed for speed in speeds if speed] or [RATE])
    told = duration(sum(seconds(*piece, rate) for piece in left))
    print(f"{len(left)} of {len(plan)} pieces of work are left: about {told} at {rate:.1f} rows/s.")
    for config, rows, adapter in tqdm(left, desc="published runs", unit="run"):
        if adapter is None:
            sweep([config], rows, environment)
        elif trained := finished_record(adapter, data, environment):  # None where its loss was not a number
            if trained.get("published"):  # its adapter stayed on the machine that trained it
                trained = run(adapter, data, environment)
            path = record_path(PUBLISHED, trained["run_id"], identity_of(trained))
            if path.exists() and said(read_record(path)) != said(trained):
                raise SystemExit(
                    f"{adapter.run_id}, trained anew, does not answer as the published adapter did (another kind of CPU "
                    "rounds otherwise): delete its records in figures/reference/full, all of them, and start again."
                )
            answer_again(trained, config, rows, environment)
        publish(plan, environment)
    write_results()


if __name__ == "__main__":
    main()
