"""`make bench`: our training beside stock trainers, in turns on the same rows; rows/s, and the share of what this CPU allows."""

import json
import os
import tempfile
import time
import timeit
from collections import namedtuple
from functools import partial
from pathlib import Path
from statistics import mean, median

import datasets
import pandas as pd
import torch
from transformers import DataCollatorForSeq2Seq, PreTrainedModel, Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from transformers.utils.logging import disable_progress_bar

from utils.config import RunConfig
from utils.data import load_qa
from utils.environment import ROOT, Environment, bf16_instructions, detect, prepare
from utils.experiments import fine_tune, tokenize_row, training_arguments
from utils.experiments.record import about_run
from utils.models.adapter import add_lora, lora_config
from utils.models.base import load_base, load_stock, load_tokenizer
from utils.models.cpu import can_compile
from utils.prompt import build_completion, build_prompt

try:
    import greenlet  # the trainers take turns by it; make bench installs it
except ImportError:  # make gpu-check borrows from here what needs none
    greenlet = None

WARM_UP, STEPS = 3, 20  # the first steps allocate and compile; a median of fewer than 20 moves with the rows' lengths
# Of a loss, at any step, for rounding: in float32 1e-5 was seen, in bfloat16 (8 bits, a mean over 25 answer tokens) 1.1 %.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.02, "float16": 0.02}
STOCK = "HF Trainer, all logits"  # whose losses the others must have: the model's own, in the format of its weights
Case = namedtuple("Case", "environment config tokenizer rows tokenized")  # what every trainer is given


class Pause(TrainerCallback):
    """Stand still when all is ready and after each step (a greenlet: threads have OpenMP workers and a heap of their own)."""

    def on_train_begin(self, *args, **kwargs):
        greenlet.getcurrent().parent.switch(None)

    def on_log(self, *args, logs, **kwargs):
        if "loss" in logs:
            greenlet.getcurrent().parent.switch(logs["loss"])


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
        load_stock(config.model, environment), arguments, train_dataset=datasets.Dataset.from_list(told),
        processing_class=case.tokenizer, peft_config=lora_config(config), callbacks=[pause],
    )  # fmt: skip
    for ours, theirs in zip(case.tokenized, trainer.train_dataset, strict=True):
        if any(theirs[column] != ours[column] for column in ours):
            raise ValueError(f"TRL trains on other tokens or labels than ours: {theirs}, ours are {ours}.")
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return {"trl": __version__} | {n: str(getattr(arguments, n)) for n in ("gradient_checkpointing", "bf16", "optim")}


def train_stock(case: Case, pause: Pause) -> dict:
    """Train with Hugging Face's Trainer and PEFT, the model's own loss on the logits of all positions."""
    model = add_lora(load_stock(case.config.model, case.environment), case.config)
    arguments, collator = training_arguments(case.config, case.environment), DataCollatorForSeq2Seq(case.tokenizer)
    trainer = Trainer(model, arguments, collator, case.tokenized, callbacks=[pause])
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return {"attention": model.config._attn_implementation}


def train_ours(case: Case, pause: Pause, compiled: bool = False) -> dict:
    """Train one adapter with our `fine_tune`, as a run does."""
    model, arguments = load_base(case.config.model, case.environment), training_arguments(case.config, case.environment)
    fine_tune(add_lora(model, case.config), case.tokenizer, case.rows, case.config, arguments, [pause], compiled)
    return {"attention": model.config._attn_implementation, "compiled": compiled}


def trainers_for(environment: Environment) -> dict:
    """Return the table's trainers; TRL tuned keeps its activations, and autocasts only where the weights are bfloat16."""
    tuned = partial(train_trl, gradient_checkpointing=False, bf16=environment.dtype == "bfloat16")
    found = {"TRL, its defaults": train_trl, "TRL, tuned": tuned, STOCK: train_stock, "ours, one adapter": train_ours}
    compiled = {"ours, one adapter, compiled": partial(train_ours, compiled=True)}
    return found | compiled if can_compile(environment.device) else found


def bench(environment: Environment, trainers: dict, steps: int = STEPS) -> dict:
    """Return what each trainer took step by step, and what follows from it, as JSON can hold it."""
    load, config = os.getloadavg()[0], RunConfig(environment.model, rank=2, epochs=1)
    data = load_qa(environment.dataset, train_rows=(WARM_UP + steps) * config.batch_size)
    tokenizer, rows = load_tokenizer(config.model), data["train"]
    case = Case(environment, config, tokenizer, rows, [tokenize_row(row, tokenizer, config) for row in rows])
    model = load_base(config.model, environment)  # first: the process now keeps freed memory, which speeds up all
    labels = [row["labels"] for row in case.tokenized]
    work = {"tokens": mean(map(len, labels)), "answer_tokens": mean(sum(n >= 0 for n in row) for row in labels)}
    work["flops"], ceiling = useful_flops(model, *work.values()), product_ceiling(model)
    turns = {name: greenlet.greenlet(partial(train, case, Pause())) for name, train in trainers.items()}
    for turn in turns.values():
        turn.switch()  # to where its training begins
    runs = {name: {"trainer": name, "losses": [], "step_seconds": []} for name in trainers}
    for name in (WARM_UP + steps) * list(trainers):
        start = time.perf_counter()
        runs[name]["losses"].append(turns[name].switch())
        runs[name]["step_seconds"].append(round(time.perf_counter() - start, 4))
    runs = [run | {"settings": turns[name].switch()} for name, run in runs.items()]
    ceiling, about = max(ceiling, product_ceiling(model)), about_run(config, data, environment, model)
    return {
        "bf16_instructions": bf16_instructions(), "threads": torch.get_num_threads(), "load_before": load,
        **{key: about[key] for key in ("config", "data", "model", "environment")}, "per_row": work,
        "ceiling_flops": ceiling, "ceiling_samples_per_second": ceiling / work["flops"],
        "trainers": rated(runs, config.batch_size, ceiling / work["flops"], about["environment"]["dtype"]),
    }  # fmt: skip


def rated(runs: list[dict], rows: int, ceiling: float, dtype: str) -> list[dict]:
    """Return the runs with their rates: the `rows` of a step over its median seconds; the ceiling is in rows/s."""
    stock = next((run for run in runs if run["trainer"] == STOCK), runs[0])["losses"]
    speeds = [rows / median(run["step_seconds"][WARM_UP:]) for run in runs]
    return [run | {
        "samples_per_second": speed, "times_first": speed / speeds[0], "of_ceiling": speed / ceiling,
        "warm_up_extra_seconds": sum(run["step_seconds"][:WARM_UP]) - WARM_UP * rows / speed,  # where compiled: compiling
        "loss_difference": max(abs(a - b) / b for a, b in zip(run["losses"], stock, strict=True)),
        "loss_tolerance": TOLERANCE["bfloat16" if run["settings"].get("bf16") == "True" else dtype],
    } for run, speed in zip(runs, speeds, strict=True)]  # fmt: skip


def useful_flops(model: PreTrainedModel, tokens: float, answers: float) -> float:
    """Return a row's FLOPs in products with frozen weights: 2 a weight and token forward, 2 backward; the head's on answers."""
    head = model.get_output_embeddings()
    frozen = sum(m.in_features * m.out_features for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head)  # fmt: skip
    return 4.0 * (frozen * tokens + head.in_features * head.out_features * answers)


def product_ceiling(model: PreTrainedModel, rows: int = 4096, repeats: int = 20) -> float:
    """Return the FLOP/s of products with the shape of the model's widest layer, there and back, in its format: the best."""
    sizes, like = model.config.get_text_config(), model.get_input_embeddings().weight
    inputs, weight = (torch.randn(n, sizes.hidden_size).to(like) for n in (rows, sizes.intermediate_size))
    best = min(timeit.repeat(lambda: (inputs @ weight.T @ weight)[0, 0].item(), number=1, repeat=repeats))
    return 4.0 * rows * weight.numel() / best


def table(entry: dict) -> pd.DataFrame:
    """Return one row a trainer, in the units that a person reads."""
    return pd.DataFrame({
        "trainer": run["trainer"], "rows/s": round(run["samples_per_second"], 2), "× first": round(run["times_first"], 1),
        "% of ceiling": round(100 * run["of_ceiling"], 1), "bf16": entry["bf16_instructions"],
        "compile s": round(run["warm_up_extra_seconds"], 1) if run["settings"].get("compiled") else "–",
        "losses apart": f"{run['loss_difference']:.2%}", "final loss": round(run["losses"][-1], 3),
    } for run in entry["trainers"])  # fmt: skip


def verdict(entry: dict) -> str:
    """Return in one sentence whether every trainer has the stock one's losses, but for what rounding explains."""
    off = [run["trainer"] for run in entry["trainers"] if run["loss_difference"] > run["loss_tolerance"]]
    return f"THE LOSSES DISAGREE, so compare no speeds: {', '.join(off)}." if off else "Equal losses at every step."


def keep(kind: str, entry: dict, path: Path) -> None:
    """Write the entry beside those of other kinds of CPU, in the place of its own kind's."""
    cpus = json.loads(path.read_text(encoding="utf-8"))["cpus"] if path.exists() else {}
    path.write_text(json.dumps({"cpus": cpus | {kind: entry}}, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def main() -> None:
    """Time every trainer, print the table, keep the entry; the smoke profile only proves the wiring."""
    prepare()
    datasets.disable_progress_bars()
    disable_progress_bar()
    environment = detect()
    steps = 4 if environment.profile == "smoke" else STEPS
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache  # what was compiled before would hide the compile seconds
        entry = bench(environment, trainers_for(environment), steps)
    kind = environment.gpu or f"{entry['bf16_instructions'].replace('none', 'no bf16')}, {entry['threads']} cores"
    print(f"{environment.model} in {entry['environment']['dtype']}, {kind}; load before {entry['load_before']:.1f}")
    print(f"Products: {entry['ceiling_flops'] / 1e9:.0f} GFLOP/s, or {entry['ceiling_samples_per_second']:.1f} rows/s")
    print(f"\n{table(entry).to_string(index=False)}\n\n{verdict(entry)}")
    if steps == STEPS:
        keep(kind, entry, ROOT / "figures" / "reference" / "bench.json")
    raise SystemExit(verdict(entry).startswith("THE"))


if __name__ == "__main__":
    main()
