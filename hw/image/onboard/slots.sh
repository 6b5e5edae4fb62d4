# Which of the two systems is booted next, and how that is written down. Sourced by the initrd (busybox sh); slots.py is the same in Python.
#
# The boot partition holds two copies, slots.a and slots.b, of 512 bytes each: one sector, written in place, in turn. A copy is
#
#     edgeagent-slots 1 CRC32        eight hex digits: zlib's CRC of all that comes after this line
#     serial N                       0..999, in a circle: the newer of two copies is up to 499 ahead
#     primary A                      the slot that is wanted
#     A good 3                       good, trial or bad, and the tries left, 0..3
#     B bad 0
#
# filled up with newlines. A copy that is not exactly the text of what it says does not count. Power may go at any byte: the copy that
# holds is never written to. Where none counts, A is good and B is bad. The caller sets SLOTS_DIR (the boot partition) and SLOTS_TMP (in memory).

SLOTS_TRIES=3

# Write the 512 bytes of the state in S_SERIAL, S_PRIMARY, S_A, S_A_TRIES, S_B, S_B_TRIES to a file.
slots_text() {
    printf 'serial %s\nprimary %s\nA %s %s\nB %s %s\n' "$S_SERIAL" "$S_PRIMARY" "$S_A" "$S_A_TRIES" "$S_B" "$S_B_TRIES" >"$SLOTS_TMP/body"
    missing=$((485 - $(wc -c <"$SLOTS_TMP/body")))
    while [ "$missing" -gt 0 ]; do echo; missing=$((missing - 1)); done >>"$SLOTS_TMP/body"
    # The last eight bytes of gzip's are the CRC and the length, little end first.
    # shellcheck disable=SC2046
    set -- "$1" $(gzip -c <"$SLOTS_TMP/body" | tail -c 8 | od -An -tx1)
    { echo "edgeagent-slots 1 $5$4$3$2"; cat "$SLOTS_TMP/body"; } >"$1"
}

# Take the state from a copy. Fails where the copy does not count.
slots_take() {
    head -c 512 "$1" >"$SLOTS_TMP/copy" 2>/dev/null || return 1
    { read -r _; read -r w1 S_SERIAL x1; read -r w2 S_PRIMARY x2; read -r w3 S_A S_A_TRIES x3; read -r w4 S_B S_B_TRIES x4; } <"$SLOTS_TMP/copy" || return 1
    [ "$w1$w2$w3$w4$x1$x2$x3$x4" = serialprimaryAB ] || return 1
    case $S_SERIAL in 0 | [1-9] | [1-9][0-9] | [1-9][0-9][0-9]) ;; *) return 1 ;; esac
    case $S_PRIMARY in A | B) ;; *) return 1 ;; esac
    for one in "$S_A $S_A_TRIES" "$S_B $S_B_TRIES"; do
        case $one in good\ [0-3] | trial\ [0-3] | bad\ [0-3]) ;; *) return 1 ;; esac
    done
    slots_text "$SLOTS_TMP/text"
    cmp -s "$SLOTS_TMP/text" "$SLOTS_TMP/copy"
}

# Take the state that counts; S_NEXT is then the copy that is written next. Fails, with the state of a new card, where no copy counts.
slots_read() {
    first='' second=''
    slots_take "$SLOTS_DIR/slots.b" && second=$S_SERIAL
    slots_take "$SLOTS_DIR/slots.a" && first=$S_SERIAL
    if [ -n "$first" ] && [ -n "$second" ] && [ $(((1000 + second - first) % 1000)) -gt 0 ] && [ $(((1000 + second - first) % 1000)) -lt 500 ]; then first=''; fi
    if [ -n "$first" ]; then S_NEXT=b; return 0; fi
    S_NEXT=a
    if [ -n "$second" ] && slots_take "$SLOTS_DIR/slots.b"; then return 0; fi
    S_SERIAL=0 S_PRIMARY=A S_A=good S_A_TRIES=$SLOTS_TRIES S_B=bad S_B_TRIES=0
    return 1
}

# Write the state to the copy that does not hold it, through to the card. Fails where that can't be read back.
slots_write() {
    S_SERIAL=$(((S_SERIAL + 1) % 1000))
    slots_text "$SLOTS_TMP/new"
    dd if="$SLOTS_TMP/new" of="$SLOTS_DIR/slots.$S_NEXT" bs=512 count=1 conv=notrunc,fsync 2>/dev/null || return 1
    head -c 512 "$SLOTS_DIR/slots.$S_NEXT" | cmp -s - "$SLOTS_TMP/new" || return 1
    if [ "$S_NEXT" = a ]; then S_NEXT=b; else S_NEXT=a; fi
}

# Say what is to be booted: S_BOOT is the slot, S_TRIAL is 1 on trial, S_CHANGED is 1 where the state has to be written before that.
# A trial costs one of its tries; with none left the slot is bad and the other one is wanted. Where both are bad the wanted one is booted.
slots_choose() {
    S_CHANGED=0 S_TRIAL=0 S_BOOT=$S_PRIMARY
    for one in 1 2; do
        if [ "$S_BOOT" = A ]; then state=$S_A tries=$S_A_TRIES; else state=$S_B tries=$S_B_TRIES; fi
        if [ "$state" = good ]; then slots_want "$S_BOOT"; return; fi
        if [ "$state" = trial ] && [ "$tries" -gt 0 ]; then
            slots_want "$S_BOOT"
            slots_set "$S_BOOT" trial $((tries - 1))
            S_TRIAL=1
            return
        fi
        if [ "$state" = trial ]; then slots_set "$S_BOOT" bad 0; fi
        if [ "$S_BOOT" = A ]; then S_BOOT=B; else S_BOOT=A; fi
    done
    # Both are bad: S_BOOT has come round to the one that was wanted.
}

slots_want() {
    if [ "$S_PRIMARY" != "$1" ]; then S_PRIMARY=$1 S_CHANGED=1; fi
}

slots_set() {
    if [ "$1" = A ]; then S_A=$2 S_A_TRIES=$3; else S_B=$2 S_B_TRIES=$3; fi
    S_CHANGED=1
}
