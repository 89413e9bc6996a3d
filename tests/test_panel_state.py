import dataclasses

import pytest
import torch

from utils import paper
from utils.config import RunConfig
from utils.models import add_lora, llama_3b_on_meta, load_base
from utils.panel_costs import asked_problem, facts, memory, minutes, minutes_text, published_rows, shape_of, size_text
from utils.panel_costs import trainable_parameters as trainable
from utils.panel_runs import compare, describe, history, load_history, rate_text, saved_adapters, sweep_grid
from utils.panel_state import Settings, example_rows, from_values, settings_of, sweep_configs, to_values
from utils.panel_state import with_quantization as quantized
from utils.panel_views import find_span, loss_figure, marked
from utils.records import adapter_folder, save_record

TINY = RunConfig("tiny-llama")
SETTINGS = Settings(TINY, "bundled", 12, 6)


def test_what_the_controls_show_gives_the_same_settings_back():
    config = RunConfig("tiny-llama", 8, 16, ("k", "up"), 3e-4, 2, 8, 5, 0.1, "text", "ro", 9, 3, dora=True)
    settings = Settings(config, "bundled", None, 6)
    values = to_values(settings)
    assert values["variant"] == "DoRA"
    assert values["train_rows"] == 0  # all
    assert from_values(values, settings) == (settings, {})
    assert from_values(values, Settings(config, "hub", 3, 6))[0].dataset == "bundled"


@pytest.mark.parametrize(
    ("values", "field", "problem"),
    [
        ({"rank": 0}, "rank", "0; expected a whole number from 1 to 1024"),
        ({"alpha": -1.0}, "alpha", "-1.0; expected a number above 0"),
        ({"target_modules": ()}, "target_modules", "empty; expected at least one letter"),
        ({"epochs": 0}, "epochs", "0; expected a whole number, 1 or more"),
        ({"seed": -1}, "seed", "-1; expected a whole number, 0 or more"),
        ({"train_rows": -5}, "train_rows", "-5; expected a whole number, 0 for all rows"),
        ({"train_rows": 900}, "train_rows", "900; the bundled dataset has 600 training rows"),
        ({"batch_size": 13}, "batch_size", "13; expected at most the 12 training rows"),
    ],
)
def test_what_is_wrong_is_said_field_by_field(values, field, problem):
    settings, problems = from_values(to_values(SETTINGS) | values, SETTINGS)
    assert settings is None
    assert list(problems) == [field]
    assert problems[field].startswith(problem)


