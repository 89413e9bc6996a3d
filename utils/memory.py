"""How much memory a run will take, told before it starts."""

from collections.abc import Sequence

import psutil
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from utils.config import RunConfig
from utils.environment import Environment
from utils.loss import CHUNK
from utils.models import add_lora

ADAPTER_BYTES = 16  # a trainable parameter in float32: value, gradient, and AdamW's two moments


def estimate_memory(
    model: PreTrainedModel, config: RunConfig, environment: Environment, lengths: Sequence[int], together: int = 1
) -> dict[str, float]:
    """Return the bytes that the training of a run, or of several together, will hold at its peak, and their `total`.

    `lengths` are the tokens of the training rows; the batch of the longest ones counts. Parts: weights (of the base),
    adapter (values, gradients, AdamW's moments), activations (what autograd keeps for the backward pass, counted
    exactly on the meta device, where tensors have shapes and no content), logits (on the label positions, so many at a
    time), workspace (the largest gradients that live for a moment). The GPU's own context, about half a GiB, is not in it.

    Example: estimate_memory(base, config, environment, [92, 110, 87, 130])["total"] / 2**30 -> 1.3
    """
    batch, longest = config.batch_size, max(lengths)
    with torch.device("meta"):
        shapes = AutoModelForCausalLM.from_config(model.config, dtype=environment.torch_dtype)
    shapes.set_attn_implementation(model.config._attn_implementation)
    adapter = 0
    if not config.is_base:
        shapes = add_lora(shapes, config)
        adapter = shapes.get_nb_trainable_parameters()[0] * ADAPTER_BYTES
    causal_lm = shapes.get_base_model() if adapter else shapes
    width, tokens = environment.torch_dtype.itemsize, batch * longest
    answers = (
        tokens if config.loss_on == "text" else batch * min(longest, 16)
    )  # answers of a dozen tokens are long ones
    parts = {
        "weights": float(model.get_memory_footprint()),
        "adapter": float(adapter),
        "activations": float(_kept_for_backward(causal_lm, batch, longest)) if adapter else 0.0,
        "logits": float(
            min(together * answers * model.config.vocab_size, CHUNK) * (4 + 2 * width)
        ),  # in float32, as they come, and what goes back
        "workspace": float(4 * tokens * model.config.intermediate_size * width),
    }
    for part in ("adapter", "activations", "workspace"):
        parts[part] *= together
    return {**parts, "total": sum(parts.values())}


def free_memory(environment: Environment) -> int:
    """Return the bytes that are free now: of the GPU where there is one, else of the machine.

    Example: free_memory(detect()) > 2**30 -> True
    """
    return torch.cuda.mem_get_info()[0] if environment.device == "cuda" else psutil.virtual_memory().available


def memory_line(parts: dict[str, float], free: float) -> str:
    """Return the estimate against what is free as one line, with advice where it will not fit.

    `free` is measured after the base model was loaded, so its weights are no longer to be found room for.

    Example: memory_line({"weights": 2**30, "total": 2**31}, 2**33) -> "Memory: about 2.0 GiB (weights 1.0), 8.0 GiB free beside the weights."
    """
    shares = ", ".join(f"{name} {size / 2**30:.1f}" for name, size in parts.items() if name != "total" and size > 2**26)
    line = f"Memory: about {parts['total'] / 2**30:.1f} GiB ({shares}), {free / 2**30:.1f} GiB free beside the weights."
    if parts["total"] - parts["weights"] > free:
        line += " This will hardly fit: lower BATCH_SIZE, or set QUANTIZATION to nf4."
    return line


def _kept_for_backward(causal_lm: PreTrainedModel, batch: int, tokens: int) -> int:
    own = {p.untyped_storage()._cdata for p in causal_lm.parameters()}
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # held, so that its identity is not used again
        return tensor

    causal_lm.train()
    device = next(causal_lm.parameters()).device
    ids = torch.zeros(batch, tokens, dtype=torch.long, device=device)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        # Without a mask: SDPA would look into one, and a tensor on the meta device holds nothing to look at.
        output = causal_lm.model(input_ids=ids, use_cache=True)[0]  # held: it is what keeps the rest
        total = sum(storage.nbytes() for storage in kept.values())
    del output
    return total
