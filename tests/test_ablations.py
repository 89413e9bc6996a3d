import dataclasses

import pytest

from utils.ablations import ABLATIONS, ablation, ablation_table
from utils.experiments import sweep
from utils.records import as_frame
from utils.tables import as_text

WIDTHS = dict(
    q=3072 + 3072, k=3072 + 1024, v=3072 + 1024, o=3072 + 3072, gate=11264, up=11264, down=11264
)  # Llama 3.2 3B


@pytest.mark.parametrize(("question", "runs"), [("loss", 12), ("alpha", 17), ("modules", 3), ("learning_rate", 9)])
def test_the_grids_are_small_and_hold_no_run_twice(question, runs):
    assert len(ablation(question, model="x")) == runs  # alpha: 8 is 4 * rank at rank 2


def test_each_grid_varies_what_it_asks_about():
    assert {c.loss_on for c in ablation("loss", model="x")} == {"answer", "text"}
    assert [c.shots for c in ablation("shots", model="x")] == [0, 1, 3]
    assert [(c.rank, c.prompt_language) for c in ablation("language", model="x")] == [
        (None, "en"), (None, "ro"), (2, "en"), (2, "ro"),
    ]  # fmt: skip
    scales = {
        c.alpha / c.rank**0.5 if c.rslora else c.alpha / c.rank for c in ablation("alpha", model="x") if c.rank == 2
    }
    assert all(scale == pytest.approx(4, abs=0.001) for scale in scales)


def test_the_module_sets_have_the_same_number_of_parameters():
    sizes = [fields["rank"] * sum(WIDTHS[m] for m in fields["target_modules"]) for fields in ABLATIONS["modules"]]
    assert [round(28 * size / 1e6, 2) for size in sizes] == [9.18, 9.18, 9.12]


def test_the_table_shows_what_varies(data, environment, tmp_path):
    there = dataclasses.replace(environment, runs=tmp_path)
    configs = ablation("language", model="tiny-llama", max_new_tokens=2, epochs=1)
    records = sweep(configs, data, there, say=lambda line: None, seeds=(0, 1))
    table = ablation_table(as_frame(records))
    assert table.columns.tolist() == ["rank", "prompt_language", "trainable", "EM", "EM 95 %", "F1", "F1 95 %"]
    assert table[["rank", "prompt_language"]].to_numpy().tolist() == [
        ["base", "en"],
        ["base", "ro"],
        ["2", "en"],
        ["2", "ro"],
    ]
    assert "means over 2 seeds" in as_text(table)


def test_an_unknown_question_names_the_known_ones():
    with pytest.raises(ValueError, match=r"'rank'; expected one of \['loss'"):
        ablation("rank", model="x")
