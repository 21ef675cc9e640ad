#!/usr/bin/env bash
# The one place that names everything this project installs on a machine.
#
#   scripts/install-deps.sh --run     what `make run` and `make demo` need (default)
#   scripts/install-deps.sh --tpm     that, and what `make run CUSTODY=tpm` needs
#   scripts/install-deps.sh --test    that, and what `make test` needs
#   scripts/install-deps.sh --list    print the packages of both and install nothing
#
# Written for Debian 12. Does nothing, quickly, when nothing is missing. Runs apt as root or through sudo; when it
# can do neither, it prints what to install and ends with status 1. It installs Debian packages only, and a Rust
# toolchain only when there is none of the version that Cargo.toml asks for.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

packages_run=(
    ca-certificates # cargo fetches the locked crates over TLS
    gcc             # aws-lc-sys and the bundled SQLite are C
    git             # version of the build; the source tests list tracked files
    libc6-dev       # headers for the two above
    libtss2-dev     # the TPM's software stack, which tss-esapi links
    make
    pkg-config
    softhsm2        # PKCS#11 token that stands in for an HSM
)
packages_tpm=(
    libtss2-tcti-swtpm0 # how the software stack speaks to the simulator
    swtpm         # TPM 2.0 simulator
    swtpm-tools   # makes its state, endorsement key and certificate
    tpm2-tools    # measures what firmware would; the independent witness of what is in a TPM
)
packages_test=(
    chromium      # the browser of the tests of passkeys, with its virtual authenticator
    clang         # Kryoptic's build reads C headers (scripts/build-kryoptic.sh)
    curl          # a program of somebody else that calls the API
    iproute2      # brings up the loopback of the network in which the domain controller of the tests lives
    ldap-utils    # changes what is in the directories of the tests
    libclang-dev  # as clang
    libnss3-tools # certutil, which gives that browser the authority of the tests
    libsqlite3-dev # Kryoptic keeps its objects in SQLite
    openssl       # makes the certificates that tests of syslog over TLS need
    opensc        # pkcs11-tool, the independent witness of what is in a token
    openssl       # certificates of the directories of the tests
    python3-samba # samba-tool, which sets up a domain
    samba-ad-dc   # a domain controller of Active Directory
    samba-ad-provision # what a new domain begins with
    samba-dsdb-modules # the database of the domain controller
    samba-vfs-modules # attributes of its files, which setting up a domain writes
    slapd         # OpenLDAP's server
    nodejs        # runs oidc-provider, the OpenID provider of the tests (scripts/install-peers.sh); 18 or newer
    npm           # installs it
    python3-venv  # holds pysaml2, the SAML identity provider of the tests
    perl          # OpenSSL's build, for Kryoptic; another user at the admin socket
    rsyslog       # the real receiver of audit records
    rsyslog-gnutls # its TLS
    systemd       # systemd-journald and journalctl: audit records in systemd's journal
    tmux          # drives the terminal programs the way a person would
    xmlsec1       # signs for pysaml2
)
# Debian 12 ships Rust 1.63; its security archive carries a current toolchain for the browsers under these names.
packages_rust=(cargo-web rustc-web)
packages_rust_test=(rust-web-clippy rustfmt-web)

die() {
    printf 'install-deps: %s\n' "$@" >&2
    exit 1
}

mode=${1:---run}
case $mode in
--run | --tpm | --test) ;;
--list)
    printf '%s\n' "${packages_run[@]}" "${packages_tpm[@]}" "${packages_test[@]}" "${packages_rust[@]}" "${packages_rust_test[@]}"
    exit 0
    ;;
*) die "unknown option '$mode'; known are --run, --tpm, --test and --list" ;;
esac

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    die "this system has no apt; install what answers to these Debian packages, and Rust, by hand:" \
        "${packages_run[*]} ${packages_tpm[*]} ${packages_test[*]}"
fi

wanted=("${packages_run[@]}")
[ "$mode" = --run ] || wanted+=("${packages_tpm[@]}")
[ "$mode" = --test ] && wanted+=("${packages_test[@]}")

# A Node.js that is new enough and comes with its own npm, as the packages of its makers do, is fine: Debian's npm
# would pull in Debian's older one.
if [ "$mode" = --test ] && command -v npm >/dev/null &&
    node --eval 'process.exit(Number(process.versions.node.split(".")[0]) >= 18 ? 0 : 1)' 2>/dev/null; then
    kept=()
    for package in "${wanted[@]}"; do
        [ "$package" = nodejs ] || [ "$package" = npm ] || kept+=("$package")
    done
    wanted=("${kept[@]}")
fi

missing=()
for package in "${wanted[@]}"; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=none
    [ "$status" = installed ] || missing+=("$package")
done

rust_note=
if toolchain=$("$root/scripts/with-rust.sh" --print 2>/dev/null); then
    if [ "$mode" = --test ]; then
        if [ ! -x "$toolchain/cargo-clippy" ] || [ ! -x "$toolchain/cargo-fmt" ]; then
            if [ "$toolchain" = /usr/bin ]; then
                missing+=("${packages_rust_test[@]}")
            else
                die "the toolchain in $toolchain has no clippy or no rustfmt;" \
                    "add them, with rustup: rustup component add clippy rustfmt"
            fi
        fi
    fi
else
    rust_note=yes
    missing+=("${packages_rust[@]}")
    [ "$mode" = --test ] && missing+=("${packages_rust_test[@]}")
fi

[ ${#missing[@]} -gt 0 ] || exit 0

install=(apt-get install --yes --no-install-recommends "${missing[@]}")
if [ "$(id -u)" = 0 ]; then
    as_root=(env DEBIAN_FRONTEND=noninteractive)
elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    as_root=(sudo env DEBIAN_FRONTEND=noninteractive)
else
    die "these packages are missing: ${missing[*]}" \
        "as root, run: apt-get update && ${install[*]}" \
        "then start again."
fi

# Debian starts the servers that it installs, and again at each boot. The tests start their own; nothing of theirs
# is to listen on somebody's machine. A server that was there before stays as it is.
servers() {
    find /etc/init.d -maxdepth 1 -type f -printf '%f\n' 2>/dev/null | sort
}
policy=/usr/sbin/policy-rc.d
allow_servers() {
    "${as_root[@]}" rm -f "$policy"
}
servers_before=$(servers)
if [ ! -e "$policy" ]; then
    trap allow_servers EXIT
    # 101: no service may be started (invoke-rc.d(8)).
    "${as_root[@]}" sh -c "printf '#!/bin/sh\nexit 101\n' >'$policy' && chmod 755 '$policy'"
fi

echo "install-deps: installing ${missing[*]}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" "${install[@]}"
for server in $(comm -13 <(echo "$servers_before") <(servers)); do
    "${as_root[@]}" update-rc.d "$server" disable
done

if [ -n "$rust_note" ] && ! "$root/scripts/with-rust.sh" --print >/dev/null; then
    die "the Rust that this system's archive offers is too old." \
        "On Debian 12 the security archive (bookworm-security) has a recent one; is it in the apt sources?" \
        "Any other toolchain that is recent enough and on PATH, for example of rustup, will do as well."
fi
