"""A run, from settings to record, and a sweep of runs that loads the base model once and skips what is finished."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from datasets import DatasetDict
from transformers import PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback

from utils.config import RunConfig
from utils.data import draw_examples, fingerprint
from utils.engines import ENGINES, plan_sweep
from utils.environment import Environment
from utils.fused import FusedModel
from utils.generation import generate_answers, generate_together
from utils.models import add_lora, load_base, load_tokenizer, remove_lora
from utils.paper import TABLE_4_EXAMPLE
from utils.progress import SweepProgress
from utils.recording import about_run, build_record
from utils.records import adapter_folder, read_record, record_path, save_record
from utils.training import TrainingResult, fine_tune


def run(
    config: RunConfig,
    data: DatasetDict,
    environment: Environment,
    model: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerFast | None = None,
    callbacks: Iterable[TrainerCallback] = (),
) -> dict:
    """Do one run and return its saved record: adapter added, trained, asked every test question and Table 4's, removed.

    The record goes to environment.runs / "records", the adapter beside it to "adapters" under the same name. A base
    model that is passed in comes back as it was, also when the run fails; a loss that is not a number leaves a record
    with status "failed", which no table or figure shows.

    Example: run(RunConfig(model="gemma-3-270m", rank=2), load_qa("bundled"), detect("demo"))["metrics"]["n"] -> 200
    """
    model = load_base(config.model, environment) if model is None else model
    tokenizer = load_tokenizer(config.model) if tokenizer is None else tokenizer
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    adapted = model if config.is_base else add_lora(model, config)
    try:
        trained = TrainingResult()
        if not config.is_base:
            trained = fine_tune(adapted, tokenizer, data["train"], config, callbacks)
        examples = draw_examples(data["train"], config.shots, config.seed)
        start = time.perf_counter()
        predictions = generate_answers(adapted, tokenizer, data["test"], config, examples)
        seconds = time.perf_counter() - start
        table_4 = generate_answers(adapted, tokenizer, [TABLE_4_EXAMPLE], config, examples)[0]
        record = build_record(config, data, environment, adapted, predictions, table_4, trained, seconds)
        if not config.is_base:
            adapted.save_pretrained(adapter_folder(environment.runs, record["run_id"], record["data"]["fingerprint"]))
        save_record(record, environment.runs / "records")
    except FloatingPointError as error:
        failed = {**about_run(config, data, environment, adapted), "status": "failed", "error": str(error)}
        save_record(failed, environment.runs / "records")
        raise
    finally:
        if not config.is_base:
            remove_lora(adapted)
    return record


def run_together(
    configs: Sequence[RunConfig],
    data: DatasetDict,
    environment: Environment,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    callbacks: Iterable[TrainerCallback] = (),
    compiled: bool = False,
) -> list[dict]:
    """Do several runs at once on one base model and return their saved records, as `run` would leave them.

    The time of the whole is shared out equally. A run whose loss is not a number leaves a record with status "failed",
    as the others go on. Out of memory does the first half, then the second.

    Example: [r["metrics"]["em_strict"] for r in run_together(configs, data, environment, model, tokenizer)]
    """
    try:
        with FusedModel(model, configs) as fused:
            trained = fused.fine_tune(tokenizer, data["train"], callbacks, compiled)
            examples = [draw_examples(data["train"], config.shots, config.seed) for config in configs]
            start = time.perf_counter()
            predictions = generate_together(fused.model, tokenizer, data["test"], configs, examples)
            seconds = (time.perf_counter() - start) / len(configs)
            table_4 = generate_together(fused.model, tokenizer, [TABLE_4_EXAMPLE], configs, examples)
            fused.release()
            records = []
            for i, (config, result) in enumerate(zip(configs, trained, strict=True)):
                about = config, data, environment, fused.model
                if result.error:
                    record = {**about_run(*about, fused.names[i]), "status": "failed", "error": result.error}
                else:
                    found = predictions[i], table_4[i][0], result, seconds
                    record = build_record(*about, *found, fused.names[i])
                    fused.save(i, adapter_folder(environment.runs, record["run_id"], record["data"]["fingerprint"]))
                save_record(record, environment.runs / "records")
                records.append(record)
            return records
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
    half = len(configs) // 2
    print(f"Out of memory: {half} and {len(configs) - half} runs at once instead of {len(configs)}.")
    clear_device_cache(garbage_collection=True)
    records = []
    for part in (configs[:half], configs[half:]):
        rest = data, environment, model, tokenizer, callbacks
        records += [run(part[0], *rest)] if len(part) == 1 else run_together(part, *rest, compiled)
    return records


def sweep(
    configs: Iterable[RunConfig],
    data: DatasetDict,
    environment: Environment,
    say: Callable[[str], None] = print,
    seeds: Iterable[int] = (),
    engine: str = "auto",
) -> list[dict]:
    """Return the record of every configuration, in order; what is finished is read, the rest is run.

    With `seeds` there is a record for each of them, all configurations of one seed before the next; without,
    every configuration keeps its own seed. `engine` is "sequential" (one run after the other, the plain reference),
    "fused" (as many at once as memory allows), or "auto", which measures a step of both and says what it takes.

    A run is finished where its record holds the same settings on the same rows. Configurations that stand twice are
    run once, and the base model is loaded once, at the first run that needs it. One line is said for each, and one
    line in place tells how far the sweep is. A run whose loss is not a number is said, its record is marked, and the
    sweep goes on.

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
    if engine not in ENGINES:
        raise ValueError(f"Unknown engine {engine!r}; expected one of {list(ENGINES)}.")
    rows, place = fingerprint(data), {}
    for number, config in enumerate(configs, 1):
        place.setdefault(config, number)
    done = {c: found for c in place if (found := finished_record(c, rows, environment))}
    for config, found in done.items():
        say(f"[{place[config]}/{len(configs)}] {config.run_id}: finished before, skipped ({scores(found)})")
    waiting = [config for config in place if config not in done]
    if not waiting:
        return [done[config] for config in configs]
    model, tokenizer = load_base(waiting[0].model, environment), load_tokenizer(waiting[0].model)
    plan = plan_sweep(waiting, model, tokenizer, data, environment, engine)
    for line in plan.lines:
        say(line)
    with SweepProgress(waiting, len(data["train"])) as progress:
        for group in plan.groups:
            settings = data, environment, model, tokenizer, [progress.watch(group)]
            try:
                if len(group) > 1:
                    records = run_together(group, *settings, plan.compiled)
                else:
                    records = [run(group[0], *settings)]
            except FloatingPointError:
                records = [read_record(record_path(environment.runs / "records", group[0].run_id, rows))]
            for config, record in zip(group, records, strict=True):
                done[config] = record
                progress.finished(config)
                head = f"[{place[config]}/{len(configs)}] {config.run_id}"
                if record["status"] == "failed":
                    say(f"{head}: failed. {record['error']}")
                    continue
                timing = record["timing"]
                say(f"{head}: {scores(record)}, {timing['train_seconds'] + timing['answer_seconds']:.0f} s")
    return [done[config] for config in configs]


def finished_record(config: RunConfig, data_fingerprint: str, environment: Environment) -> dict | None:
    """Return the record of this run on this data where there is one, else None.

    A record with settings that this code no longer knows is none: the run is done again, and takes its place.

    Example: finished_record(config, fingerprint(data), environment) is None -> True before the first run
    """
    path = record_path(environment.runs / "records", config.run_id, data_fingerprint)
    record = read_record(path) if path.exists() else {}
    try:
        return record if record.get("status") == "finished" and RunConfig.from_dict(record["config"]) else None
    except ValueError:
        return None


def scores(record: dict) -> str:
    """Return a record's scores in one line, and how many prompts were longer than they should be, if any.

    Example: scores(record) -> "EM 0.410, F1 0.552, n = 200"
    """
    if record["status"] == "failed":
        return "failed"
    metrics, prompts = record["metrics"], record.get("prompts", {})
    over = f", {prompts['over_limit']} prompts over {prompts['limit']} tokens" if prompts.get("over_limit") else ""
    return f"EM {metrics['em_strict']:.3f}, F1 {metrics['f1_strict']:.3f}, n = {metrics['n']}{over}"
