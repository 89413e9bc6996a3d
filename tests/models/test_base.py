import dataclasses
import gc
import json
import pickle
import sys
import threading
import types
import weakref

import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer
from IPython.core.interactiveshell import InteractiveShell
from transformers.utils import logging

from utils.config import RunConfig
from utils.experiments import fine_tune, record_run, sweep
from utils.models import (
    add_lora,
    held_base,
    llama_3b_on_meta,
    load_base,
    load_tokenizer,
    release_base,
    remove_lora,
    trainable_parameters,
)
from utils.models import base as base_module
from utils.models.access import describe_model, source_of
from utils.paper import BASE_PARAMETERS, TABLE_3, TOTAL_PARAMETERS_RANK_32


@pytest.mark.parametrize("published", TABLE_3[1:], ids=lambda row: f"rank {row['rank']}")
def test_llama_3b_gives_table_3s_percentages(published):
    model = llama_3b_on_meta()
    assert model.num_parameters() == BASE_PARAMETERS
    trainable, total = add_lora(model, RunConfig("llama-3.2-3b", published["rank"])).get_nb_trainable_parameters()
    assert round(100 * trainable / total, 4) == published["trainable_percent"]
    assert trainable == trainable_parameters(published["rank"])  # by arithmetic on the shape
    if published["rank"] == 32:
        assert total == TOTAL_PARAMETERS_RANK_32


def test_only_the_adapter_can_be_trained_and_it_starts_without_effect(base, tokenizer):
    ids = torch.tensor([tokenizer("Dunărea curge.").input_ids])
    before = base(ids).logits
    model = add_lora(base, RunConfig("tiny-llama", rank=4, target_modules=("q", "v")))
    assert torch.equal(model(ids).logits, before)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(names) == 2 * 2 * 2  # layers, modules, A and B
    assert all("lora_" in name for name in names)
    # q: 64 in + 64 out, v: 64 in + 32 out, rank 4, two layers
    assert model.get_nb_trainable_parameters()[0] == 2 * 4 * (128 + 96)


def test_rslora_scales_by_the_square_root_of_the_rank(environment):
    def scale(rslora):
        config = RunConfig("tiny-llama", rank=16, alpha=32, rslora=rslora)
        model = add_lora(load_base("tiny-llama", environment), config)
        return model.base_model.model.model.layers[0].self_attn.q_proj.scaling["default"]

    assert scale(False) == 2.0  # 32 / 16
    assert scale(True) == 8.0  # 32 / 4


def test_the_seed_decides_the_adapter(environment):
    def first_a(seed):
        model = add_lora(load_base("tiny-llama", environment), RunConfig("tiny-llama", seed=seed))
        return next(p for name, p in model.named_parameters() if "lora_A" in name)

    assert torch.equal(first_a(0), first_a(0))
    assert not torch.equal(first_a(0), first_a(1))


