import dataclasses
import json
from pathlib import Path

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from utils.config import RunConfig
from utils.fused import FusedModel
from utils.models import add_lora, load_base
from utils.training import fine_tune

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


@pytest.fixture
def alone(load_double, tokenizer, data):
    found = []
    for config in GRID:
        model = add_lora(load_double(), config)
        before = adapter_weights(model)
        found.append((before, fine_tune(model, tokenizer, data["train"], config), adapter_weights(model)))
    return found


def test_fused_training_is_separate_training(load_double, tokenizer, data, alone):
    """21 steps in float64: ranks 1 to 32, four sets of modules, two learning rates and two row orders, with clipping."""
    with FusedModel(load_double(), GRID) as fused:
        for number, (before, _, _) in enumerate(alone):
            fused_before = {n: p for layer in fused.layers for n, p in layer.named_parameters()}
            assert len(fused_before) > 0
            assert sum(p.numel() for p in fused.parameters(number)) == sum(p.numel() for p in before.values())
        results = fused.fine_tune(tokenizer, data["train"])
        fused.release()
        for number, (before, result, after) in enumerate(alone):
            assert max((after[n] - before[n]).abs().max() for n in after) > 1e-3  # it did learn
            assert_same(weights_of(fused, number), after, 1e-9)
            ours = results[number]
            assert len(ours.loss) == len(result.loss) == 21
            assert [e["loss"] for e in ours.loss] == pytest.approx([e["loss"] for e in result.loss], abs=1e-4)
            for name in ("step", "epoch", "learning_rate"):
                assert [e[name] for e in ours.loss] == pytest.approx([e[name] for e in result.loss])
            assert (ours.samples, ours.batch_size, ours.together) == (84, 4, len(GRID))
