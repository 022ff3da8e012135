#!/usr/bin/env python3
"""One image that many clients pull at once through a cache that has nothing yet, beside one client that pulls it from
the upstream itself. README.md says how each number is made.

usage: tests/bench/pull_through.py BERTH_BINARY [--mib N] [--clients N] [--json FILE]
It starts PostgreSQL, the S3 server and the upstream by itself, and stops them. It ends with 1 if the upstream was asked
for something twice or a client got something wrong, never because something was slow."""

import sys

sys.dont_write_bytecode = True

import argparse
import asyncio
import hashlib
import http.client
import json
import os
import random
import resource
import select
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import servers
from lifecycle import Table
from servers import REPOSITORY, Berth, DistributedBerth, Distribution

MIB = 1 << 20
LAYERS = 4
TAG = "v1"
TENANT = "acme"
CACHE = "up"
# How fast the upstream is.
LINE = 10 * MIB
# Bytes that have the line to themselves, and how far the line makes up for having slept too long.
PIECE = 16 << 10
SLACK = 0.01
# Connections of a client, as containerd has them.
AT_ONCE = 3
# Clients that hash what they get, beside the manifest and the config that all of them hash.
HASHING = 5
SMALL = MIB
# Bytes of one read, and how many a client lets come before it reads.
READ = 256 << 10
ENOUGH = 128 << 10
# Seconds without a byte for any client.
SILENCE = 120
LONGEST_WAIT = 60
GOAL = 1.3
ROOT = Path(__file__).resolve().parents[2]


# -- The line to the upstream: a process of its own --------------------------------------------------------


class Line:
    """HTTP/1.1 to the upstream. All bodies together go at one rate; what is asked for is counted."""

    def __init__(self, upstream, latency=0.0):
        self.upstream, self.latency = upstream, latency
        self.free_at = 0.0
        self.asked = {}

    async def carry(self, size):
        now = time.monotonic()
        self.free_at = max(self.free_at, now - SLACK) + size / LINE
        if self.free_at > now:
            await asyncio.sleep(self.free_at - now)

    async def serve(self, reader, writer):
        there = None
        try:
            answers, there = await asyncio.open_connection("127.0.0.1", self.upstream)
            while True:
                question = await reader.readuntil(b"\r\n\r\n")
                method, path = question.split(b" ", 2)[:2]
                if method not in (b"GET", b"HEAD"):
                    return
                name = f"{method.decode()} {path.decode()}"
                self.asked[name] = self.asked.get(name, 0) + 1
                await asyncio.sleep(self.latency)
                there.write(question)
                answer = await answers.readuntil(b"\r\n\r\n")
                writer.write(answer)
                left = 0 if method == b"HEAD" else length(answer)
                while left > 0:
                    piece = await answers.readexactly(min(left, PIECE))
                    await self.carry(len(piece))
                    writer.write(piece)
                    await writer.drain()
                    left -= len(piece)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            # Either side is gone, and so is the connection to the other.
            pass
        finally:
            writer.close()
            if there is not None:
                there.close()


async def line(upstream, latency=0.0):
    """Prints its port, then for each line of its input what was asked until then. Ends with its input."""
    carrier = Line(upstream, latency)
    server = await asyncio.start_server(carrier.serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    while order := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(carrier.asked), flush=True)
        if order == "forget\n":
            carrier.asked = {}


def status(head):
    return int(head[9:12])


def length(head):
    """Of an answer's body."""
    if status(head) in (204, 304):
        return 0
    for field in head.split(b"\r\n")[1:]:
        name, _, value = field.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise OSError(f"an answer that does not say its length: {head[:200]}")


# -- Clients: some in one process, each with connections of its own ----------------------------------------


class Wrong(Exception):
    """Something came that should not have."""


