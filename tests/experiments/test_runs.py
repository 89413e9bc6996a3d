import dataclasses
import math
import resource
import shutil
import signal
import subprocess
import sys
import weakref

import peft
import pytest
import torch
from datasets import DatasetDict
from peft.tuners.lora import LoraModel
from transformers import AutoModelForCausalLM, Phi3Config, TrainerCallback

from utils import disk
from utils.config import PROFILES, RunConfig
from utils.data import draw_examples, fingerprint, load_qa
from utils.environment import ROOT
from utils.experiments import answer_again, finished_record, generation, record_run, run, runs, sweep
from utils.experiments.runs import scores
from utils.experiments.training import TrainingResult
from utils.models import add_lora, held_base, release_base, remove_lora
from utils.paper import TABLE_4_EXAMPLE
from utils.prompt import build_completion, build_prompt
from utils.records import adapter_folder, identity_of, record_path, run_name, save_record
from utils.report.frame import as_frame

DONE = {
    "status": "finished",
    "timing": {"train_seconds": 0, "answer_seconds": 0},
    "metrics": {"em_strict": 0, "f1_strict": 0, "n": 6},
}


def test_a_sweep_runs_each_configuration_once_and_reads_what_is_finished(tmp_path, environment, data, monkeypatch):
    there = dataclasses.replace(environment, runs=tmp_path)
    config = RunConfig("tiny-llama", max_new_tokens=4, epochs=1)
    said = []
    first = sweep([config.base(), config, config], data, there, say=said.append)
    assert len(said) == 2  # a line a run: what stands twice is done once
    assert first[1] == first[2]
    said.clear()
    release_base()
    monkeypatch.setattr(runs, "held_base", None)  # nothing left to run, nothing to load
    again = sweep([config.base(), config], data, there, say=said.append)
    assert said == [f"2 of 2 runs are finished and are read: {config.base().run_id}, {config.run_id}"]
    assert [r["predictions"] for r in again] == [r["predictions"] for r in first[:2]]


def test_seeds_repeat_every_configuration_but_the_base_model(tmp_path, environment, data, monkeypatch):
    def counted(config, *_, **__):
        return {"run_id": config.run_id, "seed": config.seed, **DONE}

    monkeypatch.setattr(runs, "run", counted)
    there = dataclasses.replace(environment, runs=tmp_path)
    config, shown = RunConfig("tiny-llama"), RunConfig("tiny-llama", rank=None, shots=1)
    found = sweep([config.base(), shown, config], data, there, seeds=(3, 4), say=lambda line: None)
    assert [r["seed"] for r in found] == [0, 3, 3, 4, 4]


def test_other_rows_or_numbers_are_another_run(environment, data, records, grid):
    assert finished_record(grid[1], data, environment)["run_id"] == grid[1].run_id
    assert finished_record(grid[1], load_qa("bundled", 12, 6, seed=1), environment) is None
    assert finished_record(grid[1], data, dataclasses.replace(environment, dtype="float16")) is None
    assert finished_record(grid[1], data, dataclasses.replace(environment, quantization="nf4")) is None


def test_what_a_folder_loses_costs_those_runs_and_nothing_else(tmp_path, environment, data, records, grid):
    there = dataclasses.replace(environment, runs=tmp_path / "runs")
    for record in records[:6]:
        save_record(record, there.runs / "records")
        if record["config"]["rank"]:
            name = adapter_folder(there.runs, record["run_id"], identity_of(record)).name
            shutil.copytree(environment.runs / "adapters" / name, there.runs / "adapters" / name)
    assert all(finished_record(config, data, there) for config in grid[:6])
    places = [record_path(there.runs / "records", r["run_id"], identity_of(r)) for r in records[:6]]
    weights = [there.runs / "adapters" / path.stem / "adapter_model.safetensors" for path in places]
    places[1].write_bytes(places[1].read_bytes()[:-100])
    places[2].unlink()
    weights[3].write_bytes(weights[3].read_bytes()[:-100])
    shutil.rmtree(weights[4].parent)
    assert [config in grid[1:5] for config in grid[:6]] == [finished_record(c, data, there) is None for c in grid[:6]]
    said = []
    again = sweep(grid[:6], data, there, say=said.append)
    assert said[0] == f"2 of 6 runs are finished and are read: {grid[0].run_id}, {grid[5].run_id}"
    assert [r["predictions"] for r in again] == [r["predictions"] for r in records[:6]]
    assert sorted(path.name for path in (there.runs / "adapters").iterdir()) == sorted(path.stem for path in places[1:])


