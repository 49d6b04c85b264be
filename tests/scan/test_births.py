"""The nursery keeps count of its children, however quickly they end."""

import subprocess
import sys

QUICK = """
import os, signal, socket, time
from fubako.scan import births

children = set()
signal.signal(signal.SIGCHLD, lambda _number, _frame: births._reap(children))
real = os.fork

def fork():
    '''A child that has ended before its parent goes on.'''
    pid = real()
    if not pid:
        os._exit(0)
    while True:  # until it has ended, and a handler that may run has run
        try:
            if open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] == "Z":
                time.sleep(0.01)
                return pid
        except OSError:
            return pid

other = real()
if not other:
    time.sleep(100)
    os._exit(0)
children.add(other)
os.fork = fork
ours, theirs = socket.socketpair()
births._make(os.dup(theirs.fileno()), children, None)
time.sleep(0.05)
print(children == {other})
os.kill(other, signal.SIGKILL)
time.sleep(0.2)
print(children)
"""


def test_a_child_that_ends_at_once_is_counted_out():
    """Its number stayed among the children before, and the next who ended took the nursery along."""
    done = subprocess.run([sys.executable, "-c", QUICK], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "True\nset()\n"), done.stderr
