"""Running processes, read from /proc."""

import os


def below(pid):
    """All descendants of a process."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                with open(f"/proc/{entry}/stat") as stat:
                    parents[int(entry)] = int(stat.read().rpartition(")")[2].split()[1])
            except OSError:
                continue

    def of(parent):
        found = [child for child, its in parents.items() if its == parent]
        return found + [one for child in found for one in of(child)]

    return of(pid)


def alive(pid):
    """Whether the process has not ended."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