class Client:
    """One pull: the manifest by its tag, then the config and the layers, three at a time."""

    def __init__(self, order, is_hashing, crowd):
        self.order, self.is_hashing, self.crowd = order, is_hashing, crowd
        self.bytes, self.bodies, self.done, self.wrong = 0, [], None, None
        self.queue = [tuple(blob) for blob in order["blobs"]]
        self.open = []

    def begin(self):
        digest, size = self.order["manifest"]
        self.connect().ask(f"manifests/{TAG}", digest, size)

    def connect(self):
        connection = Connection(self)
        self.open.append(connection)
        self.crowd.add(connection)
        return connection

    def got(self, connection):
        """A body has come to its end: the connection is free."""
        now = time.monotonic()
        self.bodies.append((connection.path, connection.asked_at, connection.first_at, now))
        if connection.path.startswith("manifests/"):
            more = min(AT_ONCE, len(self.queue)) - 1
            for free in [connection, *(self.connect() for _ in range(more))]:
                self.next(free)
        elif self.queue:
            self.next(connection)
        else:
            self.close(connection)
            if not self.open:
                self.done = now

    def next(self, connection):
        digest, size = self.queue.pop(0)
        connection.ask(f"blobs/{digest}", digest, size)

    def close(self, connection):
        self.open.remove(connection)
        self.crowd.remove(connection)
        connection.socket.close()

    def fail(self, connection, why):
        self.wrong = f"{connection.path} from {':'.join(map(str, self.order['address']))}: {why}"
        for one in list(self.open):
            self.close(one)


