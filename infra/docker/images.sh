#!/usr/bin/env bash
# Builds the three images with a plain Docker engine, prints their sizes and the seconds that they
# took, and writes both to out/images.json, where the other images' stay if they are of the same
# build. Options go to `docker build`; what it needs behind a mirror is taken from pip's settings, as
# in environments.sh.
#
#   infra/docker/images.sh [OPTION ...]       --no-cache: measure the whole of it
#
#   IMAGES        which (default: core tf torch)
#   ACCELERATOR   cpu or cuda (default: cpu)
#   PACKAGES      Debian's, to have besides (default: gcc in a CUDA build, for Triton's launchers)
#   REPOSITORY    before the name, such as registry.example/team/ (default: none)
set -euo pipefail
# shellcheck source=infra/uv.sh
source "$(dirname "${BASH_SOURCE[0]}")/../uv.sh"

wanted=${IMAGES:-core tf torch}
accelerator=${ACCELERATOR:-cpu}
repository=${REPOSITORY:-}
case $accelerator in cpu | cuda) ;; *) refuse "ACCELERATOR is cpu or cuda, not $accelerator." ;; esac
docker version >/dev/null 2>&1 ||
    refuse "No Docker engine answers: start one, or name it in DOCKER_HOST."

cd "$root"
suffix='' packages=''
if [[ $accelerator == cuda ]]; then suffix=-cuda packages='gcc libc6-dev'; fi
packages=${PACKAGES-$packages}
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' pipelines/__init__.py)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
if [[ -n $(git status --porcelain 2>/dev/null) ]]; then revision+=-modified; fi

# pip's settings on this machine, for the build stage: see install.sh. Removed at the end.
site=$root/infra/docker/site
make_site() {
    local folder variable
    rm -rf "$site"
    mkdir -p "$site/wheels"
    find_python
    pass_pip_settings
    {
        echo "# Made by images.sh for one build, read by install.sh."
        for variable in UV_DEFAULT_INDEX UV_INDEX UV_TORCH_BACKEND; do
            if [[ -n ${!variable:-} ]]; then echo "export $variable=${!variable@Q}"; fi
        done
        if [[ -n ${UV_DEFAULT_INDEX:-} ]]; then
            echo "export PIP_INDEX_URL=${UV_DEFAULT_INDEX@Q}"
        fi
        echo "export UV_FIND_LINKS=/src/infra/docker/site/wheels PIP_FIND_LINKS=/src/infra/docker/site/wheels"
        if [[ -f ${SSL_CERT_FILE:-} ]]; then
            cp "$SSL_CERT_FILE" "$site/certificates.pem"
            echo "export SSL_CERT_FILE=/src/infra/docker/site/certificates.pem"
            echo "export PIP_CERT=/src/infra/docker/site/certificates.pem"
        fi
    } >"$site/environment"
    for folder in $(tr , ' ' <<<"${UV_FIND_LINKS:-}"); do
        if [[ -d $folder ]]; then
            # Linked where it can be: it may hold much, and is sent to the engine anyway.
            find "$folder" -maxdepth 1 -name '*.whl' -exec cp -lf -t "$site/wheels" {} + 2>/dev/null ||
                find "$folder" -maxdepth 1 -name '*.whl' -exec cp -f -t "$site/wheels" {} +
        fi
    done
}
log=$(mktemp)
trap 'rm -rf "$site" "$log"' EXIT
make_site

mkdir -p out
report=out/images.json.new
{
    echo "{"
    echo "  \"version\": \"$version\", \"revision\": \"$revision\", \"accelerator\": \"$accelerator\","
    echo "  \"engine\": \"$(docker version --format '{{.Server.Version}}')\","
    echo "  \"images\": {"
} >"$report"
separator=''
for name in $wanted; do
    tag=${repository}tandem-$name:$version$suffix
    echo "Building $tag" >&2
    start=$(date +%s%N)
    docker build --network host --file "infra/docker/$name.Dockerfile" --tag "$tag" \
        --build-arg ACCELERATOR="$accelerator" --build-arg PACKAGES="$packages" \
        --build-arg VERSION="$version" --build-arg REVISION="$revision" "$@" . >"$log" 2>&1 ||
        { tail -n 40 "$log" >&2 && refuse "docker build failed for $tag: see above."; }
    milliseconds=$((($(date +%s%N) - start) / 1000000))
    seconds=$(printf '%d.%d' $((milliseconds / 1000)) $((milliseconds % 1000 / 100)))
    bytes=$(docker image inspect --format '{{.Size}}' "$tag")
    # Seconds of a build that took layers from an earlier one say little.
    if grep -qE 'Using cache|CACHED' "$log"; then cached=true; else cached=false; fi
    printf '%s    "%s": {"tag": "%s", "bytes": %s, "build_seconds": %s, "from_cache": %s}' \
        "$separator" "$name" "$tag" "$bytes" "$seconds" "$cached" >>"$report"
    separator=$',\n'
    printf '%-24s %8s MB %8s s%s\n' "$tag" $((bytes / 1000000)) "$seconds" \
        "$([[ $cached == false ]] || echo ', layers from the cache')"
done
printf '\n  }\n}\n' >>"$report"

"$python" - "$report" out/images.json <<'END'
import json, pathlib, sys

new, old = map(pathlib.Path, sys.argv[1:])
made = json.loads(new.read_text())
try:
    before = json.loads(old.read_text())
    if all(before[key] == made[key] for key in ("version", "revision", "accelerator", "engine")):
        made["images"] = dict(sorted((before["images"] | made["images"]).items()))
except (OSError, ValueError, LookupError, TypeError):
    pass  # none yet, or none that can be read
new.write_text(json.dumps(made, indent=2) + "\n")
END
mv "$report" out/images.json
