#!/bin/sh
# The life of Cabin on a fresh cgroup2 host, run as root inside the machine that .ci/test-v2 starts. Each `check` is a
# sentence and the command that proves it; the last line says how it ended.
set -u
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=/dev/null
. "$here/settings"
# shellcheck source=tests/vm/work.sh
. "$here/work.sh"
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
        # Of a test program, what its tests said as they failed.
        { grep -E -A8 'panicked at' $note || tail -60 $note; } | head -150 | sed 's/^/       | /'
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
# said WANTED COMMAND…: whether that is all that it says.
says() {
    wanted=$1
    shift
    is "$("$@")" "$wanted"
}

# What of Cabin is on the host, or could be: compared before and after.
picture() {
    echo "links: $(ip -o link | cut -d: -f2 | cut -d@ -f1 | sort | tr -d '\n')"
    echo "tables: $(nft list tables)"
    echo "loop devices: $(losetup -a)"
    echo "mounts:"
    # Those that systemd makes on first use say nothing.
    cut -d' ' -f5 /proc/self/mountinfo | grep -v '^/run/credentials\|^/proc/sys/fs/binfmt_misc' | sort
    echo "cgroups:"
    find /sys/fs/cgroup -maxdepth 1 -type d ! -name '*.mount' | sort
    find /sys/fs/cgroup -mindepth 2 -type d -name '*cabin*' ! -path '*/system.slice/*' | sort
    echo "programs:"
    ps -eo comm= | grep -E '^(cabin-|dnsmasq)' | sort
}
as_before() { picture | diff "$1" -; }
# The directory that holds the cgroups of all containers comes with the first and goes with the daemon.
without_containers() { picture | grep -vx /sys/fs/cgroup/cabin | diff "$1" -; }

installed() { make -s -C "$here/tree" install PROFILE="$PROFILE"; }
uninstalled() { make -s -C "$here/tree" uninstall PROFILE="$PROFILE"; }
answers() { cabin list >/dev/null; }

# How long (ns of processor time, ns of the clock) two loops in an instance get on in 8 seconds.
spun() {
    used=$(state "$1" | jq .cpu.usage) start=$(date +%s%N)
    cabin exec "$1" -- sh -c 'timeout 8 sh -c "while :; do :; done" & timeout 8 sh -c "while :; do :; done"; wait' || true
    echo $(($(state "$1" | jq .cpu.usage) - used)) $(($(date +%s%N) - start))
}
# gets LEAST MOST NAME: that many hundredths of one processor.
gets() {
    # shellcheck disable=SC2046 # two words are meant
    set -- "$1" "$2" $(spun "$3")
    share=$(($3 / ($4 / 100)))
    echo "$share hundredths of a processor"
    [ "$share" -ge "$1" ] && [ "$share" -le "$2" ]
}

swallow() { cabin exec bb -- dd if=/dev/zero of=/dev/null bs="$1" count=1; }
is_killed() { swallow "$1"; is $? 137; }
many() { cabin exec bb -- sh -c 'for i in $(seq 150); do sleep 600 & done; echo all'; }
too_many() { ! many | grep -q all && [ "$(state bb | jq .processes)" -le 100 ]; }
beat() { cabin exec bb -- cat /root/beat; }
pulled() { cabin file pull bb/root/beat -; }
stands_still() {
    first=$(pulled)
    sleep 3
    is "$(pulled)" "$first"
}
goes_on() { [ "$(pulled)" != "$1" ]; }

settled() { cabin exec deb -- systemctl is-system-running 2>&1 | grep -q 'running\|degraded'; }
up() {
    within 400 settled || return 1
    cabin exec deb -- systemctl --failed --no-legend --plain
    says running cabin exec deb -- systemctl is-system-running
}
# turn SECONDS: sets the host's clock by so many from what it says.
turn() { date -s "@$(($(date +%s) + $1))"; }
both() { is_status bb Running && is_status deb Running; }
snapshots() { cabin query "/1.0/instances/$1/snapshots" | jq -r '.[]' | sed 's|.*/||' | sort | tr '\n' ' '; }
# Another one than those that were there.
scheduled() { snapshots bb | tr ' ' '\n' | grep -q ^snap; }
# due NAME: takes what its schedule asks for within the next two minutes, and takes that away again.
due() {
    cabin config set bb snapshots.schedule='* * * * *' snapshots.pattern='snap%d' || return 1
    within 150 scheduled
    came=$?
    cabin config unset bb snapshots.schedule
    cabin config unset bb snapshots.pattern
    for name in $(snapshots bb | tr ' ' '\n' | grep ^snap); do cabin snapshot delete bb "$name"; done
    return $came
}
# A command that waits takes its time, by the seconds since the boot.
sleeps() {
    start=$(cut -d. -f1 /proc/uptime)
    cabin exec bb -- sleep 5 || return 1
    took=$(($(cut -d. -f1 /proc/uptime) - start))
    echo "5 seconds took $took"
    [ $took -ge 4 ] && [ $took -le 120 ]
}
asks_again() { cabin exec bb -- udhcpc -n -q -i eth0 && is "$(address bb)" "$1"; }
warns_of_clock() { cabin query "/1.0/warnings?recursion=1" | jq -e '[.[] | select(.type == "Clock was set")] | length > 0'; }

