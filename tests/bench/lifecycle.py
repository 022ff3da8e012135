"""What time does to content: retention over a million tags, collection in a small and in a large store, requests
while garbage is collected, and usage. README.md says how each number is made.

The stores are filled by SQL while the registry is down, since pushing a million tags would take most of an hour;
what is measured then goes through its listeners."""

import hashlib
import http.client
import json
import os
import signal
import sqlite3
import statistics
import subprocess
import threading
import time
import uuid
from contextlib import ExitStack
from pathlib import Path

import servers
from servers import REPOSITORY, Berth, DistributedBerth

WORKS = ("retention", "usage", "garbage")
POLICY = "bench"
TENANT = "default"
DAY = 24 * 3600 * 1_000_000
KIB = 1 << 10
# When a review is due that waits for a rule.
PARKED = (1 << 63) - 1
# Tags that point to one manifest.
SHARED = 10
# A run that takes longer is told by what it has done until then.
LONGEST_RUN = 60
LONGEST_WAIT = 300


class Size:
    """How much of everything. `quick` shows that all of it runs; its figures say nothing."""

    def __init__(self, quick):
        self.few_tags = 1_000
        self.many_tags = 20_000 if quick else 1_000_000
        self.small = 2_000 if quick else 20_000
        self.garbage = 200 if quick else 2_000
        self.turns = 1 if quick else 2
        self.rounds = 1 if quick else 5
        self.seconds = 0.5 if quick else 3


def asked(words):
    """Those of the works that the words ask for; without a word all."""
    if not words:
        return list(WORKS)
    return [work for work in WORKS if any((work.startswith(word) or "lifecycle".startswith(word)) for word in words)]


def run(works, quick, output):
    size, table = Size(quick), Table()
    for kind in [Lasting] + ([LastingDistributed] if "BERTH_TEST_POSTGRES" in os.environ else []):
        if "retention" in works or "usage" in works:
            tags(kind, size, works, table)
        if "garbage" in works:
            garbage(kind, size, table)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(table.rows, indent=1) + "\n")
    print(f"\nevery row: {output}")


class Table:
    """Printed as it grows."""

    def __init__(self):
        self.rows = []

    def add(self, work, store, figure, ratio=None, goal=None, value=None):
        """`value` is what the goal, a maximum, is for; the ratio, if it is not given."""
        if not self.rows:
            print(f"\n{'work':39} {'store':18} {'figure':>34} {'ratio':>6} {'goal':>8}", flush=True)
        value = ratio if value is None else value
        unit = "" if value is ratio else " s"
        verdict = "" if goal is None else "ok" if value <= goal else "missed"
        shown = "-" if ratio is None else f"{ratio:.2f}"
        limit = "-" if goal is None else f"<= {goal}{unit}"
        print(f"{work:39} {store:18} {figure:>34} {shown:>6} {limit:>8} {verdict}", flush=True)
        self.rows.append(
            {"work": work, "store": store, "figure": figure, "ratio": ratio, "goal": goal, "verdict": verdict}
        )


# -- Registries that are stopped, filled and started again ------------------------------------------------


