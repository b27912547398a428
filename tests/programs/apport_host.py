"""What Apport on a host does with a container's crash: apport_host.py SOCKET %p %s %c %d %P.

Run by the kernel with the core on standard input. It hands that to SOCKET and ends, as Apport 2.36
does: one message of four words, the descriptor, and credentials with the global pid.
Source: canonical/apport, data/apport, forward_crash_to_container().
"""

import array
import socket
import struct
import sys

path, *words, global_pid = sys.argv[1:]
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
    connection.connect(path)
    connection.sendmsg(
        [" ".join(words).encode()],
        [
            (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0])),
            (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, struct.pack("3i", int(global_pid), 0, 0)),
        ],
    )
    connection.shutdown(socket.SHUT_RDWR)
