"""Several adapters trained and asked at once on one frozen base model: the fused engine.

A step takes one batch of every run. The frozen layers see all rows together, and each adapted layer works out all
updates with two batched products over the stacked A and B; rows of one run never meet another run's numbers.
"""

import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from datasets import Dataset
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback

from utils.compilation import compiled_layers
from utils.config import RunConfig
from utils.fused_trainer import FusedTrainer
from utils.models import add_lora, lora_config, remove_lora
from utils.training import (
    TrainingResult,
    tokenize_row,
    train,
)

# What the runs of one fused step must have in common; rank, alpha, modules, learning rate and seed are their own.
_SHARED = (
    "model", "epochs", "batch_size", "group_by_length", "loss_on", "prompt_language",
    "max_new_tokens", "eval_batch_tokens", "shots",
)  # fmt: skip


def shared_settings(config: RunConfig) -> tuple | None:
    """Return what a run must have in common with others to be fused with them, None where it cannot be.

    Dropout draws random numbers for the whole batch, and DoRA needs each merged weight: those runs go one by one.

    Example: shared_settings(RunConfig("tiny-llama", rank=1)) == shared_settings(RunConfig("tiny-llama", rank=8)) -> True
    """
    if config.is_base or config.dora or config.dropout:
        return None
    return tuple(getattr(config, name) for name in _SHARED)


