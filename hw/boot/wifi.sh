#!/bin/sh
# The test's script for Wi-Fi on an emulated board: two virtual radios by a kernel module of the test's disc. wlan1 becomes the access point, by
# the test alone; what happens on wlan0 is the image's doing. What it finds goes to the test's port, a line each.
here=/run/trial port=/dev/virtio-ports/trial conf=/data/system/wifi/wpa_supplicant.conf
up() { read -r seconds _ </proc/uptime; echo "$seconds"; }
tell() { until echo "$*" >$port; do sleep 0.1; done 2>/dev/null; } # the port is one writer's at a time
state() { wpa_cli -p /run/wpa_supplicant -i wlan0 status 2>/dev/null | sed -n "s/^$1=//p"; }

modprobe -q virtio_console
systemctl mask --runtime edgeagent-wifi@wlan1.service
mkdir -p /run/systemd/network
printf '[Match]\nName=wlan1\n[Network]\nAddress=192.0.2.1/24\nDHCPServer=yes\n' >/run/systemd/network/01-ap.network
networkctl reload
systemctl start --no-block multi-user.target
until [ -e $port ]; do sleep 0.2; done
tell "up $(up)"
until systemctl -q is-active edgeagent-provision.service; do sleep 0.5; done # it comes after what is looked at here
tell "before $(up) failed $(systemctl --failed --no-legend --plain | wc -l) supplicants $(pidof wpa_supplicant | wc -w) taken $(systemctl show -P ActiveState edgeagent-wifi.service)"
began=$(systemctl show -P ExecMainStartTimestampMonotonic edgeagent-wifi.service) ended=$(systemctl show -P ExecMainExitTimestampMonotonic edgeagent-wifi.service)
tell "took $(((ended - began) / 1000))"
tell "cycles $(journalctl -b --no-pager -o cat | grep -c 'ordering cycle')"
tell "kept $(stat -c '%a %U' $conf | tr '\n' ' ') $(ls -A /data/system/wifi | tr '\n' ' ')"
tell "boot $(ls /boot/firmware | tr '\n' ' ')"
tell "secret $(grep -rlF -e "$(cat $here/passphrase)" /data /run/edgeagent-image /run/issue.d 2>/dev/null | wc -l)"
tell "report $(tr -d '\n' </run/edgeagent-image/wifi.json 2>/dev/null)"
tell "path $(cat /sys/module/firmware_class/parameters/path)"
if modprobe test_firmware && printf brcm/brcmfmac43436-sdio.bin >/sys/devices/virtual/misc/test_firmware/trigger_request; then
    tell "firmware $(head -c 64 /dev/test_firmware)"
fi
modprobe mac80211
insmod $here/mac80211_hwsim.ko radios=2 || tell "failed insmod"
until [ -e /sys/class/net/wlan1 ]; do sleep 0.2; done
tell "radio $(up)"
wpa_supplicant -B -D nl80211 -i wlan1 -c $here/ap.conf -f /run/ap.log || tell "failed $(tail -n 3 /run/ap.log | tr '\n' '|')"
n=0
until [ "$(state wpa_state)" = COMPLETED ]; do
    n=$((n + 1))
    if [ $((n % 20)) = 0 ]; then
        tell "waits $(up) $(state wpa_state) $(systemctl show -P ActiveState -P Result edgeagent-wifi@wlan0.service | tr '\n' ' ') $(journalctl -b -u edgeagent-wifi@wlan0.service -o cat --no-pager -n 5 | tr '\n' '|') ap $(tail -n 3 /run/ap.log | tr '\n' '|')"
    fi
    sleep 0.5
done
tell "joined $(up) $(state bssid) $(state key_mgmt) $(state pairwise_cipher) $(cat /sys/class/net/wlan1/address)"
tell "ssid $(state ssid)"
tell "rules $(dmesg | grep -c 'direct-loading firmware regulatory.db.p7s')"
until networkctl --no-pager status wlan0 | grep -q 'Address: .*192.0.2'; do sleep 0.5; done
tell "address $(up) $(networkctl --no-legend --no-pager list wlan0)"
tell "safe $(systemd-analyze --no-pager security edgeagent-wifi@wlan0.service 2>/dev/null | tail -n 1)"
tell "ssh $(systemctl is-active edgeagent-ssh.socket)" # it waits for what sets the board up
tell "end failed $(systemctl --failed --no-legend --plain | tr '\n' '|')"
systemctl poweroff
