"""By which of its interfaces a rank is reached from other machines.

Left to itself gloo listens where the machine's own name points to, which on many machines is a loopback address: ranks
on several of them then never find each other (measured, torch 2.13). NCCL looks for an interface by itself.
"""

import fcntl
import os
import socket
import struct

GLOO_VARIABLE = (
    "GLOO_SOCKET_IFNAME"  # torch takes the name of an interface from here, and from nowhere else
)
SIOCGIFADDR = 0x8915  # Linux: an interface's address
NAME_BYTES = 16  # of an interface's name in that call, its last zero included


def listen_towards(host: str, port: int) -> None:
    """Has gloo listen, from the next process group on, on the interface that leads to a place where ranks meet.

    What somebody has set by hand stands.
    """
    name = interface_towards(host, port)
    if name is not None:
        os.environ.setdefault(GLOO_VARIABLE, name)


def interface_towards(host: str, port: int) -> str | None:
    """None where the interface is not known by this address, or the address is not of IPv4."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unsent:
        try:
            unsent.connect(
                (host, port)
            )  # of a datagram's socket: it chooses a way, and sends nothing
        except OSError:  # no such name, or no way there; to join will say so
            return None
        address: str = unsent.getsockname()[0]
        names = [name for _, name in socket.if_nameindex()]
        return next((name for name in names if address_of(name, unsent) == address), None)


def address_of(interface: str, any_socket: socket.socket) -> str | None:
    """IPv4; None of an interface that has none."""
    asked = struct.pack(f"{NAME_BYTES}s16x", interface.encode())
    try:
        answer = fcntl.ioctl(any_socket.fileno(), SIOCGIFADDR, asked)
    except OSError:
        return None
    return socket.inet_ntoa(answer[NAME_BYTES + 4 : NAME_BYTES + 8])
