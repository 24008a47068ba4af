"""Hashes of tensors and of plain values: what results and patches depend on."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import xxhash
from torch import Tensor


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


def fingerprint_sum(tensors: Mapping[str, Tensor], *others: str) -> str:
    """
    A hash of tensors that is as fast as memory is read and adds up: that of a whole model is that of some of its
    tensors, and the fingerprints of the others. It is the sum of the tensors' 128 bits of XXH3, each over name, type,
    shape and bytes. It tells models apart that were made without regard to it, which is all that is asked of it:
    nothing is gained by making a model that passes for another.

    Args:
        tensors (`dict[str, torch.Tensor]`): by their names. Those that share memory are read once.
        others (`str`): fingerprints of others, to be added.

    Returns:
        `str`: in hexadecimal.
    """
    total, read = sum(int(other, 16) for other in others), {}
    for name, tensor in tensors.items():
        place = (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if place not in read:
            content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
            read[place] = xxhash.xxh3_128_hexdigest(content)
        total += xxhash.xxh3_128_intdigest(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|{read[place]}".encode())
    return f"{total % 2**128:032x}"
