"""A base model's name in, the frozen model and its tokenizer out; one model in memory at a time."""

import gc
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from utils.environment import Environment, hub_reachable
from utils.models.access import check_access, describe_model, source_of
from utils.models.adapter import remove_lora
from utils.models.cpu import GROUPED, keep_freed_memory
from utils.models.embedded import gemma_folder, tiny_llama, tiny_tokenizer

IN_USE = threading.RLock()  # whoever works on the base holds it: a cell, or a panel's thread
_held: dict[tuple, tuple[PreTrainedModel, PreTrainedTokenizerFast]] = {}  # one entry at most


@contextmanager
def base_in_use() -> Iterator[None]:
    """Hold the base model for as long as the context lasts; a RuntimeError where another thread works on it.

    Example: with base_in_use(): remove_lora(model)
    """
    if not IN_USE.acquire(blocking=False):
        said = "A panel is using the base model: wait until it has ended, or press Stop, and run this cell again."
        raise RuntimeError(said)
    try:
        yield
    finally:
        IN_USE.release()


@base_in_use()
def held_base(name: str, environment: Environment) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Return the one base model this process keeps, and its tokenizer; an adapter that was left on it is taken off.

    A second model beside the first may not fit, and IPython keeps an interrupted cell's frames alive: so everything
    that runs takes its model from here, and what was held is let go before another is loaded.
    Example: held_base("tiny-llama", detect("smoke"))[0] is held_base("tiny-llama", detect("smoke"))[0] -> True
    """
    revision = describe_model(name)["revision"] if source_of(name).kind == "folder" else None  # it may be written anew
    key = name, revision, environment.device, environment.format_for(name)[0], environment.quantization
    _let_frames_go()
    if key not in _held:
        release_base()
        tokenizer = load_tokenizer(name)
        _held[key] = load_base(name, environment), tokenizer
    model, tokenizer = _held[key]
    return remove_lora(model), tokenizer


@base_in_use()
def release_base() -> None:
    """Let the held model go, with the frames of the last error and what refers to itself, and empty the GPU's cache.

    Example: release_base(); len(gc.garbage) -> 0
    """
    _held.clear()
    _let_frames_go()
    gc.collect()  # under float16 accelerate leaves a cycle through model.forward
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def load_base(name: str, environment: Environment) -> PreTrainedModel:
    """Return the frozen base model in the format that suits it here, on its device, ready to generate or adapt.

    `name` is a key of MODELS, a folder, or a Hub id ("owner/model", or "owner/model@revision"). Raises
    FloatingPointError where the model's numbers overflow: it would answer nothing and look like a bad score.
    Example: load_base("gemma-3-270m", detect()).num_parameters() -> 268098176
    """
    if environment.device == "cpu":
        keep_freed_memory()
    model = load_stock(name, environment)
    model.set_attn_implementation(GROUPED if environment.device == "cpu" else "sdpa")
    # generate() passes the head a slice; torch would then copy a frozen bf16 head, vocabulary and all, for every row.
    model.get_output_embeddings().register_forward_pre_hook(lambda head, inputs: (inputs[0].contiguous(),))
    model.requires_grad_(False).eval()
    ids = torch.arange(32, device=model.device).remainder(model.config.get_text_config().vocab_size)[None]
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    if not logits.isfinite().all():
        raise FloatingPointError(
            f"{name} gives numbers that are not finite in {str(model.dtype).removeprefix('torch.')}: it would answer "
            "nothing, and score 0. Set the environment variable DTYPE to bfloat16 or float32 and load it again."
        )
    return model


def load_stock(name: str, environment: Environment) -> PreTrainedModel:
    """Return the model as transformers gives it to anyone, with nothing of ours on it: what load_base is compared with.

    Example: load_stock("gemma-3-270m", detect()).config._attn_implementation -> "sdpa"
    """
    dtype = getattr(torch, environment.format_for(name)[0])
    arguments = {"dtype": dtype, "device_map": {"": environment.device}}
    if environment.quantization == "nf4":
        nf4 = dict(bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype)
        arguments["quantization_config"] = transformers.BitsAndBytesConfig(load_in_4bit=True, **nf4)
    if source_of(name).kind != "made":
        return _from_pretrained(AutoModelForCausalLM, name, use_safetensors=True, **arguments)
    with tempfile.TemporaryDirectory() as folder:  # through the disk, so that it takes the same way as the others
        tiny_llama().save_pretrained(folder)
        return AutoModelForCausalLM.from_pretrained(folder, **arguments)


def load_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Return the model's tokenizer, with a padding token that is never its end token.

    Padding with the end token would mask the end token out of the loss, and the model would never learn to stop. A
    tokenizer without a padding token of its own gets a spare special token: one that no text becomes.
    Example: load_tokenizer("gemma-3-270m").pad_token -> "<pad>"
    """
    tokenizer = tiny_tokenizer() if source_of(name).kind == "made" else _from_pretrained(AutoTokenizer, name)
    if tokenizer.eos_token_id is None:
        raise ValueError(f"The tokenizer of {name} names no end token; set eos_token in its tokenizer_config.json.")
    if tokenizer.pad_token is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
        special = [token for token in special if token not in (tokenizer.eos_token, tokenizer.bos_token)]
        kinds = ("pad", "reserved", "unk", "extra", "fim")  # the first kind that there is
        if not (spare := [token for kind in kinds for token in special if kind in token.lower()]):
            raise ValueError(f"The tokenizer of {name} has no padding token and no spare one; set its pad_token.")
        tokenizer.pad_token = spare[0]
    return tokenizer


def _let_frames_go() -> None:
    # IPython keeps the error of an interrupted cell, and that its frames: the model, its adapter, a step's activations.
    error, seen = getattr(sys, "last_value", None), []
    while error is not None and all(error is not one for one in seen):  # a chain of causes may be a ring
        seen.append(error)
        traceback.clear_frames(error.__traceback__)
        for frame, _ in traceback.walk_tb(error.__traceback__):
            len(frame.f_locals)  # up to Python 3.12 the shown traceback left a copy; it is only emptied by being read
        error = error.__cause__ or error.__context__


def _from_pretrained(auto_class, name: str, **arguments):
    source, bars = source_of(name), transformers.utils.logging.is_progress_bar_enabled()
    place = str(gemma_folder()) if source.kind == "package" else source.location
    if source.kind == "hub":
        check_access(place, source.revision)
        arguments |= {"revision": source.revision or "main", "local_files_only": not hub_reachable()}
    else:
        arguments["local_files_only"] = True
        transformers.utils.logging.disable_progress_bar()  # a bar a load says nothing; a download's must be seen
    try:
        return auto_class.from_pretrained(place, trust_remote_code=False, **arguments)
    except (OSError, ValueError, SafetensorError) as error:  # what transformers and huggingface_hub make of trouble
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OSError(f"{name} could not be loaded as a causal language model: {first}") from None
    finally:
        if bars:
            transformers.utils.logging.enable_progress_bar()