def test_removing_the_adapter_gives_the_base_model_back(base):
    before = {name: p.clone() for name, p in base.named_parameters()}
    model = add_lora(base, RunConfig("tiny-llama"))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.fill_(1.0)
    back = remove_lora(model)
    after = dict(back.named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    wider = add_lora(back, RunConfig("tiny-llama", target_modules=("q", "k", "v", "o")))
    assert {n.split(".")[-4] for n, p in wider.named_parameters() if "lora_A" in n} == {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
    }


def test_a_second_adapter_is_refused(base):
    model = add_lora(base, RunConfig("tiny-llama"))
    with pytest.raises(ValueError, match="already carries an adapter"):
        add_lora(model.get_base_model(), RunConfig("tiny-llama", rank=4))


def test_the_base_configuration_has_no_adapter(base):
    with pytest.raises(ValueError, match="base model"):
        add_lora(base, RunConfig("tiny-llama", rank=None))


def test_unknown_models_are_named_before_anything_is_loaded(environment):
    with pytest.raises(ValueError, match=r"Unknown model 'lama'; expected one of \['llama-3.2-3b'"):
        load_base("lama", environment)
    with pytest.raises(ConnectionError, match=r"No network: the Hub, which holds meta-llama/Llama-3.2-3B"):
        load_base("llama-3.2-3b", environment)


def test_a_saved_model_loads_from_its_folder(base, tokenizer, environment, tmp_path):
    base.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again = load_base(str(tmp_path), environment)
    assert all(torch.equal(a, b) for a, b in zip(base.parameters(), again.parameters(), strict=True))
    assert load_tokenizer(str(tmp_path)).pad_token == "<pad>"


def test_a_tokenizer_that_pads_with_its_end_token_gets_another(tokenizer, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    tokenizer.save_pretrained(tmp_path)
    ending = load_tokenizer(str(tmp_path))
    ending.pad_token = ending.eos_token
    ending.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).pad_token == "<pad>"


def test_arithmetic_counts_what_peft_adds_to_every_projection():
    letters = ("q", "k", "v", "o", "gate", "up", "down")
    model = add_lora(llama_3b_on_meta(), RunConfig("llama-3.2-3b", 6, target_modules=letters))
    assert model.get_nb_trainable_parameters()[0] == trainable_parameters(6, letters)


def test_a_model_whose_numbers_overflow_is_refused(base, tokenizer, environment, tmp_path):
    """Gemma 3 in float16, in small: a residual stream past 65,504 makes every logit not a number."""
    with torch.no_grad():
        base.model.embed_tokens.weight.fill_(60_000.0)
        base.model.layers[0].mlp.down_proj.weight.fill_(60_000.0)
        base.model.layers[0].self_attn.o_proj.weight.fill_(60_000.0)
    base.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(FloatingPointError, match="not finite in float16.*DTYPE to bfloat16 or float32"):
        load_base(str(tmp_path), dataclasses.replace(environment, dtype="float16"))


def test_one_base_model_is_held_and_another_takes_its_place(environment):
    model, _ = held_base("tiny-llama", environment)
    assert held_base("tiny-llama", environment)[0] is model
    first = weakref.ref(model)
    del model
    other, _ = held_base("tiny-llama", dataclasses.replace(environment, dtype="bfloat16"))
    gc.collect()
    assert first() is None
    assert other.dtype == torch.bfloat16
    add_lora(other, RunConfig("tiny-llama"))  # as an interrupted run may leave it
    fresh, _ = held_base("tiny-llama", dataclasses.replace(environment, dtype="bfloat16"))
    assert not any("lora_" in name for name, _ in fresh.named_modules())
    release_base()


def test_a_base_that_a_panel_works_on_is_not_taken_from_under_it(environment):
    held_base("tiny-llama", environment)
    begun, ended = threading.Event(), threading.Event()

    def work():
        with base_module.IN_USE:
            begun.set()
            ended.wait(60)

    panel = threading.Thread(target=work)
    panel.start()
    assert begun.wait(60)
    takes = [lambda: held_base("tiny-llama", environment), release_base, lambda: fine_tune(*[None] * 5)]
    takes += [lambda: record_run(*[None] * 6), lambda: sweep([], None, environment)]  # a cell that is run again
    for take in takes:
        with pytest.raises(RuntimeError, match="A panel is using the base model: wait"):
            take()
    ended.set()
    panel.join()
    assert held_base("tiny-llama", environment)[0].dtype == torch.float32


def test_errors_that_name_each_other_as_cause_do_not_hold_a_load_up(environment, monkeypatch):
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    monkeypatch.setattr(sys, "last_value", first, raising=False)
    assert held_base("tiny-llama", environment)[0].dtype == torch.float32


@pytest.mark.parametrize(("dtype", "other"), [("float32", "bfloat16"), ("float16", "float32")])
def test_an_interrupted_cells_model_is_gone_before_another_is_loaded(
    environment, data, tmp_path, monkeypatch, request, dtype, other
):
    """IPython keeps the error of the cell, with the frames of its sweep; accelerate's float16 leaves a cycle as well."""
    if dtype == "float16":
        request.getfixturevalue("gradient_scaling")
    config, there = RunConfig("tiny-llama", epochs=1, max_new_tokens=2), dataclasses.replace(environment, runs=tmp_path)
    seen, loaded, load = [], [], base_module.load_base

    def interrupted(optimizer, closure=None):
        raise KeyboardInterrupt

    def watched(name, where):
        loaded.append([one() is None for one in seen])
        model = load(name, where)
        seen.append(weakref.ref(model))
        return model

    release_base()
    monkeypatch.setattr(base_module, "load_base", watched)
    space = {"sweep": sweep, "config": config, "data": data, "environment": dataclasses.replace(there, dtype=dtype)}
    shell = InteractiveShell(ipython_dir=str(tmp_path), user_module=types.ModuleType("notebook"), user_ns=space)
    with monkeypatch.context() as patch:
        patch.setattr(AcceleratedOptimizer, "step", interrupted)
        result = shell.run_cell("records = sweep([config], data, environment)")
    assert isinstance(result.error_in_exec, KeyboardInterrupt)
    assert sys.last_value is result.error_in_exec
    assert seen[0]() is not None
    shell.user_ns["environment"] = dataclasses.replace(there, dtype=other)
    assert shell.run_cell("records = sweep([config], data, environment)").success
    assert loaded == [[], [True]]
    release_base()


def test_a_models_revision_is_known_before_it_is_loaded(base, tmp_path):
    assert describe_model("gemma-3-270m")["revision"].startswith("a5fd3b62")
    assert source_of("owner/model@abc123").revision == "abc123"
    base.save_pretrained(tmp_path)
    before = describe_model(str(tmp_path))
    assert describe_model(str(tmp_path)) == before
    with torch.no_grad():
        base.model.norm.weight[0] += 1
    base.save_pretrained(tmp_path)
    assert describe_model(str(tmp_path))["revision"] != before["revision"]


def test_downloads_keep_their_bars(environment):
    load_base("gemma-3-270m", environment)  # a load from disk is silent, and leaves the switch as it was
    assert logging.is_progress_bar_enabled()


def test_code_that_a_checkpoint_brings_along_is_never_run(environment, tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "evil", "auto_map": {"AutoModelForCausalLM": "evil.Model"}})
    )
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(OSError, match="could not be loaded as a causal language model"):
        load_base(str(tmp_path), environment)
    assert not (tmp_path / "ran").exists()