def test_nf4_without_bitsandbytes_is_explained(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "bitsandbytes" in from_values(to_values(SETTINGS) | {"quantization": "nf4"}, SETTINGS)[1]["quantization"]


def test_quantized_runs_lie_in_a_folder_of_their_own(environment):
    four_bit = quantized(environment, "nf4")
    assert four_bit.runs.name == f"{environment.runs.name}-nf4"
    assert quantized(four_bit, "none") == environment


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("modules", [("q",), ("q", "v"), ("k", "o", "gate", "up", "down")])
def test_parameters_are_counted_as_peft_counts_them(modules, dora, environment):
    config = RunConfig("tiny-llama", 4, target_modules=modules, dora=dora)
    counted = add_lora(load_base("tiny-llama", environment), config).get_nb_trainable_parameters()
    assert trainable(config) == counted
    assert trainable(config, "llama-3.2-3b") == add_lora(llama_3b_on_meta(), config).get_nb_trainable_parameters()


def test_the_papers_percentages_come_out():
    for row in paper.TABLE_3[1:]:
        count, total = trainable(RunConfig("x", row["rank"]), "llama-3.2-3b")
        assert round(100 * count / total, 4) == row["trainable_percent"]
    assert total == paper.TOTAL_PARAMETERS_RANK_32


def test_published_rows_are_found_by_their_settings():
    assert published_rows(TINY) == ["Table 3: EM 0.410, F1 not held here", "Table 6: EM 0.345, F1 not held here"]
    at_3e4 = dataclasses.replace(TINY, learning_rate=3e-4, target_modules=("q",))
    assert published_rows(at_3e4) == ["Table 5: EM 0.165, F1 not held here"]
    assert published_rows(dataclasses.replace(TINY, target_modules=("v", "q"))) != []  # the order means nothing
    for other in ({"rank": 3, "alpha": 12}, {"alpha": 2}, {"learning_rate": 2e-4}, {"dora": True}):
        assert published_rows(dataclasses.replace(TINY, **other)) == []


def timed(samples_per_second, answer_seconds, **environment):
    where = {"device": "cpu", "dtype": "float32", "quantization": "none"} | environment
    timing = {"samples_per_second": samples_per_second, "answer_seconds": answer_seconds}
    return {"config": TINY.as_dict(), "environment": where, "timing": timing, "metrics": {"n": 10}}


def test_minutes_come_from_earlier_runs_on_this_machine(environment):
    here = dataclasses.replace(environment, dtype="float32")
    assert minutes(TINY, 100, 20, here, []) is None
    runs = [timed(2.0, 30.0)]
    assert minutes(TINY, 100, 20, here, runs) == pytest.approx((3 * 100 / 2 + 20 * 30 / 10) / 60)  # 3.5
    together = timed(9.0, 3.0)
    together["timing"]["together"] = 11  # a share of a step says nothing of a run by itself
    assert minutes(TINY, 100, 20, here, [together]) is None
    elsewhere = [timed(2.0, 30.0, device="NVIDIA T4"), timed(2.0, 30.0, quantization="nf4")]
    assert minutes(TINY, 100, 20, here, elsewhere) is None
    assert minutes(dataclasses.replace(TINY, model="gemma-3-270m"), 100, 20, here, runs) is None
    assert [minutes_text(m) for m in (0.2, 3.4, 200)] == ["12 s", "3 min", "3.3 h"]


def test_memory_is_told_without_loading_and_nf4_takes_a_quarter(environment):
    loaded = load_base("tiny-llama", environment)
    parts = memory(SETTINGS, environment)
    assert parts["weights"] == 4 * loaded.num_parameters()  # the smoke profile's float32
    half = dataclasses.replace(environment, dtype="bfloat16")
    llama = dataclasses.replace(SETTINGS, config=RunConfig("llama-3.2-3b"))
    whole, packed = (memory(dataclasses.replace(llama, quantization=q), half)["weights"] for q in ("none", "nf4"))
    assert whole == 2 * paper.BASE_PARAMETERS
    assert packed / 2**30 == pytest.approx(2.1, abs=0.05)  # as the README says
    assert [size_text(s) for s in (3 * 2**20, 2**31)] == ["3 MiB", "2.0 GiB"]


def test_the_facts_say_what_follows(environment):
    told = facts(SETTINGS, environment, [])
    assert told["trainable, tiny-llama"].startswith("896 of ")  # 2 layers, rank 2: q 64 + 64, v 64 + 32
    assert told["trainable, Llama 3.2 3B"] == "573,440 of 3,213,323,264 (0.0178 %)"
    assert told["time"] == "unknown until a first run of this model here"
    assert told["memory"].startswith("about ")
    elsewhere = dataclasses.replace(SETTINGS, config=dataclasses.replace(TINY, model="/no/such/model"))
    assert facts(elsewhere, environment, [])["memory"].startswith("unknown: ")
    assert "unknown" in facts(dataclasses.replace(SETTINGS, dataset="hub"), environment, [])["time"]


@pytest.mark.parametrize(
    ("text", "answer", "span"),
    [
        ("Pe stemă e vulturul pleșuv.", "Vulturul pleşuv.", "vulturul pleșuv"),
        ("A murit în 1889, la București", "1889", "1889"),
        ("İstanbul și Iași", "iași", "Iași"),  # İ has two letters in lower case: places must hold
        ("Un text", "altceva", None),
        ("Un text", None, None),
        ("Un text", ".", None),
    ],
)
def test_an_answer_is_found_where_it_stands(text, answer, span):
    found = find_span(text, answer)
    assert (found and text[slice(*found)]) == span


def test_marked_text_is_escaped():
    assert marked("a <b> & Iași", "iași") == "a &lt;b&gt; &amp; <mark>Iași</mark>"
    assert marked("<i>", None) == "&lt;i&gt;"


def test_runs_become_lines_that_load_and_compare(records, tmp_path, environment):
    for record in records[:3]:
        save_record(record, tmp_path)
    (tmp_path / "damaged.json").write_text("{")
    found, complaints = load_history([tmp_path, tmp_path / "missing"])
    assert len(found) == 2  # the base model is no adapted run
    assert "damaged.json cannot be read" in complaints[0]
    table = history(found)
    assert list(table.columns) == ["settings", "rows", "EM", "EM 95 %", "F1", "minutes", "status"]
    assert set(table["rows"]) == {"12 / 6"}
    assert set(table["status"]) == {"finished"}
    settings, problem = settings_of(records[2], SETTINGS)
    assert (settings.config.run_id, settings.train_rows, problem) == (records[2]["run_id"], 12, "")
    elsewhere = {**records[2], "data": {**records[2]["data"], "name": "mine.csv"}}
    assert "mine.csv, which is not a choice here" in settings_of(elsewhere, SETTINGS)[1]
    side_by_side = compare(records[1], records[2])
    assert side_by_side["A"].tolist() == [p["answer"] for p in records[1]["predictions"]]
    assert side_by_side["B"].tolist() == [p["answer"] for p in records[2]["predictions"]]
    adapters = saved_adapters(found, "tiny-llama", environment)
    assert set(adapters.values()) == {
        adapter_folder(environment.runs, r["run_id"], r["data"]["fingerprint"]) for r in records[1:3]
    }
    assert saved_adapters(found, "gemma-3-270m", environment) == {}
    assert loss_figure([(1, 2.0)], 9, "now", found).axes[0].get_legend_handles_labels()[1][-1] == "this run"


def test_compare_says_who_is_right():
    def record(answer):
        return {"predictions": [{"question": "Cine?", "reference": "Ana", "answer": answer}]}

    assert compare(record("ana."), record("Ion"))["right"].tolist() == ["A"]
    assert compare(record("Ana"), record("Ana"))["right"].tolist() == ["A and B"]
    assert compare(record(None), record("Ion"))["right"].tolist() == ["neither"]
    assert compare(record("Ana"), {"predictions": []}).empty


def test_settings_are_described_shortly():
    assert describe(TINY) == "tiny-llama, r 2, q v, 1e-4, 3 epochs, seed 0"
    changed = dataclasses.replace(TINY, alpha=2, epochs=1, dora=True, loss_on="text", batch_size=8, seed=3)
    assert describe(changed) == "tiny-llama, r 2, q v, 1e-4, 1 epoch, DoRA, alpha 2, batch 8, loss on text, seed 3"
    assert [rate_text(rate) for rate in (3e-4, 2.5e-4, 0.01)] == ["3e-4", "2.5e-4", "1e-2"]


def test_what_cannot_be_asked_is_said_kindly():
    assert asked_problem("", "Ce?", TINY).startswith("Paste a Romanian text")
    assert asked_problem("Un text.", "  ", TINY) == "Write a question about the text."
    assert asked_problem("Un text.", "Ce?", TINY) is None
    assert "Please shorten the text by about" in asked_problem("vultur " * 3000, "Ce?", TINY)
    topics = {topic for phase in paper.TABLE_1 for topic in phase["topics"]}
    assert set(example_rows()) == topics


def test_a_sweep_is_planned_and_laid_out(records, grid):
    configs, problem = sweep_configs(TINY, (1, 2), (("q",), ("q", "v")), (1e-4, 3e-4), "0, 1")
    assert (len(configs), problem) == (16, "")
    assert {config.alpha for config in configs} == {4.0, 8.0}
    for seeds in ("", "a", "1.5", "-1"):
        assert "expected whole numbers" in sweep_configs(TINY, (1,), (("q",),), (1e-4,), seeds)[1]
    assert sweep_configs(TINY, (), (), (1e-4,), "0")[1] == "Choose at least one rank and one module set."
    finished = {records[1]["run_id"]: {"metrics": {"em_strict": 0.41}}}
    table = sweep_grid(grid[1:4], finished, {grid[2].run_id: "running, 40 %"})
    assert table.to_dict("records") == [
        {"modules": "q v", "learning rate": "1e-4", "seed": 0, "rank 1": "EM 0.410", "rank 2": "running, 40 %", "rank 4": "to do"}
    ]  # fmt: skip


def test_shapes_hold_no_weights():
    assert {p.device for p in shape_of("tiny-llama").parameters()} == {torch.device("meta")}
