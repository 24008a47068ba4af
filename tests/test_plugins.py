"""What installed packages add by entry points: imported when it is needed, once, and named when it is broken."""

import sys

import pytest

from hf_editable import EditableImportError
from hf_editable.measures import all_measures, unregister_measure
from hf_editable.runs.plugins import load_plugins


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a package with one module and its entry point on the path, as pip does."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names = []

    def make(name, code, group="some.group"):
        (tmp_path / f"{name}.py").write_text(code)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\nthe_{name} = {name}\n")
        names.append(name)

    load_plugins.cache_clear()
    yield make
    load_plugins.cache_clear()
    for name in names:
        sys.modules.pop(name, None)


def test_modules_are_imported_once_and_only_those_of_the_group(install):
    install("wanted", "import builtins\nbuiltins.times_wanted = getattr(builtins, 'times_wanted', 0) + 1\n")
    install("other", "raise RuntimeError('of another group')\n", group="another.group")
    import builtins

    try:
        assert load_plugins("some.group") == ("the_wanted",)
        del sys.modules["wanted"]  # so that another import would run it again
        assert load_plugins("some.group") == ("the_wanted",) and builtins.times_wanted == 1
        assert load_plugins("group.without.any") == ()
    finally:
        del builtins.times_wanted


@pytest.mark.parametrize(
    ("code", "reason"),
    [("raise RuntimeError('no licence')\n", "no licence"), ("import not_there_at_all\n", "not_there_at_all")],
)
def test_a_broken_one_is_named_each_time(install, code, reason):
    install("broken", code)
    for _ in range(2):
        message = rf"The entry point 'the_broken' \(broken\) of the group some\.group cannot be loaded: .*{reason}"
        with pytest.raises(EditableImportError, match=message):
            load_plugins("some.group")


MEASURE = """
from hf_editable.measures import Measure, all_measures, register_measure

class Characters(Measure):
    name = {name!r}

    def value(self, seen):
        return float(sum(map(len, seen.translations)))

register_measure(Characters())
"""


def test_measures_of_other_packages_are_there_without_an_import(install):
    install("counting", MEASURE.format(name="characters"), group="hf_editable.measures")
    try:
        assert [measure.name for measure in all_measures()][-2:] == ["kl", "characters"]
        assert [measure.name for measure in all_measures()].count("characters") == 1
    finally:
        unregister_measure("characters")


def test_a_measure_that_cannot_be_registered_is_named(install):
    install("taking", MEASURE.format(name="drawdown"), group="hf_editable.measures")
    with pytest.raises(EditableImportError, match="The entry point 'the_taking' .*'drawdown' already"):
        all_measures()
