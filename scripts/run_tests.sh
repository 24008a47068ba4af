#!/usr/bin/env bash
# Sets everything up in .venv, then checks the style and runs the tests. Arguments go to pytest.
source "$(dirname "$0")/environment.sh"
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
ruff check hf_editable scripts tests
ruff format --check hf_editable scripts tests
python -m pytest --numprocesses 2 "$@"
