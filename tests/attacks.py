"""Programs that every sandbox must stop."""

from agentgym.sandbox import Status

REFUSED = {
    "reads a secret of the system": "open('/etc/shadow').read()",
    "reads the list of users": "open('/etc/passwd').read()",
    "reads the home folder": "import os; os.listdir(os.path.expanduser('~'))",
    "reads the code of the client": f"open({__file__!r}).read()",
    "reads its own environment": "open('/proc/self/environ').read()",
    "reads another's environment": "open('/proc/1/environ').read()",
    "reads memory": "open('/proc/self/mem', 'rb').read(1)",
    "lists the root": "import os; os.listdir('/')",
    "writes beside its folder": "open('../x', 'w')",
    "writes to the temporary folder": "open('/tmp/agentgym-escaped', 'w')",
    "writes into the libraries": "import json; open(json.__file__, 'a')",
    "deletes a library": "import os, json; os.unlink(json.__file__)",
    "links to a secret": "import os; os.symlink('/etc/shadow', 's')",
    "hard-links a library": "import os, json; os.link(json.__file__, 'j')",
    "makes a device": "import os, stat; os.mknod('d', 0o600 | stat.S_IFCHR, os.makedev(1, 3))",
    "changes the owner": "import os; open('o', 'w'); os.chown('o', 0, 0)",
    "changes the root": "import os; os.chroot('.')",
    "opens a device": "open('/dev/kmsg')",
    "opens a socket": "import socket; socket.socket()",
    "opens a local socket": "import socket; socket.socket(socket.AF_UNIX)",
    "asks the web": "import urllib.request; urllib.request.urlopen('http://127.0.0.1:80')",
    "forks": "import os; os.fork()",
    "spawns": "import subprocess; subprocess.run(['/bin/true'])",
    "executes": "import os; os.execv('/bin/true', ['true'])",
    "runs a shell": "import os; assert os.system('true') == 0, 'refused'",
    "starts a thread": "import threading; threading.Thread(target=print).start()",
    "uses processes": "import multiprocessing; multiprocessing.Process(target=print).start()",
    "signals its parent": "import os; os.kill(os.getppid() or 1, 9)",
    "signals everyone": "import os; os.kill(-1, 9)",
    "raises its own limits": "import resource as r; r.setrlimit(r.RLIMIT_AS, (-1, -1))",
    "becomes root": "import os; os.setuid(0); open('/etc/shadow')",
    "mounts": (
        "import ctypes; c = ctypes.CDLL(None, use_errno=True)\n"
        "assert c.mount(b'proc', b'.', b'proc', 0, None) == 0, 'refused'"
    ),
    "traces": "import ctypes; assert ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0, 'refused'",
    "makes a namespace": "import ctypes; assert ctypes.CDLL(None).unshare(1 << 28) == 0, 'refused'",
    "calls for a socket by number": (
        "import ctypes; assert ctypes.CDLL(None).syscall(41, 2, 1, 0) >= 0, 'refused'"
    ),
    "calls for a process by number": (
        "import ctypes; assert ctypes.CDLL(None).syscall(56, 17, 0, 0, 0, 0) >= 0, 'refused'"
    ),
    "calls through the old interface": (
        "import ctypes; assert ctypes.CDLL(None).syscall(0x40000029, 2, 1, 0) >= 0, 'refused'"
    ),
    "loads a module into the kernel": (
        "import ctypes; assert ctypes.CDLL(None).syscall(175, 0, 0, 0) == 0, 'refused'"
    ),
    "makes a file in memory to execute": "import os; os.memfd_create('x')",
    "fills the disk": "open('f', 'wb').write(b'x' * 2**25)",
    "fills the disk with files": "for i in range(10_000): open(f'f{i}', 'w').close()",
    "opens too many files": "[open(f'g{i % 100}', 'w') for i in range(200)]",
    "imports the client": "import agentgym",
}
"""Programs that must give an error and leave the interpreter running."""

FATAL = {
    "loops for ever": ("while True: pass", (Status.TIMEOUT,), False),
    "sleeps": ("import time; time.sleep(99)", (Status.TIMEOUT,), False),
    "catches everything": (
        "import time\nwhile True:\n    try: time.sleep(99)\n    except BaseException: pass",
        (Status.TIMEOUT,),
        True,
    ),
    "ignores the alarm": (
        "import signal; signal.signal(14, signal.SIG_IGN)\nwhile True: pass",
        (Status.TIMEOUT,),
        True,
    ),
    "is deaf in C": ("sum(range(10**12))", (Status.TIMEOUT,), True),
    "hogs memory": ("x = []\nwhile True: x.append(bytearray(2**24))", (Status.MEMORY,), False),
    "asks for much at once": ("'x' * 10**10", (Status.MEMORY,), False),
    "recurses": ("def f(): f()\nf()", (Status.ERROR,), False),
    "breaks the stack": (
        "import sys; sys.setrecursionlimit(10**9)\nx = 0\nfor _ in range(10**6): x = [x]\nrepr(x)",
        (Status.CRASHED,),
        True,
    ),
    "reads address 0": ("import ctypes; ctypes.string_at(0)", (Status.CRASHED,), True),
    "aborts": ("import os; os.abort()", (Status.CRASHED,), True),
    "leaves": ("import os; os._exit(0)", (Status.CRASHED,), True),
    "closes the line": ("import os; os.close(3)", (Status.CRASHED,), True),
    "answers nonsense": ("import os; os.write(3, b'\\xff' * 99)", (Status.GARBLED,), True),
    "answers twice": (
        "import os, struct\nd = b'{}'\nos.write(3, struct.pack('!I', 2) + d)",
        (Status.GARBLED,),
        True,
    ),
    "announces a long answer": (
        "import os, time\nos.write(3, b'\\x00\\x0f\\xff\\xff')\ntime.sleep(9)",
        (Status.GARBLED,),
        True,
    ),
    "never ends an answer": (
        "import os\nos.write(3, b'\\x00\\x00\\x0f\\xff')\nwhile True: pass",
        (Status.TIMEOUT, Status.GARBLED),
        True,
    ),
    "bombs the reader": (
        "import os, struct\nd = b'[' * 90_000\nos.write(3, struct.pack('!I', len(d)) + d)",
        (Status.GARBLED,),
        True,
    ),
    "bombs with forks": (
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        (Status.TIMEOUT,),
        False,
    ),
    "redefines the basics": (
        "import builtins, json\njson.dumps = builtins.len = lambda *a, **k: 'x'",
        (Status.OK, Status.CRASHED, Status.GARBLED),
        None,
    ),
}
"""Status of programs that never end or crash their interpreter, and whether the variables are lost;
None: either."""
