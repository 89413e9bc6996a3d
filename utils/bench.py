"""How fast training is here beside stock trainers, what share of the machine it uses, and how its cost grows.

`make bench` runs it. The ratios are the claim, not the seconds: another machine has other seconds.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import datasets
import torch
import torch.nn.functional as F
from torch.utils.benchmark import Timer
from transformers import PreTrainedModel

from utils.bench_report import title
from utils.bench_trainers import (
    WARM_UP,
    Case,
    measure,
    tokenized,
    train_fused,
    train_plain,
    train_sequential,
    train_trl,
)
from utils.config import RunConfig
from utils.data import load_qa
from utils.environment import Environment
from utils.models import load_base, load_tokenizer
from utils.recording import about_run
from utils.training import IGNORED

TOGETHER = 11  # adapters: the different ones of the paper's tables
STOCK = {
    "TRL, its defaults": train_trl,
    "TRL, tuned": partial(train_trl, gradient_checkpointing=False),
    "HF Trainer, all logits": train_plain,
}
OURS = {
    "ours, one adapter": train_sequential,
    f"ours, {TOGETHER} adapters together": partial(train_fused, adapters=TOGETHER),
    f"ours, {TOGETHER} together, compiled": partial(train_fused, adapters=TOGETHER, compiled=True),
}
GROWTH = {"rows": (1, 2, 4), "adapters": (1, 2, 4, 8, 12), "rank": (1, 2, 4, 8, 16, 32)}
QUIET = 0.05  # of the processors; what a machine does by itself stays below
# Of a loss, at any step. In float32 the trainers agree to 1e-5 (Gemma 3 270M, bundled rows). bfloat16 keeps 8 bits: a logit
# near 16 is rounded by up to 0.03, and a step's loss is the mean over some 25 answer tokens; 1.1 % was seen.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.02, "float16": 0.02}


def bench(
    environment: Environment,
    rows: int = 24,
    trainers: dict[str, Callable] | None = None,
    growth: dict[str, tuple] | None = None,
    say: Callable[[str], None] = print,
) -> dict:
    """Time every trainer on the same rows, the growth of our cost after them, and return it all as JSON can hold it.

    `rows` are counted, one more batch warms up. The first trainer is the one that the others are compared with.

    Example: bench(detect("demo"), rows=8, growth={})["trainers"][0]["samples_per_second"]
    """
    datasets.disable_progress_bars()
    trainers, growth = STOCK | OURS if trainers is None else trainers, GROWTH if growth is None else growth
    config = RunConfig(environment.model, rank=2, epochs=1)
    tokenizer = load_tokenizer(config.model)

    def case(times: int = 1, rank: int = 2) -> Case:
        count = times * rows + WARM_UP * config.batch_size
        data = load_qa(environment.dataset, train_rows=count)["train"]
        if len(data) < count:
            raise ValueError(f"{environment.dataset} has {len(data)} training rows, {count} are needed: lower --rows.")
        return Case(environment, tokenizer, data, replace(config, rank=rank, alpha=4 * rank))

    def timed(name: str, trainer: Callable, given: Case) -> dict:
        found = measure(name, trainer, given)
        busy = (
            f" (other programs took {found['others_cpu']:.0%} of the processors)" if found["others_cpu"] > QUIET else ""
        )
        say(f"{name}: {found['samples'] / found['seconds']:.2f} samples/s{busy}")
        return found

    once = case()
    # The stock trainers come first: from load_base on, this process keeps its freed memory, which speeds them up as well.
    measured = [timed(name, trainer, once) for name, trainer in trainers.items()]
    model = load_base(config.model, environment)
    examples = tokenized(once)
    tokens = sum(len(e["input_ids"]) for e in examples) / len(examples)
    answers = sum(label != IGNORED for e in examples for label in e["labels"]) / len(examples)
    work = {"tokens": tokens, "answer_tokens": answers, "flops": useful_flops(model, tokens, answers)}
    ceiling = gemm_ceiling(model)
    data = load_qa(environment.dataset, train_rows=len(once.rows))
    about = about_run(config, data, environment, model) | {"threads": torch.get_num_threads()}
    del model
    say(f"{title(about)}\nMatrix products reach {ceiling / 1e12:.2f} TFLOP/s here.")

    grown = {
        "rows": (lambda n: (train_sequential, case(times=n))),
        "adapters": (lambda n: (partial(train_fused, adapters=n), once)),
        "rank": (lambda n: (train_sequential, case(rank=n))),
    }
    found = [
        timed(f"growth, {what} {'x' if what == 'rows' else ''}{n}", *grown[what](n)) | {"grows": what, "to": n}
        for what, values in growth.items() for n in values
    ]  # fmt: skip
    ceiling = max(ceiling, gemm_ceiling(load_base(config.model, environment)))  # the machine may have been busy before
    return {
        **{key: about[key] for key in ("config", "data", "model", "environment", "threads")},
        "rows": rows,
        "per_row": work,
        "ceiling_flops": ceiling,
        "loss_tolerance": TOLERANCE[environment.dtype],
        "trainers": rated(measured, work, ceiling),
        "growth": found,
    }


def rated(measured: list[dict], work: dict, ceiling: float) -> list[dict]:
    """Return what was measured with what follows from it: rates, ratio to the first trainer, share of the ceiling.

    `work` is a row's, on average over the rows: tokens and useful FLOPs. The loss of a trainer differs from the first
    one's by at most `loss_difference` at any step, as a share.

    Example: rated([{"trainer": "TRL", "samples": 24, "seconds": 12.0, "losses": [3.0]}], {"tokens": 90.0, "flops": 1e9}, 1e10)[0]["of_ceiling"] -> 0.2
    """
    first = measured[0] if measured else {}
    rates = []
    for m in measured:
        pace = m["samples"] / m["seconds"]
        if len(m["losses"]) != len(first["losses"]):
            raise ValueError(
                f"{m['trainer']} took {len(m['losses'])} steps, {first['trainer']} {len(first['losses'])}."
            )
        pairs = zip(m["losses"], first["losses"], strict=True)
        rates.append(m | {
            "samples_per_second": pace,
            "tokens_per_second": pace * work["tokens"],
            "times_first": pace / (first["samples"] / first["seconds"]),
            "of_ceiling": pace * work["flops"] / ceiling,
            "final_loss": m["losses"][-1],
            "loss_difference": max(abs(a - b) / b for a, b in pairs),
        })  # fmt: skip
    return rates


def useful_flops(model: PreTrainedModel, tokens: float, answers: float) -> float:
    """Return the FLOPs that a training step cannot do without: 2 a weight and token forward, 2 backward.

    Every frozen linear layer works on all tokens, the head on the answers' alone; a frozen weight has no gradient of its own.
    Attention's own products, the adapters and everything else are left out, so the share of the ceiling is a lower bound.

    Example: useful_flops(load_base("gemma-3-270m", detect()), 107, 6) / 1e9 -> 47.1
    """
    head = model.get_output_embeddings()
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    frozen = sum(layer.in_features * layer.out_features for layer in layers)
    return 4.0 * (frozen * tokens + head.in_features * head.out_features * answers)


def gemm_ceiling(model: PreTrainedModel, rows: int = 4096, repeats: int = 10) -> float:
    """Return the FLOP/s of the model's own widest layer's shape on many rows, both ways, the best of the repeats.

    Example: gemm_ceiling(load_base("gemma-3-270m", detect())) / 1e12 -> 1.9
    """
    sizes, like = model.config.get_text_config(), model.get_input_embeddings().weight
    best = 0.0
    for wide, high in ((sizes.hidden_size, sizes.intermediate_size), (sizes.intermediate_size, sizes.hidden_size)):
        inputs = torch.randn(rows, wide, dtype=like.dtype, device=like.device)
        weight = torch.randn(high, wide, dtype=like.dtype, device=like.device)
        names = {"linear": F.linear, "inputs": inputs, "weight": weight}
        timer = Timer("linear(inputs, weight)", globals=names, num_threads=torch.get_num_threads())
        seconds = min(timer.timeit(3).mean for _ in range(repeats))
        best = max(best, 2 * rows * wide * high / seconds)
    return best
