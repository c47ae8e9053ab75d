#!/bin/sh
# Python in this project's own environment, which is made on first use and again when its packages change:
#   ./py sweeps/lora_grid.py
#   ./py -m pytest
set -eu
home=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
environment=${MTBERT_ENVIRONMENT:-$home/.venv}
stamp=$environment/mtbert-installed
wanted=$(cat "$home/pyproject.toml" "$home/constraints.txt" | cksum)

if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
    python=${PYTHON:-python3}
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "error: Python 3.11 or newer is needed, $("$python" --version 2>&1) was found; set PYTHON" >&2
        exit 2
    }
    echo "Setting up $environment (once, a few minutes) ..." >&2
    rm -f "$stamp"
    [ -x "$environment/bin/python" ] || "$python" -m venv "$environment"
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check \
        --constraint "$home/constraints.txt" --editable "$home[test]" >&2
    # its own requirements are stubs that clash with newer ones; the tests that compare with it skip without it
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check \
        --constraint "$home/constraints.txt" --no-deps smart-pytorch >&2
    echo "$wanted" > "$stamp"
fi
exec "$environment/bin/python" "$@"
