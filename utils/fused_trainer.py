"""HF Trainer over steps that hold a batch of every run; loss, clipping and learning rate are each run's own."""

import math
from collections.abc import Iterable

import torch
from peft import PeftModel
from torch import nn
from torch.utils.data import SequentialSampler
from transformers import DataCollatorForSeq2Seq, Trainer, TrainerCallback

from utils.config import RunConfig
from utils.training import IGNORED, answer_losses, loss_advice, training_arguments


class FusedTrainer(Trainer):
    """HF Trainer over fused steps: an item of its dataset is one batch of every run, and the optimizer has a group a run.

    Example: FusedTrainer(fused, examples, tokenizer, callbacks=()).train()
    """

    def __init__(self, fused, examples: list[dict], tokenizer, callbacks: Iterable[TrainerCallback]):
        """Plan the steps of a fused.FusedModel: the batches that each run would see alone."""
        self.fused, config, model = fused, fused.configs[0], fused.model
        pad = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED)
        dtype = model.get_input_embeddings().weight.dtype
        plans = {c.seed: planned_batches(model, examples, c) for c in fused.configs}
        steps = [
            [example for c in fused.configs for example in plans[c.seed][step]]
            for step in range(len(plans[config.seed]))
        ]
        args = training_arguments(config, model.device.type, dtype)
        args.per_device_train_batch_size = args.num_train_epochs = 1
        args.max_grad_norm = 0.0  # clipped below, run by run
        tokenizer.padding_side = "right"
        super().__init__(
            model=model, args=args, train_dataset=steps, data_collator=lambda s: pad(s[0]), callbacks=list(callbacks)
        )
        self.model_accepts_loss_kwargs = True
        self.losses: list[list[dict]] = [[] for _ in fused.configs]
        self.errors: list[str | None] = [None for _ in fused.configs]
        self.epochs = config.epochs

    def _get_train_sampler(self, *_):
        return SequentialSampler(self.train_dataset)

    def create_optimizer(self, model=None):
        """Return the optimizer the arguments name, with a parameter group and a learning rate for each run."""
        kind, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        groups = [
            {"params": self.fused.parameters(i), "lr": config.learning_rate, "weight_decay": self.args.weight_decay}
            for i, config in enumerate(self.fused.configs)
        ]
        self.optimizer = kind(groups, **settings)
        return self.optimizer

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return the sum of the runs' own mean losses; a run that failed counts no more."""
        runs, step = len(self.fused.configs), self.state.global_step
        losses = answer_losses(model.get_base_model(), inputs)
        of_run = (losses.rows // (len(inputs["labels"]) // runs)).to(losses.values.device)
        sums = torch.zeros(runs, dtype=losses.values.dtype, device=of_run.device).index_add(0, of_run, losses.values)
        means = sums / torch.bincount(of_run, minlength=runs)
        told = means.detach().tolist()
        for i, config in enumerate(self.fused.configs):
            if self.errors[i]:
                continue
            if not math.isfinite(told[i]):
                self.errors[i] = loss_advice(told[i], step + 1, config.learning_rate)
                continue
            rate = self.optimizer.param_groups[i]["lr"]
            epoch = (step + 1) * self.epochs / self.state.max_steps
            self.losses[i].append({"step": step + 1, "epoch": epoch, "loss": told[i], "learning_rate": rate})
        going = [i for i, error in enumerate(self.errors) if error is None]
        self.control.should_training_stop |= not going
        return means[going].sum()

    def training_step(self, *arguments, **named):
        """Take the gradients of all runs in one backward pass, then clip those of each run by themselves."""
        loss = super().training_step(*arguments, **named)
        for layer in self.fused.layers:
            layer.hand_out_gradients()
        for i, error in enumerate(self.errors):
            parameters = self.fused.parameters(i)
            if error is None:
                nn.utils.clip_grad_norm_(parameters, 1.0)
            else:
                for p in parameters:
                    p.grad = None
        return loss


def planned_batches(model: PeftModel, examples: list[dict], config: RunConfig) -> list[list[dict]]:
    """Return the batches of all epochs in the order in which HF Trainer gives them to this run when it is alone.

    Example: len(planned_batches(model, examples, config)) -> 450 for 600 rows, batch 4, 3 epochs
    """
    dtype = model.get_input_embeddings().weight.dtype
    args = training_arguments(config, model.device.type, dtype)
    loader = Trainer(
        model=model, args=args, train_dataset=examples, data_collator=lambda batch: batch
    ).get_train_dataloader()
    batches = []
    for epoch in range(config.epochs):
        if hasattr(loader, "set_epoch"):
            loader.set_epoch(epoch)
        batches.extend(loader)
    return batches
