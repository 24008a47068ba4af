"""What pytest alone lets pass makes these tests fail: see strict.py."""

import configparser
import re
import warnings
from pathlib import Path

import pytest

from conftest import QUICK


pytest_plugins = "pytester"
pytestmark = pytest.mark.warns  # in the runs inside
ROOT = Path(__file__).parents[1]
CASES = """
import logging
import pytest

@pytest.mark.skip(reason="needs a GPU of the largest kind")
def test_allowed(): pass

@pytest.mark.skipif(True, reason="some day")
def test_not_allowed(): pass

def test_inside(): pytest.importorskip("there_is_no_such_package")

@pytest.mark.xfail(strict=True, reason="known to be wrong")
def test_expected(): assert False

@pytest.mark.skipif(True, reason="no chromium and chromedriver")
def test_browser(): pass

def call(module):
    space = {"__name__": module, "logger": logging.getLogger("transformers.generation.utils")}
    exec("def warn(): logger.warning('ignores an argument')", space)
    space["warn"]()

def test_warned_by_us(): call("hf_editable.decoding.generation")

@pytest.mark.warns
def test_about_warnings(): call("hf_editable.decoding.generation")

def test_warned_by_the_test(): call("other")
"""


@pytest.fixture
def run(pytester):
    pytester.makeconftest("from strict import *")
    pytester.makeini("[pytest]\nmarkers = warns")

    def run(text, *arguments):
        pytester.makepyfile(text)
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist", *arguments)

    return run


def test_skips_and_warnings_that_nobody_allowed_fail(run, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    found = run(CASES)
    found.assert_outcomes(skipped=2, failed=2, passed=3, errors=2)
    text = found.stdout.str()
    for reason in ("some day", "no_such_package", "known to be wrong"):
        assert re.search(f"skipped: .*{reason}", text)
    assert "teardown of test_warned_by_us" in text and "AssertionError: ['ignores an argument" in text


def test_where_browsers_are_installed_their_tests_are_not_skipped(run, monkeypatch):
    monkeypatch.setenv("CI", "true")
    run(CASES, "-k", "test_browser").assert_outcomes(errors=1)


def test_files_that_are_skipped_as_a_whole_are_errors(run):
    run("import pytest\npytest.importorskip('there_is_no_such_package')").assert_outcomes(errors=1)


def test_warnings_are_errors():
    with pytest.raises(UserWarning, match="ours"):
        warnings.warn("ours", stacklevel=1)


def test_quick_tests_and_lowest_versions_are_there():
    assert all((ROOT / "tests" / f"{name}.py").exists() for name in QUICK)
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    required = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    lines = [line for text in required for line in text.split()]
    # The form that scripts/environment.sh reads.
    other = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+>=[0-9.]+", line)]
    assert other == ["hf_editable[analysis,app,lora,plots]"]
