"""Fine-tuning through HF Trainer, with the loss on the answer and the vocabulary head on those positions alone."""

import math
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from datasets import Dataset
from peft import PeftModel
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from utils.config import RunConfig
from utils.loss import HeadCrossEntropy
from utils.prompt import build_completion, build_prompt

IGNORED = -100  # the label that cross entropy leaves out


@dataclass
class TrainingResult:
    """What a training run leaves behind, besides the weights in the model."""

    loss: list[dict] = field(default_factory=list)
    """One dict per optimizer step: step, epoch, loss (nats per label token), learning_rate."""
    seconds: float = 0.0
    samples: int = 0
    """Rows seen, epochs counted."""
    batch_size: int = 0
    """Rows held at once; below the configured batch where memory ran out."""
    accumulation: int = 1
    """Batches to an optimizer step: batch_size times this is the configured batch."""
    stopped_at: int | None = None
    """The step after which a callback ended the training early, None where it came to its end."""
    error: str | None = None
    """Why the training broke off while others in the same batch went on, None where it did not."""
    together: int = 1
    """How many runs were trained in the same batch; `seconds` is this run's equal share of their time."""

    @classmethod
    def from_record(cls, record: dict) -> "TrainingResult":
        """Return what a record tells of its training, as if the run had just ended."""
        timing = record["timing"]
        samples, memory = round(timing["train_seconds"] * timing["samples_per_second"]), record["memory"]
        result = cls(record["training"], timing["train_seconds"], samples, memory["batch_size"], memory["accumulation"])
        result.together = timing.get("together", 1)
        return result

    @property
    def samples_per_second(self) -> float:
        """Rows trained on per second of training."""
        return self.samples / self.seconds if self.seconds else 0.0


def tokenize_row(row: dict, tokenizer: PreTrainedTokenizerFast, config: RunConfig) -> dict[str, list[int]]:
    """Return input_ids and labels of one training row: prompt, answer, end token; one BOS, at the start.

    Labels are IGNORED on the prompt (with loss_on="text", on the BOS alone), so the loss is taken on the answer and
    its end token. The prompt's ids must be an exact prefix of the row's: else the model would be trained on a
    boundary that it never meets when it answers.

    Example: tokenize_row(row, tokenizer, config)["labels"][-1] == tokenizer.eos_token_id -> True
    """
    prompt = build_prompt(row["text"], row["question"], config.prompt_language)
    prompt_ids = tokenizer(prompt).input_ids
    input_ids = tokenizer(prompt + build_completion(row["answer"])).input_ids
    if input_ids[: len(prompt_ids)] != prompt_ids:
        raise ValueError(
            f"The prompt's tokens are not a prefix of prompt and answer for the question {row['question']!r}."
        )
    if input_ids.count(tokenizer.bos_token_id) != 1:
        raise ValueError(f"Expected one BOS token, found {input_ids.count(tokenizer.bos_token_id)}.")
    input_ids = [*input_ids, tokenizer.eos_token_id]
    masked = len(prompt_ids) if config.loss_on == "answer" else 1
    return {"input_ids": input_ids, "labels": [IGNORED] * masked + input_ids[masked:]}


def training_arguments(
    config: RunConfig, device: str, dtype: torch.dtype, batch_size: int | None = None
) -> TrainingArguments:
    """Return HF Trainer's settings for a run; what the paper leaves unsaid comes from RunConfig's fields.

    `batch_size` holds fewer rows at once than config.batch_size (it must divide it) for the same optimizer steps.

    Example: training_arguments(config, "cpu", torch.bfloat16).lr_scheduler_type -> "linear"
    """
    return TrainingArguments(
        output_dir=str(Path(tempfile.gettempdir()) / "trainer"),  # stays empty: the run itself saves its adapter
        per_device_train_batch_size=batch_size or config.batch_size,
        gradient_accumulation_steps=config.batch_size // (batch_size or config.batch_size),
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=0,
        optim="adamw_torch",
        weight_decay=0.0,
        max_grad_norm=1.0,
        seed=config.seed,
        data_seed=config.seed,
        fp16=device == "cuda" and dtype == torch.float16,  # gradient scaling; bf16 weights need no autocast
        use_cpu=device == "cpu",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        train_sampling_strategy="group_by_length" if config.group_by_length else "random",
        disable_tqdm=True,
        dataloader_pin_memory=device == "cuda",
        remove_unused_columns=False,
    )


