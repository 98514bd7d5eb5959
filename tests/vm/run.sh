#!/bin/sh
# The life of Cabin on a fresh cgroup2 host, run as root inside the machine that .ci/test-v2 starts. Each `check` is a
# sentence and the command that proves it; the last line says how it ended.
set -u
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=/dev/null
. "$here/settings"
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
began=$(date +%s)
done=0 failed=0
note=/run/v2-note

since() { echo "$(($(date +%s) - began)) s"; }

# check SENTENCE COMMAND…: what the command says is shown only when it fails.
check() {
    sentence=$1
    shift
    if "$@" >$note 2>&1; then
        done=$((done + 1))
        echo "ok     $sentence ($(since))"
    else
        failed=$((failed + 1))
        echo "FAILED $sentence ($(since))"
        sed 's/^/       | /' $note | tail -25
        return 1
    fi
}

# must SENTENCE COMMAND…: nothing after it makes sense when it fails.
must() { check "$@" || finish; }

finish() {
    if [ $failed != 0 ]; then
        echo "------ the end of cabind's log"
        journalctl -u cabind -n 40 --no-pager -o cat
        echo "------ the end of the kernel's"
        dmesg | tail -15
        echo "test-v2: $failed of $((done + failed)) failed after $(since)"
        exit 1
    fi
    echo "test-v2: passed, $done checks in $(since)"
    exit 0
}

# within SECONDS COMMAND…: until it succeeds.
within() {
    end=$(($(date +%s) + $1))
    shift
    until "$@"; do
        [ "$(date +%s)" -lt "$end" ] || { echo "in vain for long: $*"; return 1; }
        sleep 1
    done
}

is() { [ "$1" = "$2" ] || { echo "is \`$1\`, not \`$2\`"; return 1; }; }
fails() { ! "$@"; }
state() { cabin query "/1.0/instances/$1/state"; }
status() { state "$1" | jq -r .status; }
is_status() { is "$(status "$1")" "$2"; }
init_of() { state "$1" | jq -r .pid; }
address() { state "$1" | jq -re '[.network.eth0.addresses[]? | select(.family == "inet" and .scope == "global")][0].address'; }
says() { # WANTED COMMAND…
    wanted=$1
    shift
    is "$("$@")" "$wanted"
}

# What is there of Cabin on the host, or could be: looked at before and after.
picture() {
    echo "links: $(ip -o link | cut -d: -f2 | cut -d@ -f1 | sort | tr -d '\n')"
    echo "tables: $(nft list tables)"
    echo "mounts:"
    cut -d' ' -f5 /proc/self/mountinfo | grep -v '^/mnt/job\|^/run/credentials\|^/proc/sys/fs/binfmt_misc' | sort
    echo "top cgroups:"
    for group in /sys/fs/cgroup/*/; do echo "$group"; done
    echo "loops: $(losetup -a)"
    echo "programs:"
    ps -eo comm= | grep -E '^(cabin|dnsmasq|systemd-nspawn)' | sort
}

installed() { make -s -C "$here/tree" install PROFILE="$PROFILE"; }
uninstalled() { make -s -C "$here/tree" uninstall PROFILE="$PROFILE"; }

echo "host: $(. /etc/os-release; echo "$PRETTY_NAME"), kernel $(uname -r), systemd $(systemctl --version | sed -n 1p)"
check "the host has cgroup2 alone" says cgroup2fs stat -f -c %T /sys/fs/cgroup
check "the host has AppArmor" says Y cat /sys/module/apparmor/parameters/enabled

picture >/run/before
must "make install puts it in place" installed
must "systemd starts cabind" systemctl enable --now cabind.socket cabind.service
must "the daemon answers" cabin list
cabin doctor
check "the socket belongs to group cabin alone" says "root cabin 660" stat -c '%U %G %a' /run/cabin/unix.socket

must "a busybox image is imported" cabin image import "$here/images/busybox.tar.zst" --alias busybox
must "a busybox is launched" cabin launch busybox bb
check "it has an address of the bridge" within 60 address bb
check "a command runs in it" says bb cabin exec bb -- hostname
check "root in it is not root of the host" fails grep -q '^ *0 *0 ' "/proc/$(init_of bb)/uid_map"

must "a Debian 12 image is imported" cabin image import "$here/images/debian-12.tar.zst" --alias debian/12
must "a Debian 12 is launched" cabin launch debian/12 deb
up() { says running cabin exec deb -- systemctl is-system-running; }
settled() { cabin exec deb -- systemctl is-system-running 2>&1 | grep -q 'running\|degraded'; }
check "its systemd has come to rest" within 400 settled
check "and says running, without a failed unit" up || cabin exec deb -- systemctl --failed --no-legend
check "it has an address of the bridge" within 60 address deb
finish
