"""What a run costs and what it can be compared with, told before it starts; no widgets, no weights."""

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from utils import paper
from utils.checkpoints import gemma_folder, tiny_llama_config, tiny_tokenizer
from utils.config import MODULE_LETTERS, RunConfig
from utils.environment import Environment
from utils.hub import hub_reachable
from utils.memory import estimate_memory, free_memory
from utils.models import attention_for, llama_3b_on_meta, load_llama3_tokenizer, load_tokenizer
from utils.panel_state import FLAGS, Settings
from utils.prompt import build_prompt
from utils.training import tokenize_row

LONGEST_PROMPT = 2048  # tokens the playground takes: ten times the longest bundled text, and still quick on a CPU
UNREACHABLE = (OSError, ImportError, ValueError, KeyError)  # what loading the description of a model raises


def facts(settings: Settings, environment: Environment, records: Iterable[dict]) -> dict[str, str]:
    """Return what follows from the settings, each fact by its name, in the words that the panel shows.

    Example: facts(settings, environment, [])["time"] -> "unknown until a first run of this model here"
    """
    config, told = settings.config, {}
    for model, label in ((config.model, config.model), ("llama-3.2-3b", "Llama 3.2 3B")):
        try:
            trainable, total = trainable_parameters(config, model)
            told[f"trainable, {label}"] = f"{trainable:,} of {total:,} ({100 * trainable / total:.4f} %)"
        except UNREACHABLE as error:
            told[f"trainable, {label}"] = f"unknown: {_first_line(error)}"
    if config.model == "llama-3.2-3b":
        told["trainable, Llama 3.2 3B"] = told.pop("trainable, llama-3.2-3b", told["trainable, Llama 3.2 3B"])
    told["published"] = "; ".join(published_rows(config)) or "none with these settings"
    if not settings.at_hand:  # fetched by the run, not while a slider moves
        return told | {"time": "unknown until the dataset is loaded", "memory": "unknown until the dataset is loaded"}
    data = settings.load_data()
    estimate = minutes(config, len(data["train"]), len(data["test"]), environment, records)
    told["time"] = (
        "unknown until a first run of this model here" if estimate is None else f"about {minutes_text(estimate)}"
    )
    try:
        need, free = memory(settings, environment)["total"], free_memory(environment)
        told["memory"] = f"about {size_text(need)}, {size_text(free)} free"
        if need > free:
            told["memory"] += ": this will hardly fit; lower the batch size, or take nf4"
    except UNREACHABLE as error:
        told["memory"] = f"unknown: {_first_line(error)}"
    return told


def trainable_parameters(config: RunConfig, model: str | None = None) -> tuple[int, int]:
    """Return how many parameters the adapter trains and how many there are in all, for `model` or the run's own.

    A projection of d × k numbers gets rank · (d + k), and with DoRA one length per output.

    Example: trainable_parameters(RunConfig("tiny-llama", rank=2), "llama-3.2-3b") -> (573440, 3213323264)
    """
    shape = shape_of(model or config.model)
    names = {MODULE_LETTERS[letter] for letter in config.target_modules}
    sizes = [m.weight.shape for name, m in shape.named_modules() if name.rsplit(".", 1)[-1] in names]
    trainable = sum(config.rank * (d + k) + (d if config.dora else 0) for d, k in sizes)
    return trainable, shape.num_parameters() + trainable


def published_rows(config: RunConfig) -> list[str]:
    """Return the rows of the paper's Tables 3, 5 and 6 that have these settings, in words; most settings have none.

    Example: published_rows(RunConfig("llama-3.2-3b", rank=2))[0] -> "Table 3: EM 0.410, F1 not held here"
    """
    if any(getattr(config, flag) for flag in FLAGS):
        return []
    grids = (
        ("Table 3", paper.table_3_grid(), paper.TABLE_3[1:]),
        ("Table 5", paper.table_5_grid(), paper.TABLE_5),
        ("Table 6", paper.table_6_grid(), paper.TABLE_6),
    )
    found = []
    for table, grid, rows in grids:
        for fields, row in zip(grid, rows, strict=True):
            same = all(getattr(config, name) == fields[name] for name in ("rank", "alpha", "learning_rate"))
            if same and set(config.target_modules) == set(fields["target_modules"]):
                scores = [f"{n.upper()} {'not held here' if row[n] is None else f'{row[n]:.3f}'}" for n in ("em", "f1")]
                found.append(f"{table}: {', '.join(scores)}")
    return found


