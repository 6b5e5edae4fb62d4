# Sourced: what the kernel shows a system of its own, mounted under the folder that is current. It sees little, and writes to nothing outside.
kernel_mounts() {
  mount -t proc proc proc
  mount --bind proc/sys proc/sys
  mount -o remount,bind,ro proc/sys
  mount -t sysfs -o ro sysfs sys
  mount -t cgroup2 cgroup2 sys/fs/cgroup
  mount -t tmpfs -o mode=755 dev dev
  local name
  for name in null zero full random urandom tty; do touch "dev/$name" && mount --bind "/dev/$name" "dev/$name"; done
  mkdir dev/shm dev/pts
  mount -t devpts -o newinstance,ptmxmode=0666,mode=620 pts dev/pts
  ln -s pts/ptmx dev/ptmx
  ln -s /proc/self/fd dev/fd
  mount -t tmpfs -o mode=1777,size=256m shm dev/shm
}
