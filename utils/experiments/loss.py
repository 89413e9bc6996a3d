"""An adapted model and a batch in, its loss out: cross entropy at the answer's positions, with the head on those alone."""

import math

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, Trainer

from utils.environment import FORMAT_ADVICE

IGNORED = -100  # the label that cross entropy leaves out


def answer_loss(
    causal_lm: PreTrainedModel, inputs: dict[str, torch.Tensor], tokens: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Return the summed cross entropy at the labelled positions over `tokens` (None: their number), in nats.

    A prompt has a hundred tokens and an answer five: with the vocabulary head on all of them, most of a step goes into
    logits that the loss throws away. The head is handed the answer's positions alone; what the model does to its logits
    afterwards (Gemma 2 caps them, Granite scales them) stays the model's own. `inputs` holds input_ids, attention_mask
    and labels, each (rows, tokens).
    Example: answer_loss(model, batch) -> the loss that model(**batch) gives
    """
    next_ids = inputs["labels"][:, 1:]  # position i predicts token i + 1
    labelled = next_ids != IGNORED
    head = causal_lm.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, hidden: (hidden[0][:, :-1][labelled],), prepend=True)
    try:
        logits = causal_lm(**{name: inputs[name] for name in ("input_ids", "attention_mask")}, use_cache=False).logits
    finally:
        hook.remove()
    total = F.cross_entropy(logits.float(), next_ids[labelled], reduction="sum")
    return total / (len(logits) if tokens is None else tokens)


class AnswerTrainer(Trainer):
    """HF Trainer with `answer_loss`: the mean cross entropy over the label tokens of the step."""

    def __init__(self, *args, **kwargs):
        """Take Trainer's arguments; tell it that the loss counts the step's label tokens by itself."""
        kwargs["args"]._n_gpu = min(1, kwargs["args"].n_gpu)  # else Trainer shares a batch among all GPUs
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = True

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return the step's loss; one that is not a number ends the run."""
        loss = answer_loss(model.get_base_model(), inputs, num_items_in_batch)
        if not math.isfinite(loss.item()):
            advice = f"Lower the learning rate ({self.args.learning_rate:g}), or {FORMAT_ADVICE}."
            raise FloatingPointError(f"The loss became {loss.item()} at step {self.state.global_step + 1}. {advice}")
        return loss
