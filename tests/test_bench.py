import io
import json
from functools import partial

import pytest
import torch
from matplotlib.figure import Figure

from utils import bench_trainers
from utils.__main__ import run_bench
from utils.bench import bench, gemm_ceiling, rated, useful_flops
from utils.bench_report import losses_agree, save, speeds, table, verdict
from utils.bench_trainers import PeakMemory, train_fused, train_plain, train_sequential, train_trl

WORK = {"tokens": 90.0, "answer_tokens": 6.0, "flops": 5e9}


@pytest.fixture(scope="module")
def record(environment):
    trainers = {"HF Trainer, all logits": train_plain, "ours, one adapter": train_sequential}
    return bench(environment, 8, trainers, {"rows": (1, 2), "rank": (1, 4)}, say=lambda line: None)


def test_rates_ratio_and_share_of_the_ceiling():
    slow = {"trainer": "slow", "samples": 24, "seconds": 12.0, "losses": [3.0, 2.0]}
    fast = {"trainer": "fast", "samples": 48, "seconds": 2.0, "losses": [3.03, 1.99]}
    first, second = rated([slow, fast], WORK, ceiling=1e12)
    assert first["samples_per_second"] == 2.0  # 24 / 12
    assert first["tokens_per_second"] == 180.0  # 2 x 90
    assert first["of_ceiling"] == pytest.approx(0.01)  # 2 x 5e9 / 1e12
    assert (first["times_first"], first["final_loss"], first["loss_difference"]) == (1.0, 2.0, 0.0)
    assert second["samples_per_second"] == 24.0  # 48 / 2
    assert second["times_first"] == 12.0  # 24 / 2
    assert second["of_ceiling"] == pytest.approx(0.12)
    assert second["loss_difference"] == pytest.approx(0.01)  # 0.03 of 3.0; 0.01 of 2.0 is less


def test_other_steps_than_the_first_trainers_are_an_error():
    two, one = ({"trainer": "x", "samples": 8, "seconds": 1.0, "losses": losses} for losses in ([3.0, 2.0], [3.0]))
    with pytest.raises(ValueError, match="took 1 steps, x 2"):
        rated([two, one], WORK, 1e12)


def test_useful_flops_are_four_a_weight_and_token(base):
    # A layer: q and o 64 x 64, k and v 64 x 32, three of 64 x 128 = 36,864 weights, and there are two; the head 64 x 1,000.
    assert useful_flops(base, tokens=10, answers=2) == 4 * (2 * 36_864 * 10 + 64_000 * 2)


def test_the_ceiling_is_a_rate_of_this_machine(base):
    assert 1e8 < gemm_ceiling(base, rows=256, repeats=2) < 1e16


def test_hf_and_ours_take_the_same_steps_to_the_same_losses(record):
    plain, ours = record["trainers"]
    assert len(plain["losses"]) == len(ours["losses"]) == 3  # 8 rows and a batch of 4 to warm up, one epoch
    assert ours["losses"] == pytest.approx(plain["losses"], rel=1e-4)
    assert len(plain["step_seconds"]) == 2
    assert plain["seconds"] == pytest.approx(sum(plain["step_seconds"]), abs=1e-3)
    assert plain["samples"] == ours["samples"] == 8
    assert plain["peak_bytes"] > 2**27  # torch alone takes more
    assert losses_agree(record)


def test_growth_counts_the_rows_and_ranks_it_was_asked_for(record):
    assert [(g["grows"], g["to"], g["samples"], g["rank"]) for g in record["growth"]] == [
        ("rows", 1, 8, 2), ("rows", 2, 16, 2), ("rank", 1, 8, 1), ("rank", 4, 8, 4),
    ]  # fmt: skip


def test_the_table_has_a_line_for_each_trainer(record):
    shown = table(record)
    assert list(shown["trainer"]) == ["HF Trainer, all logits", "ours, one adapter"]
    assert shown["times HF Trainer, all logits"][0] == 1.0
    assert not shown.isna().any().any()


def test_losses_that_disagree_are_said(record):
    assert verdict(record).startswith("The same objective")
    plain, ours = record["trainers"]
    apart = record | {"trainers": [plain, ours | {"loss_difference": 0.3}]}
    assert not losses_agree(apart)
    assert "THE LOSSES DISAGREE" in verdict(apart)
    assert "ours, one adapter by 30.0%" in verdict(apart)


def test_the_figure_draws_and_the_json_reads_back(record, tmp_path):
    save(record, tmp_path)
    assert json.loads((tmp_path / "reference" / "bench.json").read_text()) == record
    assert (tmp_path / "bench.png").stat().st_size > 10_000
    figure = speeds(record)
    assert isinstance(figure, Figure)
    assert "tiny-llama, profile smoke, bundled (12 rows)" in figure.get_suptitle()
    assert [bar.get_width() for bar in figure.axes[0].patches] == [m["samples_per_second"] for m in record["trainers"]]
    assert [list(line.get_xdata()) for line in figure.axes[1].lines[:2]] == [[1, 2], [1, 4]]
    speeds(record | {"growth": []}).savefig(io.BytesIO(), format="png")


def test_peak_memory_sees_what_is_gone_at_the_end():
    with PeakMemory() as small:
        pass
    with PeakMemory() as large:
        held = torch.ones(2**26)  # 256 MiB
        torch.cuda.synchronize() if torch.cuda.is_available() else large._done.wait(0.2)
        del held
    assert large.bytes - small.bytes > 200 * 2**20


def test_too_few_rows_are_an_error_with_advice(environment):
    with pytest.raises(ValueError, match=r"600 training rows, 10004 are needed: lower --rows"):
        bench(environment, 10_000, {"ours": train_sequential}, {}, say=lambda line: None)


def test_without_trl_the_command_says_what_to_do(environment, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run_bench(environment, 8) == 1
    assert "make bench installs it" in capsys.readouterr().err


def test_together_means_the_rows_of_all_adapters(environment):
    pytest.importorskip("utils.fused", reason="the fused engine")
    trainers = {"one": train_sequential, "three": partial(train_fused, adapters=3)}
    one, three = bench(environment, 8, trainers, {}, say=lambda line: None)["trainers"]
    assert (three["adapters"], three["samples"]) == (3, 24)  # 8 rows for each
    assert three["losses"] == pytest.approx(one["losses"], rel=1e-4)  # the first adapter has the same seed


def test_trl_has_our_tokens_and_our_losses(environment):
    pytest.importorskip("trl", reason="make bench installs it")
    trainers = {
        "TRL, its defaults": train_trl,
        "TRL, tuned": partial(train_trl, gradient_checkpointing=False, bf16=False),
        "ours, one adapter": train_sequential,
    }
    stock, tuned, ours = bench(environment, 8, trainers, {}, say=lambda line: None)["trainers"]
    assert (stock["settings"]["gradient_checkpointing"], stock["settings"]["bf16"]) == ("True", "True")
    assert ours["losses"] == pytest.approx(tuned["losses"], rel=1e-4)  # both in float32
    assert ours["losses"] == pytest.approx(stock["losses"], rel=0.02)  # TRL's autocast rounds to bfloat16


def test_other_tokens_in_trl_stop_the_bench(environment, monkeypatch):
    pytest.importorskip("trl", reason="make bench installs it")
    monkeypatch.setattr(bench_trainers, "build_completion", lambda answer: answer)  # without its space
    with pytest.raises(ValueError, match="other tokens or labels"):
        bench(environment, 8, {"TRL": train_trl}, {}, say=lambda line: None)