@pytest.fixture
def ctrl_c():
    """Ctrl-C means what it means at a prompt: a shell that starts a job in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted_at(monkeypatch, target, call=1):
    """Press Ctrl-C in the middle of the given call of a function."""
    owner, name = target
    inner, calls = getattr(owner, name), []

    def pressed(*arguments, **named):
        calls.append(1)
        if len(calls) == call:
            signal.raise_signal(signal.SIGINT)
        return inner(*arguments, **named)

    monkeypatch.setattr(owner, name, pressed)


@pytest.mark.parametrize(
    ("target", "call"),
    [((LoraModel, "_create_and_replace"), 3), ((torch.optim.AdamW, "step"), 2), ((generation, "_must_be_finite"), 2),
     ((peft.peft_model, "safe_save_file"), 1), ((disk.os, "fsync"), 1), ((disk.os, "fsync"), 4),
     ((runs, "build_record"), 1), ((runs, "save_record"), 1), ((runs, "remove_lora"), 1)],
    ids=lambda value: value[1] if isinstance(value, tuple) else None,
)  # fmt: skip
def test_an_interrupt_anywhere_leaves_the_base_clean_and_the_next_run_working(
    tmp_path, environment, data, base, tokenizer, monkeypatch, ctrl_c, target, call
):
    there = dataclasses.replace(environment, runs=tmp_path)
    config = RunConfig("tiny-llama", target_modules=("q", "v"), epochs=1, max_new_tokens=2)
    ids = torch.tensor([tokenizer("Dunărea curge.").input_ids])
    before = base(ids).logits
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupted_at(patch, target, call)
        run(config, data, there, base, tokenizer)
    if target[1] == "remove_lora":  # the second Ctrl-C: whoever takes the base next gets it clean
        remove_lora(base)
    assert not any("lora_" in name for name, _ in base.named_modules())
    assert not any(p.requires_grad for p in base.parameters())
    assert torch.equal(base(ids).logits, before)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".unfinished", ".replaced")]
    assert run(config, data, there, base, tokenizer)["status"] == "finished"
    assert finished_record(config, data, there)


@pytest.mark.parametrize("work", ["run", "sweep", "interrupt", "failure"])
def test_a_model_that_is_let_go_is_gone(tmp_path, environment, data, monkeypatch, work):
    there = dataclasses.replace(environment, runs=tmp_path)
    configs = [RunConfig("tiny-llama", rank=rank, epochs=1, max_new_tokens=2) for rank in (None, 1, 2)]
    held = weakref.ref(held_base("tiny-llama", there)[0])
    if work == "sweep":
        sweep(configs, data, there, say=lambda line: None)
    elif work == "run":
        run(configs[1], data, there)
    else:
        error = KeyboardInterrupt if work == "interrupt" else ValueError

        class Stops(TrainerCallback):
            def on_step_end(self, *arguments, **named):
                raise error

        with pytest.raises(error):
            run(configs[1], data, there, callbacks=[Stops()])
    assert held() is held_base("tiny-llama", there)[0]
    release_base()
    assert held() is None


@pytest.mark.long
def test_twenty_runs_take_no_more_memory_than_three():
    code = """
import dataclasses, gc, pathlib, sys, tempfile
import psutil
from utils import environment
from utils.config import RunConfig
from utils.data import load_qa
from utils.experiments import run
environment.prepare()
data = load_qa("bundled", 12, 6)
with tempfile.TemporaryDirectory() as folder:
    here = dataclasses.replace(environment.detect("smoke"), device="cpu", dtype="float32", runs=pathlib.Path(folder))
    for number in range(1, 21):
        run(RunConfig("tiny-llama", rank=1 + number % 5, epochs=1, max_new_tokens=4, seed=number), data, here)
        gc.collect()
        print(psutil.Process().memory_info().rss)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sizes = [int(line) for line in done.stdout.split()]
    assert len(sizes) == 20
    assert sizes[19] < 1.05 * sizes[2], sizes


def test_a_folder_that_cannot_be_written_is_said_before_training(tmp_path, environment, data, monkeypatch):
    (tmp_path / "file").write_text("")
    there = dataclasses.replace(environment, runs=tmp_path / "file" / "runs")
    monkeypatch.setattr(runs, "fine_tune", None)
    with pytest.raises(OSError, match="Nothing can be written to .*RUNS"):
        run(RunConfig("tiny-llama"), data, there)