# lives_with WHEN SECONDS: what is done with the clock set by that many, and set right again after it.
lives_with() {
    addresses="$(address bb) $(address deb)"
    same_addresses() { is "$(address bb) $(address deb)" "$addresses"; }
    inits="$(init_of bb) $(init_of deb)"
    check "a snapshot is to go within half a day" cabin snapshot create bb kept --expiry 12H
    cabin exec bb -- sleep 20 &
    meanwhile=$!
    check "the clock is set $1" turn "$2"
    check "both are said to be running" both
    check "the containers did not notice" same_inits
    check "a command that ran meanwhile ends well" wait $meanwhile
    check "a command runs in the busybox" says bb cabin exec bb -- hostname
    check "a command runs in the Debian" says deb cabin exec deb -- hostname
    check "a command takes as long as ever" sleeps
    check "they keep their addresses" same_addresses
    check "the busybox is given its address again" asks_again "${addresses% *}"
    check "one reaches the other by name" cabin exec deb -- getent ahosts bb
    check "what was to be deleted within half a day is not" says "kept " snapshots bb
    check "a snapshot is taken" cabin snapshot create bb clock
    check "one of a running Debian too" cabin snapshot create deb clock
    check "it is listed" says "clock kept " snapshots bb
    check "it is restored" cabin restore bb clock
    check "and runs again" within 60 is_status bb Running
    check "it has its address again" within 60 same_addresses
    check "it is deleted" cabin snapshot delete bb clock
    check "the other too" cabin snapshot delete deb clock
    check "the schedule takes one" due
    check "the daemon warns of the clock" warns_of_clock
    check "nothing is left under way" within 30 says 0 sh -c 'cabin query /1.0/operations?recursion=1 | jq "[.running[]?] | length"'
    inits="$(init_of bb) $(init_of deb)"
    check "cabind is restarted" systemctl restart cabind.service
    check "it answers" within 60 answers
    check "it has found its containers" same_inits
    check "they keep their addresses" same_addresses
    check "the clock is set right" turn "$((0 - $2))"
    check "a command runs all the same" says bb cabin exec bb -- hostname
    # A daemon that starts knows no other time than the clock's: it may have deleted what is over by that.
    cabin snapshot delete bb kept >/dev/null 2>&1
}

new_init() { now=$(init_of deb) && [ "$now" != 0 ] && [ "$now" != "$1" ] && is_status deb Running; }

echo "host: $(. /etc/os-release; echo "$PRETTY_NAME"), kernel $(uname -r), $(systemctl --version | sed -n 1p)"
check "the host has cgroup2 alone" says cgroup2fs stat -f -c %T /sys/fs/cgroup
check "the host has AppArmor" says Y cat /sys/module/apparmor/parameters/enabled

