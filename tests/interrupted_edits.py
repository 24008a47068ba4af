"""
Applies and reverts a patch, over and over, while its parent sends SIGINT once for each line `armed`. Prints `ok N` if
the model was as before a call or as after it each time, with its record; N times it was as after it.
"""

import signal
import sys

import torch
from torch import nn

from hf_editable import EditPatch
from hf_editable.patches.application import applied, changed, take_back
from hf_editable.patches.changes import Whole
from hf_editable.runs.fingerprints import fingerprint


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = nn.ParameterList([nn.Parameter(torch.full((64, 64), float(i))) for i in range(24)])


def main(wanted):
    # A process that a shell starts in the background ignores SIGINT, and Python leaves it at that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    model = Model()
    before = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    after = {name: tensor + 1 for name, tensor in before.items()}
    patch = EditPatch(after, fingerprint(before))
    now, held = dict(model.named_parameters()), 0
    for _ in range(wanted):
        try:
            print("armed", flush=True)  # one interrupt comes for each of these lines
            while True:
                patch.apply(model)
                patch.revert(model)
                with changed(model, [Whole(after)]):
                    pass
        except KeyboardInterrupt:
            pass
        expected = after if applied(model) else before
        held += bool(applied(model))
        if not all(torch.equal(now[name], value) for name, value in expected.items()):
            print("torn", flush=True)
            return 1
        take_back(model)
        if not all(torch.equal(now[name], value) for name, value in before.items()):
            print("lost", flush=True)
            return 1
    print("ok", held, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1])))
