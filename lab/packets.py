#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Packets as they are wanted: makes, sends, captures and checks them with scapy.

Reads requests from standard input, one JSON object a line, and answers each with a line; packets.ts
holds the other end and says what the calls mean. Packets and frames are expressions in scapy's
notation, evaluated here: this is a tool for tests. Its sums are scapy's, none of them ours.
"""

import json
import select
import socket
import struct
import subprocess
import sys
import time

import scapy.all as scapy
from scapy.layers import inet, inet6, l2, sctp, vxlan

SOL_PACKET = 263
PACKET_AUXDATA = 8
PACKET_OUTGOING = 4
SO_RCVBUFFORCE = 33
ETH_P_ALL = 3
# struct tpacket_auxdata of linux/if_packet.h, and its status bits.
AUXDATA = struct.Struct("@IIIHHHH")
CHECKSUM_NOT_READY = 1 << 3
VLAN_VALID = 1 << 4

# What the length in an IP header can say. Packets that the kernel makes of more TCP segments, and
# will cut, have 0 there (BIG TCP).
LARGEST = 0xFFFF

# Protocol number: name, and bytes of the shortest header.
TRANSPORTS = {
    1: ("ICMP", 8),
    6: ("TCP", 20),
    17: ("UDP", 8),
    58: ("ICMPv6", 8),
    132: ("SCTP", 12),
}

# What expressions may name.
NAMES = {}
for module in (scapy, inet, inet6, l2, sctp, vxlan):
    NAMES.update(vars(module))


def evaluate(expression):
    """The packets that an expression stands for, one or a list."""
    value = eval(expression, dict(NAMES))
    return list(value) if isinstance(value, (list, scapy.PacketList)) else [value]


def pseudo_header(packet, protocol, length):
    addresses = packet["source"] + packet["destination"]
    # IPv4's has the same sum, and its length is as long where packets are larger than they can say.
    return addresses + struct.pack("!IHBB", length, 0, 0, protocol)


def link_payload(frame):
    """The network packet in a frame and its EtherType, behind any VLAN tags."""
    offset = 12
    (kind,) = struct.unpack_from("!H", frame, offset)
    while kind in (0x8100, 0x88A8):
        offset += 4
        (kind,) = struct.unpack_from("!H", frame, offset)
    return kind, frame[offset + 2 :]


def parse_ipv4(data, problems):
    header_length = (data[0] & 15) * 4
    (total,) = struct.unpack_from("!H", data, 2)
    (fragment,) = struct.unpack_from("!H", data, 6)
    if total == 0 and len(data) > LARGEST:
        total = len(data)
    if total > len(data):
        problems.append(f"IPv4: length {total} of {len(data)} bytes")
    if scapy.checksum(data[:header_length]) != 0:
        problems.append("IPv4: wrong header checksum")
    return {
        "source": data[12:16],
        "destination": data[16:20],
        "protocol": data[9],
        "payload": data[header_length:total],
        "is_fragment": fragment & 0x3FFF != 0,
    }


def parse_ipv6(data, problems):
    (length,) = struct.unpack_from("!H", data, 4)
    if length == 0 and len(data) - 40 > LARGEST:
        length = len(data) - 40
        # Linux 6.18 and before tell the length in an option of an extension header (RFC 2675).
        if data[6] == 0 and data[41:48] != struct.pack("!BBBI", 0, 0xC2, 4, length):
            problems.append(f"IPv6: {data[41:48].hex()} does not say {length} bytes")
    if length + 40 > len(data):
        problems.append(f"IPv6: length {length} of {len(data) - 40} bytes")
    payload = data[40 : 40 + length]
    protocol = data[6]
    is_fragment = False
    destination = data[24:40]
    while protocol in (0, 43, 44, 60) and len(payload) >= 8:
        size = 8 if protocol == 44 else (payload[1] + 1) * 8
        if protocol == 43 and payload[3] > 0:
            destination = payload[size - 16 : size]
        if protocol == 44:
            is_fragment = is_fragment or struct.unpack_from("!H", payload, 2)[0] & 0xFFF9 != 0
        protocol, payload = payload[0], payload[size:]
    return {
        "source": data[8:24],
        "destination": destination,
        "protocol": protocol,
        "payload": payload,
        "is_fragment": is_fragment,
    }


def check_transport(packet, problems, is_partial):
    """Length and checksum of TCP, UDP, ICMP, ICMPv6 and SCTP; of others nothing is known."""
    payload, protocol = packet["payload"], packet["protocol"]
    if protocol not in TRANSPORTS:
        return
    name, least = TRANSPORTS[protocol]
    if len(payload) < least:
        problems.append(f"{name}: {len(payload)} bytes are no header")
        return
    if protocol == 132:
        (found,) = struct.unpack_from("!I", payload, 8)
        if found != sctp.crc32c(payload[:8] + bytes(4) + payload[12:]):
            problems.append("SCTP: wrong checksum")
        return
    if protocol == 17:
        (length,) = struct.unpack_from("!H", payload, 4)
        if length != len(payload):
            problems.append(f"UDP: length {length} of {len(payload)} bytes")
        if payload[6:8] == b"\0\0":
            if len(packet["source"]) == 16:
                problems.append("UDP: no checksum over IPv6")
            return
    pseudo = b"" if protocol == 1 else pseudo_header(packet, protocol, len(payload))
    if is_partial:
        # The kernel leaves the sum of the pseudo header there, not complemented.
        at = 16 if protocol == 6 else 6
        (found,) = struct.unpack_from("!H", payload, at)
        if found ^ scapy.checksum(pseudo) != 0xFFFF:
            problems.append(f"{name}: wrong partial checksum")
    elif scapy.checksum(pseudo + payload) != 0:
        problems.append(f"{name}: wrong checksum")


def check_quoted(packet, problems):
    """The header that an ICMP error quotes: that of IPv4 has a checksum of its own."""
    protocol, payload = packet["protocol"], packet["payload"]
    if protocol == 1 and payload[:1] and payload[0] in (3, 4, 5, 11, 12) and len(payload) >= 28:
        quoted = payload[8:]
        if scapy.checksum(quoted[: (quoted[0] & 15) * 4]) != 0:
            problems.append("ICMP: wrong header checksum in the quoted packet")


def problems_of(frame, is_partial=False):
    """What is wrong with lengths and checksums of an Ethernet frame, as sentences."""
    problems = []
    kind, data = link_payload(frame)
    try:
        if kind == 0x0800:
            packet = parse_ipv4(data, problems)
        elif kind == 0x86DD:
            packet = parse_ipv6(data, problems)
        else:
            return problems
        if not packet["is_fragment"]:
            check_transport(packet, problems, is_partial)
            check_quoted(packet, problems)
    except (IndexError, struct.error):
        problems.append(f"{len(frame)} bytes end inside a header")
    return problems


def partial(packet):
    """The packet with its checksum left to the device: there is the pseudo header's sum instead."""
    data = bytearray(bytes(packet))
    is_ipv4 = data[0] >> 4 == 4
    parsed = parse_ipv4(data, []) if is_ipv4 else parse_ipv6(data, [])
    protocol, payload = parsed["protocol"], parsed["payload"]
    total = scapy.checksum(pseudo_header(parsed, protocol, len(payload))) ^ 0xFFFF
    at = len(data) - len(payload) + (16 if protocol == 6 else 6)
    struct.pack_into("!H", data, at, total)
    return packet.__class__(bytes(data))


