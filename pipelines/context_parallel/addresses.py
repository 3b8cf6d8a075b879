"""The network interface over which other machines reach a rank.

By default gloo listens on the address of the machine's own name. On many machines this is a
loopback address, and ranks on several of them then never find each other (measured, torch 2.13).
NCCL looks for an interface by itself.
"""

import fcntl
import os
import socket
import struct

GLOO_VARIABLE = "GLOO_SOCKET_IFNAME"  # the only way to name gloo's interface to torch
SIOCGIFADDR = 0x8915  # Linux: an interface's address
NAME_BYTES = 16  # length of an interface's name in that call, with its last zero


def listen_towards(host: str, port: int) -> None:
    """Make gloo listen on the interface that leads to the rendezvous, from the next group on.

    A value that was set by hand is kept.
    """
    name = interface_towards(host, port)
    if name is not None:
        os.environ.setdefault(GLOO_VARIABLE, name)


def interface_towards(host: str, port: int) -> str | None:
    """Return the name of the interface that leads to a host.

    Returns:
        None if the host has no IPv4 address or no route, or no interface has the route's address.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unsent:
        try:
            unsent.connect((host, port))  # a datagram socket: it picks a route and sends nothing
        except OSError:  # unknown name or no route; joining will report it
            return None
        address: str = unsent.getsockname()[0]
        names = [name for _, name in socket.if_nameindex()]
        return next((name for name in names if address_of(name, unsent) == address), None)


def address_of(interface: str, any_socket: socket.socket) -> str | None:
    """Return the IPv4 address of an interface, or None if it has none."""
    asked = struct.pack(f"{NAME_BYTES}s16x", interface.encode())
    try:
        answer = fcntl.ioctl(any_socket.fileno(), SIOCGIFADDR, asked)
    except OSError:
        return None
    return socket.inet_ntoa(answer[NAME_BYTES + 4 : NAME_BYTES + 8])
