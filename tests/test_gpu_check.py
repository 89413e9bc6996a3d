import json
import shutil

import pytest
import torch
from transformers import TrainerControl

from tests import gpu_check
from tests.gpu_check import Case, Clock, Parts, check, smoke, stale, train
from utils.config import RunConfig
from utils.environment import ROOT
from utils.models.embedded import tiny_llama, tiny_tokenizer

COMMITTED = sorted((ROOT / "figures" / "reference").glob("gpu-*.json"))


@pytest.fixture
def small(monkeypatch):
    """The same parts, each as small as it gets; compiling a toy model would take longer than all of them."""
    for name, value in dict(BATCHES=(2,), BUDGETS=(256,), WAYS=(False,), STEPS=1, TEST_ROWS=4, SECONDS=600).items():
        monkeypatch.setattr(gpu_check, name, value)


@pytest.fixture
def entry(small, environment):
    def broken(seconds):
        raise RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB")

    return check(environment, tiny_llama().config, broken, 600)


@pytest.mark.long  # three number formats, each loaded and trained
def test_every_part_is_measured_and_one_that_fails_says_so_while_the_rest_goes_on(entry, capsys):
    parts = json.loads(json.dumps(entry, allow_nan=False))["parts"]
    assert parts["smoke series"]["error"] == "RuntimeError: CUDA out of memory."
    assert parts["random weights"]["parameters"] == 138_048
    for dtype in ("float32", "nf4", "float16"):  # this CPU's own first, in 4 bits, and the other one
        assert 100 < parts[f"products, {dtype}"]["tokens_a_row"] < 116  # the real rows have 108
        assert parts[f"answer, {dtype}, budget 256"]["rows_per_second"] > 0
        step = parts[f"train, {dtype}, batch 2"]
        assert (step["steps"], step["rows_at_once"]) == (3, 2)
        assert step["rows_per_second"] == pytest.approx(2 / step["step_seconds"])
        assert step["of_ceiling"] == pytest.approx(
            step["rows_per_second"] * parts[f"products, {dtype}"]["flops_a_row"] / parts[f"products, {dtype}"]["flops"]
        )
    assert (entry["device"], entry["environment"]["packages"]["torch"]) == ("cpu", torch.__version__)
    assert set(entry["environment"]) >= {"python", "commit", "dirty"}
    assert sum(name.startswith("TRL") for name in parts) == 2  # measured, or the error that it is not installed


def test_a_part_is_left_out_where_too_little_time_is_left(capsys):
    parts = Parts(gpu_check.LEAST / 2)
    parts.attempt("late", lambda seconds: pytest.fail("it began"))
    assert parts.done["late"]["skipped"].endswith(" s were left")
    assert capsys.readouterr().out.startswith("late, skipped ")


def test_steps_that_gradient_scaling_skipped_are_measured_all_the_same(small, monkeypatch, environment, base):
    def skips(adapted, tokenizer, rows, config, arguments, callbacks, compiled):
        callbacks[0].steps = [9.0, 9.0, 0.5]
        raise FloatingPointError("Gradient scaling skipped 2 of 3 optimizer steps.")

    monkeypatch.setattr(gpu_check, "fine_tune", skips)
    monkeypatch.setattr(gpu_check, "held_base", lambda name, environment: (base, None))
    rows = [{"text": "Dunărea curge.", "question": "Ce curge?", "answer": "Dunărea"}] * 6
    found = train(Case(environment, RunConfig("tiny-llama"), tiny_tokenizer(), rows, None), 2, False, {}, 60)
    assert (found["rows_per_second"], found["warm_up_seconds"]) == (4.0, 18.0)  # 2 in 0.5 s, after two slow steps
    assert "skipped 2 of 3" in found["warning"]


@pytest.mark.parametrize(("seconds", "stops"), [(0, True), (600, False)])
def test_a_training_whose_time_is_over_ends_after_its_step(seconds, stops):
    clock, control = Clock(seconds), TrainerControl()
    clock.on_train_begin()
    clock.on_step_begin()
    clock.on_step_end(None, None, control)
    assert (control.should_training_stop, len(clock.steps)) == (stops, 1)
    clock.on_train_begin()  # a new start, with smaller batches
    assert clock.steps == []


def test_a_series_that_fails_is_an_error_with_its_own_words(monkeypatch):
    done = type("Done", (), {"returncode": 1, "stdout": "[1/6] 00_dataset failed: OSError: no disk\n", "stderr": ""})
    monkeypatch.setattr(gpu_check.subprocess, "run", lambda *args, **kwargs: done)
    with pytest.raises(RuntimeError, match="00_dataset failed: OSError: no disk"):
        smoke(60)


def test_without_cuda_it_says_so_in_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = set((ROOT / "figures" / "reference").glob("*"))
    gpu_check.main()
    assert capsys.readouterr().out.count("\n") == 1
    assert set((ROOT / "figures" / "reference").glob("*")) == before


@pytest.fixture
def measured():
    """Made-up figures, easy to reckon with: 30 rows trained and 20 questions answered a second."""
    parts = {
        "train, float16, batch 4": {"rows_per_second": 30.0, "peak_gib": 9.0},
        f"answer, float16, budget {gpu_check.BUDGETS[1]}": {"rows_per_second": 20.0, "peak_gib": 7.5},
    }
    return {"device": "Tesla T4", "environment": {"dtype": "float16"}, "parts": parts}


def test_headers_and_readme_that_estimate_what_was_measured_are_named_with_what_belongs_there(measured, tmp_path):
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    shutil.copy(ROOT / "README.md", tmp_path)
    for path in [*(tmp_path / "notebooks").glob("0[0-9]*.ipynb"), tmp_path / "README.md"]:
        path.write_text(path.read_text("utf-8").replace("(from measured steps)", "(estimated)"), "utf-8")
    found = stale(measured, tmp_path)
    assert found[:3] == [
        "02_fine_tuning, T4: 1.3 min, 9.0 GiB (from measured steps)",  # 10 s, 10 s and 60 s
        "03_rank_sweep, T4: 7.2 min, 9.0 GiB (from measured steps)",  # 10 s and six times 70 s
        "04_target_module_sweep, T4: 5.8 min, 9.0 GiB (from measured steps)",  # five times 70 s
    ]
    assert found[3].startswith("README.md, T4: a run 1.2 min")
    for path in [*(tmp_path / "notebooks").glob("0[0-9]*.ipynb"), tmp_path / "README.md"]:
        text = path.read_text("utf-8").replace("(estimated)", "(from measured steps)").replace("Estimated", "Reckoned")
        path.write_text(text, "utf-8")
    assert stale(measured, tmp_path) == []


def test_a_device_without_a_column_or_without_figures_makes_nothing_out_of_date(measured):
    assert stale({**measured, "device": "NVIDIA L4"}) == []
    assert stale({**measured, "parts": {"train, float16, batch 4": {"error": "out of memory"}}}) == []


@pytest.mark.skipif(not COMMITTED, reason="no GPU was measured yet")
def test_headers_and_readme_take_their_figures_from_the_files_there_are():
    assert [line for path in COMMITTED for line in stale(json.loads(path.read_text("utf-8")))] == []
