#!/usr/bin/env python3
"""How long the explorer's pages take in a tenant of 100,000 repositories, one of them with 100,000 tags. README.md says
how each number is made.

usage: tests/bench/explorer.py BERTH_BINARY [--quick]
It starts and stops everything by itself. It ends with 1 if something came wrong, never because something was slow."""

import sys

sys.dont_write_bytecode = True

import argparse
import http.client
import os
import signal
import statistics
import time
from contextlib import ExitStack
from pathlib import Path

from lifecycle import Lasting, LastingDistributed, Table, started
from pull_through import prepare
from servers import REPOSITORY

GOAL = 10
REQUESTS = 300

# By what a person does. A path with `{next}` goes on where the one before it ended.
PAGES = {
    "repositories by name": "/explorer/",
    "the next page": "/explorer/?after={next}",
    "repositories by last push": "/explorer/?sort=pushed",
    "the next page by last push": "/explorer/?sort=pushed&after={next}",
    "repositories by size": "/explorer/?sort=size",
    "a search that finds one": "/explorer/?q=team-7/app-77777",
    "tags by push": f"/explorer/r/{REPOSITORY}",
    "the next page of tags": f"/explorer/r/{REPOSITORY}?after={{next}}",
    "tags by name": f"/explorer/r/{REPOSITORY}?sort=name",
    "tags that begin with": f"/explorer/r/{REPOSITORY}?q=pr-4",
    "an image": f"/explorer/r/{REPOSITORY}/-/tags/v1",
    "a tag's history": f"/explorer/r/{REPOSITORY}/-/history/v1",
    "deleted tags": f"/explorer/r/{REPOSITORY}/-/deleted",
    "what would go": f"/explorer/r/{REPOSITORY}/-/delete/tags/v1",
    "images by build": "/explorer/builds?q=main-5",
    "usage": "/explorer/usage",
}


def fill(site, repositories, tags):
    """Repositories of a tag each, and one of many."""
    site.down()
    site.fill_tags(tags)
    first, now = 1_000_000_000, time.time_ns() // 1000
    name = "'team-' || (i % 10) || '/app-' || i"
    series = site.series(0, repositories)
    site.execute([
        "INSERT INTO repository (tenant_id, id, name, created_at) "
        f"SELECT {site.tenant}, {first} + i, {name}, 0 FROM {series}",
        "INSERT INTO usage (tenant_id, repository_id, bytes, tags, repositories, pushed_at) "
        f"SELECT {site.tenant}, {first} + i, (i * 7919) % 1000003, 1, 0, {now} - i * 1000000 FROM {series}",
        f"UPDATE usage SET repositories = repositories + {repositories} WHERE repository_id = 0",
    ])
    site.up()


def asked(connection, path):
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{path}: {answer.status} {body[:300]}")
    return body


def measure(site, table, requests):
    connection = http.client.HTTPConnection("127.0.0.1", site.ports[0], timeout=60)
    follow = ""
    for what, path in PAGES.items():
        path = path.replace("{next}", follow)
        body = asked(connection, path).decode()
        if 'rel="next" href="' in body:
            href = body.split('rel="next" href="')[1].split('"')[0]
            follow = href.split("after=")[1].split("&")[0] if "after=" in href else ""
        taken = []
        for _ in range(requests):
            begun = time.perf_counter()
            asked(connection, path)
            taken.append((time.perf_counter() - begun) * 1e3)
        taken.sort()
        middle, late = statistics.median(taken), taken[len(taken) * 99 // 100]
        figure = f"{middle:.2f} ms, p99 {late:.2f} ms, {len(body) / 1024:.0f} KiB"
        table.add(what, site.name, figure, middle, GOAL)
    connection.close()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("berth", type=Path)
    arguments.add_argument("--quick", action="store_true", help="little of everything; its figures say nothing")
    chosen = arguments.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ["BERTH_BIN"] = str(chosen.berth.resolve(strict=True))
    many, requests = (2_000, 10) if chosen.quick else (100_000, REQUESTS)
    with ExitStack() as stack:
        prepare(stack)
        table = Table()
        print(f"{os.cpu_count()} cores, load before {os.getloadavg()[0]:.1f}; milliseconds, goal {GOAL}", flush=True)
        for kind in [Lasting] + ([LastingDistributed] if "BERTH_TEST_POSTGRES" in os.environ else []):
            with ExitStack() as one:
                site = started(one, kind)
                fill(site, many, many)
                measure(site, table, requests)


if __name__ == "__main__":
    main()
