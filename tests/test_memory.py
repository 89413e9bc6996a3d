import pytest
import torch

from utils import memory
from utils.config import RunConfig
from utils.memory import estimate_memory, free_memory, memory_line
from utils.models import add_lora

LENGTHS = [80, 92, 75, 60]


def test_weights_and_adapter_are_counted_to_the_byte(base, environment):
    config = RunConfig("tiny-llama", rank=4)
    parts = estimate_memory(base, config, environment, LENGTHS)
    buffers = sum(b.numel() for b in base.buffers())
    assert parts["weights"] == 4 * (base.num_parameters() + buffers)
    assert parts["adapter"] == 2 * 4 * (128 + 96) * 16  # layers, rank, q and v in + out; value, gradient, two moments
    assert parts["total"] == sum(size for name, size in parts.items() if name != "total")


def test_activations_are_what_autograd_keeps_in_a_real_step(base, environment):
    config = RunConfig("tiny-llama", rank=4)
    told = estimate_memory(base, config, environment, LENGTHS)["activations"]
    model = add_lora(base, config).train()
    own, kept = {p.data_ptr() for p in model.parameters()}, {}

    def keep(tensor):
        if tensor.data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.ones(4, 92, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model.get_base_model().model(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
    real = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    assert output.shape == (4, 92, 64)
    assert told == pytest.approx(real, rel=0.02)


def test_the_attention_of_a_gpu_can_be_estimated_too(base, environment):
    config = RunConfig("tiny-llama", rank=4)
    base.set_attn_implementation("eager")
    eager = estimate_memory(base, config, environment, LENGTHS)["activations"]
    base.set_attn_implementation("sdpa")
    assert 0 < estimate_memory(base, config, environment, LENGTHS)["activations"] <= eager


def test_the_estimate_grows_with_what_costs_memory(base, environment):
    def total(lengths=LENGTHS, **settings):
        return estimate_memory(base, RunConfig("tiny-llama", **settings), environment, lengths)["total"]

    assert total(batch_size=8) > 1.5 * total(batch_size=4) - 4 * base.num_parameters()
    assert total(rank=32) > total(rank=2)
    assert total(loss_on="text") > total(loss_on="answer")
    assert total(lengths=[200]) > total()
    assert estimate_memory(base, RunConfig("tiny-llama", rank=None), environment, LENGTHS)["activations"] == 0


def test_runs_together_share_the_weights_and_hold_some_logits_at_a_time(base, environment, monkeypatch):
    config = RunConfig("tiny-llama", rank=4)
    one, three = (estimate_memory(base, config, environment, LENGTHS, together) for together in (1, 3))
    assert three["weights"] == one["weights"]
    for part in ("adapter", "activations", "workspace", "logits"):
        assert three[part] == 3 * one[part]
    assert one["logits"] == 4 * 16 * 1000 * 12  # rows, answer tokens, vocabulary; three float32 tensors
    monkeypatch.setattr(memory, "CHUNK", 1000 * 70)
    assert estimate_memory(base, config, environment, LENGTHS, 3)["logits"] == 1000 * 70 * 12


def test_the_line_says_what_to_do_where_it_will_not_fit(environment):
    gib = 2**30
    parts = {"weights": 6.0 * gib, "activations": 3.0 * gib, "total": 9.0 * gib}
    fits = memory_line(parts, 4.0 * gib)
    assert fits == "Memory: about 9.0 GiB (weights 6.0, activations 3.0), 4.0 GiB free beside the weights."
    assert "QUANTIZATION to nf4" in memory_line(parts, 2.0 * gib)
    assert free_memory(environment) > 2**28
