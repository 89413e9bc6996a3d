"""Settings and rows in, records out: one run, and a sweep that keeps one base model and skips what is finished."""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import torch
from datasets import DatasetDict
from peft import PeftModel
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback

from utils.config import DECODING, RunConfig
from utils.data.rows import draw_examples, fingerprint
from utils.disk import check_writable, clear_leftovers
from utils.environment import Environment, shorten
from utils.experiments.generation import generate_answers
from utils.experiments.record import about_run, build_record, train_rows
from utils.experiments.training import TrainingResult, fine_tune, training_arguments
from utils.models.access import describe_model
from utils.models.adapter import add_lora, check_modules, has_adapter, remove_lora, save_adapter
from utils.models.base import base_in_use, held_base
from utils.paper import TABLE_4_EXAMPLE
from utils.records import adapter_folder, duration, identity_of, read_record, record_path, save_record


def run(
    config: RunConfig,
    data: DatasetDict,
    environment: Environment,
    model: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerFast | None = None,
    callbacks: Iterable[TrainerCallback] = (),
) -> dict:
    """Do one run and return its saved record: adapter added, trained, asked every test question and Table 4's, removed.

    The record goes to environment.runs / "records", the adapter beside it to "adapters" under the same name. The base
    model is the one this process holds, unless one is passed in; it comes back as it was, also when the run fails. A
    loss that is not a number leaves a record with status "failed", which no table or figure shows.
    Example: run(RunConfig(model="gemma-3-270m", rank=2), load_qa("bundled"), detect("demo"))["metrics"]["n"] -> 200
    """
    if model is None:
        model, tokenizer = held_base(config.model, environment)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    adapted = model
    try:
        trained = TrainingResult()
        if not config.is_base:
            adapted = add_lora(model, config)
        weights = sum(p.nbytes for name, p in adapted.named_parameters() if "lora_" in name)
        check_writable(environment.runs, weights + 2**20)  # and a record
        if not config.is_base:
            arguments = training_arguments(config, environment)
            trained = fine_tune(adapted, tokenizer, data["train"], config, arguments, callbacks)
        return record_run(config, data, environment, adapted, tokenizer, trained)
    except FloatingPointError as error:
        failed = {**about_run(config, data, environment, adapted), "status": "failed", "error": str(error)}
        save_record(failed, environment.runs / "records")
        raise
    finally:
        if adapted is not model:
            remove_lora(adapted)


@base_in_use()
def record_run(
    config: RunConfig,
    data: DatasetDict,
    environment: Environment,
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerFast,
    trained: TrainingResult,
) -> dict:
    """Ask a trained (or base) model every test question and Table 4's, save its adapter and record, return the record.

    Example: record_run(config, data, environment, model, tokenizer, fine_tune(...))["metrics"]["em_strict"] -> 0.41
    """
    adapted = any("lora_" in name for name, _ in model.named_parameters())
    if adapted is config.is_base:  # else the base model's answers would be recorded as a run's, over the real ones
        carried = "is the base model, and this one carries an adapter"
        found = carried if adapted else "has an adapter, and this model carries none"
        raise ValueError(
            f"{config.run_id} {found}: nothing was recorded. Add the adapter and train it again first, or call remove_lora "
            "for the base model."
        )
    examples = draw_examples(data["train"], config.shots, config.seed)
    start = time.perf_counter()
    predictions = generate_answers(model, tokenizer, data["test"], config, examples)
    seconds = time.perf_counter() - start
    table_4 = generate_answers(model, tokenizer, [TABLE_4_EXAMPLE], config, examples)[0]
    record = build_record(config, data, environment, model, predictions, table_4, trained, seconds)
    if not config.is_base:
        save_adapter(model, adapter_folder(environment.runs, record["run_id"], identity_of(record)))
    save_record(record, environment.runs / "records")
    return record


def answer_again(record: dict, config: RunConfig, data: DatasetDict, environment: Environment) -> dict:
    """Have a finished run's adapter answer other questions, or in another way, and return that as a record of its own.

    Nothing is trained. `config` is the run's own but for how it answers (config.DECODING), `data` has its training rows
    and any test rows. What was answered before is read. ValueError: another training or base; FileNotFoundError: no adapter.
    Example: answer_again(record, RunConfig(**settings, temperature=0.6, top_p=0.9), data, environment)["run_id"]
    """
    told, rows = record["data"], train_rows(data)
    again = identity_of(record | {"config": config.as_dict(), "data": {"fingerprint": fingerprint(data)}})
    trained = replace(RunConfig.from_dict(record["config"]), **{name: getattr(config, name) for name in DECODING})
    if record["status"] != "finished":
        raise ValueError(f"{record['run_id']} has no adapter to answer with: its status is {record['status']}.")
    if trained != config or any(told.get(name, value) != value for name, value in rows.items()):
        raise ValueError(f"{config.run_id} is another training than {record['run_id']}: run it with sweep instead.")
    if record_path(environment.runs / "records", config.run_id, again) != _path(config, data, environment):
        raise ValueError(f"{record['run_id']} has another base model or number format than runs have here.")
    if found := finished_record(config, data, environment):
        return found
    folder = adapter_folder(environment.runs, record["run_id"], identity_of(record))
    if not has_adapter(folder):
        raise FileNotFoundError(
            f"{shorten(folder)} holds no adapter: {record['run_id']} must be trained here first. Where its record is there "
            f"all the same ({folder.name}.json, published without it), delete that and run it again."
        )
    model, tokenizer = held_base(config.model, environment)
    try:
        adapted = PeftModel.from_pretrained(model, folder).eval()
        return record_run(config, data, environment, adapted, tokenizer, TrainingResult())
    finally:
        remove_lora(model)


