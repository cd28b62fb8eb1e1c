"""Giving up rights, layer by layer: namespaces, an empty disk, rlimits, Landlock, seccomp."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
from collections.abc import Iterable

NOBODY = 65534
_LIBC = ctypes.CDLL(None, use_errno=True)

_NEWNS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 2, 4, 8, 0x4000, 0x40000
_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 4, 22, 38
_CLONE, _CAPSET, _LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 56, 126, 444, 445, 446


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _prctl(option: int, *arguments: object) -> None:
    words = [*arguments, 0, 0, 0, 0][:4]
    _check(_LIBC.prctl(option, *(ctypes.c_ulong(w) if isinstance(w, int) else w for w in words)))


def become_nobody() -> None:
    """Switch from root to the user ``nobody``."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    # Changing the user makes /proc/self root's, where the maps of a namespace must be written.
    _prctl(_PR_SET_DUMPABLE, 1)


def fork_apart() -> int:
    """Fork into new user, network, IPC, mount and process namespaces; like ``os.fork``.

    One system call for all: to fork first and leave later would take another fork to become
    process 1.
    """
    flags = _NEWUSER | _NEWNET | _NEWIPC | _NEWNS | _NEWPID | signal.SIGCHLD
    # PyDLL keeps the GIL held in both processes.
    return _check(ctypes.PyDLL(None, use_errno=True).syscall(_CLONE, flags, 0, 0, 0, 0))


def own_mounts() -> None:
    """Enter new user and mount namespaces, in which this process may mount."""
    user, group = os.getuid(), os.getgid()
    _check(_LIBC.unshare(_NEWUSER | _NEWNS))
    keep_names(user, group)


def keep_names(uid: int, gid: int) -> None:
    """Keep the same user and group ids in the new user namespace."""
    for name, text in [
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ]:
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def mount_empty(folder: str, size: int, files: int) -> None:
    """An empty disk in memory over a folder, seen by this process and its children alone.

    Args:
        folder: Where.
        size: Bytes of all files.
        files: Number of files and folders; 0 for a kernel that cannot count them.
    """
    # Nothing is checked: a kernel without propagation of mounts, such as gVisor's, refuses this.
    _LIBC.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    count = f",nr_inodes={files}" if files else ""
    options = f"size={size}{count},mode=700".encode()
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    _check(_LIBC.mount(b"tmpfs", folder.encode(), b"tmpfs", flags, options))


def limit(*, memory: int, cpu: int, file: int) -> None:
    """Rlimits on this process, which may start no other.

    Args:
        memory: Bytes of address space beyond what is taken now.
        cpu: Seconds of processor.
        file: Bytes of one file.
    """
    with open("/proc/self/statm") as statm:
        taken = int(statm.read().split()[0]) * resource.getpagesize()
    for kind, value in [
        (resource.RLIMIT_AS, taken + memory),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_FSIZE, file),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ]:
        resource.setrlimit(kind, (value, value))


def drop_capabilities() -> None:
    """Drop the capabilities that a new user namespace grants."""
    header = struct.pack("Ii", 0x20080522, 0)
    _check(_LIBC.syscall(_CAPSET, header, bytes(24)))


def landlock(readable: Iterable[str], writable: str) -> None:
    """Only these folders exist for reading, one of them for writing; no TCP either.

    Raises:
        OSError: The kernel has no Landlock.
    """
    abi = _check(_LIBC.syscall(_LANDLOCK_CREATE, None, 0, 1))
    rights = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)) - 1
    network = 3 if abi >= 4 else 0  # bind and connect
    scoped = 3 if abi >= 6 else 0  # abstract sockets and signals
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    wanted = struct.pack("QQQ", rights, network, scoped)[:size]
    ruleset = _check(_LIBC.syscall(_LANDLOCK_CREATE, wanted, ctypes.c_size_t(size), 0))
    read = 1 << 2 | 1 << 3  # files and folders
    make = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8  # write, remove, create
    truncate = 1 << 14 if abi >= 3 else 0
    rules = [(folder, read) for folder in readable] + [(writable, read | make | truncate)]
    for folder, access in rules:
        try:
            beneath = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # A missing folder needs no rule.
        rule = struct.pack("=Qi", access, beneath)
        _check(_LIBC.syscall(_LANDLOCK_ADD, ruleset, 1, rule, 0))
        os.close(beneath)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _check(_LIBC.syscall(_LANDLOCK_RESTRICT, ruleset, 0))
    os.close(ruleset)


_NAMES = """
read=0 write=1 open=2 close=3 stat=4 fstat=5 lstat=6 poll=7 lseek=8 mmap=9 mprotect=10
munmap=11 brk=12 rt_sigaction=13 rt_sigprocmask=14 rt_sigreturn=15 pread64=17 pwrite64=18
readv=19 writev=20 access=21 pipe=22 select=23 sched_yield=24 mremap=25 msync=26 mincore=27
madvise=28 dup=32 dup2=33 pause=34 nanosleep=35 getitimer=36 alarm=37 setitimer=38 getpid=39
exit=60 uname=63 fcntl=72 flock=73 fsync=74 fdatasync=75 truncate=76 ftruncate=77 getdents=78
getcwd=79 chdir=80 fchdir=81 rename=82 mkdir=83 rmdir=84 unlink=87 readlink=89 umask=95
gettimeofday=96 getrlimit=97 getrusage=98 sysinfo=99 times=100 getuid=102 getgid=104
geteuid=107 getegid=108 getppid=110 getpgrp=111 getpgid=121 getsid=124 sigaltstack=131
arch_prctl=158 gettid=186 time=201 futex=202 sched_getaffinity=204 getdents64=217
clock_gettime=228 clock_getres=229 clock_nanosleep=230 exit_group=231 openat=257 mkdirat=258
newfstatat=262 unlinkat=263 renameat=264 readlinkat=267 faccessat=269 pselect6=270 ppoll=271
set_robust_list=273 get_robust_list=274 dup3=292 pipe2=293 prlimit64=302 renameat2=316
getrandom=318 statx=332 rseq=334 close_range=436 faccessat2=439
"""
_ALLOWED = tuple(int(pair.partition("=")[2]) for pair in _NAMES.split())
"""System calls on x86-64 that Python, numpy and sympy need; no socket, process or signal."""
_CLONE3 = 435
_X86_64 = 0xC000003E
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_EPERM, _ENOSYS = 1, 38


def seccomp() -> None:
    """Refuse every system call that is not in the list, with EPERM.

    Raises:
        OSError: The kernel has no seccomp filters, or the machine is not x86-64.
    """
    if platform.machine() != "x86_64":
        raise OSError(_ENOSYS, f"no list of system calls for {platform.machine()}")
    program = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, _X86_64), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    for number in _ALLOWED:
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    # ENOSYS, so that the C library falls back to `clone`, which is then refused.
    program += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _REFUSE | _ENOSYS)]
    program.append((_RETURN, 0, 0, _REFUSE | _EPERM))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))

    class Filter(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))

    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    whole = Filter(len(program), ctypes.addressof(code))
    _prctl(_PR_SET_SECCOMP, 2, ctypes.byref(whole))
