"""What makes a base model fast on a CPU: attention for short rows, layers compiled, memory that stays with the process."""

import ctypes
import math
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.activations import GELUTanh
from transformers.masking_utils import eager_mask

GROUPED = "grouped"
COMPILE_ROWS = 500  # rows of a run: a third of the paper's; the first compilation took a minute, later ones are kept
COMPILE_PARAMETERS = 10_000_000  # a toy model is faster as it is


def keep_freed_memory() -> None:
    """Have glibc keep what is freed: a training step asks for the same large blocks again and again.

    Clearing their pages anew took a quarter of a step. The numbers are mallopt's, from malloc.h.
    Example: keep_freed_memory()
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no block gets a mapping of its own
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: what is freed stays with the process


def grouped_attention(
    module, query, key, value, attention_mask, dropout=0.0, scaling=None, softcap=None, **kwargs
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention's output (rows, tokens, heads, head size) and weights, as transformers' eager attention does.

    It is called by transformers, with query, key and value of (rows, heads, tokens, head size) and a mask to be added.
    Query heads that share a key and value head stand under each other in one matrix, so nothing is repeated and each
    product is several times larger. SDPA's backward pass is slow on a CPU where rows are short.
    Example: model.set_attn_implementation(GROUPED)
    """
    rows, heads, tokens, size = query.shape
    stacked = query.reshape(rows, key.shape[1], -1, size)
    weights = torch.matmul(stacked, key.transpose(2, 3)) * (size**-0.5 if scaling is None else scaling)
    weights = weights.view(rows, heads, tokens, -1)
    if softcap is not None:
        weights = torch.tanh(weights / softcap) * softcap
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = F.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights, p=dropout, training=module.training)
    output = torch.matmul(weights.view(rows, key.shape[1], -1, key.shape[2]), value)
    return output.view(rows, heads, tokens, size).transpose(1, 2).contiguous(), weights


def can_compile(device: str) -> bool:
    """Return whether torch.compile is worth a try: on a CPU it needs a C++ compiler, on a GPU it was not measured.

    Example: can_compile("cpu") -> True where g++ is installed
    """
    return device == "cpu" and shutil.which(os.environ.get("CXX", "g++")) is not None


def pays_to_compile(causal_lm: PreTrainedModel, rows: int) -> bool:
    """Return whether training on so many rows is shorter with its layers compiled.

    Example: pays_to_compile(load_base("gemma-3-270m", detect()), 1800) -> True on a CPU with g++
    """
    worth_it = rows >= COMPILE_ROWS and causal_lm.num_parameters() > COMPILE_PARAMETERS
    return worth_it and can_compile(causal_lm.device.type)


@contextmanager
def compiled_layers(causal_lm: PreTrainedModel) -> Iterator[None]:
    """Compile the decoder layers for as long as the context lasts; they share one compilation, whatever their number.

    In a small model most of a step stands between the matrix products: norms, activations, rotations, casts, each a
    pass through memory. Compiled, they are done in a few passes. What cannot be compiled runs as it was written.
    Example: with compiled_layers(model): trainer.train()
    """
    activations = [(m, m.act_fn) for m in causal_lm.modules() if isinstance(getattr(m, "act_fn", None), GELUTanh)]
    layers = getattr(causal_lm.model, "layers", ())  # where they lie elsewhere (OPT) they run as they were written
    causal_lm.enable_input_require_grads()  # else the first layer, whose input needs no gradient, is compiled apart
    for parent, _ in activations:
        parent.act_fn = SigmoidGelu()
    for layer in layers:
        layer.forward = torch.compile(layer.forward, dynamic=True)
    try:
        # Another set of adapted projections is another layer to compile: eleven configurations pass the limit of eight.
        with torch._dynamo.config.patch(suppress_errors=True, recompile_limit=64):
            yield
    finally:
        for layer in layers:
            del layer.forward
        for parent, activation in activations:
            parent.act_fn = activation
        causal_lm.disable_input_require_grads()


class SigmoidGelu(torch.nn.Module):
    """GELU's tanh approximation, written with a sigmoid: the same function, and three times faster when compiled.

    0.5 (1 + tanh(u)) is sigmoid(2u); compiled for a CPU, tanh is the slowest operation of a whole layer.
    Example: SigmoidGelu()(torch.tensor(1.0)) -> 0.8412
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the activation of x, in its own format."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # float32 at least
        return (wide * torch.sigmoid(math.sqrt(8 / math.pi) * (wide + 0.044715 * wide**3))).to(x.dtype)


AttentionInterface.register(GROUPED, grouped_attention)
AttentionMaskInterface.register(GROUPED, eager_mask)
