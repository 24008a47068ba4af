"""What numbers come from: versions of packages, and the machine."""

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from pathlib import Path

import sacrebleu
import torch
import transformers

from .. import __version__


def machine(device: torch.device) -> str:
    """What times were taken on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), processor)
    return f"{processor}, {os.cpu_count()} CPUs, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    """Versions of what the numbers come from."""
    return {
        "hf_editable": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "sacrebleu": sacrebleu.__version__,
        "python": platform.python_version(),
    }


def installed_versions(packages: Iterable[str] = ("torch", "transformers")) -> dict[str, str]:
    """Versions of hf_editable and of other installed packages, by name."""
    return {"hf_editable": __version__, **{package: importlib.metadata.version(package) for package in packages}}
