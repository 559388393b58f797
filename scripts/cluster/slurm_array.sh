#!/usr/bin/env bash
# One shard of a sweep for each task of a Slurm array.
#
#   sbatch --array=1-8 scripts/cluster/slurm_array.sh experiment.yaml [options of kvt sweep ...]
#   sbatch --array=3,7 --export=ALL,KVT_SHARDS=8 scripts/cluster/slurm_array.sh experiment.yaml   # two of them again
#   kvt all -c experiment.yaml                                                                    # once they are done
#
# A shard works on the node's own disk (KVT_SCRATCH, else TMPDIR, else /tmp), since SQLite's log does not work on a
# network disk. What it holds is copied to the group's folder, KVT_RUNS (else ./runs), at its end and before Slurm
# stops it, and it goes on from there when the same task runs again. Secrets are the job's environment.
#SBATCH --job-name=kvt
#SBATCH --output=kvt-%A-%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
set -uo pipefail

fail() { printf 'error: %s\n' "$1" >&2; exit 2; }

[ $# -ge 1 ] || fail "no config: sbatch --array=1-N $0 CONFIG"
config=$1; shift
i=${SLURM_ARRAY_TASK_ID:-}; [ -n "$i" ] || fail "this is no array: sbatch --array=1-N $0 CONFIG"
n=${KVT_SHARDS:-$SLURM_ARRAY_TASK_MAX}
[ -n "${KVT_SHARDS:-}" ] || [ "$SLURM_ARRAY_TASK_COUNT" = "$SLURM_ARRAY_TASK_MAX" ] ||
    fail "the array has gaps: say of how many shards these are, --export=ALL,KVT_SHARDS=N"

runs=${KVT_RUNS:-$PWD/runs}
scratch=$(mktemp -d "${KVT_SCRATCH:-${TMPDIR:-/tmp}}/kvt-$i-of-$n-XXXXXX") || exit 3
trap 'rm -rf "$scratch"' EXIT
here=$(kvt resolve -c "$config" --override output.runs_dir="$runs" --json) || exit
db=$(python3 -c 'import json, sys; print(json.loads(sys.argv[1])["db"])' "$here") || exit 3
group=$(basename "$(dirname "$db")")
shared=$(dirname "$db")/shards
local=$scratch/runs/$group/shards
mkdir -p "$shared" "$local" || exit 3

name=$i-of-$n.sqlite
if [ -e "$shared/$name" ]; then
    cp "$shared/$name" "$local/" || exit 3
    if [ -e "$shared/$name-wal" ]; then cp "$shared/$name-wal" "$local/" || exit 3; fi
fi

checkpoint='import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute("PRAGMA wal_checkpoint(TRUNCATE)")'
give_back() {  # as one file: a log that stayed of the older one would damage it
    [ -e "$local/$name" ] || return 0
    python3 -c "$checkpoint" "$local/$name" && cp "$local/$name" "$shared/.$name.part" &&
        rm -f "$shared/$name-wal" "$shared/$name-shm" &&
        mv "$shared/.$name.part" "$shared/$name"
}

kvt sweep -c "$config" --shard "$i/$n" --override output.runs_dir="$scratch/runs" "$@" &
sweep=$!
trap 'kill -TERM $sweep 2>/dev/null' TERM INT
wait $sweep; code=$?
while kill -0 $sweep 2>/dev/null; do wait $sweep; code=$?; done  # a signal ends the first wait, not the sweep
if ! give_back; then
    trap - EXIT
    echo "error: $shared can't be written: what was answered is in $local on $(hostname)" >&2
    code=3
fi
cp -r "$local/$i-of-$n" "$shared/" 2>/dev/null  # its logs
exit $code
