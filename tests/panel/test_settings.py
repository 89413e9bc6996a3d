"""What the panel decides and says without a widget: settings, facts, lists of runs, marked texts, curves."""

import dataclasses
import os

import pytest
import torch
from safetensors.torch import save_file

from utils import paper
from utils.config import RunConfig, rate_text
from utils.data.rows import fingerprint
from utils.models.adapter import add_lora, llama_3b_on_meta
from utils.panel.jobs import earlier_runs, saved_adapters
from utils.panel.panel import figure_html, loss_figure
from utils.panel.playground import marked
from utils.panel.settings import Settings, describe, facts, from_values, settings_of, to_values
from utils.panel.view import said
from utils.records import adapter_folder, identity_of, save_record

TINY = RunConfig("tiny-llama")
SETTINGS = Settings(TINY, "bundled", 12, 6)


def record(config, name="bundled", status="finished", data_seed=0):
    rows = dataclasses.replace(SETTINGS, data_seed=data_seed).load_data()
    return {
        "run_id": config.run_id, "config": config.as_dict(), "status": status,
        "data": {"name": name, "train_rows": 12, "test_rows": 6, "fingerprint": fingerprint(rows)},
        "model": {"id": "made", "revision": "seed 0"},
        "environment": {"dtype": "float32", "quantization": "none"},
        "timing": {"train_seconds": 100, "answer_seconds": 80},
        "training": [{"step": 1, "epoch": 0.5, "loss": 4.0}, {"step": 2, "epoch": 1.0, "loss": 2.0}],
        "metrics": {"em_strict": 0.5, "f1_strict": 0.625, "n": 6},
        "predictions": 6 * [{"answer": "1889", "references": ["1889"]}],
    }  # fmt: skip


def test_what_the_controls_show_gives_the_same_settings_back():
    config = RunConfig("tiny-llama", 8, 16, ("k", "up"), 3e-4, 2, 8, 5, 0.1, "text", "ro", 9, 3, rslora=True, dora=True)
    settings = Settings(config, "bundled", None, 6)
    values = to_values(settings)
    assert values["train_rows"] == 0  # all
    assert from_values(values, settings) == (settings, {})  # the solved examples have no control and are kept
    assert from_values(values, Settings(config, "hub", 3, 6))[0].dataset == "bundled"


@pytest.mark.parametrize(
    ("values", "field", "problem"),
    [
        ({"rank": 0}, "rank", "is 0; expected a whole number from 1 to 1024"),
        ({"alpha": -1.0}, "alpha", "is -1.0; expected a number above 0"),
        ({"target_modules": ()}, "target_modules", "is (); expected letters out of q, k, v, o"),
        ({"epochs": 0}, "epochs", "is 0; expected a whole number, 1 or more"),
        ({"dropout": 1.0}, "dropout", "is 1.0; expected a number from 0"),
        ({"train_rows": -5}, "train_rows", "is -5; expected a whole number, 0 for all rows"),
        ({"train_rows": 900}, "train_rows", "is 900; the bundled dataset has 600 training rows"),
    ],
)
def test_what_is_wrong_is_said_field_by_field(values, field, problem):
    settings, wrong = from_values(to_values(SETTINGS) | values, SETTINGS)
    assert settings is None
    assert list(wrong) == [field]
    assert wrong[field].startswith(problem)


def test_the_facts_are_the_papers():
    told = facts(TINY)
    # 28 layers, rank 2: q 3072 + 3072, v 3072 + 1024; 28 * 2 * 10,240
    assert told["trainable, Llama 3.2 3B"] == "573,440 of 3,213,323,264 (0.0178 %)"
    assert told["published"] == "Table 3: EM 0.410, F1 0.553; Table 6: EM 0.345, F1 0.533"
    fast = dataclasses.replace(TINY, learning_rate=3e-4, target_modules=("q",))
    assert facts(fast)["published"] == "Table 5: EM 0.165, F1 0.305"
    assert facts(dataclasses.replace(TINY, target_modules=("v", "q")))["published"] == told["published"]
    for other in ({"rank": 3, "alpha": 12}, {"alpha": 2}, {"learning_rate": 2e-4}, {"dora": True}, {"rslora": True}):
        assert facts(dataclasses.replace(TINY, **other))["published"] == "none with these settings"
    for row in paper.TABLE_3[1:]:
        assert f"({row['trainable_percent']:.4f} %)" in facts(RunConfig("x", row["rank"]))["trainable, Llama 3.2 3B"]


def test_doras_lengths_are_counted_as_peft_counts_them():
    config = RunConfig("x", 4, target_modules=("k", "o", "up", "down"), dora=True)
    counted, total = add_lora(llama_3b_on_meta(), config).get_nb_trainable_parameters()
    assert facts(config)["trainable, Llama 3.2 3B"].startswith(f"{counted:,} of {total:,} (")


