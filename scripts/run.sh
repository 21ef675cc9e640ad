#!/usr/bin/env bash
# `make run`: a working lab appliance on this machine. What it makes stays in .zixt, so that the next run goes on with
# the same accounts and messages; `make clean-data` throws it away.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

programs=${ZIXT_PROGRAMS:-${CARGO_TARGET_DIR:?is set by scripts/with-rust.sh}/release}
state=${ZIXT_STATE:-$PWD/.zixt/state}
run=${ZIXT_RUN:-$PWD/.zixt/run}
listen=${ZIXT_LISTEN:-127.0.0.1:7443}
custody=${ZIXT_CUSTODY:-}
# shellcheck source=scripts/lab.sh
. scripts/lab.sh

trap 'echo; echo "Stopping …"; lab_down; echo "Stopped. Everything is kept in ${state%/state}; \`make run\` goes on with it."; exit 0' INT TERM
trap lab_down EXIT

first=yes
[ -e "$state/server/genesis.cbor" ] && first=no
lab_up

echo
cat "$state/lab/network.txt"
echo
echo "The appliance runs: clients connect to $listen."
device="software token (SoftHSM)"
[ "$custody" != tpm ] || device="simulated TPM (swtpm)"
echo "Custody: a $device. \`$programs/zixt-hsm doctor --socket $run/hsmd.sock\` says what that is worth."
echo "THIS IS A LAB: its officers' keys and the PIN lie in plain files. Never use it for real messages."
zixt=$programs/zixt
people=${state%/state}
if [ "$first" = yes ]; then
    for name in alice bob; do
        lab_invite "$name" >"$state/lab/invitation-$name"
    done
    cat <<TEXT

Two people are invited. Open two more terminals, here in $PWD.

Terminal 1, as alice:
    $zixt --store $people/alice enrol "\$(cat $state/lab/invitation-alice)"
    $zixt --store $people/alice chat bob

Terminal 2, as bob (enrol before alice writes to him):
    $zixt --store $people/bob enrol "\$(cat $state/lab/invitation-bob)"
    $zixt --store $people/bob tui

What was said can be proved, offline, from one file (leave the chat with Ctrl-C first):
    $zixt --store $people/alice evidence export bob --with-content -o talk.zixt-evidence
    $programs/zixt-verify --genesis $(sed -n 's/^genesis hash *//p' "$state/lab/network.txt") --content talk.zixt-evidence

Invite somebody else:
    $programs/zixt-admin invite --run $run --hsmd $run/hsmd.sock NAME
TEXT
else
    cat <<TEXT

This appliance was made before: its accounts and messages are all there.
    $zixt --store $people/alice chat bob
    $programs/zixt-admin status --run $run
Invitations of the first run, if they were not used yet: $state/lab/invitation-*
TEXT
fi
echo
echo "Ctrl-C stops it. Logs: $run/zixtd.log and $run/zixt-hsmd.log"
wait "$zixtd_pid" && code=0 || code=$?
echo "zixtd ended (exit code $code); its log closes with:" >&2
tail -n 20 "$run/zixtd.log" >&2
exit 1
