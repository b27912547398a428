"""A Python program that waits to be killed: victim.py NAME [HOST].

It calls itself NAME, and its host HOST where it has a UTS namespace of its own (`unshare --uts`).
"""

import resource
import signal
import socket
import sys
from pathlib import Path

name, *host = sys.argv[1:]
Path("/proc/self/comm").write_text(name)
if host:
    socket.sethostname(host[0])
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
print("ready", flush=True)
signal.pause()
