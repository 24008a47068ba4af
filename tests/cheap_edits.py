"""An editor whose edits cost nothing: what it says for a source is one number among the model's weights."""

import copy
import dataclasses

import torch

from hf_editable import EditPatch
from hf_editable.correction.translation_editor import JointEditResult, TranslationEditResult
from hf_editable.patches.application import working_copy
from hf_editable.runs.fingerprints import fingerprint
from hf_editable.tail.decoder_tail import Tail


FOUR = [("1 a", "1001"), ("2 b", "1002"), ("3 c", "1003"), ("4 d", "1004")]


class CheapEditor:
    """
    Translates "3 …" by the weight at place 3 of one edited tensor, so edits are exact and stack as real ones do.

    `broken` are sources whose edits fail; `spoils` maps a source to the place that an edit of it overwrites too.
    """

    def __init__(self, model, broken=(), spoils=None):
        self.model, self.broken, self.spoils = model, broken, spoils or {}
        self.edit_config = model.edit_config
        self.parameters = Tail(model, self.edit_config).parameters
        self.name = sorted(self.parameters)[0]
        self.kept = []

    def on_copy(self):
        other = copy.copy(self)
        other.model = working_copy(self.model, self.parameters)
        other.parameters = Tail(other.model, self.edit_config).parameters
        return other

    def translate(self, sources):
        weights = self.parameters[self.name].flatten()
        return [str(int(weights[place(source)])) for source in sources]

    def edit(self, source, target, keep=()):
        joint = self.edit_jointly([source], [target], keep)
        joint.patch.source, joint.patch.target = source, target
        own = {item.name for item in dataclasses.fields(TranslationEditResult)}
        values = {name: value for name, value in vars(joint).items() if name in own}
        return TranslationEditResult(**{**values, "decoded": joint.decoded[0]}, translation=joint.translations[0])

    def edit_jointly(self, sources, targets, keep=()):
        self.kept[:] = [source for source, _ in keep]
        tensors = {name: tensor.detach().clone() for name, tensor in self.parameters.items()}
        weights = tensors[self.name].view(-1)
        for source, target in zip(sources, targets, strict=True):
            weights[place(source)] = 0.0 if source in self.broken else float(target)
            if source in self.spoils:
                weights[self.spoils[source]] = 0.0
        said = [str(int(weights[place(source)])) for source in sources]
        decoded = [each == target for each, target in zip(said, targets, strict=True)]
        loss = -1.0 if all(decoded) else 1.0
        patch = EditPatch(tensors, fingerprint(self.parameters), steps=1, loss_before=1.0, loss_after=loss)
        return JointEditResult(loss <= 0, 1, loss, 1.0, patch, rounds=1, decoded=decoded, translations=said, lost=[])


def place(source):
    return int(source.split()[0])


def weights_of(model):
    """All weights of a model, copied."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items() if not name.startswith("editor.")}


def same(left, right):
    """Whether two models' weights are equal, every bit."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def fill(store, editor, corrections):
    """Edits one on top of the other, in the store and in the editor's model."""
    for source, target in corrections:
        result = editor.edit(source, target)
        store.add(result)
        result.patch.apply(editor.model)
    return store.edits


def files(folder):
    """The contents of the files of a store."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }
