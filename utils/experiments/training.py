"""Tokenized rows and an adapted model in, a trained adapter out: HF Trainer, with the head on the answer's positions alone."""

import tempfile
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from datasets import Dataset
from peft import PeftModel
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerFast, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from utils.config import RunConfig
from utils.environment import FORMAT_ADVICE, Environment
from utils.experiments.loss import IGNORED, AnswerTrainer
from utils.models.base import base_in_use
from utils.models.cpu import compiled_layers, pays_to_compile
from utils.prompt import build_completion, build_prompt

MOST_SKIPPED = 0.05  # of the optimizer steps; GradScaler's first scale of 65,536 costs two or three by itself


@dataclass
class TrainingResult:
    """What a training run leaves behind, besides the weights in the model."""

    loss: list[dict] = field(default_factory=list)  # a step each: step, epoch, loss (nats a label token), learning_rate
    seconds: float = 0.0
    samples: int = 0  # rows seen, epochs counted
    batch_size: int = 0  # rows held at once; below the configured batch where memory ran out
    accumulation: int = 1  # batches to an optimizer step: batch_size times this is the configured batch
    stopped_at: int | None = None  # the step after which a callback ended the training, None where it came to its end
    skipped_steps: int = 0  # optimizer steps left out because a scaled gradient overflowed (float16 alone)

    @property
    def samples_per_second(self) -> float:
        """Rows trained on per second of training."""
        return self.samples / self.seconds if self.seconds else 0.0


def tokenize_row(row: dict, tokenizer: PreTrainedTokenizerFast, config: RunConfig) -> dict[str, list[int]]:
    """Return input_ids and labels of one training row: prompt, answer, end token.

    Labels are IGNORED on the prompt (with loss_on="text", on the BOS alone), so the loss is taken on the answer and
    its end token. The prompt's ids must be an exact prefix of the row's: else the model would be trained on a
    boundary that it never meets when it answers.
    Example: tokenize_row(row, tokenizer, config)["labels"][-1] == tokenizer.eos_token_id -> True
    """
    prompt = build_prompt(row["text"], row["question"], config.prompt_language)
    prompt_ids = tokenizer(prompt).input_ids
    input_ids = tokenizer(prompt + build_completion(row["answer"])).input_ids
    if input_ids[: len(prompt_ids)] != prompt_ids:
        raise ValueError(f"The prompt's tokens are no prefix of prompt and answer for {row['question']!r}.")
    bos = tokenizer.bos_token_id  # some tokenizers (Qwen's) have none
    if bos is not None and input_ids.count(bos) > 1:
        raise ValueError(f"Expected at most one BOS token, found {input_ids.count(bos)}.")
    input_ids = [*input_ids, tokenizer.eos_token_id]
    masked = len(prompt_ids) if config.loss_on == "answer" else int(input_ids[0] == bos)
    return {"input_ids": input_ids, "labels": [IGNORED] * masked + input_ids[masked:]}


def training_arguments(config: RunConfig, environment: Environment) -> TrainingArguments:
    """Return HF Trainer's settings for a run; what the paper leaves unsaid comes from RunConfig's fields.

    Example: training_arguments(config, environment).lr_scheduler_type -> "linear"
    """
    on_gpu, dtype = environment.device == "cuda", environment.format_for(config.model)[0]
    return TrainingArguments(
        output_dir=str(Path(tempfile.gettempdir()) / "trainer"),  # stays empty: the run itself saves its adapter
        per_device_train_batch_size=config.batch_size, gradient_accumulation_steps=1, num_train_epochs=config.epochs,
        learning_rate=config.learning_rate, lr_scheduler_type="linear", warmup_steps=0,
        optim="adamw_torch", weight_decay=0.0, max_grad_norm=1.0,
        seed=config.seed, data_seed=config.seed,
        fp16=on_gpu and dtype == "float16",  # gradient scaling; bf16 weights need no autocast
        use_cpu=not on_gpu, dataloader_pin_memory=on_gpu,
        logging_steps=1, logging_nan_inf_filter=False, disable_tqdm=True, report_to="none",
        save_strategy="no", remove_unused_columns=False,
    )  # fmt: skip


@base_in_use()
def fine_tune(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerFast,
    rows: Dataset,
    config: RunConfig,
    arguments: TrainingArguments,
    callbacks: Iterable[TrainerCallback] = (),
    compiled: bool | None = None,
) -> TrainingResult:
    """Train the model's adapter on the rows and return losses and timing; the weights change in place.

    Out of memory starts the training again with half the rows held at once and twice the accumulation: the optimizer's
    steps stay the same, and the result says so. A loss that is not a number stops the run with an error that says what
    to change. `compiled` has torch.compile fuse what stands between the matrix products of a layer; None does so where it
    pays, which follows from model, rows and machine alone: a run that is done again rounds as it did before.
    Example: fine_tune(model, tokenizer, data["train"], config, training_arguments(config, environment)).loss[-1]["loss"]
    """
    if len(rows) == 0:
        raise ValueError("There are no training rows.")
    if any(p.detach().any() for name, p in model.named_parameters() if "lora_B" in name):
        raise ValueError("This adapter is trained already: remove it with remove_lora and add a fresh one.")
    examples = [tokenize_row(row, tokenizer, config) for row in rows]
    tokenizer.padding_side = "right"
    if compiled is None:
        compiled = pays_to_compile(model.get_base_model(), len(rows) * config.epochs)
    untrained = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    batch_size = config.batch_size
    while True:
        try:
            with compiled_layers(model.get_base_model()) if compiled else nullcontext():
                return _train(model, tokenizer, examples, config, arguments, callbacks, batch_size)
        except RuntimeError as error:
            if not is_out_of_memory(error):
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


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that the device's memory is full, in any of the wordings there are.

    Example: is_out_of_memory(RuntimeError("CUDA error: out of memory")) -> True
    """
    said = str(error)
    return should_reduce_batch_size(error) or "out of memory" in said or "CUBLAS_STATUS_ALLOC_FAILED" in said


def _train(model, tokenizer, examples, config, arguments, callbacks, batch_size) -> TrainingResult:
    scaling, accumulation = _Scaling(), config.batch_size // batch_size
    trainer = AnswerTrainer(
        model=model,
        args=replace(arguments, per_device_train_batch_size=batch_size, gradient_accumulation_steps=accumulation),
        train_dataset=examples,
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED),
        callbacks=[scaling, *callbacks],
    )
    scaling.accelerator = trainer.accelerator
    trainer.remove_callback(PrinterCallback)
    start = time.perf_counter()
    trainer.train()
    seconds, state = time.perf_counter() - start, trainer.state
    trainer.model.eval()
    if scaling.skipped > max(1, MOST_SKIPPED * state.global_step):
        raise FloatingPointError(
            f"Gradient scaling skipped {scaling.skipped} of {state.global_step} optimizer steps: this training is not the "
            f"one that was asked for. Lower LEARNING_RATE, or {FORMAT_ADVICE}."
        )
    kept = ("step", "epoch", "loss", "learning_rate")
    loss = [{name: entry[name] for name in kept} for entry in state.log_history if "loss" in entry]
    stopped_at = state.global_step if state.global_step < state.max_steps else None
    samples = round(state.epoch * len(examples))
    return TrainingResult(loss, seconds, samples, batch_size, accumulation, stopped_at, scaling.skipped)


class _Scaling(TrainerCallback):
    def __init__(self):
        self.skipped, self.accelerator = 0, None

    def on_step_end(self, args, state, control, **kwargs):
        """Count a step that gradient scaling left out."""
        self.skipped += self.accelerator.optimizer_step_was_skipped
