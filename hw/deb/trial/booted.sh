#!/bin/bash
# booted.sh ROOT CGROUP: the Debian that lies in the folder ROOT, started by its own systemd as PID 1. It has no network but a loopback of
# its own, and sees nothing of the machine outside. CGROUP: an empty cgroup (v2) for it alone.
set -euo pipefail
root=$1 cgroup=$2
if [ "${MACHINE:-}" = "" ]; then
  echo $$ >"$cgroup/cgroup.procs"
  MACHINE=inside exec unshare --pid --mount --uts --ipc --net --cgroup --fork --kill-child=SIGKILL --propagation private bash "$0" "$root" "$cgroup"
fi

mount --bind "$root" "$root"
cd "$root"
mkdir -p old srv
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 dev dev
for name in null zero full random urandom tty; do touch "dev/$name" && mount --bind "/dev/$name" "dev/$name"; done
mkdir dev/shm dev/pts
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 pts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=1777,size=256m shm dev/shm
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