# From installing it to taking it away, with a busybox and a Debian 12 that live in between.
life() {
    picture >/run/bare

    must "make install puts it in place" installed
    must "systemd starts cabind" systemctl enable --now cabind.socket cabind.service
    must "the daemon answers" answers
    check "the doctor finds nothing that is needed missing" cabin doctor
    check "the kernel's limits of the package hold" says 8192 sysctl -n fs.inotify.max_user_instances
    check "the socket belongs to root and group cabin" says "root cabin 660" stat -c '%U %G %a' /run/cabin/unix.socket
    picture >/run/served

    must "a busybox image is imported" cabin image import "$here/busybox.tar.zst" --alias busybox
    must "a busybox is launched" cabin launch busybox bb
    check "it has an address of the bridge" within 60 address bb
    check "a command runs in it" says bb cabin exec bb -- hostname
    check "a command's exit code comes back" fails cabin exec bb -- sh -c 'exit 3'
    check "the host reaches it" ping -c1 -W5 "$(address bb)"
    check "root in it is not root of the host" fails grep -q '^ *0 *0 ' "/proc/$(init_of bb)/uid_map"

    check "a memory limit is set" cabin config set bb limits.memory=64MiB
    check "memory within the limit is had" swallow 32M
    check "who takes more is killed" is_killed 200M
    check "the limit is lifted live" cabin config set bb limits.memory=400MiB
    check "and then it is had" swallow 200M
    check "a limit of processes is set" cabin config set bb limits.processes=100
    check "the 101st process is refused" too_many
    check "the limit is lifted live" cabin config unset bb limits.processes
    check "it restarts by force" cabin restart --force bb
    check "and then there may be more processes" many
    check "it restarts by force with them" cabin restart --force bb
    check "it gets two processors" gets 110 230 bb
    check "an allowance is set" cabin config set bb limits.cpu.allowance=20ms/100ms
    check "a fifth of a processor is what it gets" gets 5 30 bb
    check "one processor is given" cabin config set bb limits.cpu=1
    check "it sees one" says 1 cabin exec bb -- nproc
    check "the limits are lifted" cabin config unset bb limits.cpu.allowance
    check "it gets one processor" gets 60 120 bb
    check "the processor is no longer pinned" cabin config unset bb limits.cpu
    check "it sees both again" says 2 cabin exec bb -- nproc

    cabin exec bb -- sh -c 'setsid sh -c "while :; do date +%s%N >/root/beat; done" >/dev/null 2>&1 &'
    check "it is frozen" cabin pause bb
    check "it is said to be" is_status bb Frozen
    check "nothing moves in it" stands_still
    check "it is thawed" cabin resume bb
    check "it goes on" within 20 goes_on "$(pulled)"

    must "a Debian 12 image is imported" cabin image import "$here/debian-12.tar.zst" --alias debian/12
    must "a Debian 12 is launched" cabin launch debian/12 deb
    check "its systemd is running, without a failed unit" up
    check "it has an address of the bridge" within 60 address deb
    check "it reaches the other by name" cabin exec deb -- getent ahosts bb
    check "its console says what it is" within 60 sh -c 'cabin console deb --show-log | grep -q "Debian GNU/Linux 12"'
    check "it may make cgroups of its own" cabin exec deb -- systemd-run --wait -q -p MemoryMax=50M true

    must "a service is put into it" cabin exec deb -- sh -c 'printf "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=true\nExecStop=touch /root/ended-well\n[Install]\nWantedBy=multi-user.target\n" \
        >/etc/systemd/system/witness.service && systemctl enable -q --now witness'
    before=$(init_of deb)
    cabin exec deb -- reboot
    check "it reboots from inside" within 200 new_init "$before"
    check "and is up again" up
    check "its services were ended in order" cabin exec deb -- rm /root/ended-well
    check "it stops when asked" cabin stop deb --timeout 200
    check "it is said to be stopped" is_status deb Stopped
    check "it starts again" cabin start deb
    check "and is up again" up
    check "its services were ended in order" cabin exec deb -- rm /root/ended-well

    cabin exec deb -- sh -c 'echo here >/run/mark'
    inits="$(init_of bb) $(init_of deb)"
    same_inits() { is "$(init_of bb) $(init_of deb)" "$inits"; }
    check "cabind is restarted" systemctl restart cabind.service
    check "the containers did not notice" same_inits
    check "what ran in them runs" says here cabin exec deb -- cat /run/mark
    check "they keep their addresses" address deb
    check "systemd reads its units again" systemctl daemon-reload
    check "limits still change" cabin config set bb limits.memory=64MiB
    check "and hold" is_killed 200M
    was=$(systemctl show -P MainPID cabind)
    kill -KILL "$was"
    back() { now=$(systemctl show -P MainPID cabind) && [ "$now" != "$was" ] && [ "$now" != 0 ] && answers; }
    check "a cabind that dies comes back" within 60 back
    check "the containers did not notice" same_inits
    check "cabind is stopped" systemctl stop cabind.service
    check "the containers run on" sh -c "for pid in $inits; do kill -0 \$pid || exit 1; done"
    check "the socket wakes cabind" answers
    check "it has found its containers" same_inits

    lives_with "one day back" -86400
    lives_with "one day forward" 86400

    check "a Debian 12 is stopped by force" cabin stop --force deb
    check "it is said to be stopped" is_status deb Stopped
    check "it is deleted" cabin delete deb
    check "a running busybox is deleted by force" cabin delete --force bb
    check "nothing of them is left on the host" within 10 without_containers /run/served
    check "their files are gone" says "" sh -c 'ls /var/lib/cabin/containers /var/lib/cabin/storage-pools/*/containers | grep -w "bb\|deb"'

    check "the daemon is shut down" timeout 120 cabin admin shutdown
    check "it ends well and stays away" within 30 says inactive systemctl is-active cabind.service
    check "the socket wakes it" answers
    check "it is shut down by its own program" timeout 120 cabind shutdown
    check "it ends well and stays away" within 30 says inactive systemctl is-active cabind.service
    check "make uninstall takes it away" uninstalled
    check "nothing runs and nothing is left in the kernel" within 10 as_before /run/bare
    check "no file of it is left" says "" find /usr /etc /run -iname '*cabin*' ! -name cabin.log
    check "its state stays" test -d /var/lib/cabin/database
}

