"""Training by hand and asking by hand, as widgets in a notebook."""

from utils.panel.panel import HyperparameterPanel
from utils.panel.playground import Playground
from utils.panel.settings import Settings

__all__ = ["HyperparameterPanel", "Playground", "Settings"]
