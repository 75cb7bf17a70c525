#!/usr/bin/env bash
# Makes the Python environments from their locks. TFX and the PyTorch side need different
# versions of kfp and kubernetes, so one environment cannot hold both.
#
#   infra/environments.sh torch    .venv         PyTorch, Lightning, kfp, and all of the tooling
#   infra/environments.sh tf       .venv-tf      TensorFlow, TFX
#   infra/environments.sh all      both
#   infra/environments.sh cuda     both, for GPUs: builds for the same CUDA
#   infra/environments.sh bench    .venv-bench   other readers, for benchmarks/ only
#
# A complete environment is left alone; one that was for GPUs stays so. PYTHON names another Python
# 3.11. pip's find-links, index-url and cert settings are passed on to uv, whose own UV_* settings win
# over them.
set -euo pipefail
# shellcheck source=infra/uv.sh
source "$(dirname "${BASH_SOURCE[0]}")/uv.sh"

[[ $(uname -s)-$(uname -m) == Linux-x86_64 ]] ||
    refuse "The locks are for Linux on x86_64, this is $(uname -s) on $(uname -m): use a Linux container."

declare -A directories=([torch]=.venv [tf]=.venv-tf [bench]=.venv-bench)

# As measured (1983, 3307 and 2300 MB, byte-code included) plus a fifth.
declare -A needed_megabytes=([torch]=3000 [tf]=4000 [bench]=2800)
# What a CUDA build of either framework adds in libraries; an estimate from its packages.
cuda_megabytes=5000
cuda=''

# What decides an environment's content. Reads files only, so that checking it costs nothing.
fingerprint() {
    local directory=$root/${directories[$1]}
    {
        echo "$directory" # scripts inside name their interpreter by its full path
        grep '^version_info' "$directory/pyvenv.cfg"
        # Tool settings in pyproject.toml may change without a rebuild.
        awk '/^\[/ { wanted = /^\[(build-system|project|tool\.setuptools)/ } wanted' \
            "$root/pyproject.toml"
        cat "$requirements/$1.txt"
    } | sha256sum
}

is_complete() {
    local directory=$root/${directories[$1]}
    [[ -x $directory/bin/python && -f $directory/tandem-stamp ]] &&
        [[ $(sed -n 1p "$directory/tandem-stamp") == "$(fingerprint "$1")" ]] &&
        { [[ -z $cuda ]] || is_for_gpus "$1"; }
}

is_for_gpus() {
    [[ $(sed -n 2p "$root/${directories[$1]}/tandem-stamp" 2>/dev/null) == cuda ]]
}

# The registry's PyTorch for Linux is the CUDA build; a CPU build has to be asked for.
takes_cpu_build() {
    local folder
    [[ ${UV_TORCH_BACKEND:-} == cpu ]] && return
    for folder in $(tr , " " <<<"${UV_FIND_LINKS:-}"); do
        compgen -G "$folder/torch-*+cpu*.whl" >/dev/null && return
    done
    return 1
}

check_disk() {
    local needed=0 free name hint=''
    for name in "$@"; do
        needed=$((needed + needed_megabytes[$name]))
        if [[ -n $cuda ]]; then
            needed=$((needed + cuda_megabytes))
        elif [[ $name != tf ]] && ! takes_cpu_build; then
            needed=$((needed + cuda_megabytes))
            hint=" UV_TORCH_BACKEND=cpu needs $cuda_megabytes MB less."
        fi
    done
    free=$(df -Pm "$root" | awk 'NR == 2 { print $4 }')
    ((free >= needed)) ||
        refuse "Too little disk space in $root: $free MB free, $needed MB needed for $*.$hint"
    echo "Making environments in $root: $* (at most $needed MB)" >&2
}

make_environment() {
    local directory=$root/${directories[$1]} lock=$requirements/$1.txt start=$SECONDS
    if is_for_gpus "$1"; then local cuda=cuda; fi
    # TensorFlow's wheels are for CUDA 12, the registry's PyTorch is for 13: builds of two classes,
    # whose runs are not compared.
    if [[ -n $cuda ]]; then local -x UV_TORCH_BACKEND=${UV_TORCH_BACKEND:-cu126}; fi
    echo "Making $directory${cuda:+, for GPUs}" >&2
    run_uv venv --quiet --clear --no-project --python "$python" "$directory"
    # The lock is its own override: its pins win over what TFX asks for. Dependencies are still
    # followed, because a CUDA build of PyTorch brings libraries that the lock leaves to it.
    run_uv pip install --python "$directory/bin/python" --compile-bytecode \
        --requirements "$lock" --override "$lock"
    if [[ $1 == tf && -n $cuda ]]; then
        # Apart, since an override of tensorflow would drop the extra. The lock does not pin CUDA's
        # libraries; tensorflow's own metadata says which fit.
        grep -v '^tensorflow==' "$lock" >"$directory/overrides.txt"
        run_uv pip install --python "$directory/bin/python" --compile-bytecode \
            'tensorflow[and-cuda]' --constraint "$lock" --override "$directory/overrides.txt"
    fi
    # Without isolation the locked setuptools builds the project, and no other is fetched.
    run_uv pip install --python "$directory/bin/python" --quiet --no-deps --no-build-isolation \
        --editable "$root"
    # Last, and by a rename: an interrupted run leaves an environment that is made afresh.
    { fingerprint "$1" && echo "$cuda"; } >"$directory/tandem-stamp.new"
    mv "$directory/tandem-stamp.new" "$directory/tandem-stamp"
    echo "Made $directory in $((SECONDS - start)) s" >&2
}

case "$#:${1:-}" in
    1:torch | 1:tf | 1:bench) wanted=("$1") ;;
    1:all) wanted=(torch tf) ;;
    1:cuda) wanted=(torch tf) cuda=cuda ;;
    *)
        echo "usage: infra/environments.sh torch|tf|all|cuda|bench" >&2
        exit 2
        ;;
esac

missing=()
for name in "${wanted[@]}"; do
    is_complete "$name" || missing+=("$name")
done
((${#missing[@]})) || exit 0

find_python
pass_pip_settings
check_disk "${missing[@]}"
mkdir -p "$root/.tools"
exec 9>"$root/.tools/lock"
flock 9 # a second run waits here for the first
find_uv
for name in "${missing[@]}"; do
    is_complete "$name" || make_environment "$name"
done
