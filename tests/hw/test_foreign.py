"""hw.foreign runs programs of another processor in a root, and leaves nothing behind: shown with a root of one program, compiled here."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hw import foreign

# A shell that knows five words: enough to see where it runs.
SHELL = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>
extern char **environ;
int main(int count, char **words) {
    const char *word = count > 1 ? words[1] : "";
    struct utsname name;
    if (!strcmp(word, "machine")) {
        uname(&name);
        puts(name.machine);
    } else if (!strcmp(word, "child")) {
        if (!fork()) execl("/bin/sh", "sh", "machine", (char *)0), _exit(1);
        wait(0);
    } else if (!strcmp(word, "environment")) {
        for (char **one = environ; *one; one++) puts(*one);
    } else if (!strcmp(word, "fails")) {
        return 7;
    } else if (!strcmp(word, "lingers")) {
        FILE *held = fopen("/seen/held", "w");
        if (!held || flock(fileno(held), LOCK_EX)) return 1;
        if (!fork()) for (;;) pause();
    } else if (!strcmp(word, "devices")) {
        return access("/proc/self/stat", R_OK) || access("/sys/kernel", R_OK) || access("/dev/urandom", R_OK) || access("/dev/shm", W_OK)
            || !access("/dev/kmsg", F_OK) || !access("/work", F_OK);
    } else {
        return 127;
    }
    return 0;
}
"""
COMPILERS = {"arm64": "aarch64-linux-gnu-gcc", "armhf": "arm-linux-gnueabihf-gcc", "": "gcc"}
MACHINES = {"arm64": "aarch64", "armhf": "armv7l", "": os.uname().machine}


@pytest.fixture(scope="module", params=COMPILERS, ids=lambda name: name or "own")
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A root of a processor, and the machine that programs in it see."""
    compiler = COMPILERS[request.param]
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    if why := foreign.obstacle(request.param):
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("root")
    (folder / "bin").mkdir()
    (folder / "shell.c").write_text(SHELL)
    subprocess.run([compiler, "-static", "-O1", "-o", str(folder / "bin" / "sh"), str(folder / "shell.c")], check=True)
    return folder, MACHINES[request.param]


def test_a_program_and_the_programs_it_starts_see_the_processor_of_the_root(root: tuple[Path, str]) -> None:
    folder, machine = root
    for word in ("machine", "child"):
        assert foreign.run(folder, ["/bin/sh", word]).stdout == f"{machine}\n"
    assert foreign.run(folder, ["sh", "machine"]).stdout == f"{machine}\n"


def test_where_the_kernel_knows_no_emulator_it_is_named_and_one_program_runs(root: tuple[Path, str]) -> None:
    folder, machine = root
    words = foreign.command(folder, ["sh", "machine"])
    words.insert(words.index(str(folder)), "--no-binfmt")
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == f"{machine}\n"


def test_it_sees_a_clean_environment_and_only_what_was_furnished(root: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    said = foreign.run(root[0], ["sh", "environment"], env={"NAME": "a=b c"}).stdout.splitlines()
    assert set(said) == {*(f"{name}={value}" for name, value in foreign.CLEAN.items()), "NAME=a=b c"}
    foreign.run(root[0], ["sh", "devices"])
    assert not any((root[0] / "dev").iterdir()) and not any((root[0] / "proc").iterdir())  # all that was mounted went


def test_what_a_command_leaves_running_ends_with_it(root: tuple[Path, str], tmp_path: Path) -> None:
    foreign.run(root[0], ["sh", "lingers"], binds={tmp_path: "/seen"})
    with (tmp_path / "held").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # whoever lingered would hold it still


def test_its_exit_code_is_the_command_s_and_what_can_t_start_is_told_apart(root: tuple[Path, str]) -> None:
    folder, _ = root
    assert foreign.run(folder, ["sh", "fails"], check=False).returncode == 7
    with pytest.raises(subprocess.CalledProcessError):
        foreign.run(folder, ["sh", "fails"])
    for words, said in ((["nowhere"], "No such file"), (["/bin/nothing"], "No such file")):
        with pytest.raises(foreign.CannotRun, match=said):
            foreign.run(folder, words)
    with pytest.raises(foreign.CannotRun, match="there is no"):
        foreign.run(folder, ["sh", "machine"], binds={folder / "absent": "/seen"})


def test_what_is_no_root_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(foreign.CannotRun, match="no system that could be run: no /bin/sh"):
        foreign.machine_of(tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").write_bytes(b"#!/bin/true\n" + bytes(20))
    with pytest.raises(foreign.CannotRun, match="no ELF program"):
        foreign.machine_of(tmp_path)


def test_links_of_a_root_lead_within_it(tmp_path: Path) -> None:
    (tmp_path / "usr" / "bin").mkdir(parents=True)
    (tmp_path / "bin").symlink_to("/usr/bin")
    (tmp_path / "usr" / "bin" / "sh").symlink_to("../../../../../etc/dash")
    assert foreign.inside(tmp_path, "/bin/sh") == tmp_path / "etc" / "dash"
    (tmp_path / "usr" / "bin" / "sh").unlink()
    (tmp_path / "usr" / "bin" / "sh").symlink_to("sh")
    with pytest.raises(foreign.CannotRun, match="circle of links"):
        foreign.inside(tmp_path, "/bin/sh")
