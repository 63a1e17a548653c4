"""Sends wrong packets to a daemon and a brick; one line per packet: what was sent, a tab, what came back.

packets.py HOST BRICK-PORT BRICK-PATH
What comes back is `closed`, `silence`, `denied N`, `accepted N` (RPC accept status, not 0), or `ret N errno M`.
After every packet the same port must still answer a ping, else the line says so.
"""
import os
import socket
import struct
import sys
import uuid

HOST, BRICK_PORT, BRICK = sys.argv[1], int(sys.argv[2]), sys.argv[3]
DAEMON_PORT, PEER_PORT = 24007, 24008
FOP, HANDSHAKE, PORTMAP, DUMP = 1298437, 14398633, 34123456, 123451501
ROOT, ZERO = bytes(15) + b"\1", bytes(16)


def u32(number):
    return struct.pack(">I", number & 0xFFFFFFFF)


def u64(number):
    return struct.pack(">Q", number & 0xFFFFFFFFFFFFFFFF)


def opaque(data):
    return u32(len(data)) + data + bytes(-len(data) % 4)


def text(words):
    return opaque(words.encode())


def options(pairs):
    """The serialised dict of a handshake."""
    found = b"".join(u32(len(k)) + u32(len(v) + 1) + k.encode() + b"\0" + v.encode() + b"\0" for k, v in pairs.items())
    return opaque(u32(len(pairs)) + found)


NO_XDATA = u32(0) + u32(-1) + u32(0)


def credential():
    return u32(390040) + opaque(u32(0) * 6 + u32(0) + u32(0) + opaque(bytes(4)))


def call(program, version, procedure, body, rpc=2, cred=None, kind=0):
    return u32(7) + u32(kind) + u32(rpc) + u32(program) + u32(version) + u32(procedure) + (cred or credential()) + u32(0) * 2 + body


def record(message):
    return u32(0x80000000 | len(message)) + message


PING = record(call(DUMP, 1, 2, b""))