NAMES["partial"] = partial


def next_hop(destination):
    """Device and MAC address by which the kernel reaches an address. Resolves the neighbour."""
    route = json.loads(subprocess.check_output(["ip", "-json", "route", "get", destination]))[0]
    hop, device = route.get("gateway", destination), route["dev"]
    family = socket.AF_INET6 if ":" in hop else socket.AF_INET
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        command = ["ip", "-json", "neigh", "show", "to", hop, "dev", device]
        for neighbour in json.loads(subprocess.check_output(command) or b"[]"):
            if "lladdr" in neighbour:
                return device, neighbour["lladdr"]
        with socket.socket(family, socket.SOCK_DGRAM) as asker:
            asker.sendto(b"", (hop, 9))
        time.sleep(0.02)
    raise TimeoutError(f"{hop} on {device} does not answer ARP or neighbour solicitation")


def complete_frame(frame, device):
    """Fills in the MAC addresses that were left out, and gives the device to send by."""
    inner = frame.getlayer(inet.IP) or frame.getlayer(inet6.IPv6)
    if inner is not None and "dst" not in frame.fields:
        found, frame.dst = next_hop(inner.dst)
        device = device or found
    if "src" not in frame.fields:
        frame.src = scapy.get_if_hwaddr(device or "eth0")
    return device or "eth0"