def test_a_known_architecture_loads_without_the_code_that_its_config_names(base, tokenizer, environment, tmp_path):
    base.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    for name, classes in (
        ("config.json", {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["evil.Slow", "evil.Fast"]}),
    ):
        content = json.loads((tmp_path / name).read_text())
        (tmp_path / name).write_text(json.dumps(content | {"auto_map": classes}))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    again, _ = load_base(str(tmp_path), environment), load_tokenizer(str(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(base.parameters(), again.parameters(), strict=True))
    assert not (tmp_path / "ran").exists()


class Harmful:
    """What a pickle can do: run a command as it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_weights_that_are_a_pickle_are_refused_unread(base, tokenizer, environment, tmp_path):
    base.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with (tmp_path / "pytorch_model.bin").open("wb") as file:
        pickle.dump(Harmful(str(tmp_path / "ran")), file)
    with pytest.raises(OSError, match=r"could not be loaded as a causal language model: .*model\.safetensors"):
        load_base(str(tmp_path), environment)
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def cache(tokenizer, environment, tmp_path, monkeypatch):
    """A Hub cache that holds one model in two commits; main is the second."""
    repository, commits = tmp_path / "models--owner--model", ("a" * 40, "b" * 40)
    for seed, commit in enumerate(commits):
        model = load_base("tiny-llama", environment)
        with torch.no_grad():
            model.model.norm.weight.fill_(seed + 1)
        model.save_pretrained(repository / "snapshots" / commit)
        tokenizer.save_pretrained(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commits[1])
    (repository / "refs" / "v1").write_text(commits[0])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return commits


@pytest.mark.parametrize(
    ("pinned", "which"), [("", 1), ("@main", 1), ("@v1", 0), ("@" + "a" * 40, 0), ("@" + "b" * 40, 1)]
)
def test_a_revision_can_be_pinned_and_the_commit_behind_it_is_recorded(cache, environment, pinned, which):
    name = f"owner/model{pinned}"
    assert describe_model(name) == {"id": "owner/model", "revision": cache[which]}
    assert load_base(name, environment).model.norm.weight[0] == which + 1
    assert load_tokenizer(name).pad_token == "<pad>"


def test_a_revision_that_is_not_there_is_no_other(cache, environment):
    with pytest.raises(ConnectionError, match=r"No network: .*owner/model.* no copy is in the cache"):
        load_base("owner/model@" + "c" * 40, environment)


@pytest.mark.parametrize("name", ["../up/model", "/etc/passwd", "a/../../b", "owner/..", "owner/model@../../x"])
def test_a_models_name_never_climbs_out(name):
    with pytest.raises(ValueError, match="Unknown model"):
        source_of(name)
