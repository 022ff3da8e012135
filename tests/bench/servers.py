"""The servers under test: each is started on a free loopback port and a folder of its own, measured through
/proc, and stopped by its process id."""

import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

REPOSITORY = "bench/image"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
TICKS = os.sysconf("SC_CLK_TCK")
START_SECONDS = 60
STOP_SECONDS = 30


def free_ports(count):
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


class Server:
    """One running server. `folder` is removed with it."""

    name = ""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix=f"berth-bench-{self.name.split()[0]}-"))
        # nginx's workers are another user.
        self.folder.chmod(0o755)
        self.log = open(self.folder / "log", "wb")
        self.ports = free_ports(3)
        self.process = subprocess.Popen(
            self.command(), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=self.environment()
        )
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise

    def command(self):
        raise NotImplementedError

    def environment(self):
        return dict(os.environ)

    @property
    def repository(self):
        return f"http://127.0.0.1:{self.ports[0]}/v2/{REPOSITORY}"

    def wait_ready(self):
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return self.request("GET", "/v2/")
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{self.name} did not start:\n{(self.folder / 'log').read_text()}")
                time.sleep(0.02)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- What it costs ------------------------------------------------------------------------------

    def processes(self):
        """Its process and all that descend from it."""
        children = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    parent = int(Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()[1])
                except OSError:
                    continue
                children.setdefault(parent, []).append(int(entry))
        found, unseen = [], [self.process.pid]
        while unseen:
            one = unseen.pop()
            found.append(one)
            unseen += children.get(one, [])
        return found

    def cpu_seconds(self):
        """User and system time so far."""
        ticks = 0
        for one in self.processes():
            fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS

    def forget_peak(self):
        """The peak of resident memory counts from now on."""
        for one in self.processes():
            Path(f"/proc/{one}/clear_refs").write_text("5")

    def peak_bytes(self):
        """The most resident memory since `forget_peak`, summed over its processes."""
        return self.memory("VmHWM")

    def resident_bytes(self):
        """Resident memory now."""
        return self.memory("VmRSS")

    def memory(self, field):
        total = 0
        for one in self.processes():
            status = Path(f"/proc/{one}/status").read_text()
            total += next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{field}:"))
        return total * 1024

    # -- Filling it ---------------------------------------------------------------------------------

    def request(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[0], timeout=300)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            answer.read()
            return answer
        finally:
            connection.close()

    def put_blob(self, file, digest):
        begun = self.request("POST", f"/v2/{REPOSITORY}/blobs/uploads/", b"")
        location = begun.headers["Location"]
        path = "/" + location.split("/", 3)[3] if location.startswith("http") else location
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(file.stat().st_size)}
        with file.open("rb") as body:
            done = self.request("PUT", f"{path}{'&' if '?' in path else '?'}digest={digest}", body, headers)
        assert done.status == 201, f"{self.name}: blob {done.status}"

    def put_manifest(self, manifest, tag):
        path = f"/v2/{REPOSITORY}/manifests/{tag}"
        done = self.request("PUT", path, manifest, {"Content-Type": MANIFEST_TYPE})
        assert done.status == 201, f"{self.name}: manifest {done.status}"


class Berth(Server):
    """SQLite and a folder, without a log line per request: the peers write none either."""

    name = "berth"
    log_filter = "info,access=off"

    def command(self):
        listeners = zip(("--listen", "--admin-listen", "--ops-listen"), self.ports)
        flags = [f"{flag}=127.0.0.1:{port}" for flag, port in listeners]
        data = [f"--data={self.folder / 'data'}", f"--log={self.log_filter}", "--log-format=json"]
        return [os.environ["BERTH_BIN"], "serve", *flags, *data, *self.stores()]

    def stores(self):
        return []


class LoggingBerth(Berth):
    """As it runs by default."""

    name = "berth with its log"
    log_filter = "info"


class DistributedBerth(Berth):
    """Postgres, in a database of its own, and the S3 server of the run."""

    name = "berth on Postgres"

    def stores(self):
        base = os.environ["BERTH_TEST_POSTGRES"]
        self.database = f"bench_{uuid.uuid4().hex}"
        self.psql(base, f"CREATE DATABASE {self.database}")
        url = f"{base.rsplit('/', 1)[0]}/{self.database}"
        bucket, options = os.environ["BERTH_TEST_S3"].split("?", 1)
        return [f"--metadata={url}", f"--blobs={bucket}/{self.database}?{options}"]

    def psql(self, url, statement):
        psql = Path(os.environ.get("BERTH_TEST_POSTGRES_BIN", "/usr/lib/postgresql/15/bin")) / "psql"
        subprocess.run([psql, "-qX", "-d", url, "-c", statement], check=True)

    def stop(self):
        super().stop()
        self.psql(os.environ["BERTH_TEST_POSTGRES"], f"DROP DATABASE {self.database} WITH (FORCE)")


class Distribution(Server):
    """The `registry` of the distribution project on its filesystem driver."""

    name = "distribution"

    def command(self):
        config = self.folder / "config.json"
        # JSON is YAML.
        settings = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "data")}, "delete": {"enabled": True}},
            "http": {"addr": f"127.0.0.1:{self.ports[0]}"},
        }
        config.write_text(json.dumps(settings))
        return [shutil.which("registry"), "serve", str(config)]

    def environment(self):
        return {**os.environ, "OTEL_TRACES_EXPORTER": "none", "OTEL_SDK_DISABLED": "true"}


class Nginx(Server):
    """The same bytes as static files: the limit of what a server can do here."""

    name = "nginx"

    def command(self):
        self.root = self.folder / "root" / "v2" / REPOSITORY
        for kind in ("manifests", "blobs"):
            (self.root / kind).mkdir(parents=True)
        temporary = "".join(
            f"{kind}_temp_path {self.folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (self.folder / "nginx.conf").write_text(
            f"worker_processes auto; daemon off; pid {self.folder}/pid; error_log stderr crit;"
            "events { worker_connections 1024; }"
            f"http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; {temporary}"
            f"server {{ listen 127.0.0.1:{self.ports[0]}; root {self.folder}/root;"
            f"location / {{ default_type application/octet-stream; }}"
            f"location ~ /manifests/ {{ default_type {MANIFEST_TYPE}; }} }} }}"
        )
        return [shutil.which("nginx"), "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]

    def put_blob(self, file, digest):
        target = self.root / "blobs" / digest
        shutil.copyfile(file, target)
        target.chmod(0o644)

    def put_manifest(self, manifest, tag):
        (self.root / "manifests" / tag).write_bytes(manifest)


def content(folder, size):
    """A file of bytes that do not compress, and its digest."""
    file = folder / str(size)
    hash = hashlib.sha256()
    with file.open("wb") as out:
        for start in range(0, size, 1 << 20):
            piece = os.urandom(min(1 << 20, size - start))
            hash.update(piece)
            out.write(piece)
    return file, f"sha256:{hash.hexdigest()}"
