"""The files of a patch: readable by people, and refused where they are damaged, malformed or hostile."""

import json
import pickle
import struct
from datetime import datetime

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from hf_editable import EditableFileError, EditableValueError, EditPatch
from hf_editable.runs.fingerprints import fingerprint


@pytest.fixture
def patch(tiny_model):
    tensors = {
        name: tiny_model.get_parameter(f"model.decoder.layers.1.{name}")
        for name in ("fc1.bias", "fc2.bias", "fc2.weight")
    }
    tensors = {f"model.decoder.layers.1.{name}": tensor.detach() for name, tensor in tensors.items()}
    return EditPatch(
        changes={name: tensor + 1 for name, tensor in tensors.items()},
        base_fingerprint=fingerprint(tensors),
        source="Grüße",
        target="regards",
        loss_before=1.5,
        loss_after=-0.25,
        steps=3,
        length_penalty=1.0,
        base_model="user/base",
        base_revision="0123abcd",
    )


@pytest.fixture
def folder(patch, tmp_path):
    patch.save_pretrained(tmp_path / "patch")
    return tmp_path / "patch"


def rewrite(folder, change):
    path = folder / "edit_config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text(encoding="utf-8")))))


def test_the_configuration_is_for_people_to_read(folder, patch):
    text = (folder / "edit_config.json").read_text(encoding="utf-8")
    config = json.loads(text)
    assert text == json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n" and "Grüße" in text
    assert datetime.fromisoformat(config.pop("created")).utcoffset().total_seconds() == 0
    assert set(config.pop("versions")) == {"hf_editable", "torch", "transformers"}
    assert config == {
        "base_fingerprint": patch.base_fingerprint,
        "base_model": "user/base",
        "base_revision": "0123abcd",
        "changes": [{"kind": "whole", "tensors": sorted(patch.tensors)}],
        "edited_fingerprint": fingerprint(patch.tensors),
        "edited_tensors": [f"model.decoder.layers.1.{name}" for name in ("fc1.bias", "fc2.bias", "fc2.weight")],
        "editor": None,
        "format_version": 2,
        "length_penalty": 1.0,
        "loss_after": -0.25,
        "loss_before": 1.5,
        "model_fingerprint": None,
        "source": "Grüße",
        "steps": 3,
        "target": "regards",
    }


def test_what_is_loaded_is_what_was_saved(folder, patch, tiny_model):
    loaded = EditPatch.from_pretrained(folder)
    for name in ("source", "target", "created", "versions", "steps", "base_model", "base_fingerprint", "loss_after"):
        assert getattr(loaded, name) == getattr(patch, name)
    # The tensors are no longer those of the file, which may change.
    (folder / "edit_model.safetensors").write_bytes(b"\0" * (folder / "edit_model.safetensors").stat().st_size)
    loaded.apply(tiny_model)
    patch.revert(tiny_model)


def test_a_newer_format_is_refused(folder):
    rewrite(folder, lambda config: {**config, "format_version": 3})
    with pytest.raises(
        EditableFileError, match="format_version is 3, and this version of hf_editable knows up to 2: up"
    ):
        EditPatch.from_pretrained(folder)


