"""Which rows a training step sees: as a function of the step alone, so that runs can be interrupted and repeated."""

import functools
from collections.abc import Callable, Iterator

import torch
from torch.utils.data import Sampler


class TokenBatchSampler(Sampler[list[int]]):
    """
    Batches of rows of about one length, at most `max_tokens` tokens each with padding, as fairseq makes them.

    The batches are made once; each epoch has its own order of them, which depends on `seed` and the epoch alone, so a
    resumed run and every process see the same.

    Args:
        lengths (`list[int]`): tokens of each row, on its longer side.
        max_tokens (`int`): the most tokens of a batch: rows × the longest. A longer row is a batch by itself.
        seed (`int`): of the choice among rows of one length, and of the order.
        epoch (`Callable[[], int]`): tells the current epoch, from 0.
    """

    def __init__(self, lengths: list[int], max_tokens: int, seed: int, epoch: Callable[[], int]):
        self.seed, self.epoch = seed, epoch
        self.batches: list[list[int]] = []
        shuffled = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed)).tolist()
        for row in sorted(shuffled, key=lengths.__getitem__):
            # Rows come in ascending order, so this row is the longest of its batch.
            if not self.batches or lengths[row] * (len(self.batches[-1]) + 1) > max_tokens:
                self.batches.append([])
            self.batches[-1].append(row)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        for index in permutation(len(self.batches), self.seed, self.epoch()):
            yield self.batches[index]


@functools.lru_cache(maxsize=2)
def permutation(size: int, seed: int, epoch: int) -> list[int]:
    """An order of `size` rows that depends on the seed and the epoch alone."""
    generator = torch.Generator().manual_seed(seed + epoch)
    return torch.randperm(size, generator=generator).tolist()
