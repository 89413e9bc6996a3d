import dataclasses

import pytest
import torch

from utils import experiments
from utils.config import RunConfig
from utils.data import fingerprint
from utils.experiments import finished_record, run, sweep
from utils.models import load_base
from utils.paper import TABLE_4_EXAMPLE
from utils.records import as_frame


def test_a_sweep_runs_each_configuration_once_and_the_base_model_loads_once(tmp_path, environment, data, monkeypatch):
    loads = []
    monkeypatch.setattr(experiments, "load_base", lambda *a: loads.append(a) or load_base(*a))
    there = dataclasses.replace(environment, runs=tmp_path)
    config = RunConfig("tiny-llama", max_new_tokens=4, epochs=1)
    said = []
    first = sweep([config.base(), config, config], data, there, say=said.append)
    assert len(loads) == 1
    assert ["skipped" in line for line in said] == [False, False, False, True]  # the first line is the memory estimate
    assert first[1] == first[2]
    said.clear()
    again = sweep([config.base(), config], data, there, say=said.append)
    assert len(loads) == 1  # nothing left to run, nothing to load
    assert all("finished before, skipped" in line for line in said)
    assert [r["predictions"] for r in again] == [r["predictions"] for r in first[:2]]


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


def test_a_loss_that_is_not_a_number_marks_its_record_and_the_sweep_goes_on(tmp_path, environment, data, monkeypatch):
    there = dataclasses.replace(environment, runs=tmp_path)
    fine, wild = (RunConfig("tiny-llama", rank=rank, epochs=1, max_new_tokens=4) for rank in (1, 2))
    train = experiments.fine_tune

    def diverges(model, tokenizer, rows, config, callbacks):
        if config == wild:
            with torch.no_grad():
                next(p for p in model.parameters() if p.requires_grad).fill_(float("nan"))
        return train(model, tokenizer, rows, config, callbacks)

    monkeypatch.setattr(experiments, "fine_tune", diverges)
    said = []
    records = sweep([wild, fine], data, there, say=said.append)
    assert [record["status"] for record in records] == ["failed", "finished"]
    assert "Lower the learning rate" in records[0]["error"]
    assert any("failed. The loss became nan at step 1" in line for line in said)
    assert as_frame(records)["run_id"].tolist() == [fine.run_id]  # no table shows the failed one
    monkeypatch.setattr(experiments, "fine_tune", train)
    assert sweep([wild], data, there, say=said.append)[0]["status"] == "finished"  # and it is run again
    with pytest.raises(ValueError, match="None of the 1 runs finished"):
        as_frame(records[:1])


def test_a_sweep_tells_the_memory_it_will_take(tmp_path, environment, data):
    said = []
    there = dataclasses.replace(environment, runs=tmp_path)
    sweep([RunConfig("tiny-llama", epochs=1, max_new_tokens=2)], data, there, say=said.append)
    assert said[0].startswith("Memory: about 0.0 GiB")


def test_a_sweep_says_what_it_cannot_do(data, environment):
    with pytest.raises(ValueError, match="empty"):
        sweep([], data, environment)
    with pytest.raises(ValueError, match="one model"):
        sweep([RunConfig("tiny-llama"), RunConfig("gemma-3-270m")], data, environment)