# Programs whose tests take longest come last, so that a machine that is stopped has run as many as it can.
LAST='hostile races power exhaustion faults recovery'
in_order() {
    pattern=$(echo "$LAST" | tr ' ' '|')
    grep -vE "^cabin-tests:test/.*($pattern)" "$here/programs"
    for word in $LAST; do grep -E "^cabin-tests:test/.*$word" "$here/programs"; done
}

# left_out NAME: the tests of a program that do not run, each after `--skip`; one that it does not have is an error.
left_out() {
    sed 's/ *#.*//' "$here/left-out" | while read -r name test; do
        [ "$name" = "$1" ] && [ -n "$test" ] || continue
        echo "--skip $test"
    done
}
all_there() {
    left_out "$1" | cut -d' ' -f2 | while read -r test; do
        "$2" --list 2>/dev/null | grep -qx "$test: test" || { echo "left-out: $1 has no test $test"; exit 1; }
    done
}

# The programs of tests of the tree, where they expect to be and with the images they ask for.
suites() {
    mkdir -p "$(dirname "$TOP")" "$(dirname "$CACHE")"
    # Writable, as a tree is where one builds.
    cp -r "$here/tree" "$TOP"
    cp -r "$here/images" "$CACHE"
    cp -r "$here"/clients/* "${CACHE%/*}"
    # Some start a Debian without any daemon, from a tree that they would otherwise make.
    (cd "${CACHE%/*}" && tar --numeric-owner -xf "$here/debian-12.tar.zst" rootfs && mv rootfs bookworm-systemd)
    inside=$(work_took /var/tmp)
    slower=$(((inside + OUTSIDE - 1) / OUTSIDE))
    echo "a piece of work takes $inside ms, outside $OUTSIDE ms: deadlines are $slower times as long; sweeps try 1 point of $EVERY"
    in_order >/run/v2-programs
    while read -r name number; do
        from=$(date +%s)
        [ -z "$(left_out "$name")" ] || check "what is left out of $name is there" all_there "$name" "$here/tests/$number"
        folder=$(folder_of "$name")
        # shellcheck disable=SC2046 # words are meant
        CABIN_PROFILE=$PROFILE CABIN_SLOWER=$slower CABIN_EVERY=$EVERY RUST_TEST_THREADS=2 RUST_BACKTRACE=0 \
            check "$name passes" within_folder "$TOP/$folder" timeout 7200 "$here/tests/$number" --show-output --exact $(left_out "$name")
        sed -n 's/^test result: /       /p' $note | tail -1 | sed "s/; finished.*/; $(($(date +%s) - from)) s/"
        grep -hE '[0-9] (points|deaths|rounds|bombs|traps|crash images|squeezes|harms)' $note | sed 's/^/       /'
    done </run/v2-programs
}
# The folder of a package, where cargo starts its tests.
folder_of() {
    wanted=${1%%:*}
    (cd "$TOP" && grep -lx "name = \"$wanted\"" Cargo.toml */Cargo.toml */*/Cargo.toml | head -1 | xargs dirname)
}
within_folder() {
    folder=$1
    shift
    # What it reads is not the list of programs.
    (cd "$folder" && "$@" </dev/null)
}

[ "$LIFE" = no ] || life
[ ! -s "$here/programs" ] || suites
finish
