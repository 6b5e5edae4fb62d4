#!/bin/bash
# booted.sh ROOT CGROUP: the Debian that lies in the folder ROOT, started by its own systemd as PID 1. It has no network but a loopback of
# its own, and sees nothing of the machine outside. CGROUP: an empty cgroup (v2) for it alone.
set -euo pipefail
root=$1 cgroup=$2
. "$(dirname "$0")/../../../tests/system/mounts.sh"
if [ "${MACHINE:-}" = "" ]; then
  echo $$ >"$cgroup/cgroup.procs"
  MACHINE=inside exec unshare --pid --mount --uts --ipc --net --cgroup --fork --kill-child=SIGKILL --propagation private bash "$0" "$root" "$cgroup"
fi

mount --bind "$root" "$root"
cd "$root"
mkdir -p old srv
kernel_mounts
mount -t tmpfs -o mode=755 run run
chroot . ip link set lo up

# The kernel's audit is one for all, and so are its messages: the journal of this system stays out of both.
mkdir -p etc/systemd/journald.conf.d var/log/journal
printf '[Journal]\nAudit=\nReadKMsg=no\nRateLimitBurst=0\n' >etc/systemd/journald.conf.d/trial.conf
for unit in systemd-journald-audit.socket systemd-udevd.service systemd-logind.service apt-daily.timer apt-daily-upgrade.timer console-getty.service; do
  ln -sf /dev/null "etc/systemd/system/$unit"
done
echo 0123456789abcdef0123456789abcdef >etc/machine-id
echo 127.0.0.1 localhost board >etc/hosts
echo board >etc/hostname

pivot_root . old
umount -l old
rmdir old
exec setpriv --bounding-set=-sys_module,-sys_time,-sys_rawio,-sys_boot,-mac_admin \
  env -i container=machine PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=multi-user.target --log-target=journal
