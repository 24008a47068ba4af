"""What the package's own ways cost, beside the plain ways of doing the same thing."""

from .memory import measure_memory
from .mining import measure_mining
from .parts import measure_edit, measure_scaling, measure_step
from .processes import measure_processes
from .table import table
from .workload import Workload


__all__ = [
    "Workload",
    "measure_edit",
    "measure_memory",
    "measure_mining",
    "measure_processes",
    "measure_scaling",
    "measure_step",
    "table",
]
