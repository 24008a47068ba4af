# Sourced by the other scripts: goes to the repository's root and makes the virtual environment .venv there, once.
# PYTHON names another Python 3.11, TORCH another build of torch (such as a version for your CUDA). LOWEST makes
# .venv-lowest in its place, with the lowest versions that setup.cfg names.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv${LOWEST:+-lowest}
# Also when setup.cfg has changed since.
if [ ! "$venv/complete" -nt setup.cfg ]; then
    python=${PYTHON:-$(command -v python3.11 || command -v python3)}
    "$python" -c 'import sys; sys.exit("Python 3.11 or newer is needed; name one in PYTHON." if sys.version_info < (3, 11) else 0)'
    echo "Installing into $venv ..."
    "$python" -m venv --clear "$venv"
    packages=("${TORCH:-torch==2.13.0}")
    if [ -n "${LOWEST:-}" ]; then
        # Not the package itself: both environments may be made at once, and building it writes into this folder.
        sed -nE 's/^ +([A-Za-z0-9_.-]+)>=([0-9.]+)$/\1==\2/p' setup.cfg > "$venv/lowest"
        pwd > "$(echo "$venv"/lib/python3*/site-packages)/hf_editable.pth"
        packages+=(--requirement "$venv/lowest")
    else
        packages+=(--editable ".[test]")
    fi
    "$venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "${packages[@]}"
    touch "$venv/complete"
fi
export PATH="$PWD/$venv/bin:$PATH"
export TOKENIZERS_PARALLELISM=false
