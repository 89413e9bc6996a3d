"""A finished run in, its record out: settings, data, model, machine, time, memory, scores, every answer."""

import platform
import resource
import subprocess
from dataclasses import asdict

import torch
from datasets import DatasetDict
from peft import PeftModel
from transformers import PreTrainedModel

from utils.config import PROFILES, RunConfig
from utils.data.rows import fingerprint
from utils.environment import ROOT, Environment, versions
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
    failures = [
        failure_kind(p.answer, p.references, row["text"]) for p, row in zip(predictions, data["test"], strict=True)
    ]
    return {
        **about,
        "status": "finished" if stopped_at is None else "stopped",
        "timing": {
            "train_seconds": training.seconds,
            "answer_seconds": answer_seconds,
            "samples_per_second": training.samples_per_second,
        },
        "memory": {
            "peak_bytes": _peak_bytes(),
            "batch_size": training.batch_size,
            "accumulation": training.accumulation,
        },
        "training": training.loss,
        "skipped_steps": training.skipped_steps,
        "prompts": _prompts(predictions, config, model, environment),
        "metrics": score([p.answer for p in predictions], [p.references for p in predictions]),
        "predictions": [asdict(p) | {"failure": kind} for p, kind in zip(predictions, failures, strict=True)],
        "table_4": asdict(table_4),
    }


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
    return {
        "run_id": config.run_id,
        "config": config.as_dict(),
        "data": {
            "name": data["train"].info.dataset_name,
            "test_name": data["test"].info.dataset_name,
            "train_rows": len(data["train"]),
            "test_rows": len(data["test"]),
            "fingerprint": fingerprint(data),
        },
        "model": {
            **describe_model(config.model),
            "total": total,
            "trainable": trainable,
            "trainable_percent": 100 * trainable / total,
        },
        "environment": {
            "profile": environment.profile,
            "device": environment.gpu or environment.device,
            "dtype": dtype,
            "dtype_reason": reason,
            "quantization": environment.quantization,
            "python": platform.python_version(),
            "packages": versions(),
            **_git(),
        },
    }


def _prompts(predictions: list[Prediction], config: RunConfig, model, environment: Environment) -> dict:
    # No prompt is ever cut. Beyond the model's positions an answer is a guess, so it must be seen how many there are.
    limit, lengths = PROFILES[environment.profile].prompt_tokens, [p.prompt_tokens for p in predictions]
    if positions := getattr(model.config.get_text_config(), "max_position_embeddings", None):
        limit = min(limit, positions - config.max_new_tokens)
    return {"longest": max(lengths), "limit": limit, "over_limit": sum(length > limit for length in lengths)}


def _peak_bytes() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # of the process so far, in KiB on Linux


def _git() -> dict:
    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}
