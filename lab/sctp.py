#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Both ends of an SCTP-shaped exchange over raw sockets, for kernels that have no SCTP.

  sctp.py serve ADDRESS PORT IDENTITY
  sctp.py ask ADDRESS PORT SOURCE-ADDRESS SOURCE-PORT PAUSE-SECONDS
  sctp.py survey ADDRESS PORT SOURCE-ADDRESS FIRST-SOURCE-PORT COUNT

The server answers each association's data with its identity and the same data. The client asks one
association over and over until SIGTERM, repeating what gets lost, and ends with its report as one
line of JSON, that of flows.ts. A survey asks one question over each of many associations, one after
the other until one breaks, and prints all their reports as a list. One stream, one chunk a packet, no more of RFC 9260 than connection
tracking wants to see. Chunks and CRC32c are scapy's. sctp.ts starts these.
"""

import errno
import json
import secrets
import select
import signal
import socket
import struct
import sys
import time

from scapy.layers import sctp

IPPROTO_SCTP = 132
REPEAT_SECONDS = 0.25
STALL_SECONDS = 1.0
GIVE_UP_SECONDS = 10.0
WINDOW = 65535


def open_socket(address):
    """A raw socket that sees the SCTP packets to this address; while it lives the kernel sends no
    ICMP error for them."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    raw = socket.socket(family, socket.SOCK_RAW, IPPROTO_SCTP)
    raw.bind((address, 0))
    return raw


def receive(raw):
    """An SCTP packet that is whole, else None, and its sender's address."""
    data, sender = raw.recvfrom(65536)
    if raw.family == socket.AF_INET:
        data = data[(data[0] & 15) * 4 :]
    if len(data) < 16:
        return None, sender[0]
    (found,) = struct.unpack_from("!I", data, 8)
    if found != sctp.crc32c(data[:8] + bytes(4) + data[12:]):
        return None, sender[0]
    return sctp.SCTP(data), sender[0]


def reply_to(packet, tag, chunk):
    return bytes(sctp.SCTP(sport=packet.dport, dport=packet.sport, tag=tag) / chunk)


def data_chunk(tsn, sequence, data):
    return sctp.SCTPChunkData(
        beginning=1, ending=1, tsn=tsn, stream_id=0, stream_seq=sequence & 0xFFFF, data=data
    )


class Server:
    """Keeps for each peer the tags of both sides and the next number to send."""

    def __init__(self, address, port, identity):
        self.raw = open_socket(address)
        self.port = port
        self.identity = identity.encode()
        self.associations = {}

    def serve(self):
        while True:
            packet, sender = receive(self.raw)
            if packet is None or packet.dport != self.port:
                continue
            for answer in self.answers(packet, (sender, packet.sport)):
                self.raw.sendto(answer, (sender, 0))

    def answers(self, packet, peer):
        chunk = packet.payload
        if isinstance(chunk, sctp.SCTPChunkInit):
            own = secrets.randbits(32) | 1
            cookie = struct.pack("!II", chunk.init_tag, own)
            yield reply_to(
                packet,
                chunk.init_tag,
                sctp.SCTPChunkInitAck(
                    init_tag=own,
                    a_rwnd=WINDOW,
                    n_out_streams=1,
                    n_in_streams=1,
                    init_tsn=1,
                    params=[sctp.SCTPChunkParamStateCookie(cookie=cookie)],
                ),
            )
            return
        if isinstance(chunk, sctp.SCTPChunkCookieEcho):
            theirs, own = struct.unpack("!II", chunk.cookie[:8])
            if packet.tag == own:
                self.associations[peer] = {"theirs": theirs, "own": own}
                yield reply_to(packet, theirs, sctp.SCTPChunkCookieAck())
            return
        if isinstance(chunk, sctp.SCTPChunkAbort):
            self.associations.pop(peer, None)
            return
        association = self.associations.get(peer)
        if association is None or association["own"] != packet.tag:
            # Out of the blue: the tag is reflected (RFC 9260, 8.4).
            yield reply_to(packet, packet.tag, sctp.SCTPChunkAbort(TCB=1))
            return
        yield from self.continued(packet, peer, association)

    def continued(self, packet, peer, association):
        chunk, theirs = packet.payload, association["theirs"]
        if isinstance(chunk, sctp.SCTPChunkData):
            yield reply_to(packet, theirs, sctp.SCTPChunkSACK(cumul_tsn_ack=chunk.tsn))
            answer = data_chunk(chunk.tsn, chunk.stream_seq, self.identity + b"\n" + chunk.data)
            yield reply_to(packet, theirs, answer)
        elif isinstance(chunk, sctp.SCTPChunkShutdown):
            yield reply_to(packet, theirs, sctp.SCTPChunkShutdownAck())
        elif isinstance(chunk, sctp.SCTPChunkShutdownComplete):
            self.associations.pop(peer, None)


