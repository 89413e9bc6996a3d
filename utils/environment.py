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

import pandas as pd
import torch

from utils.config import PROFILES

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "bitsandbytes", "numpy", "pandas", "matplotlib")
DRIVE_MOUNT = "/content/drive"
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
    """Name, memory and compute capability of the GPU, None without one."""

    @property
    def torch_dtype(self) -> torch.dtype:
        """The number format as torch names it."""
        return getattr(torch, self.dtype)


def detect(profile: str | None = None, quantization: str = "none", drive: bool = False) -> Environment:
    """Look at the machine and return what a run will use; nothing is loaded yet.

    The profile is the argument, else the environment variable PROFILE, else "full" on a GPU and "demo" without.
    Quantization is "none", or "nf4" for a base model in 4 bits. Runs go to a folder per profile under `runs/`, under
    the environment variable RUNS, or, with `drive` in Colab, to your Drive, where the next runtime finds them.

    Example: detect("demo").model -> "gemma-3-270m"
    """
    has_gpu = torch.cuda.is_available()
    profile = profile or os.environ.get("PROFILE") or ("full" if has_gpu else "demo")
    if profile not in PROFILES:
        raise ValueError(f"Unknown profile {profile!r}; expected one of {list(PROFILES)}.")
    if quantization not in ("none", "nf4"):
        raise ValueError(f"Unknown quantization {quantization!r}; expected 'none' or 'nf4'.")
    model = PROFILES[profile].gpu_model if has_gpu else PROFILES[profile].model
    exact = profile == "smoke" and not has_gpu
    dtype, reason = ("float32", "the smoke profile compares numbers exactly") if exact else _dtype()
    gpu = None
    if has_gpu:
        properties, capability = torch.cuda.get_device_properties(0), torch.cuda.get_device_capability()
        gpu = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, compute capability {capability[0]}.{capability[1]}"
    runs = _drive_folder() if drive else Path(os.environ.get("RUNS") or ROOT / "runs").resolve()
    return Environment(
        device="cuda" if has_gpu else "cpu",
        dtype=dtype,
        dtype_reason=reason,
        quantization=quantization,
        profile=profile,
        model=model,
        dataset="hub" if model == "llama-3.2-3b" else "bundled",
        runs=runs
        / (profile if quantization == "none" else f"{profile}-{quantization}"),  # other weights, other results
        gpu=gpu,
    )


def prepare() -> None:
    """Make a fresh Colab runtime able to run the notebooks; anywhere else, and when called again, install nothing.

    On Colab it installs bitsandbytes where it is missing and removes a torchao that peft refuses; torch and numpy are
    never touched. Everywhere it silences two messages that a reader can do nothing about.
    """
    # Softmax over a large vocabulary ends in numbers below 1e-38, on which a CPU spends many times what zero takes.
    # Set before torch starts its threads, which take it over from this one.
    torch.set_flush_denormal(True)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # "kernels is not installed", and not needed
    if not in_colab():
        return
    torchao = _version("torchao")
    if torchao and tuple(int(part) for part in torchao.split(".")[:2]) < OLDEST_TORCHAO:
        _pip("uninstall", "--yes", "torchao")
    if _version("bitsandbytes") is None:
        _pip("install", "--no-deps", "bitsandbytes>=0.49")  # its only dependencies are torch and numpy
    importlib.invalidate_caches()


def in_colab() -> bool:
    """Return whether this is a Colab runtime.

    Example: in_colab() -> False on a machine of your own
    """
    return importlib.util.find_spec("google") is not None and importlib.util.find_spec("google.colab") is not None


def report(environment: Environment | None = None) -> pd.DataFrame:
    """Return one table of what a run will use: machine, format and why, model, dataset, versions, free disk.

    Without an environment it looks at the machine itself.

    Example: report().loc["device", "value"] -> "no GPU: gemma-3-270m will run on 2 CPU cores"
    """
    e = environment or detect()
    existing = next(place for place in [e.runs, *e.runs.parents] if place.exists())
    where = e.gpu or f"no GPU: {e.model} will run on {os.cpu_count()} CPU cores"
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


def _drive_folder() -> Path:
    if not in_colab():
        raise ValueError(
            "DRIVE is on, but this is not Colab: there is no Drive to keep the runs in. Set DRIVE = False."
        )
    from google.colab import drive

    drive.mount(DRIVE_MOUNT)
    return Path(DRIVE_MOUNT) / "MyDrive" / "romanian-qa-lora" / "runs"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *arguments], check=True)
