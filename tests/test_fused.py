import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel
from transformers import TrainerCallback
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from utils.compilation import SigmoidGelu, can_compile
from utils.config import RunConfig
from utils.data import fingerprint, load_qa
from utils.fused import FusedModel, shared_settings
from utils.fused_trainer import planned_batches
from utils.generation import generate_answers, generate_together
from utils.models import add_lora, load_base, load_tokenizer, remove_lora
from utils.paper import TABLE_4_EXAMPLE
from utils.training import fine_tune, tokenize_row

REFERENCE = json.loads((Path(__file__).parent / "reference" / "answers_float32.json").read_text(encoding="utf-8"))
SHAPES = [(1, "q"), (2, "qv"), (4, "qkvo"), (8, "q"), (16, "qv"), (32, "qkvo"), (2, "o")]
GRID = [
    RunConfig("tiny-llama", rank=rank, target_modules=tuple(modules), learning_rate=rate, epochs=7, seed=seed)
    for rate, seed in ((4e-3, 0), (1e-3, 5))
    for rank, modules in SHAPES
]


@pytest.fixture
def load_double(environment, monkeypatch):
    """The tiny model in float64 throughout: transformers' norms and softmax round to float32 on the way."""

    def norm(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    monkeypatch.setattr(LlamaRMSNorm, "forward", norm)

    def load():
        model = load_base("tiny-llama", dataclasses.replace(environment, dtype="float64"))
        model.set_attn_implementation("sdpa")
        return model

    return load


def adapter_weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if "lora_" in name}


def weights_of(fused, number):
    name = f".{fused.names[number]}."
    return {n.replace(name, ".default."): p.detach() for n, p in fused.model.named_parameters() if name in n}


def assert_same(ours, theirs, tolerance):
    assert ours.keys() == theirs.keys()
    for name, p in theirs.items():
        torch.testing.assert_close(ours[name], p, rtol=0, atol=tolerance, msg=lambda told, name=name: f"{name}: {told}")


class GradientNorms(TrainerCallback):
    def __init__(self):
        self.norms = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "grad_norm" in logs:
            self.norms.append(float(logs["grad_norm"]))


@pytest.fixture
def alone(load_double, tokenizer, data):
    """Every run of the grid by itself: weights before, result, weights after, gradient norms before clipping."""
    found = []
    for config in GRID:
        model, norms = add_lora(load_double(), config), GradientNorms()
        before = adapter_weights(model)
        result = fine_tune(model, tokenizer, data["train"], config, [norms])
        found.append((before, result, adapter_weights(model), norms.norms))
    return found


def test_fused_training_is_separate_training(load_double, tokenizer, data, alone):
    """21 steps in float64: ranks 1 to 32, four sets of modules, two learning rates and two row orders, with clipping."""
    clipped = [sum(norm > 1 for norm in norms) for _, _, _, norms in alone]
    assert max(clipped) > 10  # some runs are clipped at most steps,
    assert min(clipped) == 0  # others never: one norm over all would show
    with FusedModel(load_double(), GRID) as fused:
        for number, (before, *_) in enumerate(alone):
            assert sum(p.numel() for p in fused.parameters(number)) == sum(p.numel() for p in before.values())
        results = fused.fine_tune(tokenizer, data["train"])
        fused.release()
        for number, (before, result, after, _) in enumerate(alone):
            assert max((after[n] - before[n]).abs().max() for n in after) > 1e-3  # it did learn
            assert_same(weights_of(fused, number), after, 1e-9)
            ours = results[number]
            assert len(ours.loss) == len(result.loss) == 21
            assert [e["loss"] for e in ours.loss] == pytest.approx([e["loss"] for e in result.loss], abs=1e-4)
            for name in ("step", "epoch", "learning_rate"):
                assert [e[name] for e in ours.loss] == pytest.approx([e[name] for e in result.loss])
            assert (ours.samples, ours.batch_size, ours.together) == (84, 4, len(GRID))


def test_a_run_that_fails_stands_still_and_changes_no_other(load_double, tokenizer, data):
    configs, weights = [dataclasses.replace(config, epochs=2) for config in GRID[:3]], []
    for broken in (False, True):
        with FusedModel(load_double(), configs) as fused:
            if broken:
                with torch.no_grad():
                    fused.parameters(1)[0].fill_(math.nan)
            results = fused.fine_tune(tokenizer, data["train"])
            fused.release()
            weights.append([{n: p.clone() for n, p in weights_of(fused, i).items()} for i in range(3)])
    for number in (0, 2):
        assert_same(weights[1][number], weights[0][number], 1e-12)
        assert results[number].error is None
    assert results[1].error.startswith("The loss became nan at step 1. Lower the learning rate (0.004)")
    assert (results[1].loss, results[1].samples) == ([], 0)
    assert [e["step"] for e in results[0].loss] == [1, 2, 3, 4, 5, 6]


def test_where_every_run_fails_the_training_ends(base, tokenizer, data):
    with FusedModel(base, GRID[:2]) as fused:
        with torch.no_grad():
            for p in fused.parameters():
                p.fill_(math.nan)
        results = fused.fine_tune(tokenizer, data["train"])
    assert all("not a number" in r.error or "nan" in r.error for r in results)


def test_fused_answers_are_those_of_each_adapter_alone(base, tokenizer, data, tmp_path):
    configs = [
        RunConfig("tiny-llama", rank=rank, target_modules=tuple(modules), learning_rate=3e-2, max_new_tokens=8)
        for rank, modules in SHAPES
    ]
    with FusedModel(base, configs) as fused:
        fused.fine_tune(tokenizer, data["train"])
        together = generate_together(fused.model, tokenizer, data["test"], configs, [()] * len(configs))
        fused.release()
        for i in range(len(configs)):
            fused.save(i, tmp_path / str(i))
    assert len({tuple(p.generation for p in predictions) for predictions in together}) > 3  # they differ
    for i, config in enumerate(configs):
        loaded = PeftModel.from_pretrained(base, tmp_path / str(i))  # an ordinary checkpoint
        assert loaded.peft_config["default"].r == config.rank
        assert generate_answers(loaded, tokenizer, data["test"], config) == together[i]
        remove_lora(loaded)


