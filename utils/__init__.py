"""Romanian contextual question answering with LoRA: the small package behind the notebooks.

The modules follow one row of data on its way to one cell of a table:
data, prompt, training, generation, metrics, records, tables and plots.
"""

from importlib.util import find_spec

# All but bitsandbytes, which the setup cell installs in Colab, and torch, without which the core loads.
_NEEDED = "transformers peft accelerate datasets numpy scipy pandas jinja2 matplotlib ipywidgets".split()
if _missing := [name for name in _NEEDED if find_spec(name) is None]:
    raise ModuleNotFoundError(
        f"Not installed for this Python: {', '.join(_missing)}. Run 'make lab', which sets everything up and opens the "
        "notebooks in it, or 'pip install -r requirements.txt' and this cell again."
    )
