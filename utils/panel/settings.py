"""What a run's controls show in, its checked settings out, and what the paper says of them; no widgets."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path

from datasets import DatasetDict

from utils import paper
from utils.config import RunConfig, problems
from utils.data.rows import fingerprint, load_qa
from utils.records import run_name

# Solved examples and sampling have no control.
PANEL_FIELDS = [f.name for f in fields(RunConfig) if f.name not in ("shots", "temperature", "top_p", "draw")]
_load = lru_cache(maxsize=4)(load_qa)


@dataclass(frozen=True)
class Settings:
    """All that a run from the panel takes: its RunConfig and its rows."""

    config: RunConfig
    dataset: str  # as data.load_qa takes it
    train_rows: int | None = None  # None takes all
    test_rows: int | None = None
    data_seed: int = 0  # draws the rows: another seed for the run leaves the questions as they are, to be compared

    def load_data(self) -> DatasetDict:
        """Return the rows of the run; loaded once and kept.

        Example: Settings(RunConfig("tiny-llama"), "bundled", 12, 6).load_data()["train"].num_rows -> 12
        """
        load = _load if self.dataset in ("bundled", "hub") else load_qa  # a file may be written anew
        return load(self.dataset, self.train_rows, self.test_rows, self.data_seed)


def to_values(settings: Settings) -> dict:
    """Return what the panel's controls show: one value a field, 0 for all rows.

    Example: to_values(Settings(RunConfig("tiny-llama", rank=8), "bundled"))["alpha"] -> 32.0
    """
    values = {name: getattr(settings.config, name) for name in PANEL_FIELDS}
    return values | {"dataset": settings.dataset, "train_rows": settings.train_rows or 0}


def from_values(values: dict, before: Settings) -> tuple[Settings | None, dict[str, str]]:
    """Return the settings that the controls show and what is wrong, field by field; None where anything is.

    What has no control (solved examples, the test rows) stays as it was `before`.
    Example: from_values(to_values(before) | {"epochs": 0}, before)[1] -> {"epochs": "is 0; expected a whole number, …"}
    """
    config = {name: values[name] for name in PANEL_FIELDS}
    wrong, dataset, rows = problems(config), values["dataset"], values["train_rows"]
    if rows < 0:
        wrong["train_rows"] = f"is {rows}; expected a whole number, 0 for all rows"
    elif dataset == "bundled" and rows > (most := len(Settings(before.config, "bundled").load_data()["train"])):
        wrong["train_rows"] = f"is {rows}; the bundled dataset has {most} training rows (0 takes them all)"
    if wrong:
        return None, wrong
    return replace(before, config=replace(before.config, **config), dataset=dataset, train_rows=rows or None), {}


def settings_of(record: dict, before: Settings) -> tuple[Settings, str]:
    """Return the settings of a recorded run, and a sentence where its rows cannot be named again, else "".

    A record holds its dataset's name, which is enough for the bundled set and the Hub, not for a file of your own.
    Example: settings_of(record, before)[0].config.run_id == record["run_id"] -> True for a finished run
    """
    data, name = record["data"], record["data"]["name"]
    known = {"bundled": "bundled", paper.HUB_DATASET: "hub", Path(before.dataset).name: before.dataset}
    known |= {before.dataset: before.dataset}  # a Hub id
    config, dataset = RunConfig.from_dict(record["config"]), known.get(name, before.dataset)
    tested = data.get("test_name", name)
    test_rows = data["test_rows"] if tested == name else before.test_rows  # another set is not one of the controls
    strange = f"trained on {name}" if name not in known else f"tested on {tested}" if tested != name else ""
    settings = replace(before, config=config, dataset=dataset, train_rows=data["train_rows"], test_rows=test_rows)
    if dataset == "bundled" and not strange and fingerprint(settings.load_data()) != data["fingerprint"]:
        strange = "trained on rows drawn otherwise (another DATA_SEED)"
    return settings, strange and f"That run was {strange}, which is not a choice here: {dataset} stays."


def facts(config: RunConfig) -> dict[str, str]:
    """Return what follows from the settings, each fact by its name: Llama 3.2 3B's trainable share, the paper's scores.

    Example: facts(RunConfig("tiny-llama", rank=2))["published"] -> "Table 3: EM 0.410, F1 0.553; Table 6: EM 0.345, F1 0.533"
    """
    trainable = paper.trainable_parameters(config.rank, config.target_modules)
    if config.dora:  # one length for each output of a projection; at rank 1 LoRA has its inputs and its outputs
        inputs = 28 * sum(8192 if letter == "down" else 3072 for letter in config.target_modules)
        trainable += paper.trainable_parameters(1, config.target_modules) - inputs
    total = paper.BASE_PARAMETERS + trainable
    rows = [] if config.rslora or config.dora else paper.published(config.as_dict())
    scores = [f"Table {row['table']}: EM {row['em']:.3f}, F1 {row['f1']:.3f}" for row in rows]
    share = f"{trainable:,} of {total:,} ({100 * trainable / total:.4f} %)"
    return {"trainable, Llama 3.2 3B": share, "published": "; ".join(scores) or "none with these settings"}


def describe(config: Mapping, status: str = "finished") -> str:
    """Return a run's name with its epochs and its seed, as lists of runs show it, and its status if it did not finish.

    Example: describe(RunConfig("tiny-llama").as_dict()) -> "r 2 q,v 1e-4, 3 epochs, seed 0"
    """
    name = f"{run_name(config)}, {config['epochs']} epoch{'s' * (config['epochs'] != 1)}, seed {config['seed']}"
    return name if status == "finished" else f"{name} ({status})"