def test_files_of_the_first_format_are_read(folder, patch, tiny_model):
    own = ("changes", "editor")
    rewrite(folder, lambda config: {key: config[key] for key in config if key not in own} | {"format_version": 1})
    loaded = EditPatch.from_pretrained(folder)
    assert loaded.editor is None and loaded.tensors.keys() == patch.tensors.keys()
    loaded.apply(tiny_model)
    patch.revert(tiny_model)  # it is the same


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (None, "changes is missing"),
        ("all", "changes is 'all'; it must be list"),
        ([1], "a change is of the kind None; known are whole, low_rank, lookup"),
        ([{"kind": "zone"}], "a change is of the kind 'zone'"),
        ([{"kind": ["whole"]}], r"a change is of the kind \['whole'\]"),
        ([{"kind": "whole"}], "the tensors of a whole change are None"),
        ([{"kind": "whole", "tensors": ["../etc"]}], r"the tensors of a whole change are \['../etc'\]"),
        ([{"kind": "low_rank", "matrix": "a"}], "the matrix of a low-rank change is 'a', and its factors are not all"),
        ([{"kind": "lookup", "table": [[[1], ["a"]]]}], "the table of a lookup is"),
        ([{"kind": "lookup", "table": [[[1, -1], [2]]]}], "the table of a lookup is"),
        ([{"kind": "lookup", "table": {"1": 2}}], "the table of a lookup is"),
    ],
)
def test_malformed_changes(folder, changes, message):
    rewrite(
        folder,
        lambda config: (
            {key: config[key] for key in config if key != "changes"}
            | ({} if changes is None else {"changes": changes})
        ),
    )
    with pytest.raises(EditableFileError, match=message):
        EditPatch.from_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "warnings"),
    [
        ({"written_by": "a newer version"}, ["ignoring written_by"]),
        ({"zones": [], "colour": "blue"}, ["ignoring colour, zones"]),
        ({"loss_before": 2, "steps": None, "created": None}, []),  # JSON does not tell 2 from 2.0
    ],
)
def test_newer_files_are_read_with_a_warning(folder, tiny_model, monkeypatch, change, warnings):
    said = []
    monkeypatch.setattr(logging.get_logger("hf_editable.patches.files"), "warning", said.append)
    rewrite(folder, lambda config: {**config, **change})
    loaded = EditPatch.from_pretrained(folder)
    assert len(said) == len(warnings) and all(wanted in line for wanted, line in zip(warnings, said, strict=True))
    loaded.apply(tiny_model)
    loaded.revert(tiny_model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: [config], r"the whole is \[.*not an object"),
        (lambda config: "text", "the whole is 'text', not an object"),
        (lambda config: None, "the whole is None"),
        (lambda config: {**config, "steps": "3"}, r"steps is '3'; it must be int \| None"),
        (lambda config: {**config, "steps": 3.5}, r"steps is 3.5; it must be int"),
        (lambda config: {**config, "steps": True}, r"steps is True; it must be int"),
        (lambda config: {**config, "loss_after": [1.0]}, r"loss_after is \[1.0\]; it must be float"),
        (lambda config: {**config, "source": {"a": "b"}}, r"source is .*; it must be str \| None"),
        (lambda config: {**config, "base_fingerprint": None}, "base_fingerprint is None; it must be str"),
        (lambda config: {**config, "versions": {"torch": 2}}, r"versions is .*must be dict\[str, str\]"),
        (lambda config: {**config, "versions": None}, r"versions is None"),
        (lambda config: {**config, "format_version": "1"}, "format_version is '1'; it must be int"),
        (lambda config: {**config, "edited_tensors": "all"}, "edited_tensors is 'all'; it must be list"),
        (lambda config: {**config, "loss_after": float("nan")}, "has the value NaN, which is no JSON"),
        (lambda config: {**config, "edited_fingerprint": "0" * 64}, "damaged or exchanged. Get both files"),
        *[
            (lambda config, name=name: {key: config[key] for key in config if key != name}, f"{name} is missing")
            for name in ("base_fingerprint", "edited_fingerprint", "format_version")
        ],
    ],
)
def test_malformed_configurations(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(EditableFileError, match=message):
        EditPatch.from_pretrained(folder)


def header(**entry):
    text = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **entry}}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(4)


