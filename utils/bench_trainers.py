"""The trainers that `make bench` compares, each given the same rows, model, adapter and objective, and how one is timed."""

import ctypes
import gc
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import psutil
import torch
from datasets import Dataset
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerFast, Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback

from utils.config import RunConfig
from utils.environment import Environment
from utils.fused import FusedModel
from utils.models import add_lora, load_base, load_stock, lora_config
from utils.paper import table_3_grid, table_5_grid, table_6_grid
from utils.prompt import build_completion, build_prompt
from utils.training import IGNORED, fine_tune, tokenize_row, training_arguments

WARM_UP = 1  # steps that are not counted: the first one allocates, and compiles where there is something to compile
TRL_SETTINGS = ("gradient_checkpointing", "bf16", "packing", "max_length", "loss_type", "optim")


@dataclass(frozen=True)
class Case:
    """What every trainer is given."""

    environment: Environment
    tokenizer: PreTrainedTokenizerFast
    rows: Dataset
    config: RunConfig


@dataclass
class StepClock(TrainerCallback):
    """The moments at which the steps ended; on a GPU, once its work was done."""

    ends: list[float] = field(default_factory=list)

    def on_step_end(self, args, state, control, **kwargs):
        """Note the time."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


class PeakMemory:
    """The most memory that was held while it was open, in `bytes`: of the GPU where there is one, else of the process.

    A process's own maximum cannot be set back on a CPU, so a thread looks fifty times a second.

    Example: with PeakMemory() as peak: train(); print(peak.bytes)
    """

    def __enter__(self):
        """Start from what is held now, after handing back what the trainer before left."""
        gc.collect()
        if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
            trim(0)  # glibc keeps up to a GiB of freed memory, and it would count as the next trainer's
        self.bytes, self._done = 0, threading.Event()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error):
        """Look a last time."""
        self._done.set()
        self._thread.join()

    def _watch(self):
        process, done = psutil.Process(), False
        while not done:
            done = self._done.wait(0.02)
            on_gpu = torch.cuda.is_available()
            held = torch.cuda.max_memory_allocated() if on_gpu else process.memory_info().rss
            self.bytes = max(self.bytes, held)


def measure(name: str, trainer: Callable, case: Case) -> dict:
    """Return what one trainer took: seconds and rows after the warm-up, its losses step by step, its peak memory.

    `others_cpu` is the share of the processors that other programs took meanwhile: timings beside them mean little.
    `trainer` is called with the case and a callback, and returns the losses of each adapter (a list of lists) and the
    settings that matter.

    Example: measure("one after another", train_sequential, case)["seconds"]
    """
    clock, others = StepClock(), _cpu_seconds_of_others()
    with PeakMemory() as peak:
        start = time.perf_counter()
        losses, settings = trainer(case, clock)
        elapsed = time.perf_counter() - start
    ends = clock.ends
    return {
        "trainer": name,
        "adapters": len(losses),
        "rank": case.config.rank,
        "samples": case.config.batch_size * len(losses) * (len(ends) - WARM_UP),
        "seconds": ends[-1] - ends[WARM_UP - 1],
        "until_first_step_seconds": ends[WARM_UP - 1] - start,
        "step_seconds": [round(b - a, 4) for a, b in pairwise(ends)],
        "losses": losses[0],
        "peak_bytes": peak.bytes,
        "others_cpu": (_cpu_seconds_of_others() - others) / (elapsed * psutil.cpu_count()),
        "settings": settings,
    }


def train_trl(case: Case, clock: StepClock, **changes) -> tuple[list, dict]:
    """Train with TRL's SFTTrainer as its documentation shows it; `changes` go to SFTConfig, all else is its default.

    Rows, batch size, learning rate, epochs and seed are the case's. TRL's tokens and labels must be ours.

    Example: measure("TRL, tuned", partial(train_trl, gradient_checkpointing=False), case)
    """
    from trl import SFTConfig, SFTTrainer, __version__  # only here: nothing else needs it installed

    config, environment = case.config, case.environment
    arguments = SFTConfig(
        output_dir=tempfile.gettempdir(), per_device_train_batch_size=config.batch_size, learning_rate=config.learning_rate,
        num_train_epochs=config.epochs, seed=config.seed, use_cpu=environment.device == "cpu",
        fp16=environment.dtype == "float16",
        report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True, **changes,
    )  # fmt: skip
    prompts = [build_prompt(row["text"], row["question"], config.prompt_language) for row in case.rows]
    completions = [build_completion(row["answer"]) for row in case.rows]
    trainer = SFTTrainer(
        model=load_stock(case.config.model, case.environment), args=arguments, processing_class=case.tokenizer, peft_config=lora_config(config),
        train_dataset=Dataset.from_dict({"prompt": prompts, "completion": completions}), callbacks=[clock],
    )  # fmt: skip
    for ours, theirs in zip(tokenized(case), trainer.train_dataset, strict=True):
        if any(theirs[column] != ours[column] for column in ours):
            raise ValueError(f"TRL trains on other tokens or labels than ours: {theirs}, ours are {ours}.")
    settings = {"trl": __version__} | {name: str(getattr(arguments, name)) for name in TRL_SETTINGS}
    return [_train(trainer)], settings | {"attention": "sdpa", "head_on": "all positions, in tiles, unless on a GPU"}


def train_plain(case: Case, clock: StepClock) -> tuple[list, dict]:
    """Train with Hugging Face's Trainer and PEFT, the model's own loss on the logits of all positions.

    Example: measure("HF Trainer", train_plain, case)
    """
    environment = case.environment
    trainer = Trainer(
        model=add_lora(load_stock(case.config.model, case.environment), case.config),
        args=training_arguments(case.config, environment.device, environment.torch_dtype),
        train_dataset=tokenized(case),
        data_collator=DataCollatorForSeq2Seq(case.tokenizer, label_pad_token_id=IGNORED),
        callbacks=[clock],
    )
    return [_train(trainer)], {"attention": "sdpa", "head_on": "all positions"}


def train_sequential(case: Case, clock: StepClock) -> tuple[list, dict]:
    """Train one adapter with our `fine_tune`.

    Example: measure("ours, one adapter", train_sequential, case)
    """
    model = add_lora(load_base(case.config.model, case.environment), case.config)
    result = fine_tune(model, case.tokenizer, case.rows, case.config, [clock])
    return [_values(result.loss)], {"attention": model.config._attn_implementation, "head_on": "answer positions"}


def train_fused(case: Case, clock: StepClock, adapters: int = 1, compiled: bool = False) -> tuple[list, dict]:
    """Train several adapters together on one base model: the case's own first, then the others of the paper's tables.

    Example: measure("ours, 11 adapters together", partial(train_fused, adapters=11), case)
    """
    fields = table_3_grid() + table_5_grid() + table_6_grid()
    grid = [replace(case.config, **f, seed=seed) for seed in (case.config.seed, case.config.seed + 1) for f in fields]
    configs = list(dict.fromkeys([case.config, *grid]))[:adapters]
    with FusedModel(load_base(case.config.model, case.environment), configs) as fused:
        results = fused.fine_tune(case.tokenizer, case.rows, [clock], compiled)
        attention = fused.model.config._attn_implementation
    settings = {"attention": attention, "head_on": "answer positions", "compiled": compiled}
    return [_values(result.loss) for result in results], settings


def tokenized(case: Case) -> list[dict]:
    """Return the case's rows as input_ids and labels.

    Example: tokenized(case)[0]["labels"][0] -> -100
    """
    return [tokenize_row(row, case.tokenizer, case.config) for row in case.rows]


def _cpu_seconds_of_others() -> float:
    machine, own = psutil.cpu_times(), psutil.Process().cpu_times()
    busy = sum(getattr(machine, kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq", "steal"))
    return busy - own.user - own.system


def _train(trainer: Trainer) -> list[float]:
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return _values(trainer.state.log_history)


def _values(log: list[dict]) -> list[float]:
    return [float(entry["loss"]) for entry in log if "loss" in entry]
