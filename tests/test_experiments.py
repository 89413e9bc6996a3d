import dataclasses

import pytest
import torch

from utils import experiments
from utils.config import RunConfig
from utils.data import fingerprint
from utils.experiments import finished_record, run, sweep
from utils.models import load_base
from utils.paper import TABLE_4_EXAMPLE

DONE = {
    "timing": {"train_seconds": 0, "answer_seconds": 0},
    "metrics": {"em_strict": 0, "f1_strict": 0, "n": 6},
}


def test_a_sweep_runs_each_configuration_once_and_the_base_model_loads_once(tmp_path, environment, data, monkeypatch):
    loads = []
    monkeypatch.setattr(experiments, "load_base", lambda *a: loads.append(a) or load_base(*a))
    there = dataclasses.replace(environment, runs=tmp_path)
    config = RunConfig("tiny-llama", max_new_tokens=4, epochs=1)
    said = []
    first = sweep([config.base(), config, config], data, there, say=said.append)
    assert len(loads) == 1
    assert ["skipped" in line for line in said] == [False, False, True]
    assert first[1] == first[2]
    said.clear()
    again = sweep([config.base(), config], data, there, say=said.append)
    assert len(loads) == 1  # nothing left to run, nothing to load
    assert all("finished before, skipped" in line for line in said)
    assert [r["predictions"] for r in again] == [r["predictions"] for r in first[:2]]


def test_seeds_repeat_every_configuration_but_the_base_model(tmp_path, environment, data, monkeypatch):
    monkeypatch.setattr(experiments, "run", lambda config, *_: {"run_id": config.run_id, "seed": config.seed, **DONE})
    there, said = dataclasses.replace(environment, runs=tmp_path), []
    config, shown = RunConfig("tiny-llama"), RunConfig("tiny-llama", rank=None, shots=1)
    found = sweep([config.base(), shown, config], data, there, say=said.append, seeds=(3, 4))
    assert [r["seed"] for r in found] == [0, 3, 3, 4, 4]
    assert not any("skipped" in line for line in said)


def test_other_rows_are_another_run(environment, data, records, grid):
    assert finished_record(grid[1], fingerprint(data), environment)["run_id"] == grid[1].run_id
    assert finished_record(grid[1], "000000000000", environment) is None


def test_a_record_holds_the_whole_run(records, grid, data, environment):
    record = records[2]
    assert record["config"] == grid[2].as_dict()
    assert record["data"] == {"name": "bundled", "train_rows": 12, "test_rows": 6, "fingerprint": fingerprint(data)}
    assert record["environment"]["profile"] == "smoke"
    assert record["environment"]["packages"]["torch"] == torch.__version__
    assert len(record["training"]) == 9  # 12 rows, batch 4, 3 epochs
    assert record["timing"]["train_seconds"] > 0
    assert record["memory"]["peak_bytes"] > 2**20
    assert [p["reference"] for p in record["predictions"]] == data["test"]["answer"]
    assert record["table_4"]["question"] == TABLE_4_EXAMPLE["question"]
    assert record["metrics"]["n"] == 6
    assert records[0]["model"]["trainable"] == 0
    assert (environment.runs / "adapters" / record["run_id"] / "adapter_model.safetensors").exists()


def test_a_failed_run_leaves_no_record_and_the_base_model_as_it_was(
    tmp_path, environment, data, base, tokenizer, monkeypatch
):
    before = {name: p.clone() for name, p in base.named_parameters()}
    there = dataclasses.replace(environment, runs=tmp_path)

    def fails(*arguments):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(experiments, "fine_tune", fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(RunConfig("tiny-llama"), data, there, base, tokenizer)
    assert not list(tmp_path.rglob("*.json"))
    after = dict(base.named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_sweep_says_what_it_cannot_do(data, environment):
    with pytest.raises(ValueError, match="empty"):
        sweep([], data, environment)
    with pytest.raises(ValueError, match="one model"):
        sweep([RunConfig("tiny-llama"), RunConfig("gemma-3-270m")], data, environment)