HOSTILE = {
    "pickle": pickle.dumps({"a": torch.ones(1)}),
    "nothing": b"",
    "text": b"<!DOCTYPE html>",
    "huge header": struct.pack("<Q", 2**62) + b"{}",
    "deep header": struct.pack("<Q", 60_000) + b"[" * 60_000,
    "beyond the end": header(data_offsets=[0, 4000]),
    "negative": header(data_offsets=[-4, 0]),
    "wrong shape": header(shape=[1000]),
    "overflowing shape": header(shape=[2**62, 2**62]),
    "unknown type": header(dtype="PICKLE"),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_files_that_are_no_tensors(folder, content):
    (folder / "edit_model.safetensors").write_bytes(content)
    with pytest.raises(EditableFileError, match="is not an edit patch: .*It needs a whole edit_config.json and"):
        EditPatch.from_pretrained(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{", b"[" * 200_000, b'{"steps": ' + b"9" * 10_000 + b"}"])
def test_files_that_are_no_json(folder, content):
    (folder / "edit_config.json").write_bytes(content)
    with pytest.raises(EditableFileError, match="is not an edit patch: .*It needs a whole edit_config.json and"):
        EditPatch.from_pretrained(folder)


@pytest.mark.parametrize("name", ["edit_model.safetensors", "edit_config.json"])
@pytest.mark.parametrize("how", ["truncated", "missing", "a folder", "a link to nowhere", "a link to itself"])
def test_damaged_files(folder, name, how):
    file = folder / name
    content = file.read_bytes()
    file.unlink()
    if how == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif how == "a folder":
        file.mkdir()
    elif how != "missing":
        file.symlink_to(folder / ("nowhere" if how == "a link to nowhere" else name))
    with pytest.raises(EditableFileError, match=f"{folder}' is not an edit patch: .*It needs a whole"):
        EditPatch.from_pretrained(folder)


def test_one_flipped_bit_is_found(folder):
    file = folder / "edit_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(EditableFileError, match="fingerprint .* damaged or exchanged. Get both files"):
        EditPatch.from_pretrained(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: {name.replace("fc1", "fc3"): tensor for name, tensor in tensors.items()},
        lambda tensors: {f"../../{name}": tensor for name, tensor in tensors.items()},
        lambda tensors: {name: tensor.double() for name, tensor in tensors.items()},
        lambda tensors: {name: tensor.flatten() for name, tensor in tensors.items()},
        lambda tensors: {},
    ],
    ids=["names", "paths", "types", "shapes", "none"],
)
def test_exchanged_tensors_are_found_on_loading_and_again_on_applying(folder, tiny_model, change):
    file = folder / "edit_model.safetensors"
    tensors = change(load_file(file))
    save_file(tensors, file)
    with pytest.raises(EditableFileError, match="damaged or exchanged"):
        EditPatch.from_pretrained(folder)
    # Whoever exchanges the tensors can exchange their checksum and their list; the model then refuses them.
    listed = [{"kind": "whole", "tensors": sorted(tensors)}]
    rewrite(folder, lambda config: {**config, "changes": listed, "edited_fingerprint": fingerprint(tensors)})
    before = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    with pytest.raises(EditableValueError, match="does not have|of shape|with fingerprint"):
        EditPatch.from_pretrained(folder).apply(tiny_model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny_model.state_dict().items())


def test_a_link_is_replaced_and_not_followed(folder, patch, tmp_path):
    (tmp_path / "mine.json").write_text("mine")
    (folder / "edit_config.json").unlink()
    (folder / "edit_config.json").symlink_to(tmp_path / "mine.json")
    patch.save_pretrained(folder)
    assert (tmp_path / "mine.json").read_text() == "mine" and EditPatch.from_pretrained(folder).source == "Grüße"


@pytest.mark.parametrize("name", ["/nowhere", "no/where/at/all", "../nowhere"])
def test_a_place_that_is_not_there(name):
    with pytest.raises(EditableFileError, match=f"'{name}' is no folder, and nothing of that name.*Check the path"):
        EditPatch.from_pretrained(name)


def test_a_repository_that_cannot_be_asked():
    with pytest.raises(EditableFileError, match="(?s)'user/patch' is no folder.*HF_HUB_OFFLINE.*Check the path"):
        EditPatch.from_pretrained("user/patch")
