#!/usr/bin/env bash
# Build the wheel, install it into a clean environment outside the checkout, and run a small demo there.
set -euo pipefail
python=${1:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$root/.venv/bin/python" -m build --wheel --outdir "$work" "$root" >"$work/build.log" 2>&1 || { tail -20 "$work/build.log"; exit 1; }
ls -l "$work"/kvt-*.whl
"$python" -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check -c "$root/constraints.txt" "$work"/kvt-*.whl

cd "$work"
PATH="$work/env/bin:$PATH"
kvt --version
kvt validate -c demo
kvt init own.yaml --base-url http://127.0.0.1:8000 --model m --apply llama.cpp && kvt validate -c own.yaml
kvt demo --quiet --override 'dataset.params={contexts: 25, min_tokens: 128, max_tokens: 512}' --override binning.n_per_bin=5 \
    --override 'kv.budgets=[1.0, 0.5, 0.1]'
kvt sweep -c sanity --dry-run
python -m analyzer --help >/dev/null
ls runs/demo/report.html runs/demo/report.md runs/demo/plots/acc_by_bin.png
test "$(find "$work/env" -path '*kvt_async/serve/reference/model.safetensors' | wc -l)" = 1
echo "the wheel works in a clean environment"
