#!/usr/bin/env python3
"""What a registry does beside its answers, by request: webhooks, and the counts of pulls. README.md says how each
number is made.

usage: tests/bench/besides.py BINARY CLIENT [--rounds N] [--seconds N] [--quick]
BINARY is the registry, CLIENT bench-client, both built for release. On SQLite and a folder, and on Postgres and S3 if
the environment names them, as within `tests/run`."""

import sys

sys.dont_write_bytecode = True

import argparse
import base64
import http.client
import json
import os
import signal
import statistics
import subprocess
import time

import servers
from servers import REPOSITORY, Berth, DistributedBerth

WORKERS = 16
TAGS = 1000
# Between two batches of counts, and a while.
COUNTED_SECONDS = 35
SECRET = "a webhook's secret"


class Client:
    def __init__(self, program):
        self.program = program

    def run(self, server, *arguments):
        """(operations, seconds)"""
        environment = {**os.environ, "BERTH_BENCH_BASIC": server.basic}
        done = subprocess.run(
            [self.program, *map(str, arguments)], capture_output=True, text=True, env=environment
        )
        if done.returncode != 0:
            raise RuntimeError(f"{arguments}: {done.stderr.strip()}")
        result = json.loads(done.stdout)
        return result["operations"], result["seconds"]

    def receiver(self):
        """(process, URL)"""
        port = servers.free_ports(1)[0]
        process = subprocess.Popen([self.program, "receive", str(port)])
        return process, f"http://127.0.0.1:{port}/"


def told(kind, webhook=None, like=None):
    """A server of this kind, whose tenant has a webhook at this URL; or one that reads what another one has."""

    class Told(kind):
        def command(self):
            command = [*super().command(), "--egress-allow=127.0.0.1"]
            if like:
                stores = [flag for flag in like.process.args if flag.startswith(("--metadata=", "--blobs="))]
                command += [*stores, f"--keys={like.folder / 'data' / 'keys'}", "--read-only=true"]
            return command

        def admin(self, method, path, body=None):
            key = (self.folder / "data" / "keys" / "admin").read_text().strip()
            connection = http.client.HTTPConnection("127.0.0.1", self.ports[1], timeout=60)
            connection.request(method, f"/admin/v1/{path}", body, {"Authorization": f"Bearer {key}"})
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 200, f"{path}: {answer.status} {text}"
            return json.loads(text)

        def waiting(self):
            return self.admin("GET", "tenants/default/webhooks")[0]["pending"]

    server = Told()
    if like:
        server.basic = like.basic
        return server
    hooks = [{"url": webhook, "events": ["push"], "secret": SECRET}] if webhook else []
    server.admin("PUT", "tenants/default", json.dumps({"spec": {"webhooks": hooks}}))
    grants = [{"repositories": ["**"], "actions": ["pull", "push"]}]
    made = server.admin("POST", "tenants/default/tokens", json.dumps({"name": "bench", "grants": grants}))
    server.basic = base64.b64encode(f"x-token:{made['token']}".encode()).decode()
    return server


def measured(server, load):
    """(operations a second, CPU microseconds an operation)"""
    os.sync()
    before = server.cpu_seconds()
    operations, seconds = load()
    return operations / seconds, (server.cpu_seconds() - before) * 1e6 / operations


def medians(rounds):
    return [statistics.median(column) for column in zip(*rounds)]


def show(work, rows):
    """`rows` are (name, rounds, remark); ratios are to the first."""
    print(f"\n{work}\n  {'':28} {'op/s':>8} {'ratio':>6} {'CPU us/op':>10}")
    first = medians(rows[0][1])[0]
    for name, rounds, remark in rows:
        rate, cpu = medians(rounds)
        print(f"  {name:28} {rate:8,.0f} {rate / first:6.2f} {cpu:10,.0f}  {remark}", flush=True)


def pushes(kind, client, load, rounds, seconds):
    """A server of its own with an empty store for each round, so that nothing waits from the round before."""
    receiver, taken = client.receiver()
    closed = f"http://127.0.0.1:{servers.free_ports(1)[0]}/"
    cases = [("no webhook", None), ("a receiver that takes", taken), ("a receiver that is down", closed)]
    results, remarks = {name: [] for name, _ in cases}, {}
    try:
        for turn in range(rounds):
            for name, webhook in cases[turn % 3:] + cases[: turn % 3]:
                server = told(kind, webhook)
                try:
                    asked = (load, server.repository, WORKERS, seconds)
                    results[name].append(measured(server, lambda: client.run(server, *asked)))
                    if webhook:
                        remarks.setdefault(name, []).append(server.waiting())
                finally:
                    server.stop()
    finally:
        receiver.terminate()
        receiver.wait()
    remark = {name: f"{statistics.median(waiting):,.0f} events wait at the end" for name, waiting in remarks.items()}
    show(f"{load}, {kind.name}", [(name, results[name], remark.get(name, "")) for name, _ in cases])


def fill(server):
    for number in range(TAGS):
        config = {"mediaType": "application/vnd.oci.image.index.v1+json", "annotations": {"n": str(number)}}
        manifest = json.dumps({"schemaVersion": 2, "manifests": [], **config})
        path = f"/v2/{REPOSITORY}/manifests/t{number}"
        headers = {"Content-Type": config["mediaType"], "Authorization": f"Basic {server.basic}"}
        done = server.request("PUT", path, manifest, headers)
        assert done.status == 201, done.status


def pulls(kind, client, rounds, seconds):
    """Servers run all the time and take turns. One that only reads Postgres counts no pulls; on SQLite there is none."""
    counting = told(kind)
    both = [("counts pulls", counting)]
    try:
        fill(counting)
        if kind is DistributedBerth:
            both.insert(0, ("reads only, counts none", told(Berth, like=counting)))
        results = {name: [] for name, _ in both}
        for turn in range(rounds):
            for name, server in both if turn % 2 == 0 else both[::-1]:
                load = ("tags", server.repository, TAGS, WORKERS, seconds)
                results[name].append(measured(server, lambda: client.run(server, *load)))
        idle = [server.cpu_seconds() for _, server in both]
        time.sleep(COUNTED_SECONDS)
        idle = [(server.cpu_seconds() - since) * 1e3 for (_, server), since in zip(both, idle)]
        remark = "{:,.0f} ms of CPU in " + f"{COUNTED_SECONDS} s without a request"
        rows = [(name, results[name], remark.format(spent)) for (name, _), spent in zip(both, idle)]
        show(f"GET by {TAGS} tags, {kind.name}", rows)
    finally:
        for _, server in reversed(both):
            server.stop()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("binary")
    arguments.add_argument("client")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=int, default=5)
    arguments.add_argument("--quick", action="store_true")
    asked = arguments.parse_args()
    if asked.quick:
        asked.rounds = asked.seconds = 1
    # The servers are stopped however this ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ["BERTH_BIN"] = asked.binary
    client = Client(asked.client)
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load before {load:.1f}; {asked.rounds} rounds of {asked.seconds} s, medians")
    for kind in [Berth] + ([DistributedBerth] if "BERTH_TEST_POSTGRES" in os.environ else []):
        for load in ("manifests", "images"):
            pushes(kind, client, load, asked.rounds, asked.seconds)
        pulls(kind, client, asked.rounds, asked.seconds)
    print(f"load after {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