@base_in_use()
def sweep(
    configs: Iterable[RunConfig],
    data: DatasetDict,
    environment: Environment,
    seeds: Iterable[int] = (),
    cluster: str | None = None,
    say: Callable[[str], None] = tqdm.write,
) -> list[dict]:
    """Return the record of every configuration, in order; what is finished is read, the rest is run.

    With `seeds` there is a record for each of them, all configurations of one seed before the next; without, every
    configuration keeps its own seed. A run whose loss is not a number is said, its record is marked, and the sweep goes
    on. With `cluster`, "local" or the address of a Ray head node, the runs go to its workers.
    Example: [r["metrics"]["em_strict"] for r in sweep([config.base(), config], data, environment)]
    """
    configs = list(configs)
    if seeds := tuple(seeds):  # the base model is the same for every seed, unless chance draws its examples
        repeated = [c if c.is_base and not c.shots else replace(c, seed=s) for s in seeds for c in configs]
        configs = list(dict.fromkeys(repeated))
    if not configs:
        raise ValueError("The sweep is empty: expected at least one configuration.")
    if len({config.model for config in configs}) > 1:
        raise ValueError("A sweep compares configurations of one model; found several models in it.")
    if left := clear_leftovers(environment.runs):
        say(f"Cleared away what killed runs left half written: {', '.join(left)}")
    done = {c: found for c in dict.fromkeys(configs) if (found := finished_record(c, data, environment))}
    if done:
        say(f"{len(done)} of {len(set(configs))} runs are finished and are read: " + ", ".join(c.run_id for c in done))
    waiting = [config for config in dict.fromkeys(configs) if config not in done]
    if waiting and cluster:
        from utils.experiments.cluster import sweep_on  # which imports this file

        done, waiting = done | sweep_on(cluster, waiting, data, environment, say), []
    if not waiting:
        return [done[config] for config in configs]
    model, tokenizer = held_base(waiting[0].model, environment)
    for config in waiting:
        if not config.is_base:
            check_modules(model, config)  # before anything long, and the base model's answers are
    for config in (bar := tqdm(waiting, desc="runs", unit="run")):
        bar.set_postfix_str(config.run_id)
        try:
            done[config] = run(config, data, environment, model, tokenizer)
        except FloatingPointError:
            done[config] = read_record(_path(config, data, environment))
            say(f"{config.run_id}: failed. {done[config]['error']}")
            continue
        timing = done[config]["timing"]
        say(f"{config.run_id}: {scores(done[config])}, {duration(timing['train_seconds'] + timing['answer_seconds'])}")
    return [done[config] for config in configs]


def finished_record(config: RunConfig, data: DatasetDict, environment: Environment) -> dict | None:
    """Return the record of this very work where there is one and, beside it, its adapter; else None.

    A record that came with this repository needs none: its adapter was not published.
    Example: finished_record(config, data, environment) is None -> True before the first run
    """
    path = _path(config, data, environment)
    try:
        record = read_record(path) if os.path.exists(path) else {}  # Path's raises where the folder may not be entered
    except ValueError:
        return None  # a damaged file: the run is done again, and takes its place
    if record.get("status") != "finished" or RunConfig.from_dict(record["config"]) != config:
        return None  # the second, where a default has changed since
    folder = adapter_folder(environment.runs, record["run_id"], identity_of(record))
    there = config.is_base or record.get("published") or has_adapter(folder)
    return record if there else None  # Drive may lose what was written last


def scores(record: dict) -> str:
    """Return a record's scores in one line, with what must be known about them.

    Example: scores(record) -> "EM 0.410, F1 0.552, n = 200"
    """
    metrics, prompts, skipped = record["metrics"], record.get("prompts", {}), record.get("skipped_steps")
    said = f"EM {metrics['em_strict']:.3f}, F1 {metrics['f1_strict']:.3f}, n = {metrics['n']}"
    if prompts.get("over_limit"):
        said += f", {prompts['over_limit']} prompts over {prompts['limit']} tokens"
    return said + (f", {skipped} steps skipped by gradient scaling" if skipped else "")


def _path(config: RunConfig, data: DatasetDict, environment: Environment) -> Path:
    machine = {"dtype": environment.format_for(config.model)[0], "quantization": environment.quantization}
    work = {"config": config.as_dict(), "data": {"fingerprint": fingerprint(data)}, "environment": machine}
    told = identity_of(work | {"model": describe_model(config.model)})
    return record_path(environment.runs / "records", config.run_id, told)
