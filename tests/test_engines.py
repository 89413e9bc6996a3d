import dataclasses

import pytest
import torch

from utils import engines
from utils.config import RunConfig
from utils.engines import plan_sweep, step_seconds
from utils.memory import estimate_memory

CONFIGS = [RunConfig("tiny-llama", rank=rank) for rank in (1, 2, 4, 8, 16)]
BASE = CONFIGS[0].base()
OTHER = dataclasses.replace(CONFIGS[0], epochs=5)


@pytest.fixture
def plan(base, tokenizer, data, environment, monkeypatch):
    """plan_sweep where a step of one run takes a second, and one of several runs `together` seconds."""

    def planned(configs, engine="auto", together=2.0, environment=environment, compilers=False):
        monkeypatch.setattr(engines, "step_seconds", lambda configs, *_: 1.0 if len(configs) == 1 else together)
        monkeypatch.setattr(engines, "can_compile", lambda device: compilers)
        return plan_sweep(configs, base, tokenizer, data, environment, engine)

    return planned


def test_what_is_measured_to_be_faster_is_taken_and_told(plan):
    # 5 runs x 12 rows x 3 epochs = 180 rows: 45 s at 4 rows/s; together 20 rows in 2 s, 18 s.
    fused = plan([BASE, *CONFIGS])
    assert fused.groups == [[BASE], CONFIGS]
    assert fused.lines[1] == (
        "Engine: fused, 5 runs at once, 10.0 rows/s (4.0 one by one): training 180 rows takes about 18 s."
    )
    sequential = plan([BASE, *CONFIGS], together=6.0)  # 20 rows in 6 s: 3.3 rows/s
    assert sequential.groups == [[config] for config in [BASE, *CONFIGS]]
    assert sequential.lines[1] == "Engine: sequential, 4.0 rows/s: training 180 rows takes about 45 s."


def test_an_engine_can_be_asked_for(plan):
    assert plan(CONFIGS, "sequential").groups == [[config] for config in CONFIGS]
    assert plan(CONFIGS, "fused", together=60.0).groups == [CONFIGS]


def test_a_short_sweep_is_done_one_by_one(plan, monkeypatch):
    monkeypatch.setattr(engines, "WORTH_FUSING", 46)
    assert plan(CONFIGS).groups == [[config] for config in CONFIGS]
    assert plan(CONFIGS, "fused").groups == [CONFIGS]


def test_only_long_work_is_compiled(plan, monkeypatch):
    assert not plan(CONFIGS, compilers=True).compiled  # 45 s
    monkeypatch.setattr(engines, "WORTH_COMPILING", 44)
    found = plan(CONFIGS, compilers=True)
    assert found.compiled
    assert "5 runs at once, compiled," in found.lines[1]
    assert not plan(CONFIGS, compilers=False).compiled


def test_runs_that_cannot_share_a_step_get_groups_of_their_own(plan):
    dora = dataclasses.replace(CONFIGS[0], dora=True)
    assert plan([OTHER, *CONFIGS, BASE, dora]).groups == [[OTHER], CONFIGS, [BASE], [dora]]
    assert plan([BASE]).groups == [[BASE]]
    assert plan([dora, BASE]).groups == [[dora], [BASE]]


def test_memory_decides_how_many_go_together(plan, base, environment, tokenizer, data, monkeypatch):
    lengths = [len(engines.tokenize_row(row, tokenizer, CONFIGS[-1])["input_ids"]) for row in data["train"]]
    parts = estimate_memory(base, CONFIGS[-1], environment, lengths)
    each = parts["total"] - parts["weights"]
    monkeypatch.setattr(engines, "free_memory", lambda environment: 3.1 * each / engines.MEMORY_SHARE)
    assert [len(group) for group in plan(CONFIGS).groups] == [3, 2]
    monkeypatch.setattr(engines, "free_memory", lambda environment: 1.5 * each)
    assert [len(group) for group in plan(CONFIGS).groups] == [1] * 5


def test_where_the_estimate_was_too_hopeful_fewer_go_together(base, tokenizer, data, environment, monkeypatch):
    tried = []

    def fits_two(configs, *_):
        tried.append(len(configs))
        if len(configs) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return 1.0

    monkeypatch.setattr(engines, "step_seconds", fits_two)
    found = plan_sweep(CONFIGS, base, tokenizer, data, environment, "fused")
    assert tried == [1, 5, 2]
    assert [len(group) for group in found.groups] == [2, 2, 1]


def test_float16_scales_all_gradients_as_one_so_runs_stay_apart(plan, environment):
    half = dataclasses.replace(environment, dtype="float16")
    assert plan(CONFIGS, environment=half).groups == [[config] for config in CONFIGS]
    with pytest.raises(ValueError, match="needs bfloat16 or float32"):
        plan(CONFIGS, "fused", environment=half)


def test_a_measured_step_leaves_the_base_model_as_it_was(base, tokenizer, data):
    assert step_seconds(CONFIGS, base, tokenizer, data["train"]) > 0
    assert step_seconds(CONFIGS[:1], base, tokenizer, data["train"].select(range(2))) > 0  # fewer rows than a batch
    assert not any("lora" in name or p.requires_grad for name, p in base.named_parameters())