class Broken(Exception):
    """The association is over: an errno's name, or "ABORTED" by the other side."""


class Client:
    """One association, from its set-up to its end."""

    def __init__(self, peer, source):
        self.peer, self.port = peer
        self.source, self.source_port = source
        self.raw = open_socket(self.source)
        # Whoever else answers is not heard, as it would not be by a real association.
        self.raw.connect((self.peer, 0))
        self.tag = 0
        self.report = {
            "local": {"address": self.raw.getsockname()[0], "port": self.source_port},
            "identities": [],
            "rounds": 0,
            "stalls": [],
            "lost": 0,
            "wrong": 0,
        }

    def send(self, chunk):
        header = sctp.SCTP(sport=self.source_port, dport=self.port, tag=self.tag)
        self.raw.send(bytes(header / chunk))

    def ask(self, chunk, kind, is_answer=lambda chunk: True):
        """Sends a chunk until a chunk of this kind answers it, and gives that."""
        start = time.time()
        while time.time() - start < GIVE_UP_SECONDS:
            self.send(chunk)
            deadline = time.time() + REPEAT_SECONDS
            while (left := deadline - time.time()) > 0:
                if not select.select([self.raw], [], [], left)[0]:
                    break
                answer = self.next_chunk()
                if isinstance(answer, kind) and is_answer(answer):
                    self.note_stall(start)
                    return answer
            self.report["lost"] += 1
        self.note_stall(start)
        raise Broken("ETIMEDOUT")

    def next_chunk(self):
        packet, _ = receive(self.raw)
        if packet is None or (packet.sport, packet.dport) != (self.port, self.source_port):
            return None
        if isinstance(packet.payload, sctp.SCTPChunkAbort):
            raise Broken("ABORTED")
        return packet.payload

    def note_stall(self, start):
        seconds = time.time() - start
        if seconds > STALL_SECONDS:
            self.report["stalls"].append({"at": round(start * 1000), "seconds": seconds})

    def associate(self):
        init = sctp.SCTPChunkInit(
            init_tag=secrets.randbits(32) | 1,
            a_rwnd=WINDOW,
            n_out_streams=1,
            n_in_streams=1,
            init_tsn=1,
        )
        answer = self.ask(init, sctp.SCTPChunkInitAck)
        self.tag = answer.init_tag
        cookie = answer.params[0].cookie
        self.ask(sctp.SCTPChunkCookieEcho(cookie=cookie), sctp.SCTPChunkCookieAck)

    def exchange(self, number):
        data = f"question {number} ".encode() * 4
        answer = self.ask(
            data_chunk(number, number, data),
            sctp.SCTPChunkData,
            lambda chunk: chunk.tsn == number,
        )
        self.send(sctp.SCTPChunkSACK(cumul_tsn_ack=number))
        identity, _, rest = answer.data.partition(b"\n")
        if identity.decode() not in self.report["identities"]:
            self.report["identities"].append(identity.decode())
        # A chunk is padded to a multiple of four bytes.
        if rest[: len(data)] != data:
            self.report["wrong"] += 1
        self.report["rounds"] += 1

    def shut_down(self, number):
        self.ask(sctp.SCTPChunkShutdown(cumul_tsn_ack=number), sctp.SCTPChunkShutdownAck)
        self.send(sctp.SCTPChunkShutdownComplete())

    def run(self, goes_on):
        """Asks as long as that is true of the number of questions answered, and reports."""
        number = 0
        try:
            self.associate()
            while goes_on(number):
                number += 1
                self.exchange(number)
            self.shut_down(number)
        except Broken as broken:
            self.report["broken"] = {"code": str(broken), "at": round(time.time() * 1000)}
        except OSError as error:
            code = errno.errorcode.get(error.errno, str(error))
            self.report["broken"] = {"code": code, "at": round(time.time() * 1000)}
        return self.report


def ask(client, pause):
    """Asks until SIGTERM."""
    running = [True]
    signal.signal(signal.SIGTERM, lambda *_: running.clear())

    def goes_on(number):
        if number == 1:
            print("associated", flush=True)
        if number > 0:
            time.sleep(pause)
        return running

    return client.run(goes_on)


def survey(peer, source, count):
    """Asks once over each of so many associations, from one port after the other."""
    reports = []
    address, first = source
    for port in range(first, first + count):
        reports.append(Client(peer, (address, port)).run(lambda number: number < 1))
        if "broken" in reports[-1]:
            break
    return reports


def main():
    task, address, port, *rest = sys.argv[1:]
    if task == "serve":
        server = Server(address, int(port), rest[0])
        print("ready", flush=True)
        server.serve()
        return
    source, source_port, value = rest
    peer, local = (address, int(port)), (source, int(source_port))
    if task == "ask":
        report = ask(Client(peer, local), float(value))
    else:
        report = survey(peer, local, int(value))
    print(json.dumps(report), flush=True)


main()