def test_a_disk_that_fills_up_ends_a_run_in_one_sentence_and_leaves_the_others(
    tmp_path, environment, data, base, tokenizer
):
    there, config = dataclasses.replace(environment, runs=tmp_path), RunConfig("tiny-llama", epochs=1, max_new_tokens=2)
    done = run(config, data, there, base, tokenizer)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # the system refuses to let a file grow past this
    try:
        with pytest.raises(
            OSError, match=r"^r64-\S+ cannot be written to .*environment variable RUNS.*records are untouched"
        ):
            run(dataclasses.replace(config, rank=64, alpha=None), data, there, base, tokenizer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert finished_record(config, data, there)["predictions"] == done["predictions"]
    assert len(list(tmp_path.glob("*/*"))) == 2  # a record and its adapter
    assert not any("lora_" in name for name, _ in base.named_modules())


def test_a_record_holds_the_whole_run(records, grid, data, environment):
    record = records[2]
    assert record["config"] == grid[2].as_dict()
    assert record["data"] == {
        "name": "bundled", "test_name": "bundled", "train_rows": 12, "test_rows": 6, "fingerprint": fingerprint(data),
        "train_fingerprint": fingerprint({"train": data["train"], "test": []}),
    }  # fmt: skip
    assert record["environment"]["profile"] == "smoke"
    assert record["environment"]["packages"]["torch"] == torch.__version__
    assert len(record["training"]) == 9  # 12 rows, batch 4, 3 epochs
    assert record["timing"]["train_seconds"] > 0
    assert record["memory"]["peak_bytes"] > 2**20
    assert [p["references"][0] for p in record["predictions"]] == data["test"]["answer"]
    assert record["table_4"]["question"] == TABLE_4_EXAMPLE["question"]
    assert record["metrics"]["n"] == 6
    assert records[0]["model"]["trainable"] == 0
    folder = adapter_folder(environment.runs, record["run_id"], identity_of(record))
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
    over = sum(length > lengths[1] for length in lengths)
    assert over >= 3
    assert short["prompts"] == {"longest": lengths[-1], "limit": lengths[1], "over_limit": over}
    assert scores(short).endswith(f"n = 6, {over} prompts over {lengths[1]} tokens")
    assert [p["generation"] for p in short["predictions"]] == [p["generation"] for p in record["predictions"]]


def test_a_failed_run_leaves_no_record_and_the_base_model_as_it_was(
    tmp_path, environment, data, base, tokenizer, monkeypatch
):
    before = {name: p.clone() for name, p in base.named_parameters()}
    there = dataclasses.replace(environment, runs=tmp_path)

    def fails(*arguments):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(runs, "fine_tune", fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(RunConfig("tiny-llama"), data, there, base, tokenizer)
    assert not list(tmp_path.rglob("*.json"))
    after = dict(base.named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_loss_that_is_not_a_number_marks_its_record_and_the_sweep_goes_on(tmp_path, environment, data, monkeypatch):
    there = dataclasses.replace(environment, runs=tmp_path)
    fine, wild = (RunConfig("tiny-llama", rank=rank, epochs=1, max_new_tokens=4) for rank in (1, 2))
    train = runs.fine_tune

    def diverges(model, tokenizer, rows, config, *rest):
        if config == wild:
            with torch.no_grad():
                next(p for p in model.parameters() if p.requires_grad).fill_(float("nan"))
        return train(model, tokenizer, rows, config, *rest)

    monkeypatch.setattr(runs, "fine_tune", diverges)
    said = []
    records = sweep([wild, fine], data, there, say=said.append)
    assert [record["status"] for record in records] == ["failed", "finished"]
    assert "Lower the learning rate" in records[0]["error"]
    assert any("failed. The loss became nan at step 1" in line for line in said)
    assert as_frame(records)["run_id"].tolist() == [fine.run_id]  # no table shows the failed one
    monkeypatch.setattr(runs, "fine_tune", train)
    assert sweep([wild], data, there, say=said.append)[0]["status"] == "finished"  # and it is run again
    with pytest.raises(ValueError, match="None of the 1 runs can be shown: .* its status is failed"):
        as_frame(records[:1])


def test_a_sweep_says_what_it_cannot_do(data, environment):
    with pytest.raises(ValueError, match="empty"):
        sweep([], data, environment)
    with pytest.raises(ValueError, match="one model"):
        sweep([RunConfig("tiny-llama"), RunConfig("gemma-3-270m")], data, environment)


def test_projections_that_a_model_lacks_are_said_before_its_base_answers(
    tmp_path, environment, data, tokenizer, monkeypatch
):
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    small = Phi3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        **special,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(small).save_pretrained(tmp_path / "phi")
    tokenizer.save_pretrained(tmp_path / "phi")
    monkeypatch.setattr(runs, "generate_answers", None)
    config = RunConfig(str(tmp_path / "phi"))
    with pytest.raises(ValueError, match="fused in gate_up_proj, qkv_proj"):
        sweep([config.base(), config], data, dataclasses.replace(environment, runs=tmp_path))
    release_base()


def test_a_model_without_its_adapter_is_never_recorded_as_the_run(tmp_path, environment, data, base, tokenizer):
    there, config = dataclasses.replace(environment, runs=tmp_path), RunConfig("tiny-llama", epochs=1, max_new_tokens=2)
    done = run(config, data, there, base, tokenizer)
    with pytest.raises(ValueError, match="has an adapter, and this model carries none: nothing was recorded"):
        record_run(config, data, there, base, tokenizer, TrainingResult())
    with pytest.raises(ValueError, match="is the base model, and this one carries an adapter"):
        record_run(config.base(), data, there, add_lora(base, config), tokenizer, TrainingResult())
    assert finished_record(config, data, there)["model"]["trainable"] == done["model"]["trainable"] > 0


def test_a_finished_adapter_answers_other_questions_and_in_another_way(tmp_path, environment, data, monkeypatch):
    there = dataclasses.replace(environment, runs=tmp_path)
    config = RunConfig("tiny-llama", learning_rate=0.05, epochs=1, max_new_tokens=6)
    record = run(config, data, there)
    monkeypatch.setattr(runs, "fine_tune", None)  # nothing is trained from here on
    turned = DatasetDict({"train": data["train"], "test": data["test"].select(range(4, -1, -1))})
    other = answer_again(record, config, turned, there)
    assert [p["generation"] for p in other["predictions"]] == [p["generation"] for p in record["predictions"][4::-1]]
    assert other["data"]["fingerprint"] != record["data"]["fingerprint"]
    assert (other["run_id"], other["training"]) == (record["run_id"], [])
    drawn = [dataclasses.replace(config, temperature=2.0, draw=draw) for draw in (0, 1)]
    first, second = (answer_again(record, asked, data, there) for asked in drawn)
    assert len({r["run_id"] for r in (record, first, second)}) == 3
    assert first["predictions"] != second["predictions"]
    assert run_name(first["config"]) == "r 2 q,v 5e-2, sampled at 2/1"
    monkeypatch.setattr(runs, "record_run", None)  # and what was answered is read
    assert answer_again(record, drawn[0], data, there)["predictions"] == first["predictions"]


def test_answering_again_is_refused_for_another_training_and_without_the_adapter(tmp_path, environment, data, records):
    there, record = dataclasses.replace(environment, runs=tmp_path), records[2]
    config = RunConfig.from_dict(record["config"])
    with pytest.raises(ValueError, match="is another training than r2-a8-qv-lr1e-4-s0-tiny-llama-.*run it with sweep"):
        answer_again(record, dataclasses.replace(config, epochs=9), data, there)
    turned = DatasetDict({"train": data["train"].select(range(11, -1, -1)), "test": data["test"]})
    with pytest.raises(ValueError, match="is another training"):  # as many rows, and others
        answer_again(record, config, turned, there)
    with pytest.raises(ValueError, match="has no adapter to answer with: its status is stopped"):
        answer_again(record | {"status": "stopped"}, config, data, there)
    for part, change in (("model", {"revision": "another"}), ("environment", {"quantization": "nf4"})):
        with pytest.raises(ValueError, match="has another base model or number format than runs have here"):
            answer_again(record | {part: record[part] | change}, config, data, there)
    with pytest.raises(FileNotFoundError, match=f"holds no adapter: {record['run_id']} must be trained here first"):
        answer_again(record, config, data, there)


class Overflow(TrainerCallback):
    """Makes the adapter's gradients of the first steps infinite, as too large a scale does."""

    def __init__(self, steps):
        self.steps = steps

    def on_train_begin(self, args, state, control, model, **kwargs):
        first = next(p for p in model.parameters() if p.requires_grad)
        first.register_hook(lambda g: g * math.inf if state.global_step < self.steps else g)


def test_steps_that_gradient_scaling_skips_are_counted_and_too_many_fail_the_run(
    tmp_path, environment, data, gradient_scaling
):
    there = dataclasses.replace(environment, dtype="float16", runs=tmp_path)
    config = RunConfig("tiny-llama", rank=2, max_new_tokens=2)
    record = run(config, data, there, callbacks=[Overflow(1)])
    assert record["skipped_steps"] == 1
    assert scores(record).endswith(", 1 steps skipped by gradient scaling")
    rates = [entry["learning_rate"] for entry in record["training"]]
    assert rates[:3] == pytest.approx([1e-4, 1e-4, 1e-4 * 8 / 9])  # the schedule waits for the step that was left out
    with pytest.raises(FloatingPointError, match="skipped 3 of 9 optimizer steps"):
        run(config, data, there, callbacks=[Overflow(3)])
    assert finished_record(config, data, there) is None
