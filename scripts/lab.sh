# A lab appliance for the shell: sourced by run.sh and demo.sh. Not a program of its own.
#
# Wants: $programs (folder of the built programs), $state, $run, $listen.
# Gives: lab_up, lab_down, lab_invite NAME; $hsmd_pid, $zixtd_pid.

hsmd_pid=
zixtd_pid=

lab_configure() {
    umask 077
    mkdir -p "$state/custody" "$state/server" "$state/lab/tokens" "$run"
    export SOFTHSM2_CONF=$state/lab/softhsm2.conf
    cat >"$SOFTHSM2_CONF" <<CONF
directories.tokendir = $state/lab/tokens
objectstore.backend = file
log.level = ERROR
slots.removable = false
CONF
    cat >"$state/lab/hsmd.toml" <<CONF
state = "$state/custody"
socket = "$run/hsmd.sock"
pin_file = "$state/lab/pin"

[[token]]
module = "/usr/lib/softhsm/libsofthsm2.so"
label = "zixt-lab"
read = ["$state/lab/softhsm2.conf"]
write = ["$state/lab/tokens"]
CONF
}

# Waits up to 60 s until a command succeeds, or a process has ended.
lab_wait() { # WHAT PID LOG COMMAND…
    local what=$1 pid=$2 log=$3 tries=0
    shift 3
    until "$@" >/dev/null 2>&1; do
        if ! kill -0 "$pid" 2>/dev/null; then
            echo "$what ended. Its log, $log, closes with:" >&2
            tail -n 20 "$log" >&2
            return 1
        fi
        tries=$((tries + 1))
        if [ "$tries" -gt 600 ]; then
            echo "$what does not answer after 60 s. Its log: $log" >&2
            return 1
        fi
        sleep 0.1
    done
}

lab_up() {
    lab_configure
    "$programs/zixt-hsmd" --config "$state/lab/hsmd.toml" --lab-init-token --so-pin-file "$state/lab/so-pin" \
        >>"$state/lab/token.log" 2>&1 || { cat "$state/lab/token.log" >&2; return 1; }
    # The last run's logs are kept aside: what lab_wait looks for has to be of this run.
    for log in zixt-hsmd zixtd; do
        [ ! -e "$run/$log.log" ] || mv "$run/$log.log" "$run/$log.log.1"
    done
    # setsid: a Ctrl-C at the terminal reaches this script only, which then stops the daemons in the right order.
    setsid "$programs/zixt-hsmd" --config "$state/lab/hsmd.toml" >>"$run/zixt-hsmd.log" 2>&1 &
    hsmd_pid=$!
    lab_wait zixt-hsmd "$hsmd_pid" "$run/zixt-hsmd.log" grep -q '^ready' "$run/zixt-hsmd.log" || return 1
    "$programs/zixt-provision" lab --state "$state" --hsmd "$run/hsmd.sock" >"$state/lab/network.txt" || return 1
    setsid "$programs/zixtd" --state "$state" --run "$run" --hsmd "$run/hsmd.sock" --listen "$listen" \
        >>"$run/zixtd.log" 2>&1 &
    zixtd_pid=$!
    lab_wait zixtd "$zixtd_pid" "$run/zixtd.log" "$programs/zixt-admin" status --run "$run"
}

lab_invite() { # NAME: prints the invitation alone
    "$programs/zixt-admin" invite --run "$run" --hsmd "$run/hsmd.sock" --json "$1" |
        sed -n 's/.*"invitation" *: *"\([^"]*\)".*/\1/p'
}

lab_down() {
    local pid
    for pid in $zixtd_pid $hsmd_pid; do
        kill -TERM "$pid" 2>/dev/null || continue
        wait "$pid" 2>/dev/null || true
    done
    zixtd_pid=
    hsmd_pid=
}