def test_the_base_model_comes_back_as_it_was(base, tokenizer, data):
    before = {name: p.clone() for name, p in base.named_parameters()}
    with pytest.raises(ValueError, match="no training rows"), FusedModel(base, GRID[:3]) as fused:
        fused.fine_tune(tokenizer, data["train"].select([]))
    after = dict(base.named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_four_bit_layers_can_be_fused(environment, tokenizer, data):
    configs = [RunConfig("tiny-llama", rank=rank, learning_rate=1e-2, epochs=1, seed=rank) for rank in (1, 4)]
    four_bit = dataclasses.replace(environment, quantization="nf4")
    with FusedModel(load_base("tiny-llama", four_bit), configs) as fused:
        assert any(type(layer.base_layer).__name__ == "Linear4bit" for layer in fused.layers)
        results = fused.fine_tune(tokenizer, data["train"])
        fused.release()
        for number, config in enumerate(configs):
            model = add_lora(load_base("tiny-llama", four_bit), config)
            expected = fine_tune(model, tokenizer, data["train"], config)
            assert [e["loss"] for e in results[number].loss] == pytest.approx(
                [e["loss"] for e in expected.loss], rel=1e-4
            )
            assert_same(weights_of(fused, number), adapter_weights(model), 1e-3)


@pytest.mark.skipif(not can_compile("cpu"), reason="no C++ compiler")
def test_compiled_training_is_the_same_training(base, tokenizer, data):
    configs, losses = [dataclasses.replace(config, epochs=1) for config in GRID[:3]], []
    for compiled in (False, True):
        with FusedModel(base, configs) as fused:
            results = fused.fine_tune(tokenizer, data["train"], compiled=compiled)
            losses += [[e["loss"] for result in results for e in result.loss]]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert not any("forward" in vars(layer) for layer in base.model.layers)


def test_gelu_by_its_sigmoid_is_gelu():
    x = torch.linspace(-8, 8, 1001)
    torch.testing.assert_close(SigmoidGelu()(x), F.gelu(x, approximate="tanh"), rtol=1e-5, atol=1e-6)
    assert SigmoidGelu()(torch.tensor(1.0)).item() == pytest.approx(0.8412, abs=1e-4)  # 1 / (1 + exp(-1.6674))


def test_what_cannot_share_a_step_is_not_fused(base):
    config = RunConfig("tiny-llama")
    other = RunConfig("tiny-llama", rank=32, target_modules=("o",), learning_rate=1.0, seed=9, rslora=True)
    assert shared_settings(config) == shared_settings(other)
    for change in ({"epochs": 4}, {"batch_size": 2}, {"loss_on": "text"}, {"prompt_language": "ro"}, {"shots": 1}):
        assert shared_settings(dataclasses.replace(config, **change)) != shared_settings(config)
    for alone in (config.base(), dataclasses.replace(config, dora=True), dataclasses.replace(config, dropout=0.1)):
        assert shared_settings(alone) is None
    with pytest.raises(ValueError, match="agree in model, epochs"):
        FusedModel(base, [config, dataclasses.replace(config, epochs=4)])


def test_batches_of_similar_length_hold_less_padding(base, tokenizer):
    config, padding = RunConfig("tiny-llama", epochs=1, batch_size=2), []
    examples = [tokenize_row(row, tokenizer, config) for row in load_qa("bundled", train_rows=78)["train"]]
    for grouped in (False, True):
        model = add_lora(base, config)
        plan = planned_batches(model, examples, dataclasses.replace(config, group_by_length=grouped))
        remove_lora(model)
        lengths = [[len(e["input_ids"]) for e in batch] for batch in plan]
        assert sorted(n for batch in lengths for n in batch) == sorted(len(e["input_ids"]) for e in examples)
        padding.append(sum(max(batch) * len(batch) - sum(batch) for batch in lengths))
    assert padding[1] < padding[0] / 2


@pytest.mark.parametrize("fused", [False, True])
def test_the_answers_are_those_from_before_the_fused_engine(environment, fused):
    """The reference was recorded by the commit that it names."""
    there = dataclasses.replace(environment, model="gemma-3-270m")
    data = load_qa("bundled", train_rows=12, test_rows=6)
    assert fingerprint(data) == REFERENCE["data"]
    base, tokenizer = load_base(there.model, there), load_tokenizer(there.model)
    runs, found = REFERENCE["runs"], []
    configs = [RunConfig(there.model, **run["config"]) for run in runs]
    rows = [*data["test"], TABLE_4_EXAMPLE]
    if fused:
        with FusedModel(base, configs) as model:
            results = model.fine_tune(tokenizer, data["train"])
            answers = generate_together(model.model, tokenizer, rows, configs, [(), ()])
        found = list(zip(results, answers, strict=True))
    else:
        for config in configs:
            model = add_lora(base, config)
            result = fine_tune(model, tokenizer, data["train"], config)
            found.append((result, generate_answers(model, tokenizer, rows, config)))
            remove_lora(model)
    for run, (result, predictions) in zip(runs, found, strict=True):
        assert [e["loss"] for e in result.loss] == pytest.approx(run["loss"], abs=2e-4)
        assert [p.generation for p in predictions] == [*run["generations"], run["table_4"]]
