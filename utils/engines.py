"""Which engine does a sweep: one run after the other, or many at once; told from a measured step."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from datasets import Dataset, DatasetDict
from transformers import PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback

from utils.compilation import can_compile
from utils.config import RunConfig
from utils.environment import Environment
from utils.fused import FusedModel, shared_settings
from utils.memory import estimate_memory, free_memory, memory_line
from utils.progress import duration
from utils.training import tokenize_row

ENGINES = ("auto", "sequential", "fused")
WORTH_FUSING = 20  # seconds of training one by one, below which measuring costs more than it can save
WORTH_COMPILING = 120  # likewise: compiling takes half a minute to a minute, and is kept for the next time
MEMORY_SHARE = 0.7  # of what is free: the estimate leaves out fragmentation and the machine's other work


@dataclass
class Plan:
    """What is run together, in which order, and what to say about it."""

    groups: list[list[RunConfig]]
    compiled: bool = False
    lines: list[str] = field(default_factory=list)


def plan_sweep(
    configs: Sequence[RunConfig],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    data: DatasetDict,
    environment: Environment,
    engine: str = "auto",
) -> Plan:
    """Return how to do these runs: what fits together in memory at once, if that is faster here, else one by one.

    The time is told from a step that was measured. A sweep so short that measuring costs more than it can save is done
    one by one.

    Example: plan_sweep(configs, model, tokenizer, data, environment).groups -> [[base], [r1, r2, r4, r8, r16, r32]]
    """
    rows, fusable = data["train"], [config for config in configs if shared_settings(config)]
    alone, trained = [[config] for config in configs], [config for config in configs if not config.is_base]
    largest = max(fusable or configs, key=lambda c: (c.rank or 0) * len(c.target_modules))
    lengths = [len(tokenize_row(row, tokenizer, largest)["input_ids"]) for row in rows]
    memory, free = estimate_memory(model, largest, environment, lengths), free_memory(environment)
    lines = [memory_line(memory, free)]
    if not fusable:
        return Plan(alone, lines=lines)
    if environment.dtype == "float16":  # gradient scaling skips a step for all where one run's gradient overflows
        if engine == "fused":
            raise ValueError("The fused engine needs bfloat16 or float32; this machine works in float16.")
        engine = "sequential"
    work = sum(len(rows) * config.epochs for config in trained)
    one = step_seconds([largest], model, tokenizer, rows) / largest.batch_size
    told = f"training {work:,} rows takes about"
    sequential = Plan(
        alone, lines=[*lines, f"Engine: sequential, {1 / one:.1f} rows/s: {told} {duration(work * one)}."]
    )
    most = int(MEMORY_SHARE * free / max(memory["total"] - memory["weights"], 1))
    while True:
        together = _groups(configs, max(1, most))
        group = max(together, key=len)
        if engine == "sequential" or len(group) == 1 or (engine == "auto" and work * one < WORTH_FUSING):
            return sequential
        compiled = work * one > WORTH_COMPILING and can_compile(environment.device)
        try:
            many = step_seconds(group, model, tokenizer, rows, compiled) / largest.batch_size / len(group)
            break
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            most = len(group) // 2  # the estimate was too hopeful
            clear_device_cache(garbage_collection=True)
    if engine == "auto" and many >= one:
        return sequential
    shown = (
        f"{len(group)} runs at once{', compiled' if compiled else ''}, {1 / many:.1f} rows/s ({1 / one:.1f} one by one)"
    )
    lines = [memory_line(estimate_memory(model, largest, environment, lengths, len(group)), free)]
    return Plan(together, compiled, [*lines, f"Engine: fused, {shown}: {told} {duration(work * many)}."])


def step_seconds(
    configs: Sequence[RunConfig],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    rows: Dataset,
    compiled: bool = False,
) -> float:
    """Return the seconds of one training step of these runs together: the faster of two, after one that warms up.

    The adapters are thrown away, and the base model is as it was.

    Example: step_seconds([config], model, tokenizer, data["train"]) -> 0.65
    """
    few = rows.select(range(min(len(rows), 3 * configs[0].batch_size)))
    clock = _Clock()
    with FusedModel(model, [replace(config, epochs=1) for config in configs]) as fused:
        fused.fine_tune(tokenizer, few, [clock], compiled)
    return min(b - a for a, b in pairwise(clock.times[-3:]))


class _Clock(TrainerCallback):
    def __init__(self):
        self.times = []

    def on_train_begin(self, args, state, control, **kwargs):
        """Note where the first step begins."""
        self.times.append(time.perf_counter())

    def on_step_end(self, args, state, control, **kwargs):
        """Note where a step ends."""
        self.times.append(time.perf_counter())


def _groups(configs: Sequence[RunConfig], most: int) -> list[list[RunConfig]]:
    groups: dict = {}
    for config in configs:
        shared = shared_settings(config)
        groups.setdefault(("alone", config) if shared is None else shared, []).append(config)
    parts = []
    for group in groups.values():
        number = -(-len(group) // most)  # as many parts as it takes, of nearly equal size
        size = -(-len(group) // number)
        parts += [group[i : i + size] for i in range(0, len(group), size)]
    return parts
