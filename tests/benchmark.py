"""Our training beside stock trainers, in turns on the same rows: rows a second, and the share of what the products allow.

`make bench` runs it; figures/reference/bench.json keeps one entry a kind of CPU. The ratios are the claim, not the seconds.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import datasets
import pandas as pd
import psutil
import torch
import torch.nn.functional as F
from greenlet import getcurrent, greenlet
from transformers import DataCollatorForSeq2Seq, PreTrainedModel, Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback

from utils.config import RunConfig
from utils.data import load_qa
from utils.environment import ROOT, Environment, detect, prepare
from utils.experiments import fine_tune, tokenize_row, training_arguments
from utils.experiments.record import about_run
from utils.models import add_lora, load_base, load_tokenizer, lora_config
from utils.models.base import load_stock
from utils.models.cpu import can_compile
from utils.prompt import build_completion, build_prompt
from utils.report.style import BLUE, GREEN, ORANGE, PURPLE, finish, set_labels, subplots

WARM_UP, STEPS = 3, 20  # the first steps allocate and compile; a median of fewer than 20 moves with the rows' lengths
# Of a loss, at any step. In float32 the trainers agree to 1e-5 (Gemma 3 270M, bundled rows). bfloat16 keeps 8 bits: a logit
# near 16 is rounded by up to 0.03, and a step's loss is the mean over some 25 answer tokens; 1.1 % was seen.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.02, "float16": 0.02}
STOCK = "HF Trainer, all logits"  # whose losses the others must have: the model's own, in the format of its weights
Case = namedtuple("Case", "environment tokenizer rows config")  # what every trainer is given


class Pause(TrainerCallback):
    """Stand still when all is ready and after each step's log, and hand the loss to whoever asked for the step."""

    def on_train_begin(self, args, state, control, **kwargs):
        getcurrent().parent.switch(None)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            getcurrent().parent.switch(logs["loss"])


def in_turns(train: Callable, case: Case) -> Iterator:
    """Yield None when a trainer stands ready, then each step's loss, and at last the settings that `train` returns.

    The trainer's own loop runs, in a greenlet: a thread would bring OpenMP workers and a heap of its own.
    """
    job = greenlet(train)
    said = job.switch(case, Pause())
    while not job.dead:
        yield said
        said = job.switch()
    yield said


def train_trl(case: Case, pause: Pause, **changes) -> dict:
    """Train with TRL's SFTTrainer as its documentation shows it; `changes` go to SFTConfig, all else is its default."""
    from trl import SFTConfig, SFTTrainer, __version__  # only here: nothing else needs it installed

    config, environment = case.config, case.environment
    arguments = SFTConfig(
        output_dir=tempfile.gettempdir(), per_device_train_batch_size=config.batch_size, learning_rate=config.learning_rate,
        num_train_epochs=config.epochs, seed=config.seed, use_cpu=environment.device == "cpu", report_to="none",
        fp16=environment.dtype == "float16", save_strategy="no", logging_steps=1, disable_tqdm=True, **changes,
    )  # fmt: skip
    told = [{"prompt": build_prompt(r["text"], r["question"]), "completion": build_completion(r["answer"])} for r in case.rows]  # fmt: skip
    trainer = SFTTrainer(
        load_stock(config.model, environment), arguments, processing_class=case.tokenizer, peft_config=lora_config(config),
        train_dataset=datasets.Dataset.from_list(told), callbacks=[pause],
    )  # fmt: skip
    for row, theirs in zip(case.rows, trainer.train_dataset, strict=True):
        ours = tokenize_row(row, case.tokenizer, config)
        if any(theirs[column] != ours[column] for column in ours):
            raise ValueError(f"TRL trains on other tokens or labels than ours: {theirs}, ours are {ours}.")
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    kept = ("gradient_checkpointing", "bf16", "packing", "max_length", "loss_type", "optim")
    return {"trl": __version__} | {name: str(getattr(arguments, name)) for name in kept}


def train_stock(case: Case, pause: Pause) -> dict:
    """Train with Hugging Face's Trainer and PEFT, the model's own loss on the logits of all positions."""
    model, arguments = load_stock(case.config.model, case.environment), training_arguments(case.config, case.environment)
    tokenized = [tokenize_row(row, case.tokenizer, case.config) for row in case.rows]
    model = add_lora(model, case.config)
    trainer = Trainer(model, arguments, DataCollatorForSeq2Seq(case.tokenizer), tokenized, callbacks=[pause])
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return {"attention": model.config._attn_implementation}


def train_ours(case: Case, pause: Pause, compiled: bool = False) -> dict:
    """Train one adapter with our `fine_tune`, as a run does."""
    model, arguments = load_base(case.config.model, case.environment), training_arguments(case.config, case.environment)
    fine_tune(add_lora(model, case.config), case.tokenizer, case.rows, case.config, arguments, [pause], compiled)
    return {"attention": model.config._attn_implementation, "compiled": compiled}


def trainers_for(environment: Environment) -> dict[str, Callable]:
    """Return the table's trainers; TRL tuned has no gradient checkpointing, and bf16 autocast only where the weights are."""
    tuned = partial(train_trl, gradient_checkpointing=False, bf16=environment.dtype == "bfloat16")
    found = {"TRL, its defaults": train_trl, "TRL, tuned": tuned, STOCK: train_stock, "ours, one adapter": train_ours}
    compiled = can_compile(environment.device)
    return found | ({"ours, one adapter, compiled": partial(train_ours, compiled=True)} if compiled else {})


