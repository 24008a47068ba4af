"""Hashes of tensors, of models and of plain values: what results and patches depend on."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel


def fingerprint_model(model: PreTrainedModel) -> str:
    """A hash of all that decides a model's translations: its weights and its generation settings."""
    weights = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("editor.")}
    settings = model.generation_config.to_dict()
    settings.pop("transformers_version", None)
    return fingerprint_rows([fingerprint(weights), settings])


def fingerprint_rows(rows: Iterable[Any]) -> str:
    """A hash of plain JSON values, in their order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()[:16]


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, types, shapes and bytes of tensors, in hexadecimal; the same on every device."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
