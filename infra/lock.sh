#!/usr/bin/env bash
# Resolves pyproject.toml into infra/requirements/torch.txt, tf.txt and bench.txt, and pip-audit into
# audit.txt. Existing pins are kept where they still fit; with --upgrade all are chosen afresh. Needs
# uv only, no environment.
set -euo pipefail
# shellcheck source=infra/uv.sh
source "$(dirname "${BASH_SOURCE[0]}")/uv.sh"

# compile LOCK OPTION... SOURCE: resolves into the temporary folder, preferring the pins already there.
compile() {
    local lock=$1
    shift
    # A fixed platform makes the result the same on every machine.
    run_uv pip compile --quiet --no-annotate --no-header --python "$python" --python-version 3.11 \
        --python-platform x86_64-manylinux_2_28 --output-file "$lock" "$@"
}

# Which build of PyTorch was found here must not show in the lock.
neutral() {
    sed -E -e 's/\+[a-z0-9.]+$//' -e '/^(nvidia-|cuda-|triton==)/d' "$1"
}

# The pins of the present lock, which uv then prefers.
present_pins() {
    [[ $upgrade == yes ]] || cat "$requirements/$1.txt" 2>/dev/null || true
}

case "$*" in
    '') upgrade=no ;;
    --upgrade) upgrade=yes ;;
    *)
        echo "usage: infra/lock.sh [--upgrade]" >&2
        exit 2
        ;;
esac

find_python
mkdir -p "$root/.tools"
find_uv
pass_pip_settings
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

present_pins torch >"$work/torch.txt"
compile "$work/torch.txt" --extra torch --extra kubeflow --extra cloud --extra dask \
    --extra submit --extra server --extra manifests --extra dev "$root/pyproject.toml"
{
    cat <<'HEADER'
# Made by `make lock`: the environment .venv (core, torch, kubeflow, dev).
# PyTorch's build is left open: `torch==2.13.0` takes the CUDA build or a CPU build, whichever is
# offered. A CUDA build's own metadata pins its exact nvidia-*, cuda-* and triton packages, which
# is why they are not listed; so install with dependencies (`uv pip install`), never with `sync`.
HEADER
    neutral "$work/torch.txt"
} >"$requirements/torch.txt"

# The PyTorch lock's pins come first, so that both environments hold the same versions where TFX
# allows it.
{ cat "$work/torch.txt" && present_pins tf; } >"$work/tf.txt"
compile "$work/tf.txt" --extra tf --extra dev --override "$requirements/tf-overrides.txt" \
    "$root/pyproject.toml"
{
    cat <<'HEADER'
# Made by `make lock`: the environment .venv-tf (core, tf, dev).
# These pins contradict TFX's own metadata where tf-overrides.txt says so; install them with
# `--override` naming this very file.
HEADER
    neutral "$work/tf.txt"
} >"$requirements/tf.txt"

{ cat "$work/torch.txt" && present_pins bench; } >"$work/bench.txt"
compile "$work/bench.txt" --extra bench "$root/pyproject.toml"
{
    cat <<'HEADER'
# Made by `make lock`: the environment .venv-bench (core, bench), for benchmarks/ only.
# PyTorch's build is left open, as in torch.txt.
HEADER
    neutral "$work/bench.txt"
} >"$requirements/bench.txt"

present_pins audit >"$work/audit.txt"
echo pip-audit >"$work/audit.in"
compile "$work/audit.txt" "$work/audit.in"
{
    cat <<'HEADER'
# Made by `make lock`: pip-audit, which `tandem ledger` has uv run in an environment of its own.
HEADER
    neutral "$work/audit.txt"
} >"$requirements/audit.txt"
