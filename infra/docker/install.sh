#!/usr/bin/env bash
# Runs in the build stage of every image: uv into /opt/uv, and into /opt/venv what one part of Tandem
# needs to run, in the versions that its lock pins, without what develops and tests it.
#
#   infra/docker/install.sh core|tf|torch cpu|cuda
#
# What a site needs to reach its package index lies in infra/docker/site (see images.sh). It stays in
# the build stage: no address and no password of it is in the image.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

part=$1 accelerator=$2
site=infra/docker/site
requirements=infra/requirements
# shellcheck source=/dev/null
if [[ -f $site/environment ]]; then source "$site/environment"; fi

case $part in
    core) extras=(cloud dask kubeflow server submit) lock=torch ;;
    tf) extras=(tf) lock=tf ;;
    torch) extras=(torch kubeflow) lock=torch ;;
    *)
        echo "usage: infra/docker/install.sh core|tf|torch cpu|cuda" >&2
        exit 2
        ;;
esac

install() {
    /opt/uv/bin/uv pip install --no-cache --python /opt/venv/bin/python --compile-bytecode "$@"
}

# Also setuptools, as locked: it builds the project, and no other is fetched for it.
python3.11 -m venv /opt/uv
/opt/uv/bin/pip install --no-cache-dir --quiet --disable-pip-version-check \
    -r "$requirements/uv.txt" -c "$requirements/torch.txt" setuptools wheel

# pyfarmhash, which TensorFlow Data Validation asks for, is published as source only.
if [[ $part == tf ]]; then
    apt-get update -qq
    apt-get install -qq --yes --no-install-recommends g++ >/dev/null
fi

# The registry's PyTorch is a build for CUDA 13, and TensorFlow's are for CUDA 12: builds of two
# classes, whose runs are not compared. A wheel of the wanted build that the site has is taken as it
# is; else uv knows where PyTorch publishes it.
case $accelerator in
    cpu) build=cpu backend=cpu ;;
    cuda) build=cu12 backend=cu126 ;;
esac
if [[ $part == torch ]] && ! compgen -G "$site/wheels/torch-*+$build*.whl" >/dev/null; then
    export UV_TORCH_BACKEND=${UV_TORCH_BACKEND:-$backend}
fi

/opt/uv/bin/uv venv --quiet --no-project --python python3.11 /opt/venv
# As constraints, unlike in environments.sh: only what the extras ask for is installed.
options=(--constraint "$requirements/$lock.txt")
if [[ $part == tf ]]; then options+=(--override "$requirements/tf-overrides.txt"); fi
install --requirements pyproject.toml "${extras[@]/#/--extra=}" "${options[@]}"
if [[ $part == tf && $accelerator == cuda ]]; then
    # Apart, since an override of tensorflow would drop the extra. The lock does not pin CUDA's
    # libraries; tensorflow's own metadata says which fit.
    install 'tensorflow[and-cuda]' --constraint "$requirements/$lock.txt" \
        --override <(grep -v '^tensorflow' "$requirements/tf-overrides.txt")
fi
# The project is a layer of its own, so that a change of code does not send the environment again.
echo /opt/app >/opt/venv/lib/python3.11/site-packages/tandem.pth
