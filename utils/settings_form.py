"""The form of a run's settings: a labelled control for each, and next to it what is wrong."""

from collections.abc import Callable

import ipywidgets

from utils.config import MODULE_LETTERS
from utils.models import MODELS
from utils.panel_runs import rate_text
from utils.panel_state import VARIANTS, Settings, from_values, to_values
from utils.views import WRONG, choose, control, group, said

RANKS = (1, 2, 4, 8, 16, 32, 64)
# Even steps on a log scale, through the paper's 1e-4 and 3e-4; float("3e-4") is exact where 3 * 1e-4 is not.
RATES = [float(f"{m}e{e}") for e in (-6, -5, -4, -3, -2) for m in (1, 2, 3, 5)]


class SettingsForm:
    """Controls for the settings of a run; `settings` is what they show, None while something is wrong.

    Example: SettingsForm(settings, "demo", on_change=print).controls["rank"].value = 8
    """

    def __init__(self, settings: Settings, profile: str, on_change: Callable[[], None]):
        """Show the settings; `on_change` is called after every change, right or wrong."""
        self.settings, self.before, self._loading = settings, settings, False
        self._on_change = lambda: None  # not before the form is whole
        self.controls = _controls(settings, profile)
        self.linked = ipywidgets.Checkbox(True, description="keep alpha at 4 × rank", indent=False)
        self.linked.layout = {"width": "14em", "margin": "0 0 0 8.2em"}
        self.modules = {
            letter: ipywidgets.Checkbox(
                description=letter, indent=False, layout={"width": "auto", "margin": "0 1em 0 0"}
            )
            for letter in MODULE_LETTERS
        }
        self.problems = {name: ipywidgets.HTML(layout={"width": "22em"}) for name in (*self.controls, "target_modules")}
        self.box = self._layout()
        self.load(settings)
        for widget in (*self.controls.values(), *self.modules.values(), self.linked):
            widget.observe(self._changed, "value")
        self._on_change = on_change

    def values(self) -> dict:
        """Return what the controls show, as panel_state.from_values takes it.

        Example: form.values()["rank"] -> 2
        """
        values = {name: widget.value for name, widget in self.controls.items()}
        return values | {"target_modules": tuple(letter for letter, box in self.modules.items() if box.value)}

    def load(self, settings: Settings) -> None:
        """Show these settings; what has no control, such as dropout, is kept for the run as well.

        Example: form.load(dataclasses.replace(settings, train_rows=12))
        """
        self._loading, self.before = True, settings
        values = to_values(settings)
        for name, widget in self.controls.items():
            choose(widget, values[name])
        for letter, box in self.modules.items():
            box.value = letter in settings.config.target_modules
        self.linked.value = settings.config.alpha == 4 * settings.config.rank
        self._loading = False
        self._changed()

    def _changed(self, _change=None) -> None:
        if self._loading:
            return
        alpha = self.controls["alpha"]
        alpha.disabled = self.linked.value
        if self.linked.value:
            self._loading, alpha.value, self._loading = True, 4 * self.controls["rank"].value, False
        self.settings, wrong = from_values(self.values(), self.before)
        for name, line in self.problems.items():
            line.value = said(wrong.get(name, ""), WRONG)
            line.layout.display = None if name in wrong else "none"
        self._on_change()

    def _layout(self) -> ipywidgets.VBox:
        column = {"width": "24em", "max_width": "100%", "overflow": "hidden"}

        def field(*names: str) -> list[ipywidgets.VBox]:
            return [ipywidgets.VBox([self.controls[name], self.problems[name]], layout=column) for name in names]

        rank, alpha = field("rank", "alpha")
        alpha.children = [*alpha.children, self.linked]
        label = ipywidgets.HTML(
            '<div style="text-align: right">modules</div>', layout={"width": "7.5em", "margin": "0 8px 0 0"}
        )
        letters = ipywidgets.Box(list(self.modules.values()), layout={"flex_flow": "row wrap", "flex": "1 1 0"})
        boxes = ipywidgets.Box([label, letters])
        modules = ipywidgets.VBox([boxes, self.problems["target_modules"]], layout={"flex": "1 1 100%"})
        return ipywidgets.VBox([
            group("Model and data", *field("model", "quantization", "dataset", "train_rows")),
            group("Adapter", *field("variant"), rank, alpha, modules),
            group("Training", *field("learning_rate", "epochs", "batch_size", "loss_on", "prompt_language", "seed")),
        ])  # fmt: skip


def _controls(settings: Settings, profile: str) -> dict[str, ipywidgets.Widget]:
    drop, slider, number = ipywidgets.Dropdown, ipywidgets.SelectionSlider, ipywidgets.IntText
    models = [model for model in MODELS if model != "tiny-llama" or profile == "smoke"]
    return {
        "model": control(drop, "model", "The base model; its weights stay as they are", options=models),
        "quantization": control(drop, "quantization", "nf4 holds the base model in 4 bits", options=["none", "nf4"]),
        "dataset": control(
            drop,
            "dataset",
            "bundled comes with this repository, hub is the paper's",
            options=list(dict.fromkeys([settings.dataset, "bundled", "hub"])),
        ),
        "train_rows": control(number, "train rows", "Rows to train on; 0 takes all"),
        "variant": control(drop, "variant", "How the update of a weight is made and scaled", options=list(VARIANTS)),
        "rank": control(slider, "rank", "Rank of the update: more is a larger adapter", options=RANKS),
        "alpha": control(ipywidgets.FloatText, "alpha", "alpha / rank scales the update"),
        "learning_rate": control(
            slider, "learning rate", "At the start; falls to 0", options=[(rate_text(rate), rate) for rate in RATES]
        ),
        "epochs": control(number, "epochs", "Passes over the training rows"),
        "batch_size": control(number, "batch size", "Rows to a step"),
        "loss_on": control(drop, "loss on", "The tokens that are learnt", options=["answer", "text"]),
        "prompt_language": control(drop, "prompt", "Language of the prompt's labels", options=["en", "ro"]),
        "seed": control(number, "seed", "Decides the adapter's first weights and the order of the rows"),
    }
