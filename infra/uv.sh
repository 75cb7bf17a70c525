# Shared by environments.sh and lock.sh: finds Python 3.11 and the pinned uv. Sourced, not run.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
requirements=$root/infra/requirements

# Environment builders that leave no byte-code make every later import three to four times slower.
unset PYTHONDONTWRITEBYTECODE

refuse() {
    echo "$*" >&2
    exit 1
}

# Sets `python`. Runs each candidate, because a pyenv shim exists even where it cannot start, and
# takes its base, because an active environment may be the one about to be made afresh.
find_python() {
    local candidate candidates=("${PYTHON:-}")
    if [[ -z ${PYTHON:-} ]]; then
        mapfile -t candidates < <(type -aP python3.11 python3)
    fi
    for candidate in "${candidates[@]}"; do
        python=$("$candidate" -c '
import sys
if sys.version_info[:2] == (3, 11): print(sys._base_executable)' 2>/dev/null) || true
        [[ -n $python ]] && return
    done
    refuse "Python 3.11 is needed and was not found${PYTHON:+ at PYTHON=$PYTHON}:" \
        "install it (Debian: apt-get install python3.11) or name it in PYTHON."
}

is_pinned_uv() {
    local version
    version=$("$1" --version 2>/dev/null) && [[ "$version " == "uv $uv_version "* ]]
}

# Sets `uv`: the pinned version from the PATH, or else from pip, kept inside the repository.
find_uv() {
    local pip=("$python" -m pip) output
    uv_version=$(sed -n 's/^uv==//p' "$requirements/uv.txt")
    for uv in "$root/.tools/uv/bin/uv" uv; do
        is_pinned_uv "$uv" && return
    done

    if ! "${pip[@]}" --version >/dev/null 2>&1; then
        pip=("$root/.tools/pip/bin/python" -m pip)
        "$python" -m venv --clear "$root/.tools/pip" >/dev/null 2>&1 ||
            refuse "$python has no pip: apt-get install python3-pip, or put uv $uv_version on the PATH."
    fi
    rm -rf "$root/.tools/uv"
    # --target works where the system's Python is externally managed.
    if ! output=$("${pip[@]}" install --quiet --disable-pip-version-check --retries 2 \
        --target "$root/.tools/uv" -r "$requirements/uv.txt" 2>&1); then
        echo "$output" >&2
        # What pip says when it could not read the index at all.
        [[ $output == *"from versions: none"* ]] && refuse_unreachable
        refuse "pip could not install uv $uv_version: see above, or put it on the PATH."
    fi
    uv=$root/.tools/uv/bin/uv
}

# uv does not read pip's settings, yet a site's mirror and wheel folders are usually kept there.
pass_pip_settings() {
    local settings place links='' index certificates
    settings=$("$python" -m pip config list 2>/dev/null) || true
    for place in $(pip_setting find-links); do
        if [[ -d $place || $place == *://* ]]; then
            links+=,$place
        fi
    done
    index=$(pip_setting index-url)
    certificates=$(pip_setting cert)
    if [[ -n $links ]]; then export UV_FIND_LINKS=${UV_FIND_LINKS:-${links#,}}; fi
    if [[ -n $index ]]; then export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$index}; fi
    if [[ -n $certificates ]]; then export SSL_CERT_FILE=${SSL_CERT_FILE:-$certificates}; fi
}

# pip's order: the environment variable, the section of `pip install`, the global section.
pip_setting() {
    local variable=PIP_$1 section value
    variable=${variable//-/_}
    value=${variable^^}
    value=${!value:-}
    for section in install global; do
        [[ -n $value ]] || value=$(sed -n "s/^$section\.$1='\(.*\)'$/\1/p" <<<"$settings")
    done
    echo "${value//\\n/ }"
}

refuse_unreachable() {
    refuse "The package index could not be reached: check the network and HTTPS_PROXY," \
        "or name a mirror in PIP_INDEX_URL or UV_DEFAULT_INDEX; then run this again."
}

# Runs uv; after a failure asks the index for one small page, to tell a lost network from the rest.
run_uv() {
    local answer
    "$uv" "$@" && return
    answer=$("$uv" pip compile --quiet --no-cache --python "$python" - <<<setuptools 2>&1) || true
    [[ $answer == *"Failed to fetch"* ]] && refuse_unreachable
    refuse "uv failed: see above."
}