def test_a_recorded_run_gives_its_settings_back():
    config = dataclasses.replace(TINY, rank=8, alpha=16)
    assert settings_of(record(config), SETTINGS) == (dataclasses.replace(SETTINGS, config=config), "")
    assert settings_of(record(config, paper.HUB_DATASET), SETTINGS)[0].dataset == "hub"
    own = dataclasses.replace(SETTINGS, dataset="/data/mine.csv")
    assert settings_of(record(config, "mine.csv"), own) == (dataclasses.replace(own, config=config), "")
    settings, problem = settings_of(record(config, "mine.csv"), SETTINGS)
    assert settings.dataset == "bundled"
    assert problem.startswith("That run was trained on mine.csv, which is not a choice here")
    settings, problem = settings_of(record(config, data_seed=1), SETTINGS)
    assert problem.startswith("That run was trained on rows drawn otherwise (another DATA_SEED)")
    elsewhere = record(config)
    elsewhere["data"] |= {"test_name": "bundled-more", "test_rows": 300}  # more than the dataset has
    settings, problem = settings_of(elsewhere, SETTINGS)
    assert settings.test_rows == SETTINGS.test_rows
    assert problem == "That run was tested on bundled-more, which is not a choice here: bundled stays."


def test_runs_are_listed_the_latest_first_and_adapters_by_model_and_prompt(environment, tmp_path):
    here = dataclasses.replace(environment, runs=tmp_path)
    runs = [
        record(RunConfig("tiny-llama", rank=None)),
        record(RunConfig("tiny-llama", rank=4)),
        record(RunConfig("tiny-llama", rank=4, batch_size=2)),  # the same name for people
        record(TINY, status="stopped"),
        record(dataclasses.replace(TINY, prompt_language="ro")),
    ]
    for age, run in enumerate(runs):
        os.utime(save_record(run, tmp_path / "records"), (age, age))
        folder = adapter_folder(tmp_path, run["run_id"], identity_of(run))
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text("{}")
        save_file({"A": torch.ones(2)}, folder / "adapter_model.safetensors")
    (tmp_path / "records" / "damaged.json").write_text("{")
    found, complaints = earlier_runs(here)
    assert [run["run_id"] for run in found] == [run["run_id"] for run in runs[:0:-1]]  # without the base model
    assert len(complaints) == 1
    assert "damaged.json" in complaints[0]
    names = list(saved_adapters(TINY, here))
    assert names[:2] == ["r 2 q,v 1e-4, 3 epochs, seed 0 (stopped)", "r 4 q,v 1e-4, 3 epochs, seed 0"]
    assert names[2].startswith(f"{names[1]}, r4-a16-qv-lr1e-4-s0-tiny-llama-")
    assert saved_adapters(RunConfig("gemma-3-270m"), here) == {}
    for folder in saved_adapters(TINY, here).values():
        (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")  # a pickle could run anything
    assert saved_adapters(TINY, here) == {}


@pytest.mark.parametrize(
    ("text", "answer", "shown"),
    [
        ("Pe stemă e vulturul pleșuv.", "Vulturul pleşuv.", "Pe stemă e <mark>vulturul pleșuv</mark>."),
        ("A murit în 1889", "1889", "A murit în <mark>1889</mark>"),
        (
            "İstanbul și Iași",
            "iași",
            "İstanbul și <mark>Iași</mark>",
        ),  # İ has two letters in lower case: places must hold
        ("a <b> & Iași", "iași", "a &lt;b&gt; &amp; <mark>Iași</mark>"),
        ("Un <i>text</i>", "<i>", "Un <mark>&lt;i&gt;</mark>text&lt;/i&gt;"),
        ("Un text", "altceva", "Un text"),
        ("Un text", None, "Un text"),
        ("Un text.", ".", "Un text."),
    ],
)
def test_an_answer_is_marked_where_it_stands(text, answer, shown):
    assert marked(text, answer) == shown


def test_what_is_shown_is_short_and_escaped():
    assert describe(dataclasses.replace(TINY, epochs=1, dora=True).as_dict()) == "r 2 q,v 1e-4, dora, 1 epoch, seed 0"
    assert [rate_text(rate) for rate in (3e-4, 2.5e-4, 0.01)] == ["3e-4", "2.5e-4", "1e-2"]
    assert "&lt;script&gt;" in said("<script>")
    assert said("") == ""


def test_the_curve_names_this_run_and_the_earlier_ones():
    figure = loss_figure([(1, 2.0), (2, 1.0)], 9, "now", [record(TINY, status="stopped")])
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels == ["r 2 q,v 1e-4, 3 epochs, seed 0 (stopped)", "this run"]
    assert figure.axes[0].get_xlim() == (0, 10)  # as far as it has to go
    assert figure_html(figure, 'a "b"').startswith('<img style="max-width: 100%; height: auto" alt="a &quot;b&quot;"')