class Site:
    """A registry whose metadata can be written by SQL while it is down. The SQL is that of both stores; what
    differs are `digest(text)`, `object(text)`, `series` and `bytes`."""

    flags = []

    def command(self):
        # Once: it may make a database.
        if not hasattr(self, "arguments"):
            self.arguments = [*super().command(), *self.flags]
        return self.arguments

    def prepare(self):
        """One image, so that the repository is there as the registry makes it."""
        layer, name = servers.content(self.folder, 64 * KIB)
        self.put_blob(layer, name)
        self.blob = name
        descriptor = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "size": 64 * KIB, "digest": name}
        self.put_manifest(manifest(descriptor), "v1")
        key = (self.folder / "data" / "keys" / "admin").read_text().split()[0]
        self.authorization = {"Authorization": f"Bearer {key}"}
        self.down()
        self.tenant, self.id = self.rows(f"SELECT tenant_id, id FROM repository WHERE name = '{REPOSITORY}'")[0]
        self.up()
        return self

    def down(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(servers.STOP_SECONDS)

    def up(self):
        # What the filling left to be written is not measured.
        self.settle()
        os.sync()
        self.process = subprocess.Popen(
            self.command(), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=self.environment()
        )
        self.wait_ready()

    # -- Filling --------------------------------------------------------------------------------------

    def fill_tags(self, count):
        """Tags of four kinds, ten to a manifest, each manifest with a blob of its own and one that all share."""
        now = time.time_ns() // 1000
        kinds = [
            # name, number of the first and behind the last, pushed so many days ago
            ("'v' || (i / 10000) || '.' || (i / 100 % 100) || '.' || (i % 100)", 0, count // 10, 1, 300),
            ("'main-' || i", count // 10, count * 49 // 100, 1, 20),
            ("'pr-' || i", count * 49 // 100, count * 99 // 100, 40, 90),
            ("'old-' || i", count * 99 // 100, count, 110, 200),
        ]
        self.fill_manifests("tagged", 0, count // SHARED)
        statements = []
        for name, begin, end, newest, oldest in kinds:
            age = f"{newest * DAY} + CAST(i - {begin} AS BIGINT) * {(oldest - newest) * DAY // (end - begin)}"
            statements.append(
                "INSERT INTO tag (tenant_id, repository_id, name, digest, created_at, pushed_at, pushed_by) SELECT "
                f"{self.tenant}, {self.id}, {name}, digest('tagged' || (i / {SHARED})), {now} - ({age}), "
                f"{now} - ({age}), 'bench' FROM {self.series(begin, end)}"
            )
        self.execute([*statements, f"UPDATE usage SET tags = tags + {count}"])

    def fill_manifests(self, word, begin, end):
        """Manifests that name a blob of their own, and one that all of them share."""
        here = f"{self.tenant}, {self.id}"
        statements = [
            # As large as a small image's.
            "INSERT INTO manifest (tenant_id, repository_id, digest, media_type, artifact_type, subject, payload, size, "
            "pushed_at, pushed_by, leased_until, pulled_at) "
            f"SELECT {here}, digest('{word}' || i), '{servers.MANIFEST_TYPE}', NULL, NULL, "
            f"{self.bytes(700)}, 700, 0, 'bench', 0, NULL FROM {self.series(begin, end)}",
            f"INSERT INTO blob SELECT {self.tenant}, digest('blob-{word}' || i), object('blob-{word}' || i), 512, 0, 0 "
            f"FROM {self.series(begin, end)}",
            f"INSERT INTO repository_blob SELECT {here}, digest('blob-{word}' || i), 0 FROM {self.series(begin, end)}",
            f"INSERT INTO manifest_blob SELECT {here}, digest('{word}' || i), digest('blob-{word}' || i) "
            f"FROM {self.series(begin, end)}",
            f"INSERT INTO manifest_blob SELECT {here}, digest('{word}' || i), {self.literal(self.blob)} "
            f"FROM {self.series(begin, end)}",
            f"UPDATE usage SET bytes = bytes + {(700 + 512) * (end - begin)}, "
            f"stored = stored + CASE WHEN repository_id = 0 THEN {512 * (end - begin)} ELSE 0 END",
        ]
        self.execute(statements)

    def fill_others(self, begin, end):
        """Images in use; of ten manifests one is an index of two others, and one without a tag waits for a rule."""
        self.fill_manifests("other", begin, end)
        self.execute([
            "INSERT INTO manifest_child (tenant_id, repository_id, parent, child, kind) SELECT "
            f"{self.tenant}, {self.id}, digest('other' || (i / 10 * 10)), digest('other' || i), 0 "
            f"FROM {self.series(begin, end)} WHERE i % 10 IN (1, 2)",
            "INSERT INTO review_manifest (tenant_id, repository_id, digest, due_at, since, condemned) SELECT "
            f"{self.tenant}, {self.id}, digest('other' || i), {PARKED}, 0, 0 FROM {self.series(begin, end)} "
            "WHERE i % 10 = 3",
            "INSERT INTO tag (tenant_id, repository_id, name, digest, created_at, pushed_at, pushed_by) SELECT "
            f"{self.tenant}, {self.id}, 'other-' || i, digest('other' || i), i, i, 'bench' "
            f"FROM {self.series(begin, end)} WHERE i % 10 <> 3",
            f"UPDATE usage SET tags = tags + {(end - begin) * 9 // 10}",
        ])

    def fill_garbage(self, word, count):
        """Images that lost their last tag and whose time is over, with the objects of their blobs."""
        self.fill_manifests(word, 0, count)
        self.execute([
            "INSERT INTO review_manifest (tenant_id, repository_id, digest, due_at, since, condemned) SELECT "
            f"{self.tenant}, {self.id}, digest('{word}' || i), i, 0, 1 FROM {self.series(0, count)}"
        ])
        content, folder = os.urandom(512), self.objects()
        for shard in range(256):
            (folder / f"{shard:02x}").mkdir(parents=True, exist_ok=True)
        for number in range(count):
            key = object_key(f"blob-{word}{number}")
            (folder / f"{key.bytes[15]:02x}" / str(key)).write_bytes(content)

    # -- Asking ---------------------------------------------------------------------------------------

    def ask(self, method, path, body=None):
        """The status and the JSON of an answer of the admin API."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[1], timeout=LONGEST_WAIT)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, f"/admin/v1/{path}", text, self.authorization)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def told(self, method, path, body=None):
        """The JSON of an answer that is not refused."""
        status, told = self.ask(method, path, body)
        if status >= 300:
            raise RuntimeError(f"{self.name}: {method} {path}: {status} {told}")
        return told

    def tag_count(self):
        return self.told("GET", f"tenants/{TENANT}/catalog")["repositories"][0]["tags"]

    def pause(self, paused):
        self.told("PUT", "gc/paused", {"paused": paused})

    def collected(self):
        """Manifests, blobs and objects that have been collected. What the pushes make it look at comes besides."""
        counts = self.told("GET", "gc")["collected"]
        return counts["manifests"] + counts["blobs"] + counts["objects"]

    def queues(self):
        """Manifests, blobs and objects that wait for collection."""
        queues = self.told("GET", "gc")["queues"]
        return queues["manifests"], queues["blobs"], queues["objects"]


class Lasting(Site, Berth):
    """SQLite and a folder."""

    def objects(self):
        return self.folder / "data" / "blobs" / "blobs"

    def connect(self):
        database = sqlite3.connect(self.folder / "data" / "berth.db", isolation_level=None)
        database.create_function("digest", 1, digest, deterministic=True)
        database.create_function("object", 1, lambda text: object_key(text).bytes, deterministic=True)
        return database

    def rows(self, query):
        database = self.connect()
        found = database.execute(query).fetchall()
        database.close()
        return found

    def execute(self, statements):
        database = self.connect()
        # The registry is down: what breaks off here is filled anew, and need not be written twice.
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -1048576", "temp_store = MEMORY"):
            database.execute(f"PRAGMA {pragma}")
        database.execute("BEGIN IMMEDIATE")
        for statement in statements:
            database.execute(statement)
        database.execute("COMMIT")
        database.execute("PRAGMA journal_mode = WAL")
        database.close()

    def settle(self):
        """Nothing is left behind."""

    @staticmethod
    def series(begin, end):
        return (
            f"(WITH RECURSIVE n(i) AS (SELECT {begin} UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {end}) "
            "SELECT i FROM n)"
        )

    @staticmethod
    def bytes(count):
        return f"randomblob({count})"

    @staticmethod
    def literal(name):
        return f"X'01{name.removeprefix('sha256:')}'"


class LastingDistributed(Site, DistributedBerth):
    """Postgres and the run's S3 server."""

    def objects(self):
        return Path(os.environ["BERTH_TEST_S3_FOLDER"]) / self.database / "blobs"

    def sql(self, text):
        program = Path(os.environ.get("BERTH_TEST_POSTGRES_BIN", "/usr/lib/postgresql/15/bin")) / "psql"
        url = f"{os.environ['BERTH_TEST_POSTGRES'].rsplit('/', 1)[0]}/{self.database}"
        command = [program, "-qXAt", "-v", "ON_ERROR_STOP=1", "-d", url]
        done = subprocess.run(command, input=text, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{text[:200]}: {done.stderr.strip()}")
        return done.stdout

    def rows(self, query):
        return [line.split("|") for line in self.sql(query).splitlines()]

    def execute(self, statements):
        functions = (
            "CREATE FUNCTION pg_temp.digest(text) RETURNS bytea LANGUAGE sql IMMUTABLE AS "
            r"$$SELECT '\x01'::bytea || sha256(convert_to($1, 'UTF8'))$$; "
            "CREATE FUNCTION pg_temp.object(text) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$SELECT md5($1)::uuid$$;"
        )
        for name in ("digest", "object"):
            statements = [statement.replace(f" {name}(", f" pg_temp.{name}(") for statement in statements]
        self.sql(f"{functions} BEGIN; {'; '.join(statements)}; COMMIT;")

    def settle(self):
        # As autovacuum would have left what grew to this size over months.
        self.sql("VACUUM ANALYZE")

    @staticmethod
    def series(begin, end):
        return f"generate_series({begin}::bigint, {end - 1}) AS n(i)"

    @staticmethod
    def bytes(count):
        # It is not compressible in the way that matters: it stays in the row.
        return f"decode(repeat('00', {count}), 'hex')"

    @staticmethod
    def literal(name):
        return rf"'\x01{name.removeprefix('sha256:')}'::bytea"


def digest(text):
    return b"\x01" + hashlib.sha256(text.encode()).digest()


def object_key(text):
    return uuid.UUID(bytes=hashlib.md5(text.encode()).digest())


def manifest(descriptor):
    config = {**descriptor, "mediaType": "application/vnd.oci.image.config.v1+json"}
    content = {"schemaVersion": 2, "mediaType": servers.MANIFEST_TYPE, "config": config, "layers": [descriptor] * 4}
    return json.dumps(content).encode()


def started(stack, kind, *flags):
    """A registry that ends with `stack`."""
    site = type(kind.__name__, (kind,), {"flags": list(flags)})()
    stack.callback(site.stop)
    return site.prepare()


# -- Retention, usage -------------------------------------------------------------------------------------


def tags(kind, size, works, table):
    with ExitStack() as stack:
        large = started(stack, kind)
        large.down()
        large.fill_tags(size.many_tags)
        large.up()
        if "usage" in works:
            small = started(stack, kind)
            small.down()
            small.fill_tags(size.few_tags)
            small.up()
            usage(small, large, size, table)
            small.down()
        if "retention" in works:
            retention(large, size, table)


def usage(small, large, size, table):
    month = time.strftime("%Y-%m", time.gmtime())
    repository = f"tenants/{TENANT}/catalog/{REPOSITORY}"
    questions = {
        "usage of a month": f"usage?tenant={TENANT}&month={month}&repositories=true",
        "usage: catalog": f"tenants/{TENANT}/catalog",
        "usage: a repository": repository,
    }
    for work, path in questions.items():
        times = {small: [], large: []}
        # In turns: what drifts hits both.
        for _ in range(5):
            for site, taken in times.items():
                taken += timed(site, path)
        few, many = (statistics.median(times[site]) for site in (small, large))
        figure = f"{few * 1e3:.2f} ms, {many * 1e3:.2f} ms"
        table.add(f"{work}, {size.few_tags:,} / {size.many_tags:,}", large.name, figure, many / few, 1.2)


def timed(site, path):
    """Seconds of some requests on one connection, without the first ones."""
    connection = http.client.HTTPConnection("127.0.0.1", site.ports[1], timeout=LONGEST_WAIT)
    taken, end = [], time.monotonic() + 0.5
    while len(taken) < 5 or (len(taken) < 40 and time.monotonic() < end):
        begun = time.perf_counter()
        connection.request("GET", f"/admin/v1/{path}", headers=site.authorization)
        answer = connection.getresponse()
        answer.read()
        taken.append(time.perf_counter() - begun)
        if answer.status != 200:
            raise RuntimeError(f"{site.name}: {path}: {answer.status}")
    connection.close()
    return taken[2:]


def retention(site, size, table):
    total, going = site.tag_count(), size.many_tags // 100
    run_of(site, table, total, going, "2400h")
    run_of(site, table, total - going, size.many_tags // 2, "720h")


def run_of(site, table, total, going, age):
    """A preview and then a run that delete `going` tags: pull requests' that are older than `age`."""
    before = set_policy(site, age)
    begun = time.monotonic()
    told = site.told("POST", f"tenants/{TENANT}/retention/preview?repository={REPOSITORY}")
    seconds = time.monotonic() - begun
    if (told["evaluated"], told["wouldDelete"]) != (total, going):
        raise RuntimeError(f"{site.name}: of {total} tags {going} go, but the preview says {told}")
    figure = f"{seconds:.2f} s, {total / seconds:,.0f} tags/s"
    table.add(f"retention: preview, {going:,} go", site.name, figure, goal=5, value=seconds)

    begun = time.monotonic()
    site.told("POST", f"tenants/{TENANT}/retention/run?policy={POLICY}")
    while (left := site.tag_count()) > total - going and time.monotonic() < begun + LONGEST_RUN:
        time.sleep(0.05)
    seconds = time.monotonic() - begun
    deleted = total - left
    figure = f"{deleted:,} in {seconds:.1f} s, {deleted / seconds:,.0f} tags/s"
    table.add(f"retention: run, {going:,} go", site.name, figure)
    if deleted < going:
        return
    # The last batch has been seen; the run says so a moment later.
    known = until("the run tells its end", lambda: changed(site, "lastRun", before.get("lastRun")))
    if known["lastRun"].get("error") or known["lastRun"]["deletedTags"] != going:
        raise RuntimeError(f"{site.name}: the run says {known['lastRun']}")


def set_policy(site, age):
    """Makes the policy, and waits until the registry has had its own first look; what is known of it then."""
    status, before = site.ask("GET", f"tenants/{TENANT}/retention?policy={POLICY}")
    rules = [
        {"keepLast": 20},
        {"tags": ["main-*"], "keepWithin": "720h"},
        {"tags": ["v*"], "keepSemver": {"major": 20, "minor": 100}},
        {"tags": ["pr-*"], "keepWithin": age},
    ]
    spec = {"repositories": ["**"], "rules": rules, "restoreWindow": "24h", "schedule": "0 0 1 1 *"}
    site.told("PUT", f"tenants/{TENANT}/retention-policies/{POLICY}", {"spec": spec})
    old = before.get("preview") if status == 200 else None
    return until("the first look at a policy", lambda: changed(site, "preview", old))


def changed(site, part, old):
    known = site.told("GET", f"tenants/{TENANT}/retention?policy={POLICY}")
    new = known.get(part)
    is_new = new is not None and (old is None or new["at"] != old["at"])
    return known if is_new and not known["running"] else None


def until(what, look, pause=0.1):
    deadline = time.monotonic() + LONGEST_WAIT
    while not (found := look()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not within {LONGEST_WAIT} s")
        time.sleep(pause)
    return found


# -- Garbage ----------------------------------------------------------------------------------------------


def garbage(kind, size, table):
    with ExitStack() as stack:
        # Nothing is held back, so that what is measured is work.
        flags = ("--lease=1s", "--gc-delay=1ms", "--restore-window=1ms", "--gc-rate=100000", "--redirect=Never")
        site = started(stack, kind, *flags)
        site.pause(True)
        stores, others = [size.small, size.small * 10], 0
        seconds = []
        for store in stores:
            taken = []
            for turn in range(size.turns):
                site.down()
                if others < store:
                    site.fill_others(others, store)
                    others = store
                site.fill_garbage(f"garbage{store}-{turn}-", size.garbage)
                site.up()
                taken.append(collected(site))
            seconds.append(min(taken))
        few, many = seconds
        figure = f"{few:.2f} s, {many:.2f} s"
        work = f"garbage: {size.garbage:,} in {stores[0]:,} / {stores[1]:,}"
        table.add(work, site.name, figure, many / few, 1.2)
        answers(site, size, size.garbage / many, table)


def collected(site):
    """Seconds until nothing waits any more."""
    begun = time.monotonic()

    def is_empty():
        # 409: the round that outlasted its request goes on.
        status, told = site.ask("POST", "gc/run")
        if status not in (200, 202, 409):
            raise RuntimeError(f"{site.name}: gc/run: {status} {told}")
        return not any(site.queues())

    until("all garbage is collected", is_empty, pause=0.01)
    return time.monotonic() - begun


def answers(site, size, rate, table):
    """Requests while garbage is collected, and while it is not, in turns."""
    # A queue that outlasts them, by the speed of a collection that has the machine for itself.
    busy = size.rounds * (3 * size.seconds + 1)
    site.down()
    site.fill_garbage("meanwhile", int(rate * busy * 1.3))
    site.up()
    loads = {
        "manifest GET": (100, lambda client, _: client.get("manifests/v1")),
        "blob GET 64 KiB": (75, lambda client, _: client.get(f"blobs/{site.blob}")),
        "small push": (20, lambda client, number: client.push(number)),
    }
    taken = {work: {True: [], False: []} for work in loads}
    ran_out, did, at_work = False, 0, 0.0
    for turn in range(size.rounds):
        for is_idle in (True, False):
            site.pause(is_idle)
            if is_idle:
                until("a round that was begun ends", lambda: is_still(site))
            begun, before = time.monotonic(), site.collected()
            for work, (pace, load) in loads.items():
                taken[work][is_idle] += paced(site, load, pace, size.seconds)
            if not is_idle:
                at_work += time.monotonic() - begun
                did += site.collected() - before
                ran_out |= not any(site.queues())
    site.pause(True)
    meanwhile = f"{did / at_work:,.0f} a second"
    for work, times in taken.items():
        idle, busy = (percentile(times[is_idle], 0.99) for is_idle in (True, False))
        figure = f"p99 {idle * 1e3:.2f} ms, {busy * 1e3:.2f} ms"
        table.add(f"{work}, idle / collecting", site.name, figure, busy / idle, 1.5)
    middle = [statistics.median(times[False]) / statistics.median(times[True]) for times in taken.values()]
    ratios = " ".join(f"{one:.2f}" for one in middle)
    print(f"{'':39} {'':18} collected meanwhile: {meanwhile}; ratios of the medians: {ratios}", flush=True)
    if ran_out:
        print(f"{'':39} {'':18} the queue ran out: the ratios are better than they should be", flush=True)


def is_still(site):
    before = site.queues()
    time.sleep(0.3)
    return site.queues() == before


def percentile(times, share):
    return sorted(times)[int(len(times) * share)]


class Connection:
    """One keep-alive connection to the registry."""

    def __init__(self, site):
        self.connection = http.client.HTTPConnection("127.0.0.1", site.ports[0], timeout=60)
        self.connection.connect()

    def request(self, method, path, status, body=None, headers=None):
        headers = {"Accept": servers.MANIFEST_TYPE, **(headers or {})}
        self.connection.request(method, f"/v2/{REPOSITORY}/{path}", body, headers)
        answer = self.connection.getresponse()
        answer.read()
        if answer.status != status:
            raise RuntimeError(f"{method} {path}: {answer.status}")

    def get(self, path):
        self.request("GET", path, 200)

    def push(self, number):
        """A blob of 4 KiB and a manifest with a tag of its own."""
        blob = os.urandom(4 * KIB)
        name = f"sha256:{hashlib.sha256(blob).hexdigest()}"
        kind = {"Content-Type": "application/octet-stream"}
        self.request("POST", f"blobs/uploads/?digest={name}", 201, blob, kind)
        content = manifest({"mediaType": "application/vnd.oci.image.layer.v1.tar", "size": 4 * KIB, "digest": name})
        kind = {"Content-Type": servers.MANIFEST_TYPE}
        self.request("PUT", f"manifests/push-{number}-{name[-12:]}", 201, content, kind)


def paced(site, load, pace, seconds):
    """Seconds that each operation took, four connections with `pace` operations a second each. What had to wait
    since the one before it took too long has that wait in its time."""
    taken, failures = [], []
    start = time.perf_counter() + 0.05

    def work(number):
        try:
            client, mine = Connection(site), []
            for count in range(int(seconds * pace)):
                # Apart from each other.
                planned = start + (count + number / 4) / pace
                wait = planned - time.perf_counter()
                if wait > 0:
                    time.sleep(wait)
                    # A sleep that lasted too long is not the server's.
                    planned = time.perf_counter()
                load(client, count)
                mine.append(time.perf_counter() - planned)
                if time.perf_counter() > start + 3 * seconds:
                    break
            client.connection.close()
            taken.extend(mine)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(f"{site.name}: {failures[0]!r}")
    return taken
