"""Private names of other packages: each that is used is listed, each that is listed is used, and is there."""

import argparse
import ast
import inspect
import logging
import re
from collections import defaultdict
from pathlib import Path

import pytest
import torch
import transformers

import hf_editable
from hf_editable import EditableImportError
from hf_editable.models import private_names
from hf_editable.models.private_names import PRIVATE_NAMES, PrivateName, check_private_names, is_there


PACKAGE = Path(hf_editable.__file__).parent
PRIVATE = re.compile(r"_[A-Za-z]\w*")
ASKED = ("getattr", "hasattr", "setattr", "delattr")


def used_names(tree: ast.Module, theirs: frozenset[str] = frozenset()) -> set[str]:
    """
    The private names that a file takes from objects, modules and dictionaries, and does not define itself, or that
    are known as those of other packages.
    """
    found, own = set(), defined_names(tree) - theirs
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass  # what it defines, or one of its bases in another file does
            case ast.Attribute(attr=name) if name not in own or is_super(node.value):
                found.add(name)
            case ast.Call(func=ast.Name(id=function), args=[_, ast.Constant(value=str(name)), *_]) if (
                function in ASKED
            ):
                found.add(name)
            case ast.Subscript(slice=ast.Constant(value=str(name))):
                found.add(name)
            case ast.Dict(keys=keys):
                found |= {key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
            case ast.ImportFrom(level=0, module=module, names=names):
                found |= {alias.name for alias in names} | set(module.split("."))
            case ast.Import(names=names):
                found |= {part for alias in names for part in alias.name.split(".")}
    return {name for name in found if PRIVATE.fullmatch(name)}


def is_super(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"


def defined_names(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                found.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                found.add(name)
    return found


def inherited_names(tree: ast.Module) -> set[str]:
    """The private names that a file's classes ask of themselves and do not define; theirs, or those of our bases."""
    own = defined_names(tree)
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        if PRIVATE.fullmatch(node.attr) and node.attr not in own
    }


def names_of_argparse(tree: ast.Module) -> set[str]:
    """Those that come with Python, where a file imports it: it is no release of its own, and has no other way."""
    imported = any(isinstance(node, ast.Import) and node.names[0].name == "argparse" for node in ast.walk(tree))
    return set(PRIVATE.findall(inspect.getsource(argparse))) if imported else set()


@pytest.fixture(scope="module")
def trees():
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
        for path in PACKAGE.rglob("*.py")
    }


def test_every_name_that_is_used_is_listed_where_it_is_used(trees):
    found = defaultdict(set)
    ours = set().union(*map(defined_names, trees.values()))
    theirs = frozenset(entry.name for entry in PRIVATE_NAMES)
    for module, tree in trees.items():
        for name in (used_names(tree, theirs) | (inherited_names(tree) - ours)) - names_of_argparse(tree):
            found[name].add(module)
    listed = {entry.name: set(entry.used_in) for entry in PRIVATE_NAMES}
    assert len(listed) == len(PRIVATE_NAMES)
    assert {name: modules for name, modules in found.items() if not modules <= listed.get(name, set())} == {}
    assert {name: modules for name, modules in listed.items() if not modules <= found[name]} == {}


def test_every_name_is_asked_for_at_import(trees):
    asking = {module for module, tree in trees.items() if "check_private_names(__name__)" in ast.unparse(tree)}
    below = {"hub.model_card", "numerics.output_projection", "runs.processes"}
    assert {entry.name for entry in PRIVATE_NAMES if not set(entry.used_in) & (asking | below)} == set()


def test_the_walk_sees_every_kind_of_use():
    source = """
from torch._six import inf
import torch._C
from transformers.utils import _hidden
class Ours(Base):
    def __init__(self, other):
        self._own = other._theirs
        getattr(other, "_asked", None)
        {"_key": other["_place"]}
        super()._reset(self._inherited)
    def _reset(self):
        return other._own + _local(self._own)
"""
    tree = ast.parse(source)
    assert used_names(tree) == {"_six", "_C", "_hidden", "_theirs", "_asked", "_key", "_place", "_reset"}
    assert inherited_names(tree) == {"_inherited"}


@pytest.mark.parametrize("entry", PRIVATE_NAMES, ids=lambda entry: f"{entry.holder}.{entry.name}")
def test_the_installed_releases_have_it(entry):
    assert is_there(entry) and entry.purpose


def test_what_is_missing_is_named_with_the_releases(monkeypatch, caplog):
    gone = PrivateName("transformers.GenerationMixin", "_gone", ("decoding.beams",), "does it", "it is slow")
    monkeypatch.setattr(private_names, "PRIVATE_NAMES", (gone,))
    private_names.missing_names.cache_clear()
    with caplog.at_level(logging.WARNING, "hf_editable"):
        assert check_private_names("hf_editable.decoding.beams") == ["_gone"]
        assert check_private_names("hf_editable.decoding.generation") == []
    (message,) = caplog.messages
    assert (
        "transformers.GenerationMixin._gone, which hf_editable.decoding.beams uses (does it), so it is slow" in message
    )
    releases = {"hf_editable": hf_editable, "torch": torch, "transformers": transformers}
    assert all(f"{name} {package.__version__}" in message for name, package in releases.items())
    monkeypatch.setattr(private_names, "PRIVATE_NAMES", (PrivateName(gone.holder, "_gone", gone.used_in, "does it"),))
    private_names.missing_names.cache_clear()
    with pytest.raises(EditableImportError, match=r"do not have transformers.GenerationMixin._gone.*transformers \d"):
        check_private_names("hf_editable.decoding.beams")
    private_names.missing_names.cache_clear()


def test_names_that_only_instances_have_are_found_in_the_code(monkeypatch):
    def there(holder, name, of_instances=True):
        return is_there(PrivateName(holder, name, (), "", of_instances=of_instances))

    assert there("torch.nn.Module", "_buffers") and there("transformers.GenerationMixin", "_pad_token_tensor")
    assert not there("torch.nn.Module", "_buffers", of_instances=False)
    assert not there("transformers.GenerationMixin", "_no_such_name")
    # That others call it is not enough for a method.
    assert there("transformers.GenerationMixin", "_beam_search", of_instances=False)
    monkeypatch.delattr(transformers.GenerationMixin, "_beam_search")
    assert not there("transformers.GenerationMixin", "_beam_search", of_instances=False)
