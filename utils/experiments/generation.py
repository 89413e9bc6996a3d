"""Rows and a model in, answers out: greedy unless told otherwise, in batches, each row stopped at its first newline."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from accelerate.utils.memory import clear_device_cache
from datasets import Dataset
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from utils.config import RunConfig
from utils.environment import FORMAT_ADVICE
from utils.experiments.training import is_out_of_memory
from utils.prompt import build_prompt, extract_answer

# Prompt tokens answered at once, padding counted: what fits a T4 beside Llama 3.2 3B, and what a CPU's cache likes.
TOKEN_BUDGET = {"cuda": 16_384, "cpu": 2_048}


@dataclass(frozen=True)
class Prediction:
    """One answered row: what was asked, what the model wrote, and the answer taken out of it."""

    index: int
    question: str
    references: list[str]  # every accepted answer, the row's own first
    generation: str  # the new text as it came, end token removed
    answer: str | None  # the text before the first newline, None where there is none
    prompt_tokens: int  # length of the prompt, which is never cut


@lru_cache(maxsize=4)  # it reads the whole vocabulary: once per tokenizer, not once per run
def stop_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Return the ids that end an answer: the end token and every token whose text contains a newline.

    Example: len(stop_ids(load_tokenizer("gemma-3-270m"))) -> 33: thirty-two newline tokens and the end token
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
    """Return the model's answer to every row, in the rows' order: greedy, or sampled where config.temperature is above 0.

    Rows are sorted by length and padded on the left, as many at once as the device's token budget holds; each stops at
    a newline, at the end token or after config.max_new_tokens. `examples`, solved rows, stand before every question.
    Out of memory answers fewer rows at once from there on. Logits that are not finite are a FloatingPointError: such a
    model writes nothing, which would pass for a wrong answer.
    Example: generate_answers(model, tokenizer, data["test"], config)[0].answer -> "1872"
    """
    rows = list(rows)
    asked = [build_prompt(row["text"], row["question"], config.prompt_language, examples) for row in rows]
    prompts = [tokenizer(prompt).input_ids for prompt in asked]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]), reverse=True)
    settings = GenerationConfig(
        max_new_tokens=config.max_new_tokens, eos_token_id=stop_ids(tokenizer),
        do_sample=False, pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
        num_beams=1, repetition_penalty=1.0, no_repeat_ngram_size=0,  # else a model's own generation_config decides
    )  # fmt: skip
    if config.temperature:  # 50 is what generate() takes where neither the caller nor the model says otherwise
        settings.update(do_sample=True, temperature=config.temperature, top_p=config.top_p, top_k=50)
        torch.manual_seed(config.draw)
    texts, budget = [""] * len(prompts), TOKEN_BUDGET[model.device.type]
    while order:
        batch = order[: max(1, budget // len(prompts[order[0]]))]
        padded = tokenizer.pad({"input_ids": [prompts[i] for i in batch]}, padding_side="left", return_tensors="pt")
        try:
            with torch.inference_mode():
                padded = padded.to(model.device)
                output = model.generate(**padded, generation_config=settings, logits_processor=[_must_be_finite])
        except RuntimeError as error:
            if len(batch) == 1 or not is_out_of_memory(error):
                raise
            budget = len(batch) // 2 * len(prompts[order[0]])
            print(f"Out of memory: answering {len(batch) // 2} rows at once.")
            clear_device_cache(garbage_collection=True)
            continue
        new = tokenizer.batch_decode(output[:, padded.input_ids.shape[1] :], skip_special_tokens=True)
        for i, text in zip(batch, new, strict=True):
            texts[i] = text
        order = order[len(batch) :]
    found = []
    for i, (row, text, ids) in enumerate(zip(rows, texts, prompts, strict=True)):
        accepted = list(row.get("answers") or [row["answer"]])
        found.append(Prediction(i, row["question"], accepted, text, extract_answer(text), len(ids)))
    return found


def _must_be_finite(_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    if scores.isnan().any():  # one reduction a token; -inf is what masking writes
        said = "The model's logits are not numbers, so it cannot answer."
        raise FloatingPointError(f"{said} Lower LEARNING_RATE, or {FORMAT_ADVICE}.")
    return scores
