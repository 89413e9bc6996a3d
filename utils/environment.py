"""What this machine can do, and what follows for a run: device, number format, profile, where runs are kept."""

import importlib.metadata
import importlib.util
import logging
import os
import platform
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import pandas as pd
import torch

from utils.config import PROFILES

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "bitsandbytes", "numpy", "pandas", "matplotlib")
OLDEST_TORCHAO = (0, 16)  # peft raises ImportError on an older one, even for plain LoRA


@dataclass(frozen=True)
class Environment:
    """The machine and the choices that follow from it; `detect` fills one in."""

    device: str
    """Where tensors live: "cuda" or "cpu"."""
    dtype: str
    """Number format of the frozen base weights: "bfloat16", "float16" or "float32"."""
    dtype_reason: str
    """Why that format, in one phrase."""
    quantization: str
    """"none", or "nf4" where bitsandbytes holds the base in 4 bits."""
    profile: str
    """Key of config.PROFILES."""
    model: str
    """The model this profile runs on this machine, a key of models.MODELS."""
    dataset: str
    """The dataset this profile loads: "hub" for Llama on a GPU, else "bundled"."""
    runs: Path
    """Folder of this profile's records, adapters and figures."""
    gpu: str | None = None
    """Name and memory of the GPU, None without one."""

    @property
    def torch_dtype(self) -> torch.dtype:
        """The number format as torch names it."""
        return getattr(torch, self.dtype)


def detect(profile: str | None = None) -> Environment:
    """Look at the machine and return what a run will use; nothing is loaded yet.

    The profile is the argument, else the environment variable PROFILE, else "full" on a GPU and "demo" without.
    Runs go to a folder per profile under `runs/`, or under the environment variable RUNS.

    Example: detect("demo").model -> "gemma-3-270m"
    """
    has_gpu = torch.cuda.is_available()
    profile = profile or os.environ.get("PROFILE") or ("full" if has_gpu else "demo")
    if profile not in PROFILES:
        raise ValueError(f"Unknown profile {profile!r}; expected one of {list(PROFILES)}.")
    model = PROFILES[profile].gpu_model if has_gpu else PROFILES[profile].model
    dtype, reason = ("float32", "the smoke profile compares numbers exactly") if profile == "smoke" else _dtype()
    gpu = None
    if has_gpu:
        properties = torch.cuda.get_device_properties(0)
        gpu = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return Environment(
        device="cuda" if has_gpu else "cpu",
        dtype=dtype,
        dtype_reason=reason,
        quantization="none",
        profile=profile,
        model=model,
        dataset="hub" if model == "llama-3.2-3b" else "bundled",
        runs=Path(os.environ.get("RUNS") or ROOT / "runs").resolve() / profile,
        gpu=gpu,
    )


def prepare() -> None:
    """Make a fresh Colab runtime able to run the notebooks; anywhere else, and when called again, install nothing.

    On Colab it installs bitsandbytes where it is missing and removes a torchao that peft refuses; torch and numpy are
    never touched. Everywhere it silences two messages that a reader can do nothing about.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # "kernels is not installed", and not needed
    if importlib.util.find_spec("google") is None or importlib.util.find_spec("google.colab") is None:
        return
    torchao = _version("torchao")
    if torchao and tuple(int(part) for part in torchao.split(".")[:2]) < OLDEST_TORCHAO:
        _pip("uninstall", "--yes", "torchao")
    if _version("bitsandbytes") is None:
        _pip("install", "--no-deps", "bitsandbytes>=0.49")


def report(environment: Environment) -> pd.DataFrame:
    """Return one table of what the run will use: machine, format and why, model, dataset, versions, free disk.

    Example: report(detect()).loc["device", "value"] -> "cpu, no GPU: the runs below use 2 CPU cores"
    """
    e, existing = environment, next(p for p in [environment.runs, *environment.runs.parents] if p.exists())
    where = e.gpu or f"cpu, no GPU: the runs below use {os.cpu_count()} CPU cores"
    rows = {
        "profile": e.profile,
        "model": e.model,
        "dataset": e.dataset,
        "device": where,
        "number format": f"{e.dtype} ({e.dtype_reason})",
        "quantization": e.quantization,
        "runs are kept in": shorten(e.runs),
        "free disk": f"{shutil.disk_usage(existing).free / 2**30:.0f} GiB",
        "Python": platform.python_version(),
        **{package: _version(package) or "not installed" for package in PACKAGES},
    }
    return pd.DataFrame({"value": rows})


def hub_reachable() -> bool:
    """Return whether the Hugging Face Hub answers: one short request, where its libraries would retry for a minute.

    Example: hub_reachable() -> False on a machine without a network, or with HF_HUB_OFFLINE set
    """
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    try:
        huggingface_hub.utils.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=10)
    except Exception:  # the session is requests or httpx, by version; whatever it raises means: no answer
        return False
    return True


def shorten(path: Path) -> str:
    """Return a path relative to the repository where it lies inside it, as notebooks and logs show it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def versions() -> dict[str, str]:
    """Return the versions of the packages a result depends on, for its record."""
    return {package: version for package in PACKAGES if (version := _version(package))}


def _dtype() -> tuple[str, str]:
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        if major >= 8:  # is_bf16_supported() also says True where bf16 is only emulated, as on a T4
            return "bfloat16", f"compute capability {major}.{minor} has bfloat16 units"
        return "float16", f"compute capability {major}.{minor} is below 8.0: no bfloat16 units"
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    for flag in ("amx_bf16", "avx512_bf16"):
        if flag in flags:
            return "bfloat16", f"this CPU has {flag}"
    return "float32", "this CPU has no bfloat16 instructions"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *arguments], check=True)
