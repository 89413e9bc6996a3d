import json

import pytest

from utils.environment import ROOT

pytest.importorskip("greenlet", reason="make bench installs it")
from tests import benchmark
from tests.benchmark import STOCK, bench, keep, product_ceiling, rated, table, useful_flops, verdict


def a_run(name, losses, seconds, **settings):
    return {"trainer": name, "losses": losses, "step_seconds": seconds, "settings": settings}


@pytest.fixture
def entry():
    runs = [
        a_run("TRL, its defaults", [3.03, 2.0, 1.0, 1.0], [2.5, 2.0, 2.0, 2.0], bf16="True"),
        a_run(STOCK, [3.0, 2.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]),
        a_run("ours, compiled", [3.0, 2.0, 1.0, 1.0], [30.0, 0.5, 0.5, 0.5], compiled=True),
    ]
    return {"bf16_instructions": "avx512_bf16", "trainers": rated(runs, rows=4, ceiling=16.0, dtype="float32")}


def test_rates_share_of_the_ceiling_and_compile_seconds(entry):
    first, stock, ours = entry["trainers"]
    assert (first["samples_per_second"], stock["samples_per_second"], ours["samples_per_second"]) == (2.0, 4.0, 8.0)
    assert (first["times_first"], ours["times_first"]) == (1.0, 4.0)  # 8 / 2
    assert ours["of_ceiling"] == 0.5  # 8 of 16 rows/s
    assert ours["warm_up_extra_seconds"] == 29.5  # 30 + 0.5 + 0.5 and three steps of 0.5 are 1.5


def test_the_median_is_of_the_steps_after_the_warm_up():
    run = a_run("x", [1.0] * 6, [9.0, 9.0, 9.0, 2.0, 1.0, 50.0])
    assert rated([run], 4, 16.0, "float32")[0]["samples_per_second"] == 2.0  # 4 rows in 2 s, the middle of 1, 2, 50


def test_losses_are_compared_with_the_stock_ones_by_the_format_they_were_computed_in(entry):
    first, stock, ours = entry["trainers"]
    assert first["loss_difference"] == pytest.approx(0.01)  # 0.03 of 3.0
    assert (first["loss_tolerance"], ours["loss_tolerance"]) == (0.02, 1e-3)  # TRL's autocast rounds to bfloat16
    assert verdict(entry) == "Equal losses at every step."
    apart = {"trainers": [first | {"loss_tolerance": 1e-3}, stock, ours]}
    assert verdict(apart) == "THE LOSSES DISAGREE, so compare no speeds: TRL, its defaults."


def test_other_steps_than_the_stock_trainers_are_an_error():
    with pytest.raises(ValueError, match="argument 2"):
        rated([a_run(STOCK, [1.0] * 4, [1.0] * 4), a_run("x", [1.0] * 3, [1.0] * 4)], 4, 16.0, "float32")


def test_the_table_has_a_line_for_each_trainer(entry):
    shown = table(entry)
    assert list(shown["rows/s"]) == [2.0, 4.0, 8.0]
    assert list(shown["% of ceiling"]) == [12.5, 25.0, 50.0]
    assert list(shown["compile s"]) == ["–", "–", 29.5]
    assert set(shown["bf16"]) == {"avx512_bf16"}


def test_a_kind_of_cpu_replaces_its_own_entry_and_no_other(tmp_path):
    path = tmp_path / "bench.json"
    keep("AMX", {"rows": 1}, path)
    keep("AVX512", {"rows": 2}, path)
    keep("AVX512", {"rows": 3}, path)
    assert json.loads(path.read_text()) == {"cpus": {"AMX": {"rows": 1}, "AVX512": {"rows": 3}}}


def test_useful_flops_and_the_ceiling(base):
    # A layer: q and o 64 x 64, k and v 64 x 32, three of 64 x 128 = 36,864 weights, and there are two; the head 64 x 1,000.
    assert useful_flops(base, tokens=10, answers=2) == 4 * (2 * 36_864 * 10 + 64_000 * 2)
    assert 0 < product_ceiling(base, rows=256, repeats=2) < 1e16  # a shared machine can be as slow as it likes


@pytest.mark.long
def test_two_trainers_take_turns_to_the_same_losses(environment):
    order = []

    def told(name, train):
        class Noting(benchmark.Pause):
            def on_step_end(self, *args, **kwargs):
                order.append(name)

        return lambda case, pause: train(case, Noting())

    trainers = {STOCK: benchmark.train_stock, "ours, one adapter": benchmark.train_ours}
    found = bench(environment, {name: told(name, train) for name, train in trainers.items()}, steps=1)
    stock, ours = found["trainers"]
    assert order == 4 * list(trainers)  # three steps to warm up and one timed
    assert ours["losses"] == pytest.approx(stock["losses"], rel=1e-4)
    assert len(set(ours["losses"])) == 4
    assert ours["settings"] == {"attention": "grouped", "compiled": False}
    assert found["ceiling_samples_per_second"] == found["ceiling_flops"] / found["per_row"]["flops"]
    assert not table(found).isna().any().any()
    json.dumps(found, allow_nan=False)


def test_trl_has_our_tokens_and_our_losses(environment):
    pytest.importorskip("trl", reason="make bench installs it")
    trainers = {name: train for name, train in benchmark.trainers_for(environment).items() if "compiled" not in name}
    found = bench(environment, trainers, steps=1)
    assert [run["settings"].get("bf16") for run in found["trainers"]] == ["True", "False", None, None]
    assert verdict(found) == "Equal losses at every step."


def test_the_published_entries_name_their_instructions():
    cpus = json.loads((ROOT / "figures" / "reference" / "bench.json").read_text(encoding="utf-8"))["cpus"]
    assert all(entry["bf16_instructions"] and entry["trainers"] for entry in cpus.values())
