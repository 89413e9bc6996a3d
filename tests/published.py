"""`make reference`: the runs that this repository publishes, gone on with where they stopped, and what is drawn from them.

Adapters and records lie in runs/full, so the notebooks of the full profile read them; finished records are copied, as they
come, to figures/reference/full.
"""

import json
from dataclasses import replace
from itertools import product

from datasets import DatasetDict

from utils.config import RunConfig
from utils.data import load_qa
from utils.data.rows import fingerprint
from utils.disk import whole
from utils.environment import ROOT, Environment, detect, prepare
from utils.experiments.runs import answer_again, finished_record, sweep
from utils.paper import WINNER, table_3_grid, table_5_grid, table_6_grid
from utils.records import read_record

MODEL, SEEDS, DRAWS = "gemma-3-270m", (0, 1, 2), 5
PUBLISHED = ROOT / "figures" / "reference" / "full"


def grid(seed: int) -> list[RunConfig]:
    """Return the base model and the paper's eleven configurations with one seed."""
    fields = [row for table in (table_3_grid, table_5_grid, table_6_grid) for row in table()]
    configs = [RunConfig(MODEL, seed=seed, **row) for row in fields if row["rank"] is not None]
    return [configs[0].base(), *dict.fromkeys(configs)]


def further() -> list[RunConfig]:
    """Return what is trained beside the grid, seed 0: one and five epochs, loss on the text, a base with solved examples."""
    two, highest = (RunConfig(MODEL, **WINNER | {"rank": rank, "alpha": 4 * rank}) for rank in (2, 32))
    trained = [replace(two, epochs=1), replace(two, epochs=5), *(replace(c, loss_on="text") for c in (two, highest))]
    return [replace(two.base(), shots=3), *trained]


def sampled() -> list[tuple[RunConfig, RunConfig]]:
    """Return the greedy runs of ranks 2 and 32 and, beside each, the same adapter answering by sampling: five draws each.

    0.6 and 0.9 are what the generation_config of Llama 3.2 has, and so what generate() does unless it is told otherwise.
    """
    greedy = [c for c in grid(0) if c.rank in (2, 32) and c.target_modules == ("q", "v") and c.learning_rate == 1e-4]
    return [(c, replace(c, temperature=0.6, top_p=0.9, draw=draw)) for draw, c in product(range(DRAWS), greedy)]


def answer_others(data: DatasetDict, more: DatasetDict, environment: Environment) -> None:
    """Have seed 0's adapters and the base model answer the second test set, and two of them by sampling."""
    sweep([grid(0)[0]], more, environment)
    again = [(c, c, more) for c in grid(0)[1:]] + [(c, asked, data) for c, asked in sampled()]
    for config, asked, rows in again:
        answer_again(finished_record(config, data, environment), asked, rows, environment)
        publish(data, more, environment)


def publish(data: DatasetDict, more: DatasetDict, environment: Environment) -> None:
    """Copy the finished records of these rows to figures/reference/full: a line a part keeps each under 150 KB."""
    rows = {fingerprint(data), fingerprint(more)}
    PUBLISHED.mkdir(parents=True, exist_ok=True)
    for path in sorted((environment.runs / "records").glob("*.json")):
        record = read_record(path)
        if (
            record["data"]["fingerprint"] in rows
            and record["status"] == "finished"
            and not (PUBLISHED / path.name).exists()
        ):
            record["published"] = True  # without its adapter
            parts = (f"{json.dumps(name)}: {json.dumps(part, ensure_ascii=False)}" for name, part in record.items())
            with whole(PUBLISHED / path.name) as unfinished:
                unfinished.write_text("{" + ",\n".join(parts) + "}\n", encoding="utf-8")


def main() -> None:
    """Do what is not done yet: seed 0, what is asked beside it, then the other seeds."""
    prepare()
    environment = detect("full")
    data, more = load_qa("bundled"), load_qa("bundled", test_source="bundled-more")
    for config in grid(0):
        sweep([config], data, environment)
        publish(data, more, environment)
    answer_others(data, more, environment)
    for config in [*further(), *grid(1)[1:], *grid(2)[1:]]:
        sweep([config], data, environment)
        publish(data, more, environment)


if __name__ == "__main__":
    main()