def send_one(packet, device):
    if isinstance(packet, l2.Ether):
        device = complete_frame(packet, device)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind((device, 0))
            sender.send(bytes(packet))
        return
    family = socket.AF_INET6 if isinstance(packet, inet6.IPv6) else socket.AF_INET
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
        sender.sendto(bytes(packet), (packet.dst, 0))


captures = {}


def open_capture(device, match, with_outgoing):
    capture = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    capture.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
    capture.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    capture.bind((device, ETH_P_ALL))
    capture.setblocking(False)
    matches = eval(f"lambda p: {match}", dict(NAMES))
    captures[capture.fileno()] = (capture, matches, with_outgoing)
    return capture.fileno()


def receive(capture):
    """The next frame with the VLAN tag that the kernel took off, and what is known of it."""
    frame, ancillary, _, address = capture.recvmsg(1 << 18, 128)
    status = vlan = protocol = 0
    for level, kind, data in ancillary:
        if level == SOL_PACKET and kind == PACKET_AUXDATA:
            status, _, _, _, _, vlan, protocol = AUXDATA.unpack(data[: AUXDATA.size])
    if status & VLAN_VALID:
        frame = frame[:12] + struct.pack("!HH", protocol or 0x8100, vlan) + frame[12:]
    is_outgoing = address[2] == PACKET_OUTGOING
    return frame, bool(status & CHECKSUM_NOT_READY), is_outgoing


def plain(value):
    """A field's value for JSON."""
    if value is None or isinstance(value, (int, str)):
        return value
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def layers_of(packet):
    layers = []
    while packet and not isinstance(packet, scapy.NoPayload):
        fields = {
            name: plain(packet.getfieldval(name))
            for name in (field.name for field in packet.fields_desc)
            if not isinstance(packet.getfieldval(name), list)
        }
        layers.append({"layer": packet.__class__.__name__, **fields})
        packet = packet.payload
    return layers


def take(number, count, seconds):
    capture, matches, with_outgoing = captures[number]
    seen = []
    deadline = time.monotonic() + seconds
    while len(seen) < count:
        ready, _, _ = select.select([capture], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            break
        frame, is_partial, is_outgoing = receive(capture)
        packet = l2.Ether(frame)
        if (is_outgoing and not with_outgoing) or not matches(packet):
            continue
        seen.append(
            {
                "frame": frame.hex(),
                "summary": packet.summary(),
                "layers": layers_of(packet),
                "problems": problems_of(frame, is_partial),
                "isPartial": is_partial,
                "isOutgoing": is_outgoing,
            }
        )
    return seen


def build(expression):
    return [bytes(packet).hex() for packet in evaluate(expression)]


def send(expression, device=None):
    packets = evaluate(expression)
    for packet in packets:
        send_one(packet, device)
    return len(packets)


def check(frames):
    return [problems_of(bytes.fromhex(frame)) for frame in frames]


def close(number):
    captures.pop(number)[0].close()


CALLS = {
    "build": build,
    "send": send,
    "check": check,
    "capture": open_capture,
    "take": take,
    "close": close,
}


def main():
    print(json.dumps({"id": 0}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer = {"id": request["id"]}
        try:
            answer["value"] = CALLS[request["call"]](*request["values"])
        except Exception as error:
            answer["error"] = f"{type(error).__name__}: {error}"
        print(json.dumps(answer), flush=True)


main()