def fine_tune(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerFast,
    rows: Dataset,
    config: RunConfig,
    callbacks: Iterable[TrainerCallback] = (),
) -> TrainingResult:
    """Train the model's adapter on the rows and return losses and timing; the weights change in place.

    Out of memory starts the training again with half the rows held at once and twice the accumulation: the optimizer's
    steps stay the same, and the result says so. A loss that is not a number stops the run with an error that says what
    to change.

    Example: fine_tune(add_lora(base, config), tokenizer, data["train"], config).loss[-1]["loss"]
    """
    if len(rows) == 0:
        raise ValueError("There are no training rows.")
    examples = [tokenize_row(row, tokenizer, config) for row in rows]
    tokenizer.padding_side = "right"
    untrained = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    batch_size = config.batch_size
    while True:
        try:
            return _train(model, tokenizer, examples, config, callbacks, batch_size)
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
        if batch_size == 1:
            raise MemoryError(
                "Out of memory with a single row. Set QUANTIZATION to nf4, take a smaller model, or restart the runtime "
                "to free what earlier runs hold."
            )
        batch_size = max(n for n in range(1, batch_size // 2 + 1) if config.batch_size % n == 0)
        print(f"Out of memory: starting this run again with {batch_size} rows at once, for the same optimizer steps.")
        clear_device_cache(garbage_collection=True)
        model.load_state_dict(untrained, strict=False)


def _train(model, tokenizer, examples, config, callbacks, batch_size) -> TrainingResult:
    dtype = model.get_input_embeddings().weight.dtype  # never quantized, so it has the base's number format
    log = _LossLog()
    trainer = AnswerTrainer(
        model=model,
        args=training_arguments(config, model.device.type, dtype, batch_size),
        train_dataset=examples,
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED),
        callbacks=[log, *callbacks],
    )
    seconds, state = train(trainer), trainer.state
    samples = round(state.epoch * len(examples))
    stopped_at = state.global_step if state.global_step < state.max_steps else None
    return TrainingResult(log.loss, seconds, samples, batch_size, config.batch_size // batch_size, stopped_at)


def train(trainer: Trainer) -> float:
    """Let a trainer do its work without printing, leave its model ready to answer, and return the seconds it took.

    Example: train(AnswerTrainer(model=model, args=args, train_dataset=examples, data_collator=pad)) -> 12.3
    """
    trainer.remove_callback(PrinterCallback)
    start = time.perf_counter()
    trainer.model.train()
    trainer.train()
    trainer.model.eval()
    return time.perf_counter() - start


class AnswerLosses(NamedTuple):
    """The cross entropy of each labelled position of a batch, and the row that each stands in."""

    values: torch.Tensor
    rows: torch.Tensor


def answer_losses(causal_lm: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> AnswerLosses:
    """Return the loss of every label token of a batch, in nats, with the vocabulary head applied to those alone.

    A prompt has a hundred tokens and an answer five: with the head on all of them, most of a step goes into logits
    that the loss throws away. `inputs` holds input_ids, attention_mask and labels, each (rows, tokens).

    Example: answer_losses(model, batch).values.mean() -> the loss that model(**batch) gives
    """
    hidden = causal_lm.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)[0]
    next_ids = inputs["labels"][:, 1:]  # position i predicts token i + 1
    labelled = next_ids != IGNORED
    losses = HeadCrossEntropy.apply(hidden[:, :-1][labelled], causal_lm.lm_head.weight, next_ids[labelled])
    return AnswerLosses(losses, labelled.nonzero()[:, 0])


class AnswerTrainer(Trainer):
    """HF Trainer with the loss of `answer_losses`: the mean cross entropy over the label tokens of the step."""

    def __init__(self, *args, **kwargs):
        """Take Trainer's arguments; tell it that the loss counts the step's label tokens by itself."""
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = True

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return the summed cross entropy at the labelled positions over the step's number of label tokens."""
        losses = answer_losses(model.get_base_model(), inputs).values
        loss = losses.sum() / (len(losses) if num_items_in_batch is None else num_items_in_batch)
        if not math.isfinite(loss.item()):
            raise FloatingPointError(loss_advice(loss.item(), self.state.global_step + 1, self.args.learning_rate))
        return loss


def loss_advice(loss: float, step: int, learning_rate: float) -> str:
    """Return what to say of a loss that is not a number.

    Example: loss_advice(math.nan, 3, 1e-2) -> "The loss became nan at step 3. Lower the learning rate (0.01), or ..."
    """
    return (
        f"The loss became {loss} at step {step}. Lower the learning rate ({learning_rate:g}), or use a wider number "
        "format (bfloat16 or float32)."
    )


class _LossLog(TrainerCallback):
    def __init__(self):
        self.loss = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            kept = {name: float(logs[name]) for name in ("loss", "learning_rate")}
            self.loss.append({"step": state.global_step, "epoch": float(state.epoch), **kept})
