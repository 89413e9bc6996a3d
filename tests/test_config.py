import dataclasses

import pytest

from utils.config import PROFILES, RunConfig, problems, varied


def test_the_run_id_names_what_is_varied():
    config = RunConfig(model="owner/model", rank=8, target_modules="q,k,v,o", learning_rate=3e-4, seed=2)
    assert config.run_id.startswith("r8-a32-qkvo-lr3e-4-s2-model-")
    assert RunConfig(model="m", learning_rate=2.5e-5).run_id.startswith("r2-a8-qv-lr2.5e-5-s0-m-")
    assert RunConfig(model="m", rank=None).run_id.startswith("base-m-")
    assert RunConfig(model="m", rank=None, shots=3).run_id.startswith("base-3shot-m-")


def test_every_field_changes_the_run_id():
    config = RunConfig(model="m")
    other = dict(
        model="n", rank=4, alpha=1, target_modules=("q",), learning_rate=1e-3, epochs=1, batch_size=2, seed=1, dropout=0.1,
        loss_on="text", prompt_language="ro", max_new_tokens=8,
        temperature=0.6, top_p=0.9, draw=1, shots=3, rslora=True, dora=True,
    )  # fmt: skip
    assert set(other) == {f.name for f in dataclasses.fields(RunConfig)}
    ids = {dataclasses.replace(config, **{name: value}).run_id for name, value in other.items()}
    assert len(ids | {config.run_id}) == len(other) + 1


def test_alpha_defaults_to_four_times_the_rank_and_whole_numbers_are_floats():
    assert RunConfig(model="m", rank=16).alpha == 64
    assert RunConfig(model="m", alpha=8).run_id == RunConfig(model="m", alpha=8.0).run_id


def test_a_configuration_survives_json():
    config = RunConfig(model="m", rank=4, target_modules=("q", "down"))
    assert RunConfig.from_dict(config.as_dict()) == config
    with pytest.raises(ValueError, match="rang"):
        RunConfig.from_dict({"model": "m", "rang": 2})
    older = config.as_dict() | {"group_by_length": False, "eval_batch_tokens": 2048}
    assert RunConfig.from_dict(older) == config  # retired settings are left out by name


def test_problems_come_field_by_field():
    found = problems({"rank": 0, "alpha": 8.0, "epochs": 3, "loss_on": "all"})
    assert found["rank"].startswith("is 0; expected a whole number from 1 to 1024")
    assert found["loss_on"] == "is 'all'; expected 'answer' or 'text'"
    assert set(found) == {"rank", "loss_on"}


def test_base_keeps_what_matters_for_answering_and_nothing_else():
    adapted = RunConfig(model="m", rank=8, learning_rate=3e-4, epochs=9, seed=4, max_new_tokens=8, prompt_language="ro")
    assert adapted.base().is_base
    assert adapted.base() == RunConfig(model="m", rank=None, max_new_tokens=8, prompt_language="ro")
    assert RunConfig(model="m", shots=3, seed=4).base() == RunConfig(model="m", rank=None, shots=3, seed=4)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rank", 0, "rank is 0; expected a whole number from 1"),
        ("rank", 2.5, "rank is 2.5"),
        ("rank", True, "rank is True"),
        ("alpha", -1, "alpha is -1"),
        ("learning_rate", -1e-4, "learning_rate is -0.0001; expected a number above 0"),
        ("learning_rate", float("nan"), "learning_rate is nan"),
        ("target_modules", ("q", "w"), r"target_modules is \('q', 'w'\); expected letters out of q, k, v, o"),
        ("target_modules", (), r"target_modules is \(\); expected letters.*one or more"),
        ("target_modules", ("q", "q"), "none of them twice"),
        ("epochs", 0, "epochs is 0"),
        ("batch_size", "4", "batch_size is '4'"),
        ("dropout", 1.0, "dropout is 1.0"),
        ("shots", -1, "shots is -1"),
        ("temperature", -0.1, r"temperature is -0.1; expected a number, 0 \(greedy\) or more"),
        ("top_p", 0, "top_p is 0.0; expected a number above 0, at most 1"),
        ("draw", -1, "draw is -1"),
        ("rslora", "no", "rslora is 'no'"),
        ("loss_on", "all", "loss_on is 'all'"),
        ("prompt_language", "fr", "prompt_language is 'fr'"),
        ("model", "", "model is ''"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(field, value, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(**{"model": "m", field: value})


def test_what_is_varied_leaves_out_defaults_and_retired_settings():
    config = RunConfig(model="m", rank=8, target_modules=("v", "q"))
    assert varied(config.as_dict()) == {"model": "m", "rank": 8, "alpha": 32.0, "target_modules": ["v", "q"]}
    assert varied(RunConfig(model="m").as_dict() | {"group_by_length": True}) == {"model": "m", "alpha": 8.0}
    assert varied(config.base().as_dict()) == {"model": "m", "rank": None}


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(ValueError) as error:
        RunConfig(model="m", rank=0, epochs=0)
    assert str(error.value).count("\n- ") == 2


def test_profiles():
    assert set(PROFILES) == {"smoke", "demo", "full"}
    assert PROFILES["full"].train_rows is None
    assert PROFILES["full"].gpu_model == "llama-3.2-3b"
