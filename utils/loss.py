"""Cross entropy through the vocabulary head, without ever holding all logits."""

import torch
from torch.autograd.function import once_differentiable

CHUNK = 2**25  # logits held at once: 128 rows of Gemma's vocabulary, 128 MiB in float32


class HeadCrossEntropy(torch.autograd.Function):
    """The loss of each hidden state (rows, hidden size) against its label, through a frozen head (vocabulary, hidden size).

    Logits are the largest thing in a step: at 262,144 a row, eleven runs together fill gigabytes with them, their
    float32 copy and their gradient. Since the head is frozen, the gradient of the hidden states can be worked out as
    soon as a few rows' logits are there, and the logits can go.

    Example: HeadCrossEntropy.apply(hidden, model.lm_head.weight, labels).mean()
    """

    @staticmethod
    def forward(ctx, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of each row in nats, in float32 at least."""
        wide = torch.promote_types(hidden.dtype, torch.float32)
        losses = torch.empty(len(hidden), dtype=wide, device=hidden.device)
        slope = torch.empty(hidden.shape, dtype=hidden.dtype, device=hidden.device)
        size = max(1, CHUNK // len(weight))
        for start in range(0, len(hidden), size):
            rows = slice(start, start + size)
            logits = torch.matmul(hidden[rows], weight.T).to(wide)
            logits -= logits.amax(
                -1, keepdim=True
            )  # all in place: a second tensor of this size costs more than the sums
            own = logits.gather(1, labels[rows, None])
            total = logits.exp_().sum(-1, keepdim=True)
            losses[rows] = (total.log() - own)[:, 0]
            if ctx.needs_input_grad[0]:
                chances = logits.div_(total)
                chances.scatter_add_(1, labels[rows, None], torch.full_like(own, -1.0))
                slope[rows] = torch.matmul(chances.to(weight.dtype), weight)
        ctx.save_for_backward(slope)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx, of_losses: torch.Tensor):
        """Return the gradient of the hidden states; the head is frozen."""
        (slope,) = ctx.saved_tensors
        return (slope * of_losses[:, None]).to(slope.dtype), None, None
