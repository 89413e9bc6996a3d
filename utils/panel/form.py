"""The form of a run's settings: a labelled control for each, and next to it what is wrong."""

from collections.abc import Callable

from ipywidgets import HTML, Box, Checkbox, Dropdown, FloatText, IntText, SelectionSlider, VBox, Widget

from utils.config import MODULE_LETTERS, rate_text
from utils.models.access import MODELS
from utils.panel.settings import Settings, from_values, to_values
from utils.panel.view import WRONG, said

RANKS = (1, 2, 4, 8, 16, 32, 64)
# Even steps on a log scale, through the paper's 1e-4 and 3e-4; float("3e-4") is exact where 3 * 1e-4 is not.
RATES = [float(f"{m}e{e}") for e in (-6, -5, -4, -3, -2) for m in (1, 2, 3, 5)]


class SettingsForm:
    """Controls for the settings of a run; `settings` is what they show, None while something is wrong.

    `on_change` is called after every change, right or wrong.
    Example: SettingsForm(settings, "demo", on_change=print).controls["rank"].value = 8
    """

    def __init__(self, settings: Settings, profile: str, on_change: Callable[[], None]):
        self.settings, self.before, self._loading = settings, settings, False
        self._on_change = lambda: None  # not before the form is whole
        self.controls = _controls(settings, profile)
        self.linked = Checkbox(True, description="keep alpha at 4 × rank", indent=False)
        self.linked.layout = {"width": "14em", "margin": "0 0 0 8.2em"}
        box = {"indent": False, "layout": {"width": "auto", "margin": "0 1em 0 0"}}
        self.modules = {letter: Checkbox(description=letter, **box) for letter in MODULE_LETTERS}
        self.problems = {name: HTML(layout={"width": "22em"}) for name in (*self.controls, "target_modules")}
        self.box = self._layout()
        self.load(settings)
        for widget in (*self.controls.values(), *self.modules.values(), self.linked):
            widget.observe(self._changed, "value")
        self._on_change = on_change

    def load(self, settings: Settings) -> None:
        """Show these settings; what has no control, such as solved examples, is kept for the run as well.

        Example: form.load(dataclasses.replace(settings, train_rows=12))
        """
        self._loading, self.before = True, settings
        values = to_values(settings)
        for name, widget in self.controls.items():
            _show(widget, values[name])
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
        values = {name: widget.value for name, widget in self.controls.items()}
        values["target_modules"] = tuple(letter for letter, box in self.modules.items() if box.value)
        self.settings, wrong = from_values(values, self.before)
        for name, line in self.problems.items():
            line.value = said(wrong.get(name, ""), WRONG)
            line.layout.display = None if name in wrong else "none"
        self._on_change()

    def _layout(self) -> VBox:
        column = {"width": "24em", "max_width": "100%", "overflow": "hidden"}

        def field(name: str, *more: Widget) -> VBox:
            return VBox([self.controls[name], self.problems[name], *more], layout=column)

        def group(title: str, *children: Widget) -> VBox:  # as many side by side as there is room for
            row = Box(children, layout={"flex_flow": "row wrap", "align_items": "flex-start"})
            return VBox([HTML(f"<b>{title}</b>"), row])

        label = HTML('<div style="text-align: right; width: 7.5em; margin-right: 8px">modules</div>')
        letters = Box(list(self.modules.values()), layout={"flex_flow": "row wrap", "flex": "1 1 0"})
        modules = VBox([Box([label, letters]), self.problems["target_modules"]], layout={"flex": "1 1 100%"})
        training = ("learning_rate", "epochs", "batch_size", "dropout", "loss_on", "max_new_tokens", "seed")
        return VBox([
            group("Model and data", *map(field, ("model", "dataset", "train_rows", "prompt_language"))),
            group("Adapter", field("rank"), field("alpha", self.linked), modules, field("rslora"), field("dora")),
            group("Training", *map(field, training)),
        ])  # fmt: skip


def _controls(settings: Settings, profile: str) -> dict[str, Widget]:
    models = [model for model in MODELS if model != "tiny-llama" or profile == "smoke"]
    datasets = list(dict.fromkeys([settings.dataset, "bundled", "hub"]))
    rates = [(rate_text(rate), rate) for rate in RATES]
    return {
        "model": _control(Dropdown, "model", "The base model; its weights stay as they are", options=models),
        "dataset": _control(Dropdown, "dataset", "bundled comes with the series, hub is the paper's", options=datasets),
        "train_rows": _control(IntText, "train rows", "Rows to train on; 0 takes all"),
        "rank": _control(SelectionSlider, "rank", "Rank of the update: more is a larger adapter", options=RANKS),
        "alpha": _control(FloatText, "alpha", "alpha / rank scales the update"),
        "rslora": _control(Checkbox, "rsLoRA", "Scale by alpha / sqrt(rank) instead", value=False),
        "dora": _control(Checkbox, "DoRA", "Learn a length for each output beside the direction", value=False),
        "learning_rate": _control(SelectionSlider, "learning rate", "At the start; falls to 0", options=rates),
        "epochs": _control(IntText, "epochs", "Passes over the training rows"),
        "batch_size": _control(IntText, "batch size", "Rows to a step"),
        "dropout": _control(FloatText, "dropout", "Share of the adapter's input that a step leaves out"),
        "loss_on": _control(Dropdown, "loss on", "The tokens that are learnt", options=["answer", "text"]),
        "prompt_language": _control(Dropdown, "prompt", "Language of the prompt's labels", options=["en", "ro"]),
        "max_new_tokens": _control(IntText, "answer tokens", "Where an answer that does not end is cut"),
        "seed": _control(IntText, "seed", "Decides the adapter's first weights and the order of the rows"),
    }


def _control(kind: type, label: str, tip: str, **options) -> Widget:
    tooltip = "tooltip" if "tooltip" in kind.class_trait_names() else "description_tooltip"  # its name in ipywidgets 7
    looks = {"style": {"description_width": "7.5em"}, "layout": {"width": "22em", "max_width": "98%"}}
    return kind(description=label, **{tooltip: tip}, **looks, **options)


def _show(widget: Widget, value) -> None:
    if hasattr(widget, "options"):  # a selection that does not offer the value offers it from now on
        options = [option if isinstance(option, tuple) else (str(option), option) for option in widget.options]
        if value not in [offered for _, offered in options]:
            options.append((rate_text(value) if isinstance(value, float) else str(value), value))
            numbers = all(isinstance(offered, int | float) for _, offered in options)
            widget.options = sorted(options, key=lambda option: option[1]) if numbers else options
    widget.value = value
