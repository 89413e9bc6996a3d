"""Attention for short rows on a CPU, with the key and value heads left as few as they are."""

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

GROUPED = "grouped"


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention's output (rows, tokens, heads, head size) and weights, as transformers' eager attention does.

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


AttentionInterface.register(GROUPED, grouped_attention)
AttentionMaskInterface.register(GROUPED, eager_mask)
