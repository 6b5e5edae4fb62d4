#!/bin/sh
# The test's script on an emulated board, on a disc of its own: the image has nothing of it. What it finds goes to the test's port, a line each.
# `plan` beside it says what to do: PLAN=boot, round, update, look, bad or room, and PHASES, BATCHES, PAUSE, BUNDLE, BUNDLES, TRIAL.
here=/run/trial port=/dev/virtio-ports/trial dir=/var/lib/edgeagent/agent group=/sys/fs/cgroup/system.slice/edgeagent.service
. $here/plan

up() { read -r seconds _ </proc/uptime; echo "$seconds"; }
tell() { until echo "$*" >$port; do sleep 0.1; done 2>/dev/null; } # the port is one writer's at a time
as() { setpriv --reuid=edgeagent --regid=edgeagent --init-groups "$@"; }
agent() { as edgeagent "$@" --dir $dir; }
field() { sed -n "s/.*\"$1\": \"\{0,1\}\([^\",]*\).*/\1/p" | head -n 1; }

# Memory of the agent's processes, in KiB: the first one, all of them, all of them with what they share counted once.
memory() {
    main=0 all=0 shared=0 count=0
    while read -r pid; do
        rss=0
        while read -r key value _; do case $key in VmRSS:) rss=$value ;; esac; done 2>/dev/null <"/proc/$pid/status" || continue
        while read -r key value _; do case $key in Pss:) shared=$((shared + value)) ;; esac; done 2>/dev/null <"/proc/$pid/smaps_rollup"
        [ $count = 0 ] && main=$rss
        all=$((all + rss)) count=$((count + 1))
    done 2>/dev/null <$group/cgroup.procs
    [ $count -gt 0 ] && tell "rss $(up) $(cat /run/phase) $main $all $shared $count"
}

phase() { echo "$1" >/run/phase; tell "phase $(up) $1"; }

add() { # samples of one batch
    if agent samples add digits "$here/samples/$1.npz" >/run/added 2>&1; then tell "added $(up) $1"; else tell "not-added $(up) $1 $(tail -n 1 /run/added)"; fi
}

# Wait until the centre has verified all, and tell what an application opens now.
settled() {
    looks=0
    until agent status --json >/run/status 2>/run/status.said &&
        [ "$(field queued </run/status)$(field offered </run/status)$(field unverified </run/status)" = 000 ] &&
        [ "$(field rounds </run/status)" -ge "$1" ] && [ "$(field new_samples </run/status)" -lt 64 ]; do
        looks=$((looks + 1))
        [ $((looks % 20)) = 0 ] && tell "journal $(journalctl -b -u edgeagent.service -o cat --no-pager -n 4 2>/dev/null | tr '\n' '|')"
        sleep 3
    done
    tell "served $(up) $(field version </run/status) $(sha256sum <"$(field served </run/status)" | cut -d' ' -f1)"
}

# The mode of training of a phase; the agent is started anew with it.
mode() {
    mkdir -p /run/systemd/system/edgeagent.service.d
    printf '[Service]\nEnvironment=EDGEAGENT_TRAIN_MODE=%s\n' "$1" >/run/systemd/system/edgeagent.service.d/trial.conf
    systemctl daemon-reload
    systemctl restart edgeagent.service
}

failed() { tell "failed $(up) $(cat /run/phase) $(journalctl -b -u edgeagent.service -o cat --no-pager -n 6 2>/dev/null | tr '\n' '|')"; }

chain() { tell "log $(up) $(agent log --json 2>/dev/null | tr -d '\n ')"; }

modprobe -q virtio_console
echo start >/run/phase
[ -n "$TRIAL" ] && {
    mkdir -p /run/systemd/system/edgeagent-trial.timer.d
    printf '[Timer]\nOnBootSec=\nOnBootSec=%s\n' "$TRIAL" >/run/systemd/system/edgeagent-trial.timer.d/trial.conf
    systemctl daemon-reload
    systemctl restart edgeagent-trial.timer # it runs already
}
systemctl start --no-block multi-user.target
until [ -e $port ]; do sleep 0.2; done
tell "up $(up) slot $(cat /run/edgeagent-image/slot) trial $([ -e /run/edgeagent-image/trial ] && echo 1 || echo 0) $(grep ^version= /etc/edgeagent-image)"
install() { # a bundle of the disc: by its name, what came of it
    if edgeagent-update install $EXTRA "$here/$1" >/run/installed 2>&1; then tell "installed $(up) $2"; else
        tell "refused $(up) $2 $(grep '^edgeagent-update: ' /run/installed | tail -n 1)"
        return 1
    fi
}
reached() { # a board that boots whatever it finds has its console and its journal
    until systemctl -q is-active getty.target; do sleep 1; done
    tell "reached $(up)"
}

case $PLAN in
look) reached ;;
room) # the data partition is full: the board comes up with it, then somebody makes room
    reached
    sleep 30
    rm -f /data/fill
    ;;
esac
until [ -e $dir/edgeagent.toml ]; do sleep 1; done
tell "provisioned $(up)"
n=0
until systemctl -q is-active edgeagent.service; do
    n=$((n + 1))
    if [ $((n % 15)) = 0 ]; then # why it does not come up
        tell "waits $(up) $(systemctl show -p ActiveState,SubState,Result,NRestarts edgeagent.service | tr '\n' ' ')"
        tell "journal $(journalctl -b -u edgeagent.service -o cat --no-pager -n 12 2>/dev/null | tr '\n' '|')"
    fi
    sleep 1
done
tell "active $(up)"
while :; do memory; sleep 2; done &

case $PLAN in
boot)
    n=0
    for step in $PHASES; do
        phase "$step"
        case $step in
        idle | rest) sleep 40 ;;
        *) # a mode of training: the first one as its settings have it
            { { [ $n = 0 ] || mode "$step"; } && add $n && n=$((n + 1)) && settled $n; } || failed
            ;;
        esac
    done
    chain
    tell "done $(up)"
    ;;
round)
    chain
    n=$FIRST
    while [ "$n" -lt $((FIRST + BATCHES)) ]; do
        add $n
        n=$((n + 1))
        sleep "$PAUSE"
    done
    ;;
update)
    chain
    { add "$FIRST" && settled 1; } || failed
    while [ -e /run/edgeagent-image/trial ]; do sleep 2; done # a system on trial takes no other
    tell "installing $(up)"
    install "$BUNDLE" "$BUNDLE" && systemctl reboot
    ;;
bad)
    { add "$FIRST" && settled 1; } || failed
    for name in $BUNDLES; do
        install "$name.raucb" "$name"
        sleep 90 # the centre is told within a minute
    done
    dd if=/dev/zero of=/data/fill bs=1M 2>/dev/null
    dd if=/dev/zero of=/data/fill bs=4k oflag=append conv=notrunc 2>/dev/null
    sync
    tell "filled $(up) $(df -k /data | tail -n 1)"
    add 1
    ;;
room) add "$FIRST" ;;
esac
wait