def minutes(config: RunConfig, train_rows: int, test_rows: int, environment: Environment, records: Iterable[dict]):
    """Return the minutes a run will take, from the speed of earlier runs like it here; None until there is one.

    Like it means the same model, device, number format and quantization, and trained by itself, as it will be; the
    latest five count, by their median.

    Example: minutes(config, 78, 39, environment, records) -> 0.4
    """
    here = {"device": environment.gpu or environment.device, "dtype": environment.dtype}
    here["quantization"] = environment.quantization
    alike = [
        r for r in records
        if r["config"]["model"] == config.model and r["timing"]["samples_per_second"]
        and r["timing"].get("together", 1) == 1
        and all(r["environment"][name] == value for name, value in here.items())
    ][:5]  # fmt: skip
    if not alike:
        return None
    train = sorted(1 / r["timing"]["samples_per_second"] for r in alike)[len(alike) // 2]
    answer = sorted(r["timing"]["answer_seconds"] / r["metrics"]["n"] for r in alike)[len(alike) // 2]
    return (train_rows * config.epochs * train + test_rows * answer) / 60


def memory(settings: Settings, environment: Environment) -> dict[str, float]:
    """Return memory.estimate_memory's parts for these settings, from the model's shape alone.

    Example: memory(settings, detect("smoke"))["total"] / 2**30 -> 0.005
    """
    longest = _longest(
        replace(settings, config=RunConfig(settings.config.model, prompt_language=settings.config.prompt_language))
    )
    shape = shape_of(settings.config.model)
    shape.set_attn_implementation(attention_for(environment.device))
    parts = estimate_memory(shape, settings.config, environment, [longest])
    linear = [m for name, m in shape.named_modules() if isinstance(m, torch.nn.Linear) and name != "lm_head"]
    packed = sum(m.weight.numel() for m in linear) if settings.quantization == "nf4" else 0
    # NF4 takes half a byte a weight, and a 127th for the scales; the rest stays in the run's number format.
    weights = (shape.num_parameters() - packed) * environment.torch_dtype.itemsize + packed * (0.5 + 1 / 127)
    return parts | {"weights": weights, "total": parts["total"] - parts["weights"] + weights}


def asked_problem(text: str, question: str, config: RunConfig) -> str | None:
    """Return in a kind sentence what keeps a question from being asked, None where nothing does.

    Example: asked_problem("", "Ce?", config) -> "Paste a Romanian text first, or choose an example."
    """
    if not text.strip():
        return "Paste a Romanian text first, or choose an example."
    if not question.strip():
        return "Write a question about the text."
    tokens = len(_tokenizer(config.model)(build_prompt(text, question, config.prompt_language)).input_ids)
    limit = min(LONGEST_PROMPT, shape_of(config.model).config.max_position_embeddings - config.max_new_tokens)
    if tokens > limit:
        over = 100 * (tokens - limit) // tokens + 1
        return f"This is {tokens:,} tokens, and {limit:,} is the limit here. Please shorten the text by about {over} %."
    return None


@lru_cache(maxsize=8)
def shape_of(model: str) -> PreTrainedModel:
    """Return the model's architecture without weights (meta device); nothing but its description is read.

    Example: shape_of("tiny-llama").num_parameters() -> 137664
    """
    if model == "llama-3.2-3b":
        return llama_3b_on_meta()
    if model == "tiny-llama":
        config = tiny_llama_config(tiny_tokenizer())
    else:
        place = gemma_folder() if model == "gemma-3-270m" else model
        config = AutoConfig.from_pretrained(place, local_files_only=model == "gemma-3-270m" or not hub_reachable())
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


def minutes_text(value: float) -> str:
    """Return minutes as a person says them.

    Example: minutes_text(0.2) -> "12 s"
    """
    return f"{60 * value:.0f} s" if value < 1.5 else f"{value:.0f} min" if value < 90 else f"{value / 60:.1f} h"


def size_text(size: float) -> str:
    """Return bytes as a person says them.

    Example: size_text(3 * 2**20) -> "3 MiB"
    """
    return f"{size / 2**30:.1f} GiB" if size >= 0.1 * 2**30 else f"{size / 2**20:.0f} MiB"


@lru_cache(maxsize=4)
def _tokenizer(model: str):
    return load_llama3_tokenizer() if model == "llama-3.2-3b" else load_tokenizer(model)


@lru_cache(maxsize=32)
def _longest(settings: Settings) -> int:
    tokenizer = _tokenizer(settings.config.model)
    return max(len(tokenize_row(row, tokenizer, settings.config)["input_ids"]) for row in settings.load_data()["train"])


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
