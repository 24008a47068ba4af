"""What pytest lets pass and these tests do not: skips that nobody allowed, and what we make transformers warn of."""

import logging
import os
import sys

import pytest


# What may be skipped, or fail as expected, by the beginning of its reason.
ALLOWED = (
    "needs a GPU",
    "needs the /proc of Linux",  # peak memory is read there
    "transformers' own ProphetNet",  # its predicting streams mix up positions
)
OUTSIDE_OF_CI = ("no chromium and chromedriver",)  # which CI installs
# What transformers says of some models whoever calls them, and however.
OF_THE_MODEL = (
    "The following generation flags are not valid",  # where only the caller says how many beams
    "Warning: The following arguments do not match",  # a run that goes on with others
    "The speedups for torchdynamo",  # to who asks for torch_compile without such a GPU
    "Attention type 'block_sparse' is not possible",
    "Input ids are automatically padded",
    "You must either specify a `tgt_lang`",
)


def _not_allowed(reason: str) -> bool:
    allowed = ALLOWED if os.environ.get("CI") else ALLOWED + OUTSIDE_OF_CI
    return not reason.removeprefix("Skipped: ").startswith(allowed)


def _fail(report: pytest.CollectReport | pytest.TestReport, reason: str) -> None:
    report.outcome = "failed"
    report.longrepr = (
        f"skipped: {reason}\nA skip hides a promise. Mend it, or allow it with its reason in tests/strict.py."
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped:
        reason = report.wasxfail if hasattr(report, "wasxfail") else report.longrepr[2]
        if _not_allowed(reason.removeprefix("reason: ")):
            _fail(report, reason)
            vars(report).pop("wasxfail", None)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    if report.outcome == "skipped" and _not_allowed(report.longrepr[2]):
        _fail(report, report.longrepr[2])
    return report


def _ours(module: str) -> bool:
    # The model's own methods pass on what their caller, often a test, has asked for.
    return module.startswith("hf_editable.") and module != "hf_editable.modeling.mixin"


class _Said(logging.Handler):
    """Keeps what transformers warns of when the package has called it."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        frame, text = sys._getframe(), record.getMessage()
        while frame and not _ours(frame.f_globals.get("__name__", "")):
            frame = frame.f_back
        if frame and not text.startswith(OF_THE_MODEL):
            self.texts.append(f"{text} [{frame.f_code.co_filename}:{frame.f_lineno}]")


@pytest.fixture(autouse=True)
def no_warnings_of_our_making(request):
    """Nothing that the package has transformers do makes it warn; a test marked `warns` is about just that."""
    said, logger = _Said(), logging.getLogger("transformers")
    logger.addHandler(said)
    yield
    logger.removeHandler(said)
    assert not said.texts or request.node.get_closest_marker("warns"), said.texts
