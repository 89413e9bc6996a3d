"""`make gpu-check`: this series, and Llama 3.2 3B's shape, on this machine's GPU; nine minutes at most, no download.

The weights are random: they take the time and the memory of real ones. What was measured goes to
figures/reference/gpu-<device>.json. Without CUDA there is nothing to check: one sentence, and exit code 0.
"""

import gc
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean, median

import nbformat
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, PretrainedConfig, TrainerCallback
from transformers.utils.logging import disable_progress_bar

from tests.benchmark import Case, product_ceiling, trainers_for, useful_flops
from utils.config import RunConfig
from utils.data import load_qa
from utils.environment import ROOT, Environment, detect, prepare
from utils.experiments import fine_tune, generate_answers, tokenize_row, training_arguments
from utils.experiments.generation import TOKEN_BUDGET
from utils.experiments.record import about_run
from utils.models import add_lora, held_base, llama_3b_on_meta, release_base, remove_lora
from utils.models.embedded import tiny_tokenizer

SECONDS, LEAST, LONGEST = 510, 45, 60  # of the whole; no part begins with less; no training takes longer
BATCHES = (4, 8, 24, 44)  # a run's own is 4; 44 bounds what fusing eleven runs could gain
BUDGETS = (4_096, TOKEN_BUDGET["cuda"], 65_536)  # prompt tokens answered at once
WAYS = (False, True)  # as written, and compiled
WARM_UP, STEPS = 2, 6  # the first steps allocate and compile
TOKENS, NEW_TOKENS = 108, 8  # a row in Llama 3's tokens; an answer of about five tokens, and its end
TRAIN_ROWS, TEST_ROWS, T4_BYTES = 600 * 3, 200, 15 * 2**30  # rows: one run of the full profile, three epochs
RUNS = {"02_fine_tuning": (1, 1), "03_rank_sweep": (1, 6), "04_target_module_sweep": (0, 5)}  # base model, adapters


class Clock(TrainerCallback):
    """Keep the seconds of every step; a training whose time is over ends after its step."""

    def __init__(self, seconds: float):
        self.ends, self.steps = time.monotonic() + seconds, []

    def on_train_begin(self, *args, **kwargs):
        self.steps = []  # where memory ran out, fine_tune begins anew with smaller batches

    def on_step_begin(self, *args, **kwargs):
        self.begun = now()

    def on_step_end(self, args, state, control, **kwargs):
        self.steps.append(now() - self.begun)
        control.should_training_stop |= time.monotonic() > self.ends


def now() -> float:
    """Return the time in seconds, once the GPU has done what it was given."""
    return (torch.cuda.is_available() and torch.cuda.synchronize()) or time.perf_counter()


