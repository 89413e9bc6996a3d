"""Saved adapters put to the test on rows of another dataset; their records stay apart from those of training."""

import time
from collections.abc import Callable, Iterable

from datasets import DatasetDict
from peft import PeftModel

from utils.config import RunConfig
from utils.data import draw_examples, fingerprint
from utils.environment import Environment
from utils.experiments import build_record, scores
from utils.generation import generate_answers
from utils.models import load_base, load_tokenizer, remove_lora
from utils.paper import TABLE_4_EXAMPLE
from utils.records import adapter_folder, read_record, record_path, save_record
from utils.training import TrainingResult


def evaluate(
    records: Iterable[dict], data: DatasetDict, environment: Environment, say: Callable[[str], None] = print
) -> list[dict]:
    """Return a new record for each of `records`: the same adapter (or base model) on data["test"]; nothing is trained.

    The adapter is the one that the run left in environment.runs / "adapters"; the new records go to "external", with
    what the adapter was trained on as `trained_on`. What is finished is read. `data` comes from load_qa(the training
    set, test_source=another); its train rows only give the examples of a few-shot prompt.

    Example: evaluate(records, load_qa("bundled", test_source="google/xquad:xquad.ro"), environment)
    """
    folder, done, model, rows = environment.runs / "external", [], None, fingerprint(data)
    records = [record for record in records if record["status"] == "finished"]  # a failed run left no adapter
    if len({record["config"]["model"] for record in records}) > 1:
        raise ValueError("These records are of several models; evaluate those of one at a time.")
    for record in records:
        config = RunConfig.from_dict(record["config"])
        path = record_path(folder, config.run_id, rows)
        if not path.exists():
            if model is None:
                model, tokenizer = load_base(config.model, environment), load_tokenizer(config.model)
            adapted = model if config.is_base else _adapted(model, environment, record)
            try:
                examples = draw_examples(data["train"], config.shots, config.seed)
                start = time.perf_counter()
                predictions = generate_answers(adapted, tokenizer, data["test"], config, examples)
                seconds = time.perf_counter() - start
                table_4 = generate_answers(adapted, tokenizer, [TABLE_4_EXAMPLE], config, examples)[0]
                trained = TrainingResult.from_record(record)
                new = build_record(config, data, environment, adapted, predictions, table_4, trained, seconds)
            finally:
                if not config.is_base:
                    remove_lora(adapted)
            new["data"]["name"] = data["test"].info.dataset_name
            save_record(new | {"trained_on": record["data"]}, folder)
        done.append(read_record(path))
        say(f"{config.run_id} on {done[-1]['data']['name']}: {scores(done[-1])}")
    return done


def _adapted(model, environment: Environment, record: dict) -> PeftModel:
    folder = adapter_folder(environment.runs, record["run_id"], record["data"]["fingerprint"])
    if not folder.exists():
        raise FileNotFoundError(f"There is no adapter of {record['run_id']} in {folder.parent}; do its run first.")
    return PeftModel.from_pretrained(model, folder).eval()
