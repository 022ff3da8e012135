#!/usr/bin/env python3
"""How long after being asked the first byte of a blob comes that the cache does not have, beside the same blob from the
upstream itself. README.md says how each number is made.

usage: tests/bench/first_byte.py BERTH_BINARY [--blobs N]
It starts and stops everything by itself. It ends with 1 if something came wrong, never because something was slow."""

import sys

sys.dont_write_bytecode = True

import argparse
import asyncio
import hashlib
import http.client
import os
import signal
import statistics
import time
from contextlib import ExitStack
from pathlib import Path

import pull_through
from lifecycle import Table
from pull_through import CACHE, TAG, TENANT, Bench, Embedded, Image, Process, Replica, prepare, started
from servers import MANIFEST_TYPE, REPOSITORY, Distribution

SIZE = 256 << 10
# Seconds from a question to when the upstream gets it: on this machine, and as from a registry some way off.
LATENCIES = [0.0, 0.04]
GOAL = 1.1


def first_bytes(port, host, repository, image):
    """Milliseconds until the first byte of each layer, one layer after the other. All of it is read and compared."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", f"/v2/{repository}/manifests/{TAG}", headers={"Host": host, "Accept": MANIFEST_TYPE})
    manifest = connection.getresponse().read()
    if f"sha256:{hashlib.sha256(manifest).hexdigest()}" != image.manifest[0]:
        raise SystemExit(f"{host}: not the manifest")
    taken = []
    for digest, _ in image.blobs[1:]:
        asked = time.monotonic()
        connection.request("GET", f"/v2/{repository}/blobs/{digest}", headers={"Host": host})
        answer = connection.getresponse()
        hashed = hashlib.sha256(answer.read(1))
        taken.append((time.monotonic() - asked) * 1e3)
        hashed.update(answer.read())
        if answer.status != 200 or f"sha256:{hashed.hexdigest()}" != digest:
            raise SystemExit(f"{host}: {answer.status}, not the blob {digest}")
    connection.close()
    return taken


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("berth", type=Path)
    arguments.add_argument("--blobs", type=int, default=100)
    asked = arguments.parse_args()
    # Everything is stopped however this ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ["BERTH_BIN"] = str(asked.berth.resolve(strict=True))
    with ExitStack() as stack:
        folder = prepare(stack)
        upstream = started(stack, Distribution)
        image = Image(folder, upstream, asked.blobs * SIZE, asked.blobs)
        table = Table()
        print(f"{os.cpu_count()} cores, load before {os.getloadavg()[0]:.1f}; {asked.blobs} blobs", flush=True)
        for latency in LATENCIES:
            way = Process(stack, "line", upstream.ports[0], latency)
            bench = Bench(image, way)
            port = int(bench.upstream.rsplit(":", 1)[1])
            # The first time is the upstream's own cold one.
            for _ in range(2):
                direct = first_bytes(port, f"127.0.0.1:{port}", REPOSITORY, image)
            base = statistics.median(direct)
            what = f"latency {latency * 1e3:.0f} ms: first byte"
            table.add(what, "upstream", shown(direct))
            for name, server in [("Postgres, S3", Replica), ("SQLite", Embedded)]:
                with ExitStack() as running:
                    site = started(running, server)
                    site.configure(bench.upstream)
                    host = f"{TENANT}.localhost"
                    bench.know(site.ports[0], host, "absent")
                    taken = first_bytes(site.ports[0], host, f"{CACHE}/{REPOSITORY}", image)
                    table.add(f"{what} / direct", name, shown(taken), statistics.median(taken) / base, GOAL)


def shown(taken):
    return f"median {statistics.median(taken):.1f}, of ten the ninth {statistics.quantiles(taken, n=10)[8]:.1f} ms"


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["line", port, latency]:
            asyncio.run(pull_through.line(int(port), float(latency)))
        case _:
            main()