class FusedLora(nn.Module):
    """A linear layer with the updates of several adapters, each on its own share of the batch.

    The batch holds the adapters' rows one adapter after the other, equally many of each. A and B stand in two stacks,
    zero-padded to the largest rank; an adapter that leaves this layer alone has zeros there. Zeros stay zeros, since
    the gradient of each is a product with the other. (To gather only the rows that need it costs more than it saves.)
    PEFT's own parameters become views into the stacks, so whatever trains or saves them works on the same numbers.

    Example: FusedLora(layer, ["default", "adapter1"])(rows_of_both)
    """

    def __init__(self, layer: LoraLayer, adapters: Sequence[str]):
        """Take over PEFT's layer; `adapters` are the names of all runs, in the order of their rows."""
        super().__init__()
        self.base_layer, self.adapters = layer.base_layer, len(adapters)
        carried = [(i, name) for i, name in enumerate(adapters) if name in layer.lora_A]
        some = layer.lora_A[carried[0][1]].weight
        kind = dict(dtype=some.dtype, device=some.device)
        shape = len(adapters), max(layer.r[name] for _, name in carried)
        self.A = nn.Parameter(torch.zeros(*shape, layer.in_features, **kind))
        self.B = nn.Parameter(torch.zeros(*shape, layer.out_features, **kind))
        self.register_buffer("scaling", torch.zeros(len(adapters), 1, 1, **kind), persistent=False)
        self.views: list[tuple[int, nn.Parameter, nn.Parameter]] = []
        for i, name in carried:
            a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
            self.scaling[i] = layer.scaling[name]
            self.A.data[i, : len(a)], self.B.data[i, : len(a)] = a.data, b.data.T
            a.data, b.data = self.A.data[i, : len(a)], self.B.data[i, : len(a)].T
            self.views.append((i, a, b))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the frozen layer's output for all rows, each with its adapter's update: (rows, tokens, out)."""
        result = self.base_layer(x)
        rows = x.reshape(self.adapters, -1, x.shape[-1]).to(self.A.dtype)
        update = torch.bmm(torch.bmm(rows, self.A.transpose(1, 2)), self.B) * self.scaling
        return (result + update.view(result.shape)).to(result.dtype)

    def hand_out_gradients(self) -> None:
        """Give each PEFT parameter its share of the stacks' gradients, as a view.

        The stacks themselves keep none: Trainer takes one norm over all that it finds in the model, and one run's
        NaN in it would reach every run.
        """
        for i, a, b in self.views:
            a.grad, b.grad = self.A.grad[i, : len(a)], self.B.grad[i, : len(a)].T
        self.A.grad = self.B.grad = None

    def release(self) -> None:
        """Give each PEFT parameter storage of its own again."""
        for _, a, b in self.views:
            a.data, b.data = a.data.clone().contiguous(), b.data.clone().contiguous()
            a.grad = b.grad = None


class FusedModel:
    """A base model that carries one adapter for each configuration; a context: leaving it gives the base model back.

    Example: with FusedModel(base, configs) as fused: results = fused.fine_tune(tokenizer, data["train"])
    """

    def __init__(self, base: PreTrainedModel, configs: Sequence[RunConfig]):
        """Add the adapters, each seeded as it would be alone; the configurations must share what `_SHARED` names."""
        shared = {shared_settings(config) for config in configs}
        if len(shared) != 1 or None in shared:
            raise ValueError(
                f"These {len(configs)} runs cannot be fused: they must be adapters without dropout and DoRA that agree "
                f"in {', '.join(_SHARED)}."
            )
        self.configs = list(configs)
        self.names = ["default", *(f"adapter{i}" for i in range(1, len(self.configs)))]  # PEFT calls the first default
        self.model: PeftModel = add_lora(base, self.configs[0])
        for name, config in zip(self.names[1:], self.configs[1:], strict=True):
            torch.manual_seed(config.seed)
            self.model.add_adapter(name, lora_config(config))
        self._places = [
            (self.model.get_submodule(path.rpartition(".")[0]), path.rpartition(".")[2], layer)
            for path, layer in self.model.named_modules()
            if isinstance(layer, LoraLayer)
        ]
        for parent, name, layer in self._places:
            setattr(parent, name, FusedLora(layer, self.names))
        for p in self.parameters():
            p.requires_grad_(True)  # PEFT freezes all adapters but the active one

    def __enter__(self) -> "FusedModel":
        """Return itself."""
        return self

    def __exit__(self, *_) -> None:
        """Take all adapters off the base model again."""
        self.release()
        remove_lora(self.model)

    @property
    def layers(self) -> list[FusedLora]:
        """The fused layers, in the model's order; empty after `release`."""
        return [m for m in self.model.modules() if isinstance(m, FusedLora)]

    def parameters(self, number: int | None = None) -> list[nn.Parameter]:
        """Return PEFT's parameters of one configuration, or of all."""
        return [p for layer in self.layers for i, a, b in layer.views if number in (None, i) for p in (a, b)]

    def release(self) -> None:
        """Put PEFT's own layers back, with the weights that were trained."""
        for parent, name, layer in self._places:
            if isinstance(fused := getattr(parent, name), FusedLora):
                fused.release()
                setattr(parent, name, layer)

    def save(self, number: int, folder: Path) -> None:
        """Write one configuration's adapter as an ordinary PEFT checkpoint; only after `release`."""
        name = self.names[number]
        with tempfile.TemporaryDirectory() as temporary:
            self.model.save_pretrained(temporary, selected_adapters=[name])
            written = Path(temporary) / ("." if name == "default" else name)  # PEFT gives the others a folder each
            shutil.copytree(written, folder, dirs_exist_ok=True)

    def fine_tune(
        self,
        tokenizer: PreTrainedTokenizerFast,
        rows: Dataset,
        callbacks: Iterable[TrainerCallback] = (),
        compiled: bool = False,
    ) -> list[TrainingResult]:
        """Train all adapters on the rows, each in its own order, and return a result for each.

        No run influences another: loss, gradient clipping and learning rate are each run's own. A run whose loss is
        not a number gets an `error` and stands still from there, while the others go on. `compiled` has torch.compile
        fuse what stands between the matrix products.

        Example: fused.fine_tune(tokenizer, data["train"])[0].loss[-1]["loss"]
        """
        examples = [tokenize_row(row, tokenizer, self.configs[0]) for row in rows]
        if not examples:
            raise ValueError("There are no training rows.")
        trainer = FusedTrainer(self, examples, tokenizer, callbacks)
        with compiled_layers(self.model.get_base_model(), compiled):
            seconds = train(trainer)
        state, share = trainer.state, 1 / len(self.configs)
        stopped_at = state.global_step if state.global_step < state.max_steps else None
        results = []
        for loss, error in zip(trainer.losses, trainer.errors, strict=True):
            samples = round(len(loss) / state.max_steps * self.configs[0].epochs * len(examples))
            results.append(
                TrainingResult(
                    loss, seconds * share, samples, self.configs[0].batch_size, 1, stopped_at, error, len(self.configs)
                )
            )
        return results
