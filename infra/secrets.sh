#!/usr/bin/env bash
# Makes infra/secrets.env, the tracking server's secrets, once: for infra/compose.yaml, and for the
# secret tandem-server in a cluster (docs/cluster.md).
#
#   infra/secrets.sh [FILE]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

file=${1:-secrets.env}
if [[ -e $file ]]; then
    echo "$file is there already: a new password would lock the server out of its database." >&2
    exit 1
fi
umask 077
while IFS= read -r line; do
    # Letters and digits alone, which no URL and no shell reads otherwise.
    if [[ $line =~ ^[A-Z_]+=$ ]]; then line+=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n'); fi
    if [[ $line != '#'* ]]; then echo "$line"; fi
done <secrets.env.example >"$file"
echo "Made $file" >&2
