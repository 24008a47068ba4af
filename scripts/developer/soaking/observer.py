"""What a store and the checkpoints of it say, read without the package: files, tensors, and plain transformers."""

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .bed import BEAMS
from .rules import Edit, Violation


FILES = {".gitattributes", ".gitignore", ".lock", "base", "edits", "store.json"}
PATCH_FILES = {"edit_config.json", "edit_model.safetensors"}
TENSORS = "edit_model.safetensors"


def files_of(folder: Path) -> dict[str, bytes]:
    """The contents of all files in a folder, but for those of git and of locks; what is no plain file is named so."""
    found = {}
    for place, folders, names in os.walk(folder):
        if ".git" in folders:
            folders.remove(".git")
        for name in (*names, *(each for each in folders if (Path(place) / each).is_symlink())):
            path = Path(place) / name
            mode = path.lstat().st_mode
            content = path.read_bytes() if stat.S_ISREG(mode) else f"mode {mode:o}".encode()
            if name != ".lock":
                found[str(path.relative_to(folder))] = content
    return found


def hash_of(tensors: Mapping[str, Any]) -> str:
    """A hash of the names, shapes, types and bytes of tensors."""
    digest = hashlib.blake2b()
    for name in sorted(tensors):
        array = tensors[name].detach().contiguous().numpy()
        digest.update(f"{name} {array.shape} {array.dtype} ".encode() + array.tobytes())
    return digest.hexdigest()


def listed(store: Path) -> list[Edit]:
    """The edits that a store lists; none if there is no store."""
    if not (store / "store.json").exists():
        return []
    return [
        Edit(
            each["id"],
            tuple((one["source"], one["target"]) for one in each["corrections"]),
            each["decoded"],
            each["revision"],
        )
        for each in json.loads((store / "store.json").read_text(encoding="utf-8"))["edits"]
    ]


class Observer:
    """
    Says what must come of the edits of a store.

    Args:
        model (`Path`): the checkpoint of the base model.
    """

    def __init__(self, model: Path):
        from safetensors.torch import load_file
        from transformers import AutoTokenizer, MarianMTModel

        self._load = load_file
        self._place, self._files = model, files_of(model)
        self.base = self.read_weights(model)
        self._model = MarianMTModel.from_pretrained(model).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(model)
        self._said: dict[tuple[str, str], str] = {}

    def check_base(self) -> None:
        """
        Raises:
            Violation: if a file of the base model has changed.
        """
        if files_of(self._place) != self._files:
            raise Violation("the base model's files have changed")

    def restore_base(self) -> None:
        """Put the base model back as it was."""
        for path in self._place.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        for name, content in self._files.items():
            (self._place / name).write_bytes(content)

    def says(self, weights: Mapping[str, Any], source: str) -> str:
        """What plain transformers translates a source to with these weights."""
        key = (hash_of(weights), source)
        if key not in self._said:
            self._model.load_state_dict(dict(weights), strict=False)
            inputs = self._tokenizer([source], return_tensors="pt")
            ids = self._model.generate(**inputs, num_beams=BEAMS)
            self._said[key] = self._tokenizer.batch_decode(ids, skip_special_tokens=True)[0]
        return self._said[key]

    def weights(self, store: Path, edits: list[Edit]) -> list[dict[str, Any]]:
        """The weights of the model with none of the edits, with the first, with the first two, ..."""
        states = [self.base]
        for edit in edits:
            states.append(self.patched(store / "edits" / edit.folder, states[-1]))
        return states

    def patched(self, patch: Path, weights: Mapping[str, Any]) -> dict[str, Any]:
        """The weights with a patch."""
        tensors = self._load(patch / TENSORS)
        if unknown := tensors.keys() - weights.keys():
            raise Violation(f"{patch} changes {sorted(unknown)}, which the model does not have")
        return {**weights, **tensors}

    def check_store(self, store: Path, edits: list[Edit]) -> str:
        """
        That the files of a store are there, and that the model with them says what they promise.

        Returns:
            `str`: the hash of the model's weights with all edits.

        Raises:
            Violation: if not.
        """
        if not (store / "store.json").exists():
            return hash_of(self.base)
        own = self._load(store / "base" / TENSORS)
        if hash_of(own) != hash_of({name: self.base[name] for name in own}):
            raise Violation("the store's base is not the base model's")
        for edit in edits:
            names = set(os.listdir(store / "edits" / edit.folder))
            if not PATCH_FILES <= names <= PATCH_FILES | {"README.md", "impact.json"}:
                raise Violation(f"the folder of {edit.id} holds {sorted(names)}")
        states = self.weights(store, edits)
        for edit, state in zip(edits, states[1:], strict=True):
            said = [self.says(state, source).split() == target.split() for source, target in edit.corrections]
            if edit.decoded is not None and edit.decoded != all(said):
                texts = [self.says(state, source) for source, _ in edit.corrections]
                raise Violation(f"{edit}: with it and those before it, the model says {texts}")
        return hash_of(states[-1])

    def read_weights(self, folder: Path) -> dict[str, Any]:
        """The weights of a checkpoint."""
        return self._load(folder / "model.safetensors")

    def check_checkpoint(self, folder: Path, hashes: set[str]) -> None:
        """
        That a folder holds a plain checkpoint with weights of one of these hashes, which transformers loads.

        Raises:
            Violation: if not.
        """
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        if (found := hash_of(self.read_weights(folder))) not in hashes:
            raise Violation(f"the checkpoint {folder} has the weights {found}, and not {sorted(hashes)}")
        model = AutoModelForSeq2SeqLM.from_pretrained(folder)
        own = dict(model.state_dict())
        if hash_of({name: own[name] for name in self.base}) not in hashes:
            raise Violation(f"transformers loads other weights from {folder} than its file has")
        if AutoTokenizer.from_pretrained(folder).get_vocab() != self._tokenizer.get_vocab():
            raise Violation(f"the checkpoint {folder} has another tokenizer")
        kept = [json.loads((place / "generation_config.json").read_text()) for place in (folder, self._place)]
        if kept[0] != kept[1]:
            raise Violation(f"the checkpoint {folder} generates by {kept[0]}, the base by {kept[1]}")

    def check_clean(self, store: Path) -> None:
        """
        That a store holds nothing but what it lists, nor the folder around it anything else.

        Raises:
            Violation: if there is more.
        """
        edits = {edit.folder for edit in listed(store)}
        expected = {store.parent: {store.name}, store: FILES, store / "edits": edits}
        for folder, names in expected.items():
            if more := set(os.listdir(folder)) - names - {".git"}:
                raise Violation(f"{sorted(more)} is left in {folder.name!r} after a write")