class Parts:
    """The parts by name, each tried on its own: what it measured, its error's text, or that no time was left."""

    def __init__(self, seconds: float):
        self.begun, self.seconds, self.done = time.monotonic(), seconds, {}

    def attempt(self, name: str, part: Callable[[float], dict]) -> dict:
        """Do a part, which is told its seconds; print and keep what came of it."""
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        left = self.begun + self.seconds - (start := time.monotonic())
        try:
            found = part(left - LEAST / 2) if left >= LEAST else {"skipped": f"{max(left, 0):.0f} s were left"}
        except Exception as error:  # out of memory, a missing package, too slow: the rest goes on
            first = (str(error).strip() or "no message").splitlines()[0].replace(tempfile.gettempdir(), "")
            found = {"error": f"{type(error).__name__}: {first}"}
        if torch.cuda.is_available():
            found["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        self.done[name] = found | {"part_seconds": time.monotonic() - start}
        print(name, *(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in found.items()), sep=", ", flush=True)  # fmt: skip
        return found


def smoke(seconds: float) -> dict:
    """Run the six notebooks in the smoke profile, in a folder of their own."""
    with tempfile.TemporaryDirectory() as runs:
        command, told = (
            [sys.executable, "-m", "utils", "reproduce"],
            {"PROFILE": "smoke", "RUNS": runs, "HF_HUB_OFFLINE": "1"},
        )
        done = subprocess.run(command, cwd=ROOT, env=os.environ | told, capture_output=True, text=True, timeout=min(seconds, 240))  # fmt: skip
        if done.returncode:
            raise RuntimeError(next((s for s in done.stdout.splitlines() if "failed" in s), done.stderr[-300:]))
        return {"records": len(list(Path(runs, "smoke", "records").glob("*.json")))}


def write_random(folder: Path, shape: PretrainedConfig, device: str, _seconds: float) -> dict:
    """Write a model of this shape with small random weights, and a tokenizer, as load_base reads them from a folder."""
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(shape, dtype=torch.bfloat16)
    for part in (model, tiny_tokenizer()):
        part.save_pretrained(folder)
    return {"parameters": model.num_parameters()}


def cut_rows(rows: Dataset, tokenizer) -> list[dict]:
    """Return the rows with their texts cut: about TOKENS each, with question and answer."""
    cut = []
    for row in rows:
        other = len(tokenize_row(row | {"text": ""}, tokenizer, RunConfig("any"))["labels"])
        kept = tokenizer(row["text"], add_special_tokens=False).input_ids[: max(1, TOKENS - other)]
        cut.append(row | {"text": tokenizer.decode(kept)})
    return cut


def products(case: Case, _seconds: float) -> dict:
    """Return the best FLOP/s of large products in the model's format, and a row's FLOPs with a frozen base."""
    labels = [tokenize_row(row, case.tokenizer, case.config)["labels"] for row in case.rows]
    tokens, answers = mean(map(len, labels)), mean(sum(n >= 0 for n in row) for row in labels)
    model = held_base(case.config.model, case.environment)[0]
    return {"flops": product_ceiling(model), "flops_a_row": useful_flops(model, tokens, answers), "tokens_a_row": tokens}  # fmt: skip


def train(case: Case, batch: int, how: bool | Callable, ceiling: dict, seconds: float) -> dict:
    """Return what a step takes by the project's fine_tune, `how` saying whether compiled, or by another trainer."""
    config, rows = replace(case.config, batch_size=batch), case.rows[: (WARM_UP + STEPS) * batch]
    tokenized, clock = [tokenize_row(row, case.tokenizer, config) for row in rows], Clock(min(seconds, LONGEST))
    if callable(how):
        release_base()  # it loads one of its own
        about = {"settings": how(case._replace(config=config, rows=rows, tokenized=tokenized), clock)}
    else:
        adapted, arguments = add_lora(held_base(config.model, case.environment)[0], config), training_arguments(config, case.environment)  # fmt: skip
        try:
            result = fine_tune(adapted, case.tokenizer, rows, config, arguments, [clock], how)
            about = {"rows_at_once": result.batch_size}  # fewer than the batch where memory ran out
        except FloatingPointError as error:
            if not clock.steps:
                raise
            about = {
                "warning": str(error)
            }  # gradient scaling skipped too many of so few steps, which took their time all the same
        finally:
            remove_lora(adapted)
    speed = batch / median(clock.steps[WARM_UP:] or clock.steps)
    if "flops" in ceiling:
        about["of_ceiling"] = speed * ceiling["flops_a_row"] / ceiling["flops"]
    about |= {"steps": len(clock.steps), "warm_up_seconds": sum(clock.steps[:WARM_UP])}
    return {"step_seconds": batch / speed, "rows_per_second": speed, **about}


def answer(case: Case, budget: int, _seconds: float) -> dict:
    """Return how many questions a second are answered with so many prompt tokens at once."""
    model, tokenizer = held_base(case.config.model, case.environment)
    device, rows = model.device.type, case.rows[:TEST_ROWS]
    before, TOKEN_BUDGET[device] = TOKEN_BUDGET[device], budget
    try:
        generate_answers(model, tokenizer, rows[:1], case.config)
        start = now()
        generate_answers(model, tokenizer, rows, case.config)
        return {"rows_per_second": len(rows) / (now() - start)}
    finally:
        TOKEN_BUDGET[device] = before


def check(environment: Environment, shape: PretrainedConfig, first: Callable = smoke, seconds: float = SECONDS) -> dict:
    """Return the figures of every part: the series by `first`, then this shape in each number format."""
    parts, data, tokenizer = Parts(seconds), load_qa("bundled"), tiny_tokenizer()
    needed, own = max(TEST_ROWS, (WARM_UP + STEPS) * max(BATCHES)), environment.dtype
    rows = cut_rows(data["train"].select(range(needed)), tokenizer)

    def measure(name: str, dtype: str, quantization: str = "none", ways=WAYS, trl: bool = False) -> None:
        there = replace(environment, dtype=dtype, quantization=quantization)
        case = Case(there, RunConfig(folder, 2, epochs=1, max_new_tokens=NEW_TOKENS), tokenizer, rows, None)
        ceiling = parts.attempt(f"products, {name}", partial(products, case))
        for budget in BUDGETS:
            parts.attempt(f"answer, {name}, budget {budget}", partial(answer, case, budget))
        for compiled in ways:
            for batch in BATCHES:
                title = f"train, {name}, batch {batch}{', compiled' * compiled}"
                parts.attempt(title, partial(train, case, batch, compiled, ceiling))
        for label, trainer in trainers_for(there).items():
            if trl and label.startswith("TRL"):
                parts.attempt(f"{label}, {name}, batch 4", partial(train, case, 4, trainer, ceiling))
        release_base()

    parts.attempt("smoke series", first)
    with tempfile.TemporaryDirectory() as folder:
        parts.attempt("random weights", partial(write_random, Path(folder), shape, environment.device))
        measure(own, own, trl=True)
        if environment.device == "cuda" and (held := torch.cuda.get_device_properties(0).total_memory) > T4_BYTES:
            torch.cuda.set_per_process_memory_fraction(T4_BYTES / held)
            measure("float16 in 15 GiB", "float16", ways=(False,))
            torch.cuda.set_per_process_memory_fraction(1.0)
        measure("nf4", own, "nf4")
        measure(other := "bfloat16" if own == "float16" else "float16", other)
    about = about_run(RunConfig("tiny-llama", None), data, environment, llama_3b_on_meta())["environment"]
    device = (environment.gpu or environment.device).split(",")[0]
    return {"device": device, "environment": about, "seconds": time.monotonic() - parts.begun, "parts": parts.done}


def stale(entry: dict, root: Path = ROOT) -> list[str]:
    """Return what headers and README still estimate for a device that was measured, each with what belongs there."""
    parts, dtype = entry["parts"], entry["environment"]["dtype"]
    column = next((name for name in ("T4", "A100") if name in entry["device"]), None)
    step, asked = parts.get(f"train, {dtype}, batch 4", {}), parts.get(f"answer, {dtype}, budget {BUDGETS[1]}", {})
    if column is None or "rows_per_second" not in step or "rows_per_second" not in asked:
        return []
    found, memory = [], max(step["peak_gib"], asked["peak_gib"])
    answering, training = TEST_ROWS / asked["rows_per_second"] / 60, TRAIN_ROWS / step["rows_per_second"] / 60
    for stem, (base, adapted) in RUNS.items():
        header = nbformat.read(root / "notebooks" / f"{stem}.ipynb", as_version=4).cells[0].source
        table = [[cell.strip() for cell in line.split("|")] for line in header.splitlines() if line.startswith("|")]
        if any("(estimated)" in row[table[0].index(column)] for row in table):
            minutes = base * answering + adapted * (answering + training)
            found.append(f"{stem}, {column}: {minutes:.1f} min, {memory:.1f} GiB (from measured steps)")
    if any("Estimated" in some and column in some for some in (root / "README.md").read_text("utf-8").split("\n\n")):
        found.append(
            f"README.md, {column}: a run {answering + training:.1f} min, {memory:.1f} GiB (from measured steps)"
        )
    return found


def main() -> None:
    """Check this machine's GPU, write the file, and print which headers it makes out of date."""
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # one GPU: Trainer would share a batch among several
    if not torch.cuda.is_available():
        return print("No CUDA here: make gpu-check measures a GPU, and torch sees none on this machine.")
    prepare()
    disable_progress_bar()
    entry = check(detect("smoke"), llama_3b_on_meta().config)
    name = re.sub(r"[^a-z0-9]+", "-", entry["device"].lower()).strip("-")
    path = ROOT / "figures" / "reference" / f"gpu-{name}.json"
    path.write_text(json.dumps(entry, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print(f"{entry['seconds']:.0f} s, written to {path.relative_to(ROOT)}.", *stale(entry), sep="\n")


if __name__ == "__main__":
    main()
