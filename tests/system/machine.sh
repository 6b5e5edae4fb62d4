#!/bin/bash
# machine.sh ROOT CGROUP FROM=TO...: systemd as PID 1 of a small system under ROOT, which is an empty folder. Nothing of the machine
# outside is written to: /usr and each FROM, as TO, are seen read-only, all else is memory. CGROUP: an empty cgroup (v2) for it alone.
set -euo pipefail
root=$1 cgroup=$2
shift 2
. "$(dirname "$0")/mounts.sh"
if [ "${MACHINE:-}" = "" ]; then
  echo $$ >"$cgroup/cgroup.procs"
  MACHINE=inside exec unshare --pid --mount --uts --ipc --cgroup --fork --kill-child=SIGKILL --propagation private bash "$0" "$root" "$cgroup" "$@"
fi

mount -t tmpfs -o mode=755,size=1g machine "$root"
cd "$root"
mkdir -p usr etc/systemd/system var/lib var/log/journal run tmp proc sys dev opt root home old
chmod 1777 tmp
shown() { mkdir -p ".$2" && mount --bind "$1" ".$2" && mount -o remount,bind,ro ".$2"; }
shown /usr /usr
for pair; do shown "${pair%%=*}" "${pair#*=}"; done
for name in bin sbin lib lib32 lib64; do [ ! -L "/$name" ] || ln -s "usr/$name" "$name"; done
for name in passwd group login.defs nsswitch.conf ld.so.cache ld.so.conf ld.so.conf.d alternatives ssl localtime; do
  [ ! -e "/etc/$name" ] || cp -a "/etc/$name" etc/
done
ln -s /run var/run
echo 127.0.0.1 localhost >etc/hosts
echo 0123456789abcdef0123456789abcdef >etc/machine-id
kernel_mounts

# What a system does besides when it starts (modules, udev, sysctl, fstab) is no business of this one.
for name in system/sysinit.target.wants system/multi-user.target.wants system/timers.target.wants system/sockets.target.wants \
  system/local-fs.target.wants system/basic.target.wants system-generators; do
  [ ! -d "usr/lib/systemd/$name" ] || mount -t tmpfs -o mode=755 empty "usr/lib/systemd/$name"
done
mkdir etc/systemd/system/sysinit.target.wants
ln -s /lib/systemd/system/systemd-journald.service etc/systemd/system/sysinit.target.wants/
# The kernel's audit is one for all: the journal of this system stays out of it.
ln -s /dev/null etc/systemd/system/systemd-journald-audit.socket
printf '[Journal]\nAudit=\nReadKMsg=no\n' >etc/systemd/journald.conf

pivot_root . old
umount -l old
rmdir old
exec setpriv --bounding-set=-sys_module,-sys_time,-sys_rawio,-sys_boot,-mac_admin \
  env -i container=machine PATH=/opt/tools:/usr/sbin:/usr/bin /lib/systemd/systemd --system --unit=multi-user.target --log-target=journal
