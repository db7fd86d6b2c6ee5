"""Over which network interface the instances of this host talk to the others."""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import Iterator, Optional, Tuple

_SIOCGIFADDR = 0x8915  # Linux, <linux/sockios.h>


def interface(first_host: str, port: int, subnet: str = "") -> Optional[str]:
    """Name of the interface in a subnet, or of the one that leads to the first host; None where the system does not tell.

    Raises:
        ValueError: not a network, or no interface in it.
    """
    addresses = list(_addresses())
    if subnet:
        network = ipaddress.ip_network(subnet)
        inside = [name for name, address in addresses if ipaddress.ip_address(address) in network]
        if addresses and not inside:
            raise ValueError(f"--host-subnet {subnet}: this host has {', '.join(address for _, address in addresses)}")
        return inside[0] if inside else None
    own = _address_towards(first_host, port)
    return next((name for name, address in addresses if address == own), None)


def _address_towards(host: str, port: int) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # nothing is sent
        probe.connect((host, port))
        return str(probe.getsockname()[0])


def _addresses() -> Iterator[Tuple[str, str]]:
    """(interface, IPv4 address) of those that are up."""
    try:
        import fcntl
    except ImportError:
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asking.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue
            yield name, socket.inet_ntoa(answer[20:24])
