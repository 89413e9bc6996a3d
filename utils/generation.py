"""Greedy answers in batches, each row stopped at its first newline."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from datasets import Dataset
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from utils.config import RunConfig
from utils.failures import failure_kind
from utils.prompt import build_prompt, extract_answer


@dataclass(frozen=True)
class Prediction:
    """One answered row: what was asked, what the model wrote, and the answer taken out of it."""

    index: int
    question: str
    reference: str
    generation: str
    """The new text as it came, end token removed."""
    answer: str | None
    """The text before the first newline, None where there is none."""
    references: list[str]
    """Every accepted answer, the reference among them."""
    failure: str | None
    """What is wrong with the answer (failures.KINDS), None where it is right."""
    prompt_tokens: int
    """Length of the prompt, which is never cut."""

    def as_dict(self) -> dict:
        """Return the fields as a record keeps them."""
        return asdict(self)


@lru_cache(maxsize=4)  # it reads the whole vocabulary: once per tokenizer, not once per run
def stop_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Return the ids that end an answer: the end token and every token whose text contains a newline.

    Example: len(stop_ids(load_tokenizer("gemma-3-270m"))) -> 34, thirty-three newline tokens and the end token
    """
    texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
    newline = [i for i, text in enumerate(texts) if "\n" in text]
    return sorted({tokenizer.eos_token_id, *newline})


def generate_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    rows: Dataset | list[dict],
    config: RunConfig,
    examples: Sequence[dict] = (),
) -> list[Prediction]:
    """Return the model's greedy answer to every row, in the rows' order.

    Rows are sorted by length and padded on the left, config.eval_batch_tokens at a time; each stops at a newline, at
    the end token or after config.max_new_tokens. `examples`, solved rows, stand before every question. Out of memory
    answers fewer rows at once from there on.

    Example: generate_answers(model, tokenizer, data["test"], config)[0].answer -> "1872"
    """
    return generate_together(model, tokenizer, rows, [config], [examples])[0]


def generate_together(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    rows: Dataset | list[dict],
    configs: Sequence[RunConfig],
    examples: Sequence[Sequence[dict]],
) -> list[list[Prediction]]:
    """Return what `generate_answers` returns, for each adapter of a fused model in one pass.

    `configs` and `examples` have an entry for each adapter, in the model's order. A batch holds the same rows for each.

    Example: generate_together(fused.model, tokenizer, data["test"], fused.configs, [()] * 11)[10][0].answer -> "1872"
    """
    rows = list(rows)
    prompts = [
        [tokenizer(build_prompt(row["text"], row["question"], config.prompt_language, shown)).input_ids for row in rows]
        for config, shown in zip(configs, examples, strict=True)
    ]
    found = []
    for asked, texts in zip(prompts, _generate(model, tokenizer, prompts, configs[0]), strict=True):
        predictions = []
        for i, (row, text) in enumerate(zip(rows, texts, strict=True)):
            answer, references = extract_answer(text), row.get("answers") or [row["answer"]]
            failure = failure_kind(answer, references, row["text"])
            predictions.append(
                Prediction(i, row["question"], row["answer"], text, answer, references, failure, len(asked[i]))
            )
        found.append(predictions)
    return found


@torch.inference_mode()
def _generate(model, tokenizer, prompts: list[list[list[int]]], config: RunConfig) -> list[list[str]]:
    lengths = [max(len(asked[i]) for asked in prompts) for i in range(len(prompts[0]))]
    order = sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True)
    settings = GenerationConfig(
        max_new_tokens=config.max_new_tokens, do_sample=False, eos_token_id=stop_ids(tokenizer),
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
    )  # fmt: skip
    texts, budget = [[""] * len(lengths) for _ in prompts], config.eval_batch_tokens
    while order:
        size = max(1, budget // lengths[order[0]])
        batch = order[:size]
        together = {"input_ids": [asked[i] for asked in prompts for i in batch]}  # one adapter's rows after the other's
        padded = tokenizer.pad(together, padding_side="left", return_tensors="pt")
        try:
            output = model.generate(**padded.to(model.device), generation_config=settings)
        except RuntimeError as error:
            if len(batch) == 1 or not should_reduce_batch_size(error):
                raise
            budget = len(batch) // 2 * lengths[order[0]]
            print(f"Out of memory: answering {len(batch) // 2} rows at once.")
            clear_device_cache(garbage_collection=True)
            continue
        new = tokenizer.batch_decode(output[:, padded.input_ids.shape[1] :], skip_special_tokens=True)
        for at, text in enumerate(new):
            texts[at // len(batch)][batch[at % len(batch)]] = text
        order = order[size:]
    return texts
