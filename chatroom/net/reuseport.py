"""A port that several processes listen at, and how one of them leaves without a client noticing.

1. The kernel gives each new connection to one of the listening sockets, by the client's address and port.
   What waits at a socket that is closed is reset: in its queue, or with its handshake half done.
2. So who leaves first has the kernel drop the first packet of each new connection, at its socket alone: by
   the least TTL that it takes, which no packet has that came by a router or by loopback. What is half done
   gets through, and the queue can be emptied. A client whose packet was dropped sends it again in a second;
   the socket is closed by then, and the packet goes to another one. It takes no privilege, as a filter would.
3. What is accepted from then on has the same least TTL, until it is taken back.
4. Where the kernel has no such option, there is only the closing: what comes in that moment is reset.
"""

import socket
import sys
from contextlib import suppress

RESEND_SECONDS = 1.0
"""After so long a client sends its first packet again."""
_LEAST_TTL = {socket.AF_INET: (socket.IPPROTO_IP, 21), socket.AF_INET6: (socket.IPPROTO_IPV6, 73)}
"""IP_MINTTL and IPV6_MINHOPCOUNT of Linux."""
_MOST = 255


def share_port(sock: socket.socket) -> None:
    """Before it is bound: others of the same user may listen at its port, if they say so as well."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def drop_newcomers(sock: socket.socket) -> None:
    """Rule 2, for a listening TCP socket."""
    _set_least_ttl(sock, _MOST)


def hear(sock: socket.socket) -> None:
    """Rule 3, for a socket that was accepted."""
    _set_least_ttl(sock, 0)


def _set_least_ttl(sock: socket.socket, ttl: int) -> None:
    if sys.platform == "linux":
        with suppress(OSError):  # rule 4
            sock.setsockopt(*_LEAST_TTL[sock.family], ttl)
