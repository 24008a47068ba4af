#!/usr/bin/env bash
# Sets everything up in .venv, then checks the style and runs the tests. Arguments go to pytest.
#
#   scripts/run_tests.sh             all tests
#   scripts/run_tests.sh --lowest    the quick ones, in .venv-lowest with the lowest versions that setup.cfg names
#
# The page's tests need Chromium and its driver; without them they are skipped, but where CI is set they fail.
if [ "${1:-}" = --lowest ]; then
    shift
    LOWEST=1
    set -- -m quick "$@"
fi
source "$(dirname "$0")/environment.sh"
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
ruff check hf_editable scripts tests
ruff format --check hf_editable scripts tests
python -m pytest --numprocesses 2 "$@"
