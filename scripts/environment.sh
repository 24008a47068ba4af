# Sourced by the other scripts: goes to the repository's root and makes the virtual environment .venv there, once.
# PYTHON names another Python 3.11, TORCH another build of torch (such as a version for your CUDA).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ ! -f .venv/complete ]; then
    python=${PYTHON:-$(command -v python3.11 || command -v python3)}
    "$python" -c 'import sys; sys.exit("Python 3.11 or newer is needed; name one in PYTHON." if sys.version_info < (3, 11) else 0)'
    echo "Installing into .venv ..."
    "$python" -m venv --clear .venv
    .venv/bin/pip install --quiet --disable-pip-version-check "${TORCH:-torch==2.13.0}"
    .venv/bin/pip install --quiet --disable-pip-version-check --editable ".[test]"
    touch .venv/complete
fi
export PATH="$PWD/.venv/bin:$PATH"
export TOKENIZERS_PARALLELISM=false
