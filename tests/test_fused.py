import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from utils.config import RunConfig
from utils.data import fingerprint
from utils.fused import FusedModel, planned_batches, shared_settings
from utils.generation import generate_answers, generate_together
from utils.models import add_lora, load_base, load_tokenizer
from utils.training import fine_tune

REFERENCE = json.loads((Path(__file__).parent / "reference" / "answers_float32.json").read_text(encoding="utf-8"))
SHAPES = [(1, "q"), (2, "qv"), (4, "qkvo"), (8, "q"), (16, "qv"), (32, "qkvo"), (2, "o")]
GRID = [
    RunConfig("tiny-llama", rank=rank, target_modules=tuple(modules), learning_rate=rate, epochs=7, seed=seed)
    for rate, seed in ((3e-2, 0), (1e-2, 5))
    for rank, modules in SHAPES
]


@pytest.fixture
def doubles(environment):
    return dataclasses.replace(environment, dtype="float64")


def adapter_weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if "lora_" in name}


def weights_of(fused, number):
    name = f".{fused.names[number]}."
    return {n.replace(name, ".default."): p.detach() for n, p in fused.model.named_parameters() if name in n}


def assert_same(ours, theirs, tolerance):
    assert ours.keys() == theirs.keys()
    for name, p in theirs.items():
        torch.testing.assert_close(ours[name], p, rtol=0, atol=tolerance, msg=name)


@pytest.fixture
def alone(doubles, tokenizer, data):
    found = []
    for config in GRID:
        model = add_lora(load_base("tiny-llama", doubles), config)
        before = adapter_weights(model)
        found.append((before, fine_tune(model, tokenizer, data["train"], config), adapter_weights(model)))
    return found


def test_fused_training_is_separate_training(doubles, tokenizer, data, alone):
    """21 steps in float64: ranks 1 to 32, four sets of modules, two learning rates and two row orders, with clipping."""
    with FusedModel(load_base("tiny-llama", doubles), GRID) as fused:
        for number, (before, _, _) in enumerate(alone):
            fused_before = {n: p for layer in fused.layers for n, p in layer.named_parameters()}
            assert len(fused_before) > 0
            assert sum(p.numel() for p in fused.parameters(number)) == sum(p.numel() for p in before.values())
        results = fused.fine_tune(tokenizer, data["train"])
        fused.release()
        for number, (before, result, after) in enumerate(alone):
            assert max((after[n] - before[n]).abs().max() for n in after) > 1e-2  # it did learn
            assert_same(weights_of(fused, number), after, 1e-9)
            ours = results[number]
            assert len(ours.loss) == len(result.loss) == 21
            assert [e["loss"] for e in ours.loss] == pytest.approx([e["loss"] for e in result.loss], abs=1e-4)
            for name in ("step", "epoch", "learning_rate"):
                assert [e[name] for e in ours.loss] == pytest.approx([e[name] for e in result.loss])
            assert (ours.samples, ours.batch_size, ours.together) == (84, 4, len(GRID))
