"""A finished run in, its record out: settings, data, model, machine, time, memory, scores, every answer."""

import platform
import resource
from dataclasses import asdict

import torch
from datasets import DatasetDict
from peft import PeftModel
from transformers import PreTrainedModel

from utils.config import PROFILES, RunConfig
from utils.data.rows import fingerprint
from utils.environment import Environment, git, versions
from utils.experiments.generation import Prediction
from utils.experiments.training import TrainingResult
from utils.metrics import failure_kind, score
from utils.models.access import describe_model


def build_record(
    config: RunConfig,
    data: DatasetDict,
    environment: Environment,
    model: PreTrainedModel | PeftModel,
    predictions: list[Prediction],
    table_4: Prediction,
    training: TrainingResult,
    answer_seconds: float,
) -> dict:
    """Return the record of a run, ready for save_record.

    A run that was stopped early gets the status "stopped" and a run_id of its own: it replaces no finished run of the
    same settings, no table or figure shows it, and no sweep takes it for finished.
    Example: build_record(...)["metrics"]["em_strict"] -> 0.41
    """
    about, stopped_at = about_run(config, data, environment, model), training.stopped_at
    if stopped_at is not None:
        about["run_id"] += f"-stopped-{stopped_at}"
    on_gpu = torch.cuda.is_available()  # without one the peak is the whole process's so far, which Linux tells in KiB
    peak = torch.cuda.max_memory_allocated() if on_gpu else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    asked = zip(predictions, data["test"], strict=True)
    judged = [asdict(p) | {"failure": failure_kind(p.answer, p.references, row["text"])} for p, row in asked]
    return {
        **about, "status": "finished" if stopped_at is None else "stopped",
        "timing": {"train_seconds": training.seconds, "answer_seconds": answer_seconds,
                   "samples_per_second": training.samples_per_second},
        "memory": {"peak_bytes": peak, "batch_size": training.batch_size, "accumulation": training.accumulation},
        "training": training.loss, "skipped_steps": training.skipped_steps,
        "prompts": _prompts(predictions, config, model, environment),
        "metrics": score([p.answer for p in predictions], [p.references for p in predictions]),
        "predictions": judged, "table_4": asdict(table_4),
    }  # fmt: skip


def train_rows(data: DatasetDict) -> dict:
    """Return what a record says of the rows that were trained on: their dataset's name, their number, their fingerprint.

    Example: train_rows(load_qa("bundled"))["train_rows"] -> 600
    """
    alone, name = {"train": data["train"], "test": ()}, data["train"].info.dataset_name
    return {"name": name, "train_rows": len(data["train"]), "train_fingerprint": fingerprint(alone)}


def about_run(
    config: RunConfig, data: DatasetDict, environment: Environment, model: PreTrainedModel | PeftModel
) -> dict:
    """Return the part of a record that is known before a run ends: settings, data, model and machine.

    Example: about_run(config, data, environment, model)["model"]["trainable"] -> 573440
    """
    # Counted by name, not by requires_grad, which is off on an adapter that was loaded from disk.
    trainable = sum(p.numel() for name, p in model.named_parameters() if "lora_" in name)
    total = model.get_nb_trainable_parameters()[1] if isinstance(model, PeftModel) else model.num_parameters()
    dtype, reason = environment.format_for(config.model)
    changes = git("status", "--porcelain", "--untracked-files=no")
    return {
        "run_id": config.run_id, "config": config.as_dict(),
        "data": {**train_rows(data), "test_name": data["test"].info.dataset_name, "test_rows": len(data["test"]),
                 "fingerprint": fingerprint(data)},
        "model": {**describe_model(config.model),
                  "total": total, "trainable": trainable, "trainable_percent": 100 * trainable / total},
        "environment": {"profile": environment.profile, "device": environment.gpu or environment.device,
                        "dtype": dtype, "dtype_reason": reason, "quantization": environment.quantization,
                        "python": platform.python_version(), "packages": versions(),
                        "commit": git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)},
    }  # fmt: skip


def _prompts(predictions: list[Prediction], config: RunConfig, model, environment: Environment) -> dict:
    # No prompt is ever cut. Beyond the model's positions an answer is a guess, so it must be seen how many there are.
    limit, lengths = PROFILES[environment.profile].prompt_tokens, [p.prompt_tokens for p in predictions]
    if positions := getattr(model.config.get_text_config(), "max_position_embeddings", None):
        limit = min(limit, positions - config.max_new_tokens)
    return {"longest": max(lengths), "limit": limit, "over_limit": sum(length > limit for length in lengths)}
