"""One run's settings, checked before any work starts, and the three profiles that say how large a run is."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

MODULE_LETTERS = {letter: f"{letter}_proj" for letter in ("q", "k", "v", "o", "gate", "up", "down")}
DECODING = ("max_new_tokens", "temperature", "top_p", "draw")  # the fields that change answers and no weights
RETIRED = ("group_by_length", "eval_batch_tokens")  # settings of older records that mean nothing now
MAX_RANK = 1024  # above it an adapter is wider than the smaller projections of these models


@dataclass(frozen=True)
class Profile:
    """How large a run is: the models it takes without and with a GPU, and how many rows (None: all of them).

    A prompt of more than `prompt_tokens` is answered whole and counted in the record: 2,048 hold a SQuAD paragraph and
    three solved examples with room to spare, so what is longer is another task than the one this was made for.
    """

    model: str
    gpu_model: str
    train_rows: int | None
    test_rows: int | None
    prompt_tokens: int = 2048


# demo: two train rows and one test row a topic, so that twelve configurations take minutes on 2 CPU cores.
PROFILES = {
    "smoke": Profile("tiny-llama", "tiny-llama", 12, 6),
    "demo": Profile("gemma-3-270m", "gemma-3-270m", 78, 39),
    "full": Profile("gemma-3-270m", "llama-3.2-3b", None, None),
}


@dataclass(frozen=True)
class RunConfig:
    """The settings of one run, in the paper's terms. Frozen and validated: a wrong value never reaches training.

    The paper gives rank, alpha, target modules and learning rate; what it leaves unsaid is assumed here.
    Example: RunConfig(model="gemma-3-270m", rank=2).run_id -> "r2-a8-qv-lr1e-4-s0-gemma-3-270m-3d838e"
    """

    model: str  # key of models.MODELS, or a folder or Hub id of a causal language model
    rank: int | None = 2  # r of the update BA (eq. 1); None is the base model: no adapter, no training
    alpha: float | None = None  # alpha / rank multiplies BA; None takes the paper's 4 * rank
    target_modules: tuple[str, ...] = ("q", "v")  # projections that carry an adapter, as the paper's letters
    learning_rate: float = 1e-4  # AdamW's at the peak; falls linearly to 0, no warm-up (assumed)
    epochs: int = 3  # assumed
    batch_size: int = 4  # rows per optimizer step (assumed)
    seed: int = 0  # of the adapter's initial weights and the order of the rows
    dropout: float = 0.0  # on the adapter's input (assumed)
    loss_on: str = "answer"  # with its end token; "text" takes the prompt's tokens as well (assumed)
    prompt_language: str = "en"  # labels of the prompt: "en" is the paper's
    max_new_tokens: int = 64  # the paper's Table 4 shows an answer cut at exactly 64
    temperature: float = 0.0  # 0 is greedy decoding (assumed); Llama 3's own generation_config has 0.6, with top_p 0.9
    top_p: float = 1.0  # where it samples: out of the likeliest tokens that hold this share
    draw: int = 0  # seed of the sampling
    shots: int = 0  # solved training rows, drawn with the seed, before each test question; training never shows them
    rslora: bool = False  # scale BA by alpha / sqrt(rank), which does not fade as the rank grows (Kalajdzievski, 2023)
    dora: bool = False  # learn the length of each weight column beside its direction (DoRA; Liu et al., 2024)

    def __post_init__(self) -> None:
        """Fill alpha from the rank and check every field; all that is wrong is said in one message."""
        letters = self.target_modules.split(",") if isinstance(self.target_modules, str) else self.target_modules
        object.__setattr__(self, "target_modules", tuple(str(letter).strip() for letter in letters))
        if self.alpha is None and _is_whole(self.rank, 1):
            object.__setattr__(self, "alpha", 4 * self.rank)
        for name in ("alpha", "learning_rate", "temperature", "top_p"):  # 8 and 8.0 are one setting and need one run_id
            if type(getattr(self, name)) is int:
                object.__setattr__(self, name, float(getattr(self, name)))
        if found := problems(asdict(self)):
            told = "\n- ".join(f"{name} {what}" for name, what in found.items())
            raise ValueError(f"These settings cannot run:\n- {told}")

    @property
    def is_base(self) -> bool:
        """Whether this is the model as it comes, without an adapter."""
        return self.rank is None

    @property
    def run_id(self) -> str:
        """A readable name, unique to the settings: what is varied first, then the model and a hash of all fields."""
        short = hashlib.sha256(json.dumps(varied(asdict(self)), sort_keys=True).encode()).hexdigest()[:6]
        model = self.model.rstrip("/").split("/")[-1]
        if self.is_base:
            return f"base-{f'{self.shots}shot-' if self.shots else ''}{model}-{short}"
        modules, rate = "".join(self.target_modules), rate_text(self.learning_rate)
        return f"r{self.rank}-a{self.alpha:g}-{modules}-lr{rate}-s{self.seed}-{model}-{short}"

    def base(self) -> "RunConfig":
        """Return the configuration of the base model that this one is compared with: same prompt, same decoding.

        Example: RunConfig(model="tiny-llama", rank=8).base() == RunConfig(model="tiny-llama", rank=16).base() -> True
        """
        kept = ["model", "prompt_language", "shots", *DECODING]
        kept += ["seed"] * (self.shots > 0)  # it draws the examples
        untrained = {f.name: f.default for f in fields(self) if f.name not in kept}
        return replace(self, **untrained | {"rank": None})

    def as_dict(self) -> dict:
        """Return the fields as JSON can hold them (tuples as lists)."""
        return asdict(self) | {"target_modules": list(self.target_modules)}

    @classmethod
    def from_dict(cls, values: dict) -> "RunConfig":
        """Return the configuration that `as_dict` wrote; a retired field is left out, an unknown one is an error.

        Example: RunConfig.from_dict(config.as_dict()) == config -> True
        """
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(values) - known - set(RETIRED)):
            raise ValueError(f"Found unknown settings {unknown}; expected names out of {sorted(known)}.")
        return cls(**{name: value for name, value in values.items() if name in known})


def varied(values: Mapping) -> dict:
    """Return the settings, by RunConfig's names, that differ from its defaults.

    Names and identities are made of these alone, so a field that is added later leaves the older ones as they are.
    Example: varied(RunConfig("tiny-llama", rank=8).as_dict()) -> {"model": "tiny-llama", "rank": 8, "alpha": 32.0}
    """
    defaults = {f.name: list(f.default) if isinstance(f.default, tuple) else f.default for f in fields(RunConfig)}
    told = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return {name: value for name, value in told.items() if name not in RETIRED and value != defaults.get(name)}


def rate_text(rate: float) -> str:
    """Return a learning rate as people write it.

    Example: rate_text(0.0003) -> "3e-4"
    """
    mantissa, exponent = f"{rate:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def problems(values: dict) -> dict[str, str]:
    """Return what is wrong with a run's settings, field by field; empty where they can run.

    `values` holds RunConfig's fields by name; a field that is missing is not looked at.
    Example: problems({"rank": 0})["rank"] -> "is 0; expected a whole number from 1 to 1024 (None is the base model)"
    """
    return {
        name: f"is {values[name]!r}; expected {expected}"
        for name, (fits, expected) in _RULES.items()
        if name in values and not fits(values[name])
    }


def _is_module_set(letters) -> bool:
    return len(letters) > 0 and set(letters) <= set(MODULE_LETTERS) and len(set(letters)) == len(letters)


def _is_whole(value, low: int, high: float = math.inf) -> bool:
    return type(value) is int and low <= value <= high


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_positive(value) -> bool:
    return _is_number(value) and 0 < value < math.inf


def _one_of(*choices: str):
    return (lambda value: value in choices, " or ".join(repr(choice) for choice in choices))


def _whole(low: int):
    return (lambda value: _is_whole(value, low), f"a whole number, {low} or more")


_SWITCH = (lambda value: isinstance(value, bool), "True or False")
_RULES = {
    "model": (lambda value: isinstance(value, str) and value != "", "a model's name"),
    "rank": (
        lambda value: value is None or _is_whole(value, 1, MAX_RANK),
        f"a whole number from 1 to {MAX_RANK} (None is the base model)",
    ),
    "alpha": (lambda value: value is None or _is_positive(value), "a number above 0"),
    "target_modules": (_is_module_set, f"letters out of {', '.join(MODULE_LETTERS)}, one or more, none of them twice"),
    "learning_rate": (_is_positive, "a number above 0"),
    "epochs": _whole(1), "batch_size": _whole(1), "max_new_tokens": _whole(1), "shots": _whole(0),
    "seed": (lambda value: _is_whole(value, 0, 2**32 - 1), "a whole number from 0 to 4294967295"),  # NumPy's range
    "draw": (lambda value: _is_whole(value, 0, 2**32 - 1), "a whole number from 0 to 4294967295"),
    "temperature": (lambda value: _is_number(value) and 0 <= value < math.inf, "a number, 0 (greedy) or more"),
    "top_p": (lambda value: _is_number(value) and 0 < value <= 1, "a number above 0, at most 1"),
    "dropout": (lambda value: _is_number(value) and 0 <= value < 1, "a number from 0 up to (not including) 1"),
    "loss_on": _one_of("answer", "text"), "prompt_language": _one_of("en", "ro"), "rslora": _SWITCH, "dora": _SWITCH,
}  # fmt: skip
