"""The LoRA adapter that goes on top of a frozen base model: its settings, adding it, taking it off, counting it."""

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from utils.config import MODULE_LETTERS, RunConfig
from utils.disk import whole

LLAMA_3B = dict(vocab_size=128256, hidden_size=3072, intermediate_size=8192, num_hidden_layers=28,
                num_attention_heads=24, num_key_value_heads=8, head_dim=128, max_position_embeddings=131072,
                rms_norm_eps=1e-5, tie_word_embeddings=True, bos_token_id=128000, eos_token_id=128001)  # fmt: skip


def lora_config(config: RunConfig) -> LoraConfig:
    """Return PEFT's settings for a run: rank, alpha and the projections that carry an adapter (paper, eq. 1 and 2).

    Example: lora_config(RunConfig(model="tiny-llama", rank=2)).target_modules -> {"q_proj", "v_proj"}
    """
    if config.is_base:
        raise ValueError("This configuration is the base model (rank None): it has no adapter to add.")
    modules = [MODULE_LETTERS[letter] for letter in config.target_modules]
    return LoraConfig(r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=modules,
                      use_rslora=config.rslora, use_dora=config.dora, task_type="CAUSAL_LM")  # fmt: skip


def add_lora(model: PreTrainedModel, config: RunConfig) -> PeftModel:
    """Return the model with a fresh adapter, seeded by config.seed; only the adapter's A and B can be trained.

    B starts at zero, so the model answers exactly as the base does until it is trained.
    Example: add_lora(llama_3b_on_meta(), RunConfig(model="x", rank=2)).get_nb_trainable_parameters() -> (573440, 3213323264)
    """
    if any("lora_" in name for name, _ in model.named_parameters()):  # get_peft_model would silently keep its modules
        raise ValueError("This model already carries an adapter; call remove_lora on it before adding another.")
    check_modules(model, config)
    torch.manual_seed(config.seed)
    try:
        return get_peft_model(model, lora_config(config))
    except BaseException:  # an interrupt in the middle would leave half an adapter on the base
        remove_lora(model)
        raise


def check_modules(model: PreTrainedModel, config: RunConfig) -> None:
    """Raise a ValueError that names the projections a model lacks, and its own linear layers to choose from.

    Example: check_modules(phi, RunConfig("phi", target_modules=("q",))) names "qkv_proj"
    """
    linear = {name.split(".")[-1] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    if missing := [letter for letter in config.target_modules if MODULE_LETTERS[letter] not in linear]:
        fused = ", ".join(sorted(linear & {"qkv_proj", "gate_up_proj", "c_attn", "query_key_value"}))
        why = f" It holds several of them fused in {fused}, which this series cannot tell apart." if fused else ""
        own = ", ".join(sorted(linear - {"lm_head"}))
        raise ValueError(
            f"{config.model} has no projections {', '.join(missing)}; its linear layers are {own}.{why} "
            "Choose other target_modules (TARGET_MODULES in a notebook), or another model."
        )


def remove_lora(model: PeftModel | PreTrainedModel) -> PreTrainedModel:
    """Return the base model as it was before an adapter was put on, in full or, after an interrupt, in part.

    Example: remove_lora(add_lora(base, config)) is base -> True
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    for name, module in list(base.named_modules()):
        if isinstance(module, BaseTunerLayer):
            parent, _, child = name.rpartition(".")
            setattr(base.get_submodule(parent), child, module.get_base_layer())
    base.requires_grad_(False)
    vars(base).pop("peft_config", None)  # else PEFT warns of a second adapter
    return base.eval()  # a run that broke off leaves it in training mode


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write an adapter as PEFT's checkpoint; the folder appears whole, in the place of what was there.

    Example: save_adapter(model, adapter_folder(runs, run_id, identity))
    """
    with whole(folder) as unfinished:
        try:
            model.save_pretrained(unfinished, save_embedding_layers=False)  # LoRA leaves them as they are
        except SafetensorError as error:  # what the library makes of a full disk
            raise OSError(str(error)) from None


def has_adapter(folder: Path) -> bool:
    """Return whether a folder holds an adapter whose weights are all there.

    Example: has_adapter(adapter_folder(runs, run_id, identity)) -> True
    """
    try:
        with safe_open(folder / "adapter_model.safetensors", "pt") as weights:
            return bool(weights.keys()) and (folder / "adapter_config.json").exists()
    except (OSError, SafetensorError):
        return False


def llama_3b_on_meta() -> PreTrainedModel:
    """Return Llama 3.2 3B's exact architecture without weights (meta device): for counting, not for answering.

    Example: llama_3b_on_meta().num_parameters() -> 3212749824
    """
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(LlamaConfig(**LLAMA_3B), dtype=torch.bfloat16)
