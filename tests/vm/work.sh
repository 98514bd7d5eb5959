# How long a fixed piece of work takes here: the same outside the emulated machine and inside tells how much slower it is.

# work_took FOLDER: milliseconds for starting programs, computing, and writing to a disk.
work_took() {
    started=$(date +%s%N)
    step=0
    while [ $step -lt 100 ]; do
        /bin/true
        step=$((step + 1))
    done
    dd if=/dev/zero bs=1M count=64 2>/dev/null | sha256sum >/dev/null
    dd if=/dev/zero of="$1/.work" bs=64k count=64 oflag=dsync 2>/dev/null
    rm -f "$1/.work"
    echo $((($(date +%s%N) - started) / 1000000))
}