def receive(peer, length):
    data = b""
    while len(data) < length:
        part = peer.recv(length - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def answer(peer):
    try:
        while True:
            message = receive(peer, struct.unpack(">I", receive(peer, 4))[0] & 0x7FFFFFFF)
            # A call to us is a callback, which wants no answer.
            if struct.unpack(">I", message[4:8])[0] == 1:
                break
    except socket.timeout:
        return "silence"
    except (EOFError, ConnectionError):
        return "closed"
    if struct.unpack(">I", message[8:12])[0] == 1:
        return f"denied {struct.unpack('>I', message[12:16])[0]}"
    accepted = struct.unpack(">I", message[20:24])[0]
    if accepted:
        return f"accepted {accepted}"
    return "ret %d errno %d" % struct.unpack(">ii", message[24:32])


def connect(port):
    peer = socket.create_connection((HOST, port), timeout=5)
    peer.settimeout(3)
    return peer


def handshake(peer, **changed):
    given = {"remote-subvolume": BRICK, "fops-version": "1298437",
             "process-uuid": f"CTX_ID:{uuid.uuid4()}-GRAPH_ID:0-PID:1-HOST:x-PC_NAME:x-RECON_NO:-0"}
    given.update({name.replace("_", "-"): value for name, value in changed.items()})
    given = {name: value for name, value in given.items() if value is not None}
    peer.sendall(record(call(HANDSHAKE, 2, 1, options(given))))
    return answer(peer)


def pings(port):
    try:
        with connect(port) as peer:
            peer.sendall(PING)
            return answer(peer) == "ret 0 errno 0"
    except OSError:
        return False


def report(what, port, got):
    alive = "" if port == PEER_PORT or pings(port) else ", and it serves nobody any more"
    print(f"{what}\t{got}{alive}", flush=True)


def sends(what, port, data):
    try:
        with connect(port) as peer:
            try:
                peer.sendall(data)
                got = answer(peer)
            except ConnectionError:
                got = "closed"
    except OSError as error:
        got = f"cannot connect: {error}"
    report(what, port, got)


def brick_fop(what, procedure, body, tail=b""):
    with connect(BRICK_PORT) as peer:
        joined = handshake(peer)
        assert joined.startswith("ret 0"), joined
        peer.sendall(record(call(FOP, 400, procedure, body + tail)))
        report(what, BRICK_PORT, answer(peer))


for name, port in (("daemon", DAEMON_PORT), ("brick", BRICK_PORT)):
    sends(f"{name}: noise", port, record(os.urandom(200)))
    sends(f"{name}: a record of 2 GiB", port, b"\xff\xff\xff\xff" + bytes(100))
    sends(f"{name}: an empty record", port, u32(0x80000000))
    sends(f"{name}: half a header", port, record(u32(7) + u32(0)))
    sends(f"{name}: a reply that nobody asked for", port, record(u32(7) + u32(1) + u32(0) * 4))
    sends(f"{name}: HTTP", port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    sends(f"{name}: TLS", port, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(500))
    sends(f"{name}: RPC version 3", port, record(call(DUMP, 1, 2, b"", rpc=3)))
    sends(f"{name}: unknown program", port, record(call(99, 1, 1, b"")))
    sends(f"{name}: unknown version", port, record(call(HANDSHAKE, 77, 1, b"")))
    sends(f"{name}: unknown procedure", port, record(call(HANDSHAKE, 2, 200, b"")))
    sends(f"{name}: a credential of 4 GiB", port, record(call(DUMP, 1, 2, b"", cred=u32(390040) + u32(0xFFFFFFFF))))
sends("peer port: noise", PEER_PORT, os.urandom(200))
sends("daemon: a string longer than the message", DAEMON_PORT, record(call(HANDSHAKE, 2, 2, u32(0) + u32(0xFFFFFFF0))))
sends("daemon: volfile of no volume", DAEMON_PORT, record(call(HANDSHAKE, 2, 2, u32(0) + text("/nosuch") + opaque(b""))))
sends("daemon: volfile ../../../etc/passwd", DAEMON_PORT,
      record(call(HANDSHAKE, 2, 2, u32(0) + text("../../../etc/passwd") + opaque(b""))))
sends("daemon: port of no brick", DAEMON_PORT, record(call(PORTMAP, 1, 1, text("/nosuch"))))
sends("brick: a fop before the handshake", BRICK_PORT, record(call(FOP, 400, 1, ROOT + NO_XDATA)))
sends("brick: a handshake of noise", BRICK_PORT, record(call(HANDSHAKE, 2, 1, opaque(b"\xff" * 40))))
for what, changed in {
    "without a version": {"fops_version": None},
    "without an identity": {"process_uuid": None},
    "for no brick": {"remote_subvolume": "/nosuch"},
    "for another volume": {"volume_id": str(uuid.uuid4())},
}.items():
    with connect(BRICK_PORT) as peer:
        report(f"brick: handshake {what}", BRICK_PORT, handshake(peer, **changed))
brick_fop("brick: truncated fop", 1, b"abc")
brick_fop("brick: unknown fop", 200, b"")
brick_fop("brick: lookup of ..", 27, ZERO + ROOT + u32(0) + text(".."), NO_XDATA)
brick_fop("brick: lookup of a/b", 27, ZERO + ROOT + u32(0) + text("a/b"), NO_XDATA)
brick_fop("brick: lookup of .glusterfs", 27, ZERO + ROOT + u32(0) + text(".glusterfs"), NO_XDATA)
brick_fop("brick: lookup of 300 letters", 27, ZERO + ROOT + u32(0) + text("n" * 300), NO_XDATA)
brick_fop("brick: stat of gfid 0", 1, ZERO, NO_XDATA)
brick_fop("brick: stat of an unknown gfid", 1, uuid.uuid4().bytes, NO_XDATA)
brick_fop("brick: fstat of an unknown fd", 25, ROOT + u64(99), NO_XDATA)
brick_fop("brick: read of a directory", 12, ROOT + u64(-2) + u64(0) + u32(100) + u32(0), NO_XDATA)
brick_fop("brick: mkdir without a gfid", 4, ROOT + u32(0o755) + u32(0) + text("evil"), NO_XDATA)
brick_fop("brick: mkdir of ../evil", 4, ROOT + u32(0o755) + u32(0) + text("../evil"), NO_XDATA)
brick_fop("brick: unlink of ..", 5, ROOT + text("..") + u32(0), NO_XDATA)
brick_fop("brick: removal of trusted.gfid", 19, ROOT + text("trusted.gfid"), NO_XDATA)
brick_fop("brick: a dict of 4 billion pairs", 1, ROOT, u32(12) + u32(0xFFFFFFFF) + u32(0xFFFFFFFF))
brick_fop("brick: a write longer than said", 13, ROOT + u64(-2) + u64(0) + u32(1) + u32(0), NO_XDATA + b"many bytes")
