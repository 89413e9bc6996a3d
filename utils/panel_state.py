"""The settings of a run as the panels show and read them, and what is wrong with them; no widgets."""

import importlib.util
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from datasets import DatasetDict

from utils.config import RunConfig
from utils.data import load_qa
from utils.environment import Environment
from utils.paper import HUB_DATASET

# The variants of LoRA that a run can take, as the RunConfig fields that make them.
VARIANTS = {"LoRA": (), "rsLoRA": ("rslora",), "DoRA": ("dora",)}
FLAGS = tuple(flag for flags in VARIANTS.values() for flag in flags)
PANEL_FIELDS = (
    "model", "rank", "alpha", "target_modules", "learning_rate", "epochs", "batch_size", "loss_on", "prompt_language", "seed",
)  # fmt: skip


_loaded: dict[tuple, DatasetDict] = {}


@dataclass(frozen=True)
class Settings:
    """All that a run from the panel takes: its RunConfig, its rows, and how the base model is held."""

    config: RunConfig
    dataset: str
    """As data.load_qa takes it."""
    train_rows: int | None = None
    """None takes all."""
    test_rows: int | None = None
    data_seed: int = 0
    """Draws the rows; another seed for the run leaves the questions as they are, so that runs can be compared."""
    quantization: str = "none"

    def load_data(self) -> DatasetDict:
        """Return the rows of the run; loaded once and kept.

        Example: Settings(RunConfig("tiny-llama"), "bundled", 12, 6).load_data()["train"].num_rows -> 12
        """
        rows = (self.dataset, self.train_rows, self.test_rows, self.data_seed)
        if rows not in _loaded:
            _loaded[rows] = load_qa(*rows)
        return _loaded[rows]

    @property
    def at_hand(self) -> bool:
        """Whether the rows can be had at once: loaded before, bundled, or a file; a set on the Hub has to be fetched."""
        rows = (self.dataset, self.train_rows, self.test_rows, self.data_seed)
        return rows in _loaded or self.dataset == "bundled" or Path(self.dataset).exists()


def to_values(settings: Settings) -> dict:
    """Return what the panel's controls show: one value a field, the variant by its name, 0 for all rows.

    Example: to_values(Settings(RunConfig("tiny-llama", rank=8), "bundled"))["alpha"] -> 32.0
    """
    config = settings.config
    on = tuple(flag for flag in FLAGS if getattr(config, flag))
    variant = next((name for name, flags in VARIANTS.items() if flags == on), "LoRA")
    values = {name: getattr(config, name) for name in PANEL_FIELDS}
    rest = {"dataset": settings.dataset, "train_rows": settings.train_rows or 0, "quantization": settings.quantization}
    return {**values, **rest, "variant": variant}


def from_values(values: dict, before: Settings) -> tuple[Settings | None, dict[str, str]]:
    """Return the settings that the controls show and what is wrong, field by field; None where anything is.

    What has no control (dropout, the decoding, the test rows) stays as it was `before`.

    Example: from_values(to_values(before) | {"rank": 0}, before)[1]["rank"] -> "0; expected a whole number from 1 to 1024 …"
    """
    flags = {flag: flag in VARIANTS[values["variant"]] for flag in FLAGS}
    fields = {name: values[name] for name in PANEL_FIELDS}
    problems, config = {}, None
    try:
        config = replace(before.config, **fields, **flags)
    except ValueError as error:
        for line in str(error).split("\n- ")[1:]:
            field, _, what = line.partition(" ")
            problems.setdefault(field, what.removeprefix("is "))
    rows = values["train_rows"]
    if rows < 0:
        problems["train_rows"] = f"{rows}; expected a whole number, 0 for all rows"
    elif values["dataset"] == "bundled" and rows > (
        most := replace(before, dataset="bundled", train_rows=None).load_data()["train"].num_rows
    ):
        problems["train_rows"] = f"{rows}; the bundled dataset has {most} training rows (0 takes them all)"
    elif rows and config and config.batch_size > rows:
        problems["batch_size"] = f"{config.batch_size}; expected at most the {rows} training rows"
    if values["quantization"] == "nf4" and importlib.util.find_spec("bitsandbytes") is None:
        problems["quantization"] = "nf4 needs the package bitsandbytes, which is not installed; expected none"
    if problems:
        return None, problems
    rest = {"dataset": values["dataset"], "train_rows": rows or None, "quantization": values["quantization"]}
    return replace(before, config=config, **rest), {}


def settings_of(record: dict, before: Settings) -> tuple[Settings, str]:
    """Return the settings of a recorded run, and a sentence where its rows cannot be named again, else "".

    A record holds its dataset's name, which is enough for the bundled set and the Hub, not for a file of your own.

    Example: settings_of(record, before)[0].config.run_id == record["run_id"] -> True for a finished run
    """
    data, name = record["data"], record["data"]["name"]
    known = {"bundled": "bundled", HUB_DATASET: "hub", Path(before.dataset).name: before.dataset}
    settings = replace(
        before,
        config=RunConfig.from_dict(record["config"]), dataset=known.get(name, before.dataset),
        train_rows=data["train_rows"], test_rows=data["test_rows"], quantization=record["environment"]["quantization"],
    )  # fmt: skip
    problem = (
        "" if name in known else f"That run was trained on {name}, which is not a choice here: {before.dataset} stays."
    )
    return settings, problem


def with_quantization(environment: Environment, quantization: str) -> Environment:
    """Return the environment with the base model held that way; its runs lie in a folder of their own.

    Example: with_quantization(detect("demo"), "nf4").runs.name -> "demo-nf4"
    """
    if quantization == environment.quantization:
        return environment
    name = environment.runs.name.removesuffix(f"-{environment.quantization}")
    runs = environment.runs.with_name(name if quantization == "none" else f"{name}-{quantization}")
    return replace(environment, quantization=quantization, runs=runs)


def sweep_configs(config: RunConfig, ranks, module_sets, rates, seeds: str) -> tuple[list[RunConfig], str]:
    """Return the runs of a sweep, alpha at 4 × rank, and a sentence where the choices make none.

    Example: len(sweep_configs(config, (1, 2), (("q",), ("q", "v")), (1e-4,), "0, 1")[0]) -> 8
    """
    parts = [part.strip() for part in seeds.split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts) or not parts:
        return [], f"The seeds are {seeds!r}; expected whole numbers with commas between them, such as 0, 1, 2."
    missing = [
        n for n, chosen in (("rank", ranks), ("module set", module_sets), ("learning rate", rates)) if not chosen
    ]
    if missing:
        return [], f"Choose at least one {' and one '.join(missing)}."
    configs = [
        replace(config, rank=rank, alpha=4 * rank, target_modules=modules, learning_rate=rate, seed=seed)
        for modules, rate, seed, rank in product(module_sets, rates, dict.fromkeys(map(int, parts)), ranks)
    ]
    return configs, ""


def example_rows() -> dict[str, dict]:
    """Return a test question for every topic of the bundled set, by topic; no run was trained on them.

    Example: example_rows()["Pisici"]["question"] -> "Când a zburat Félicette în cosmos?"
    """
    rows = {}
    for row in load_qa("bundled")["test"]:
        rows.setdefault(row["topic"], row)
    return rows
