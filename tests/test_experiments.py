import dataclasses

import pytest
import torch

from utils import engines, experiments
from utils.config import PROFILES, RunConfig
from utils.data import draw_examples, fingerprint
from utils.experiments import finished_record, run, scores, sweep
from utils.fused import FusedModel
from utils.models import load_base
from utils.paper import TABLE_4_EXAMPLE
from utils.prompt import build_completion, build_prompt
from utils.records import adapter_folder, as_frame, save_record

DONE = {
    "status": "finished",
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
    assert [line.split(":")[0] for line in said[:2]] == ["Memory", "Engine"]
    assert len(said) == 4  # and one line a run: what stands twice is done once
    assert not any("skipped" in line for line in said)
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


def test_a_record_of_settings_that_are_gone_is_done_again(tmp_path, environment, data, records, grid):
    there, old = dataclasses.replace(environment, runs=tmp_path), dict(records[1])
    save_record(old, tmp_path / "records")
    assert finished_record(grid[1], fingerprint(data), there) is not None
    save_record({**old, "config": {**old["config"], "eval_batch_size": 16}}, tmp_path / "records")
    assert finished_record(grid[1], fingerprint(data), there) is None


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
    folder = adapter_folder(environment.runs, record["run_id"], fingerprint(data))
    assert (folder / "adapter_model.safetensors").exists()


def test_examples_stand_before_every_question(tmp_path, environment, data, base, tokenizer):
    there = dataclasses.replace(environment, runs=tmp_path)
    lengths = []
    for shots in (0, 1, 3):
        config = RunConfig("tiny-llama", rank=None, shots=shots, max_new_tokens=2, seed=1)
        lengths.append([p["prompt_tokens"] for p in run(config, data, there, base, tokenizer)["predictions"]])
    example = draw_examples(data["train"], 1, seed=1)[0]
    shown = build_prompt(example["text"], example["question"]) + build_completion(example["answer"]) + "\n\n"
    more = len(tokenizer(shown, add_special_tokens=False).input_ids)
    assert [b - a for a, b in zip(*lengths[:2], strict=True)] == pytest.approx([more] * 6, abs=1)  # tokens may merge
    assert min(lengths[2]) > max(lengths[1])


def test_prompts_over_the_limit_are_counted_and_never_cut(tmp_path, environment, data, base, tokenizer, monkeypatch):
    there = dataclasses.replace(environment, runs=tmp_path)
    config = RunConfig("tiny-llama", rank=None, max_new_tokens=2)
    record = run(config, data, there, base, tokenizer)
    lengths = sorted(p["prompt_tokens"] for p in record["predictions"])
    assert record["prompts"] == {"longest": lengths[-1], "limit": 2046, "over_limit": 0}  # 2048 positions, 2 new tokens
    assert "over" not in scores(record)
    monkeypatch.setitem(PROFILES, "smoke", dataclasses.replace(PROFILES["smoke"], prompt_tokens=lengths[1]))
    short = run(config, data, there, base, tokenizer)
    assert short["prompts"] == {"longest": lengths[-1], "limit": lengths[1], "over_limit": 4}
    assert scores(short).endswith(f"n = 6, 4 prompts over {lengths[1]} tokens")
    assert [p["generation"] for p in short["predictions"]] == [p["generation"] for p in record["predictions"]]


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


def test_the_fused_engine_leaves_the_records_of_the_sequential_one(tmp_path, environment, data, grid):
    configs, found = [*grid[:4], grid[-1]], []
    for engine in ("sequential", "fused"):
        there = dataclasses.replace(environment, runs=tmp_path / engine)
        found.append(sweep(configs, data, there, say=lambda line: None, engine=engine))
    for one, together in zip(*found, strict=True):
        for part in ("run_id", "config", "data", "model", "prompts", "metrics", "predictions", "table_4", "status"):
            assert together[part] == one[part]
        for name in ("step", "epoch", "loss", "learning_rate"):
            assert [e[name] for e in together["training"]] == pytest.approx(
                [e[name] for e in one["training"]], rel=1e-4
            )
    assert [r["timing"]["together"] for r in found[0]] == [1] * 5
    assert [r["timing"]["together"] for r in found[1]] == [1, 4, 4, 4, 4]
    for record in found[1][1:]:
        place = adapter_folder(tmp_path / "fused", record["run_id"], fingerprint(data))
        assert (place / "adapter_model.safetensors").exists()
        assert (place / "adapter_config.json").exists()


def test_out_of_memory_does_a_fused_sweep_in_halves(tmp_path, environment, data, grid, monkeypatch, capsys):
    there, together = dataclasses.replace(environment, runs=tmp_path), []
    train = FusedModel.fine_tune

    def fits_two(self, *arguments, **named):
        together.append(len(self.configs))
        if len(self.configs) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return train(self, *arguments, **named)

    monkeypatch.setattr(engines, "step_seconds", lambda *_: 1.0)
    monkeypatch.setattr(FusedModel, "fine_tune", fits_two)
    records = sweep(grid[1:4], data, there, say=lambda line: None, engine="fused")
    assert together == [3, 2]  # then one by itself and two together
    assert "1 and 2 runs at once instead of 3" in capsys.readouterr().out
    assert [r["run_id"] for r in records] == [c.run_id for c in grid[1:4]]


def test_a_failed_run_of_a_fused_sweep_is_marked_and_the_others_finish(tmp_path, environment, data, monkeypatch):
    there, said = dataclasses.replace(environment, runs=tmp_path), []
    configs = [RunConfig("tiny-llama", rank=rank, epochs=1, max_new_tokens=4) for rank in (1, 2, 4)]
    train = FusedModel.fine_tune

    def diverges(self, *arguments, **named):
        with torch.no_grad():
            self.parameters(1)[0].fill_(float("nan"))
        return train(self, *arguments, **named)

    monkeypatch.setattr(engines, "step_seconds", lambda *_: 1.0)
    monkeypatch.setattr(FusedModel, "fine_tune", diverges)
    records = sweep(configs, data, there, say=said.append, engine="fused")
    assert [r["status"] for r in records] == ["finished", "failed", "finished"]
    assert any("r2-a8" in line and "failed. The loss became nan at step 1" in line for line in said)


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
    with pytest.raises(ValueError, match="Unknown engine 'fast'"):
        sweep([RunConfig("tiny-llama")], data, environment, engine="fast")
