# The verbs of firmware teams; the Makefile includes this. `make help-hw` lists them.
# Downloads and roots of other architectures are kept under $(HW_CACHE): a second run starts from them.
export HW_CACHE ?= $(CURDIR)/build/hw/cache
BOARD ?= qemu-arm64

.PHONY: help-hw wheels deb deb-trial image bundle boot-test boot-wifi bad-input soak-image porting paths
help-hw:
	@sed -n -e 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' hw/firmware.mk | expand -t 16

wheels: $(VENV)/.ready ## wheels for three processors, run under emulation; TWICE=1
	$(VENV)/bin/python -m hw.wheels $(if $(TWICE),--twice)

deb: $(VENV)/.ready ## Debian packages of agent and centre; ARCH=arm64 for one alone
	$(VENV)/bin/python -m hw.deb $(if $(ARCH),--arch $(ARCH))

deb-trial: $(VENV)/.ready ## a package's life, installed to purged; ARCH=armhf, SYSTEMD=1
	$(VENV)/bin/python -m hw.deb.trial $(if $(SYSTEMD),--systemd,--arch $(or $(ARCH),arm64))

image: $(VENV)/.ready ## a flashable image; BOARD=qemu-arm64, rpi4 or rpi-zero2w
	$(VENV)/bin/python -m hw.image --board $(BOARD)

bundle: $(VENV)/.ready ## a signed update of the system for BOARD
	$(VENV)/bin/python -m hw.image.bundle --board $(BOARD)

boot-test: $(VENV)/.ready ## boot the image in an emulator, to the first verified version
	$(VENV)/bin/python -m hw.boot

boot-wifi: $(VENV)/.ready ## boot the image with a wifi.toml, to an address by its radio
	$(VENV)/bin/python -m hw.boot.wifi

bad-input: $(VENV)/.ready ## broken cards, bundles, a full disk: named, and it boots
	$(VENV)/bin/python -m hw.boot.bad

soak-image: $(VENV)/.ready ## cut the emulator's power at random moments; CUTS=30
	$(VENV)/bin/python -m hw.boot.cuts --cuts $(or $(CUTS),30)

porting: $(VENV)/.ready ## hw/porting.md typed into an empty root; ARCH=arm64
	$(VENV)/bin/python -m hw.porting $(if $(ARCH),--arch $(ARCH))

paths: $(VENV)/.ready ## docs/board-setup.md typed in empty Debians: package, pip
	$(VENV)/bin/python -m hw.paths
