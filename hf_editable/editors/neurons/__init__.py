"""Cap neurons: edits that add to the final feed-forward, each in a place of its own."""

from ..registry import register_editor
from .cap_neurons import CapNeurons
from .options import NeuronOptions


register_editor("neurons", NeuronOptions, CapNeurons)