def bench(environment: Environment, trainers: dict[str, Callable], steps: int = STEPS) -> dict:
    """Return what each trainer took step by step and what follows from it; `times_first` compares with the first one.

    The base is loaded first: from then on the process keeps its freed memory, which speeds up stock trainers as well.
    """
    load, config = psutil.getloadavg()[0], RunConfig(environment.model, rank=2, epochs=1)
    count = (WARM_UP + steps) * config.batch_size
    data = load_qa(environment.dataset, train_rows=count)
    if len(data["train"]) < count:
        raise ValueError(f"{count} training rows are needed, {environment.dataset} has {len(data['train'])}: lower --steps.")
    case = Case(environment, load_tokenizer(config.model), data["train"], config)
    model = load_base(config.model, environment)
    labels = [tokenize_row(row, case.tokenizer, config)["labels"] for row in case.rows]
    tokens, answers = sum(map(len, labels)) / count, sum(label >= 0 for row in labels for label in row) / count
    flops, ceiling = useful_flops(model, tokens, answers), product_ceiling(model)
    turns = {name: in_turns(train, case) for name, train in trainers.items()}
    runs = {name: {"trainer": name, "ready": next(turn), "losses": [], "step_seconds": []} for name, turn in turns.items()}
    for name, turn in (WARM_UP + steps) * list(turns.items()):
        start = time.perf_counter()
        runs[name]["losses"].append(next(turn))
        runs[name]["step_seconds"].append(round(time.perf_counter() - start, 4))
    runs = [run | {"settings": next(turns[name])} for name, run in runs.items()]
    ceiling = max(ceiling, product_ceiling(model))  # the machine may have been busy before
    about = about_run(config, data, environment, model)
    return {
        "bf16_instructions": bf16_instructions(), "threads": torch.get_num_threads(), "load_before": load,
        **{key: about[key] for key in ("config", "data", "model", "environment")},
        "per_row": {"tokens": tokens, "answer_tokens": answers, "flops": flops},
        "ceiling_flops": ceiling, "ceiling_samples_per_second": ceiling / flops,
        "trainers": rated(runs, config.batch_size, ceiling / flops, about["environment"]["dtype"]),
    }  # fmt: skip


def rated(runs: list[dict], rows: int, ceiling: float, dtype: str) -> list[dict]:
    """Return the runs with their rates: `rows` of a step over the median step, beside the `ceiling` in rows/s."""
    stock = next((run for run in runs if run["trainer"] == STOCK), runs[0])["losses"]
    speeds = [rows / median(run["step_seconds"][WARM_UP:]) for run in runs]
    return [run | {
        "samples_per_second": speed, "times_first": speed / speeds[0], "of_ceiling": speed / ceiling,
        "warm_up_extra_seconds": sum(run["step_seconds"][:WARM_UP]) - WARM_UP * rows / speed,  # where compiled: compiling
        "loss_difference": max(abs(a - b) / b for a, b in zip(run["losses"], stock, strict=True)),
        "loss_tolerance": TOLERANCE["bfloat16" if run["settings"].get("bf16") == "True" else dtype],
    } for run, speed in zip(runs, speeds, strict=True)]  # fmt: skip


def useful_flops(model: PreTrainedModel, tokens: float, answers: float) -> float:
    """Return the FLOPs that a row's products with frozen weights need: 2 a weight and token forward, 2 backward.

    The head works on the answer's tokens alone. Attention and adapters are left out: shares of the ceiling are lower bounds.
    """
    head = model.get_output_embeddings()
    frozen = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head)
    return 4.0 * (frozen * tokens + head.weight.numel() * answers)


def product_ceiling(model: PreTrainedModel, rows: int = 4096, repeats: int = 20) -> float:
    """Return the FLOP/s of products with the model's widest layer on many rows, in its format: the best repeat."""
    sizes, like, best = model.config.get_text_config(), model.get_input_embeddings().weight, float("inf")
    inputs, weight = (torch.randn(n, sizes.hidden_size).to(like) for n in (rows, sizes.intermediate_size))
    for _ in range(repeats):
        start = time.perf_counter()
        F.linear(F.linear(inputs, weight), weight.T).sum().item()  # the sum waits for a GPU, and is a thousandth
        best = min(best, time.perf_counter() - start)
    return 4.0 * rows * weight.numel() / best


def bf16_instructions(cpuinfo: str | None = None) -> str:
    """Return which bfloat16 instructions this CPU has, the faster ones where it has both, else "none"."""
    found = cpuinfo or (Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else "")
    return next((flag for flag in ("amx_bf16", "avx512_bf16") if flag in found), "none")


def table(entry: dict) -> pd.DataFrame:
    """Return one row a trainer, in the units that a person reads."""
    return pd.DataFrame({
        "trainer": run["trainer"], "rows/s": round(run["samples_per_second"], 2), "× first": round(run["times_first"], 1),
        "% of ceiling": round(100 * run["of_ceiling"], 1), "final loss": round(run["losses"][-1], 3),
        "losses apart %": round(100 * run["loss_difference"], 2), "warm-up or compile s": round(run["warm_up_extra_seconds"], 1),
        "bf16": entry["bf16_instructions"],
    } for run in entry["trainers"])  # fmt: skip


def verdict(entry: dict) -> str:
    """Return in one sentence whether every trainer has the losses of the stock one at every step."""
    told = "; ".join(f"{r['trainer']} {r['loss_difference']:.2%} of {r['loss_tolerance']:.1%}" for r in entry["trainers"])
    agree = all(run["loss_difference"] <= run["loss_tolerance"] for run in entry["trainers"])
    return f"{'Equal losses' if agree else 'THE LOSSES DISAGREE, so the speeds cannot be compared'}, apart at most: {told}."


def figure(cpus: dict[str, dict]) -> Figure:
    """Return rows a second of every trainer that some entry has, a colour each kind of CPU."""