class Connection:
    """Asks for one thing after the other."""

    # What is read is hashed or dropped, by one at a time.
    buffer = bytearray(READ)

    def __init__(self, client):
        self.client = client
        self.socket = socket.create_connection(client.order["address"], timeout=SILENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.enough, self.path = 1, ""

    def ask(self, path, digest, size):
        order = self.client.order
        self.path, self.digest, self.size, self.left, self.head = path, digest, size, None, b""
        self.asked_at, self.first_at = time.monotonic(), None
        self.hash = hashlib.sha256() if self.client.is_hashing or size <= SMALL else None
        question = (
            f"GET /v2/{order['repository']}/{path} HTTP/1.1\r\nHost: {order['host']}\r\n"
            f"Accept: {servers.MANIFEST_TYPE}\r\nUser-Agent: berth-bench\r\n\r\n"
        )
        self.wait_for(1)
        self.socket.send(question.encode())

    def wait_for(self, count):
        """How many bytes wake the client up. It costs little beside the registry, though it reads what trickles."""
        if count != self.enough:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
            self.enough = count

    def ready(self):
        if self.left is None:
            self.begin_answer()
        else:
            # With MSG_TRUNC the kernel drops the bytes instead of copying them.
            flags = socket.MSG_TRUNC if self.hash is None else 0
            count = self.socket.recv_into(self.buffer, min(READ, self.left), flags)
            self.take(memoryview(self.buffer)[:count])
        if self.left == 0:
            if self.hash is not None and f"sha256:{self.hash.hexdigest()}" != self.digest:
                raise Wrong("other bytes than the digest says")
            self.client.got(self)
        elif self.left is not None:
            self.wait_for(min(self.left, ENOUGH))

    def begin_answer(self):
        piece = self.socket.recv(READ)
        self.head += piece
        head, end, body = self.head.partition(b"\r\n\r\n")
        if not end:
            if not piece:
                raise Wrong("closed without an answer")
            return
        if status(head) != 200:
            raise Wrong(f"{head.decode(errors='replace')!r} {body[:300]!r}")
        if length(head) != self.size:
            raise Wrong(f"{length(head)} bytes instead of {self.size}")
        self.left = self.size
        if body:
            self.take(body)

    def take(self, piece):
        if not piece:
            raise Wrong(f"broke off {self.left} bytes before the end")
        if len(piece) > self.left:
            raise Wrong("more bytes than the answer has")
        if self.first_at is None:
            self.first_at = time.monotonic()
        self.left -= len(piece)
        self.client.bytes += len(piece)
        if self.hash is not None:
            self.hash.update(piece)


class Crowd:
    """The connections of all clients of a process."""

    def __init__(self):
        self.poll, self.connections = select.epoll(), {}

    def add(self, connection):
        self.connections[connection.socket.fileno()] = connection
        self.poll.register(connection.socket, select.EPOLLIN)

    def remove(self, connection):
        del self.connections[connection.socket.fileno()]
        self.poll.unregister(connection.socket)

    def run(self):
        """Until all clients are done."""
        while self.connections:
            events = self.poll.poll(SILENCE)
            for number, _ in events:
                # Its client may have failed meanwhile.
                if (connection := self.connections.get(number)) is None:
                    continue
                try:
                    connection.ready()
                except BlockingIOError:
                    pass
                except (Wrong, OSError) as error:
                    connection.client.fail(connection, repr(error))
            while self.connections and not events:
                connection = next(iter(self.connections.values()))
                connection.client.fail(connection, f"no byte for {SILENCE} s")


def clients():
    """Reads an order, then the time when to begin; prints what each client saw."""
    order, crowd = json.loads(sys.stdin.readline()), Crowd()
    every = [Client(order, number in order["hashing"], crowd) for number in range(order["clients"])]
    print("ready", flush=True)
    start = float(sys.stdin.readline())
    time.sleep(max(0, start - time.monotonic()))
    before = cpu()
    for client in every:
        client.begin()
    crowd.run()
    spent = cpu() - before
    seen = [
        {
            "seconds": client.done and client.done - start,
            # Each body: when it was asked for, when its first and its last byte had come.
            "bodies": {path: [moment - start for moment in moments] for path, *moments in client.bodies},
            "bytes": client.bytes,
            "hashed": client.is_hashing,
            "wrong": client.wrong,
        }
        for client in every
    ]
    print(json.dumps({"cpu": spent, "seen": seen}))


def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# -- What is started ---------------------------------------------------------------------------------------


class Process:
    """This program in another role. It ends when its input does."""

    def __init__(self, stack, *role):
        command = [sys.executable, sys.argv[0], *map(str, role)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stack.callback(self.stop)

    def say(self, text):
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()

    def hear(self):
        heard = self.process.stdout.readline()
        if not heard:
            raise RuntimeError(f"{self.process.args[2]} ended before it was done")
        return heard

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Caching:
    """A registry that may reach upstreams on loopback."""

    flags = ()

    def command(self):
        flags = ["--egress-allow=127.0.0.1", f"--peer-address=127.0.0.1:{self.ports[0]}", *self.flags]
        return [*super().command(), *flags]

    def environment(self):
        return {**super().environment(), "NO_PROXY": "127.0.0.1"}

    def configure(self, upstream):
        key = (self.folder / "data" / "keys" / "admin").read_text().split()[0]
        specs = {
            f"tenants/{TENANT}": {"repositories": {"visibility": "Public"}},
            f"tenants/{TENANT}/caches/{CACHE}": {"upstream": {"url": upstream}, "prefix": CACHE},
        }
        for path, spec in specs.items():
            connection = http.client.HTTPConnection("127.0.0.1", self.ports[1], timeout=LONGEST_WAIT)
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            connection.request("PUT", f"/admin/v1/{path}", json.dumps({"spec": spec}), headers)
            answer = connection.getresponse()
            told = answer.read()
            connection.close()
            if answer.status >= 300:
                raise RuntimeError(f"{path}: {answer.status} {told}")

    def complaints(self):
        """What it logged that is no information, once each."""
        lines = (self.folder / "log").read_text(errors="replace").splitlines()
        # Without their times.
        return list(dict.fromkeys(line.split(",", 1)[-1] for line in lines if '"INFO"' not in line))


class Embedded(Caching, Berth):
    """SQLite and a folder."""


class Replica(Caching, DistributedBerth):
    """Postgres and S3; a further one shares the stores and keys of the first."""

    def __init__(self, first=None):
        self.first = first
        super().__init__()

    def stores(self):
        if self.first is None:
            self.shared = super().stores()
            return self.shared
        self.database = self.first.database
        return [*self.first.shared, f"--keys={self.first.folder / 'data' / 'keys'}"]

    def stop(self):
        # The database goes with the first.
        (super() if self.first is None else super(DistributedBerth, self)).stop()


def started(stack, server, *arguments):
    one = server(*arguments)
    stack.callback(one.stop)
    return one


def prepare(stack):
    """A folder for everything, the programs, PostgreSQL and the S3 server."""
    folder = Path(tempfile.mkdtemp(prefix="berth-bench-pull-through-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    # PostgreSQL is another user.
    folder.chmod(0o711)
    tempfile.tempdir = str(folder)
    tools = ROOT / "tests" / "tools"
    if not all(map(shutil.which, ("registry", "versitygw"))):
        built = subprocess.run([tools / "install", "go"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        os.environ["PATH"] = f"{built}:{os.environ['PATH']}"
    if "BERTH_TEST_POSTGRES" not in os.environ:
        stores = folder / "stores"
        stack.callback(subprocess.run, [tools / "servers", "stop", stores])
        subprocess.run([tools / "servers", "start", stores], check=True)
        source = ["bash", "-c", '. "$1" && env -0', "-", stores / "env"]
        shown = subprocess.run(source, stdout=subprocess.PIPE, text=True, check=True).stdout
        os.environ.update(pair.split("=", 1) for pair in shown.split("\0") if pair)
    return folder


class Image:
    """Layers of random bytes, at the upstream."""

    def __init__(self, folder, upstream, size, layers=LAYERS):
        config = folder / "config"
        config.write_text(json.dumps({"architecture": "amd64", "os": "linux", "created": str(time.time_ns())}))
        digest = f"sha256:{hashlib.sha256(config.read_bytes()).hexdigest()}"
        upstream.put_blob(config, digest)
        self.blobs = [(digest, config.stat().st_size)]
        for _ in range(layers):
            layer, digest = servers.content(folder, size // layers)
            upstream.put_blob(layer, digest)
            self.blobs.append((digest, size // layers))
            layer.unlink()
        kinds = ["config.v1+json", *["layer.v1.tar"] * layers]
        parts = [
            {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": size}
            for kind, (digest, size) in zip(kinds, self.blobs)
        ]
        content = {"schemaVersion": 2, "mediaType": servers.MANIFEST_TYPE, "config": parts[0], "layers": parts[1:]}
        manifest = json.dumps(content).encode()
        upstream.put_manifest(manifest, TAG)
        self.manifest = (f"sha256:{hashlib.sha256(manifest).hexdigest()}", len(manifest))
        self.bytes = sum(size for _, size in [self.manifest, *self.blobs])


# -- What is measured --------------------------------------------------------------------------------------


class Pull:
    """What clients saw that pulled the image at the same time, divided evenly among the doors: the port, the host and
    the repository to ask for. Each door has a process of clients."""

    def __init__(self, image, doors, count):
        hashing = random.sample(range(count), min(HASHING, count))
        with ExitStack() as stack:
            processes = []
            for number, (port, host, repository) in enumerate(doors):
                mine = range(number, count, len(doors))
                process = Process(stack, "clients")
                order = {
                    "address": ["127.0.0.1", port],
                    "host": host,
                    "repository": repository,
                    "manifest": image.manifest,
                    "blobs": image.blobs,
                    "clients": len(mine),
                    "hashing": [index for index, one in enumerate(mine) if one in hashing],
                }
                process.say(json.dumps(order))
                process.hear()
                processes.append(process)
            os.sync()
            begun, before = time.monotonic(), machine()
            for process in processes:
                process.say(begun + 0.2)
            told = [json.loads(process.hear()) for process in processes]
            self.busy = (machine() - before) / (time.monotonic() - begun) / os.cpu_count()
        seen = [client for process in told for client in process["seen"]]
        self.wrong = [client["wrong"] for client in seen if client["wrong"]]
        self.wrong += [
            f"a client got {client['bytes']} bytes of {image.bytes}"
            for client in seen
            if not client["wrong"] and client["bytes"] != image.bytes
        ]
        self.seconds = sorted(client["seconds"] for client in seen if client["seconds"]) or [float("nan")]
        layer = f"blobs/{image.blobs[1][0]}"
        moments = [client["bodies"][layer] for client in seen if layer in client["bodies"]] or [[float("nan")] * 3]
        # From when it was asked for, and from when the pull began, with the manifest before it.
        self.first_bytes = sorted(first - asked for asked, first, _ in moments)
        self.begun = sorted(first for _, first, _ in moments)
        self.bytes = sum(client["bytes"] for client in seen)
        self.slowest, self.median = self.seconds[-1], statistics.median(self.seconds)
        self.seen = [process["seen"] for process in told]
        self.client_cpu = [process["cpu"] for process in told]

    @property
    def rate(self):
        return self.bytes / self.slowest

    def limit(self):
        """What was at its end: then the figures are not the registry's alone."""
        if max(self.client_cpu) > 0.9 * self.slowest:
            return "; the clients were the limit"
        return "; the machine was the limit" if self.busy > 0.9 else ""


def machine():
    """Seconds of CPU that the machine has been busy."""
    user, nice, system, _, _, interrupts, soft, *_ = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:])
    return (user + nice + system + interrupts + soft) / servers.TICKS


class Bench:
    def __init__(self, image, way):
        self.image, self.way = image, way
        self.table, self.raw, self.wrong = Table(), {}, []
        self.upstream = f"http://127.0.0.1:{int(way.hear())}"

    def asked(self, order="forget"):
        """What the upstream was asked since this was asked last."""
        self.way.say(order)
        return json.loads(self.way.hear())

    def direct(self):
        port = int(self.upstream.rsplit(":", 1)[1])
        pull = Pull(self.image, [(port, f"127.0.0.1:{port}", REPOSITORY)], 1)
        figure = f"{pull.slowest:.2f} s, {pull.rate / MIB:.1f} MiB/s"
        self.table.add("direct pull by one client", "upstream", figure)
        figure = f"{pull.first_bytes[0] * 1e3:.0f} ms, {pull.begun[0] * 1e3:.0f} ms after the start"
        self.table.add("direct: first byte of a layer", "upstream", figure)
        self.count("upstream", pull, once=True)
        self.base = pull

    def cold_and_warm(self, name, sites, cold, warm):
        sites[0].configure(self.upstream)
        doors = [(site.ports[0], f"{TENANT}.localhost", f"{CACHE}/{REPOSITORY}") for site in sites]
        for number, (port, host, _) in enumerate(doors):
            self.know(port, host, f"absent-{number}")
        self.asked()
        before = [(site.resident_bytes(), site.cpu_seconds()) for site in sites]
        for site in sites:
            site.forget_peak()
        pull = Pull(self.image, doors, cold)
        peaks = [site.peak_bytes() for site in sites]
        spent = [site.cpu_seconds() - cpu for site, (_, cpu) in zip(sites, before)]
        grown = [peak - resident for peak, (resident, _) in zip(peaks, before)]

        self.count(name, pull, once=True)
        add, direct = self.table.add, self.base
        add(f"slowest of {cold} clients / direct", name, f"{pull.slowest:.2f} s", pull.slowest / direct.slowest, GOAL)
        add(f"median of {cold} clients / direct", name, f"{pull.median:.2f} s", pull.median / direct.slowest)
        for what, mine, theirs in [
            ("first byte of a layer / direct", pull.first_bytes, direct.first_bytes),
            ("the same from the start / direct", pull.begun, direct.begun),
        ]:
            figure = f"{mine[0] * 1e3:.0f} ms, last client {mine[-1] * 1e3:.0f} ms"
            add(what, name, figure, mine[0] / theirs[0])
        add("peak memory, of it grown in the pull", name, f"{mebibytes(peaks)}, {mebibytes(grown)} MiB")
        add("CPU, registry + clients", name, f"{seconds(spent)} + {seconds(pull.client_cpu)} s")
        print(f"{'':39} {name:18} {pull.busy:.0%} of {os.cpu_count()} cores busy{pull.limit()}", flush=True)

        self.raw[name] = {"cold": {**vars(pull), "peakBytes": peaks, "grownBytes": grown, "cpu": spent}}
        if self.wrong:
            for site in sites:
                self.wrong += [f"{name}: {line}" for line in site.complaints()[:5]]
            return
        again = Pull(self.image, doors, warm)
        self.count(name, again, once=False)
        add(f"warm, {warm} clients", name, f"{again.rate / 1e6:,.0f} MB/s")
        print(f"{'':39} {name:18} {again.busy:.0%} of {os.cpu_count()} cores busy{again.limit()}", flush=True)
        self.raw[name]["warm"] = vars(again)

    def know(self, port, host, absent):
        """Waits until a replica knows the cache, which shows when it asks the upstream for something."""
        path, told = f"/v2/{REPOSITORY}-{absent}/manifests/none", "none"
        deadline = time.monotonic() + LONGEST_WAIT
        while f"GET {path}" not in self.asked("tell"):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the cache is not in use within {LONGEST_WAIT} s; the last answer: {told}")
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONGEST_WAIT)
            connection.request("GET", path.replace("/v2/", f"/v2/{CACHE}/"), headers={"Host": host})
            answer = connection.getresponse()
            told = f"{answer.status} {answer.read()}"
            connection.close()
            time.sleep(0.05)

    def count(self, name, pull, once):
        """Whether everything was asked for once, or nothing at all; and whether the clients got what they should."""
        asked = self.asked()
        # Whether the upstream is there is asked now and then.
        gets = {path[4:]: times for path, times in asked.items() if path.startswith("GET ") and path != "GET /v2/"}
        manifests = [times for path, times in gets.items() if "/manifests/" in path]
        names = [f"/v2/{REPOSITORY}/blobs/{digest}" for digest, _ in self.image.blobs]
        blobs = [gets.get(path, 0) for path in names]
        figure = f"manifest {sum(manifests)}, blobs {' '.join(map(str, blobs))}"
        self.table.add(f"GETs at the upstream, {'cold' if once else 'warm'}", name, figure)
        expected = int(once)
        if sum(manifests) != expected or blobs != [expected] * len(blobs) or len(gets) != expected * (1 + len(blobs)):
            self.wrong.append(f"{name}: the upstream was asked {json.dumps(asked)}")
        if pull.wrong:
            examples = "; ".join(sorted(set(pull.wrong))[:3])
            self.wrong.append(f"{name}: {len(pull.wrong)} clients got something wrong: {examples}")


def mebibytes(counts):
    return " ".join(f"{count / MIB:.0f}" for count in counts)


def seconds(counts):
    return " ".join(f"{count:.1f}" for count in counts)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("berth", type=Path)
    arguments.add_argument("--mib", type=int, default=256, help="size of the image")
    arguments.add_argument("--clients", type=int, default=100, help="half of them ask the embedded registry")
    arguments.add_argument("--json", type=Path, help="where all figures go")
    asked = arguments.parse_args()
    # Everything is stopped however this ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ["BERTH_BIN"] = str(asked.berth.resolve(strict=True))
    with ExitStack() as stack:
        folder = prepare(stack)
        upstream = started(stack, Distribution)
        image = Image(folder, upstream, asked.mib * MIB)
        bench = Bench(image, Process(stack, "line", upstream.ports[0]))
        load = os.getloadavg()[0]
        print(f"{os.cpu_count()} cores, load before {load:.1f}; {asked.mib} MiB at {LINE / MIB:.0f} MiB/s", flush=True)
        bench.direct()
        warm = max(1, asked.clients // 5)
        with ExitStack() as running:
            first = started(running, Replica)
            bench.cold_and_warm("2 on Postgres, S3", [first, started(running, Replica, first)], asked.clients, warm)
        with ExitStack() as running:
            bench.cold_and_warm("1 on SQLite", [started(running, Embedded)], max(1, asked.clients // 2), warm)
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        everything = {"rows": bench.table.rows, "direct": vars(bench.base), **bench.raw}
        asked.json.write_text(json.dumps(everything, indent=1) + "\n")
        print(f"\nevery figure: {asked.json}")
    for one in bench.wrong:
        print(f"wrong: {one}", file=sys.stderr)
    sys.exit(1 if bench.wrong else 0)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["line", port]:
            asyncio.run(line(int(port)))
        case ["clients"]:
            clients()
        case _:
            main()
