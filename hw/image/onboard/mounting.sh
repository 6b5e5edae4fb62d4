# What the initrd's init does with the card. Sourced by it (busybox sh); the tests source it, too. Needs slots.sh and `say`.

SIGNATURE=01009eed # of the card's partition table, byte by byte: 0xed9e0001
SYS=${SYS:-/sys}

# Find the disk that carries our signature and has four partitions: DISK is its name. A USB stick with other things on it is passed over.
find_disk() {
    for try in $(seq 120); do
        for found in "$SYS"/block/*; do
            DISK=${found##*/}
            case $DISK in loop* | ram* | zram* | dm-* | sr* | mtd*) continue ;; esac
            if [ "$(dd if="/dev/$DISK" bs=4 skip=110 count=1 2>/dev/null | od -An -tx1 | tr -d ' \n')" = "$SIGNATURE" ] && part 4 >/dev/null; then
                return 0
            fi
        done
        sleep 0.5
    done
    return 1
}

# Print the device of a partition of DISK, by its number.
part() {
    for number in "$SYS/block/$DISK/$DISK"*/partition; do
        if [ "$(cat "$number" 2>/dev/null)" = "$1" ]; then
            number=${number%/partition}
            echo "/dev/${number##*/}"
            return 0
        fi
    done
    return 1
}

# Print four bytes, little end first, as printf takes them.
le32() {
    for shift in 0 8 16 24; do printf '\\%03o' $(($1 >> shift & 255)); done
}

# Print how many sectors the last partition may have: all that is behind its beginning. $1: of the disk, $2: where it begins.
room() {
    most=$(($1 - $2))
    if [ "$most" -gt 4294967295 ]; then most=4294967295; fi # the table holds no more: 2 TiB
    echo $((most / 2048 * 2048))
}

# Make the data partition as large as the card lets it be: four bytes in one sector. The file system follows when it is mounted.
grow_data() {
    data=$(part 4) || return 0
    name=${data#/dev/}
    most=$(room "$(cat "$SYS/block/$DISK/size")" "$(cat "$SYS/block/$DISK/$name/start")")
    [ "$most" -gt $(($(cat "$SYS/block/$DISK/$name/size") + 2048)) ] || return 0
    # shellcheck disable=SC2059
    printf "$(le32 "$most")" | dd of="/dev/$DISK" bs=1 seek=506 count=4 conv=notrunc,fsync 2>/dev/null
    blockdev --rereadpt "/dev/$DISK" || say "the data partition grows at the next start"
    for try in $(seq 40); do
        if [ -b "$data" ]; then return 0; fi
        sleep 0.25
    done
}

# Choose the slot, and write down what that costs before anything of it is mounted.
take_slot() {
    slots_choose
    if [ "$S_CHANGED" = 0 ]; then return 0; fi
    if write_state; then return 0; fi
    say "the slots' state can't be written: the boot partition is full, broken or locked"
    # A trial whose tries can't be counted would be tried for ever.
    if [ "$S_TRIAL" = 1 ]; then
        if [ "$S_BOOT" = A ]; then back=B state=$S_B; else back=A state=$S_A; fi
        if [ "$state" = good ]; then S_BOOT=$back S_TRIAL=0; fi
    fi
}

# The boot partition is writable for this alone.
write_state() {
    mount -o remount,rw "$SLOTS_DIR" || return 1
    slots_write
    written=$?
    mount -o remount,ro "$SLOTS_DIR"
    return $written
}

# Mount the chosen slot at /root, or else the other one. Fails where neither can be.
mount_slot() {
    for try in 1 2; do
        if [ "$S_BOOT" = A ]; then device=$(part 2); else device=$(part 3); fi
        if mount -t squashfs -o ro "$device" /root 2>/dev/null; then
            if [ ! -e /root/sbin/init ] && [ ! -L /root/sbin/init ]; then
                say "slot $S_BOOT holds no system"
            elif [ ! -d "/root/lib/modules/$(uname -r)" ]; then
                say "slot $S_BOOT has no modules for the kernel $(uname -r)"
            else
                return 0
            fi
            umount /root
        else
            say "slot $S_BOOT can't be mounted"
        fi
        if [ "$S_TRIAL" = 1 ]; then # it has had its chance
            slots_set "$S_BOOT" bad 0
            if [ "$S_BOOT" = A ]; then slots_want B; else slots_want A; fi
            write_state
        fi
        S_TRIAL=0
        if [ "$S_BOOT" = A ]; then S_BOOT=B; else S_BOOT=A; fi
    done
    return 1
}

# Mount the data partition and what of the system lies on it. What can't be is said, and the board goes on without: it can still be looked at.
mount_data() {
    data=$(part 4)
    mount -t proc proc /root/proc
    mount --bind /dev /root/dev
    chroot /root /sbin/e2fsck -p "$data" >/tmp/fsck 2>&1
    if [ $? -ge 4 ]; then # nobody is there to be asked
        say "the data partition is damaged: $(tail -n 1 /tmp/fsck); it is repaired as far as that goes"
        chroot /root /sbin/e2fsck -fy "$data" >/tmp/fsck 2>&1
        say "data partition: $(tail -n 1 /tmp/fsck)"
    fi
    umount /root/dev
    umount /root/proc
    if ! mount -t ext4 -o noatime,errors=remount-ro "$data" /root/data 2>/tmp/mount; then
        say "the data partition can't be mounted: this start keeps nothing, and no agent runs"
        echo "the data partition can't be mounted: $(cat /tmp/mount)" >$FACTS/data-missing
        return 0
    fi
    for folder in edgeagent journal system system/systemd; do mkdir -p "/root/data/$folder" || say "data partition: $folder can't be made"; done
    if [ "$(stat -c %u /root/data/edgeagent)" = 0 ]; then chroot /root /bin/chown edgeagent:edgeagent /data/edgeagent; fi
    if ! grep -qxE '[0-9a-f]{32}' /root/data/system/machine-id 2>/dev/null; then
        tr -d - </proc/sys/kernel/random/uuid >/root/data/system/machine-id.new && sync /root/data/system/machine-id.new &&
            mv /root/data/system/machine-id.new /root/data/system/machine-id
    fi
    # Firmware that its user brought: the kernel looks there first, and no driver has asked yet.
    if [ -d /root/data/system/firmware ]; then printf /data/system/firmware >"$SYS/module/firmware_class/parameters/path"; fi
    bound edgeagent /var/lib/edgeagent
    bound journal /var/log/journal
    bound system/systemd /var/lib/systemd
    bound system/machine-id /etc/machine-id
    if [ -s /root/data/system/hostname ]; then bound system/hostname /etc/hostname; fi
}

bound() { mount --bind "/root/data/$1" "/root$2" || say "$2 can't be put on the data partition"; }
