# A lab appliance for the shell: sourced by run.sh and demo.sh. Not a program of its own.
#
# Wants: $programs (folder of the built programs), $state, $run, $listen; $custody: `token` (SoftHSM), `tpm` (swtpm), or
# empty for what the lab was made with.
# Gives: lab_up, lab_down, lab_invite NAME; $hsmd_pid, $zixtd_pid.

hsmd_pid=
zixtd_pid=
swtpm_pid=
tcti=

lab_configure() {
    umask 077
    mkdir -p "$state/custody" "$state/server" "$state/lab/tokens" "$run"
    local made=
    if [ -d "$state/lab/tpm" ]; then
        made=tpm
    elif [ -e "$state/lab/softhsm2.conf" ]; then
        made=token
    fi
    custody=${custody:-${made:-token}}
    case $custody in
    "${made:-$custody}") ;;
    *)
        echo "This lab was made with CUSTODY=$made: go on with that, or throw it away with \`make clean-data\`." >&2
        return 1
        ;;
    esac
    case $custody in
    token | tpm) ;;
    *)
        echo "CUSTODY is \`token\` or \`tpm\`, not \`$custody\`" >&2
        return 1
        ;;
    esac
    if [ "$custody" = tpm ]; then
        lab_tpm_up
    else
        lab_token_configure
    fi
}

# The TPM of the lab: a simulator on a free port of the loopback, with its state in the lab's folder. The lab plays the
# firmware too, and measures the same at every start.
lab_tpm_up() {
    local folder=$state/lab/tpm tries=0 port
    if [ ! -e "$folder/tpm2-00.permall" ]; then
        mkdir -p "$folder"
        swtpm_setup --tpm2 --tpmstate "$folder" --ecc --lock-nvram >"$run/swtpm.log" 2>&1 ||
            { cat "$run/swtpm.log" >&2; return 1; }
    fi
    if [ ! -e "$state/lab/pin" ]; then
        head -c 8 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$state/lab/pin"
    fi
    # One that a killed run left behind would write to the same state.
    local old
    if old=$(cat "$run/swtpm.pid" 2>/dev/null) && grep -qsF "$folder" "/proc/$old/cmdline"; then
        kill "$old"
        while kill -0 "$old" 2>/dev/null; do sleep 0.1; done
    fi
    while :; do
        port=$((20000 + RANDOM % 20000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            setsid swtpm socket --tpm2 --tpmstate "dir=$folder" --flags not-need-init,startup-clear \
                --server "type=tcp,port=$port,bindaddr=127.0.0.1" \
                --ctrl "type=tcp,port=$((port + 1)),bindaddr=127.0.0.1" >>"$run/swtpm.log" 2>&1 &
            swtpm_pid=$!
            if lab_wait swtpm "$swtpm_pid" "$run/swtpm.log" lab_listens $((port + 1)); then break; fi
        fi
        tries=$((tries + 1))
        [ "$tries" -lt 20 ] || return 1
    done
    echo "$swtpm_pid" >"$run/swtpm.pid"
    tcti=swtpm:host=127.0.0.1,port=$port
    # The software stack prints every refusal of the TPM itself; custody says it in words.
    export TSS2_LOG=all+none
    tpm2_pcrextend -T "$tcti" "7:sha256=$(printf 'the Secure Boot policy of a lab' | sha256sum | cut -d' ' -f1)" \
        "11:sha256=$(printf 'the image of a lab' | sha256sum | cut -d' ' -f1)" || return 1
    cat >"$state/lab/hsmd.toml" <<CONF
state = "$state/custody"
socket = "$run/hsmd.sock"
pin_file = "$state/lab/pin"

[tpm]
tcti = "$tcti"
CONF
}

lab_listens() { # PORT
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

lab_token_configure() {
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
    lab_configure || return 1
    if [ "$custody" = token ]; then
        "$programs/zixt-hsmd" --config "$state/lab/hsmd.toml" --lab-init-token --so-pin-file "$state/lab/so-pin" \
            >>"$state/lab/token.log" 2>&1 || { cat "$state/lab/token.log" >&2; return 1; }
    fi
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
    [ -n "$swtpm_pid" ] || return 0
    # As a kernel does when it switches off: a TPM that only loses its power counts that as a wrong PIN.
    tpm2_shutdown -T "$tcti" -c 2>/dev/null || true
    kill -TERM "$swtpm_pid" 2>/dev/null && wait "$swtpm_pid" 2>/dev/null || true
    rm -f "$run/swtpm.pid"
    swtpm_pid=
}
