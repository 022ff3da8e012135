//! The load generator of the benchmarks: reads over keep-alive connections, and pushes.
//!
//! One thread and one blocking connection a client, HTTP/1.1 written by hand: it must cost little beside the
//! servers that it measures, and the same for each of them. Prints one JSON object; any answer that is not
//! the expected one ends it with an error. See README.md for what is measured with it.

mod small;

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const USAGE: &str = "usage: bench-client read GET|HEAD URL CONNECTIONS SECONDS
       bench-client blobs REPOSITORY-URL BYTES CHUNK-BYTES|0 COUNT
       bench-client images REPOSITORY-URL WORKERS SECONDS
       bench-client manifests REPOSITORY-URL WORKERS SECONDS
       bench-client tags REPOSITORY-URL TAGS CONNECTIONS SECONDS
       bench-client receive PORT
       bench-client hash SECONDS";

/// Bytes of one read or write of a body.
const PIECE: usize = 256 * 1024;
/// Bytes of each blob of a small image.
const SMALL_BLOB: u64 = 4096;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["read", method, url, connections, seconds] => {
            read(method, &Target::of(url)?, connections.parse()?, seconds.parse()?)?
        }
        ["blobs", url, bytes, chunk, count] => {
            blobs(&Target::of(url)?, bytes.parse()?, chunk.parse()?, count.parse()?)?
        }
        ["images", url, workers, seconds] => images(&Target::of(url)?, workers.parse()?, seconds.parse()?)?,
        ["manifests", url, workers, seconds] => {
            small::manifests(&Target::of(url)?, workers.parse()?, seconds.parse()?)?
        }
        ["tags", url, count, connections, seconds] => small::tags(
            &Target::of(url)?,
            count.parse()?,
            connections.parse()?,
            seconds.parse()?,
        )?,
        ["receive", port] => small::receive(port.parse()?)?,
        ["hash", seconds] => hash(seconds.parse()?),
        _ => return Err(USAGE.into()),
    };
    let Done {
        operations,
        bytes,
        seconds,
    } = result;
    println!(r#"{{"operations": {operations}, "bytes": {bytes}, "seconds": {seconds}}}"#);
    Ok(())
}

/// What was done, and how long it took.
struct Done {
    operations: u64,
    bytes: u64,
    seconds: f64,
}

/// `http://HOST:PORT/PATH`.
struct Target {
    host: String,
    path: String,
}

impl Target {
    fn of(url: &str) -> Outcome<Self> {
        let rest = url.strip_prefix("http://").ok_or("the URL begins with http://")?;
        let (host, path) = rest.split_once('/').ok_or("the URL has no path")?;
        Ok(Self {
            host: host.to_owned(),
            path: format!("/{path}"),
        })
    }
}

/// One keep-alive connection.
struct Client<'t> {
    stream: TcpStream,
    host: &'t str,
    /// The header with its credential, if it has one.
    authorization: String,
    buffer: Vec<u8>,
}

struct Answer {
    status: u16,
    location: Option<String>,
    /// Bytes of the body that came.
    bytes: u64,
}

impl<'t> Client<'t> {
    fn connect(host: &'t str) -> Outcome<Self> {
        let stream = TcpStream::connect(host)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        let credential = std::env::var("BERTH_BENCH_BASIC").ok();
        let header = |credential| format!("Authorization: Basic {credential}\r\n");
        Ok(Self {
            stream,
            host,
            authorization: credential.map_or_else(String::new, header),
            buffer: vec![0; PIECE],
        })
    }

    fn head(&self, method: &str, path: &str, more: &str) -> String {
        let accept = "application/vnd.oci.image.manifest.v1+json";
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAccept: {accept}\r\n{}{more}\r\n",
            self.host, self.authorization
        )
    }

    /// Sends a request with a small body and reads its answer.
    fn request(&mut self, method: &str, path: &str, more: &str, body: &[u8]) -> Outcome<Answer> {
        let length = match method {
            "GET" | "HEAD" => String::new(),
            _ => format!("Content-Length: {}\r\n", body.len()),
        };
        let mut bytes = self.head(method, path, &format!("{more}{length}")).into_bytes();
        bytes.extend_from_slice(body);
        self.stream.write_all(&bytes)?;
        self.answer(method == "HEAD")
    }

    /// Reads an answer to its end; the content of its body is dropped.
    fn answer(&mut self, bodiless: bool) -> Outcome<Answer> {
        let mut filled = 0;
        let end = loop {
            let read = self.stream.read(&mut self.buffer[filled..])?;
            if read == 0 {
                return Err("the server closed the connection".into());
            }
            let from = filled.saturating_sub(3);
            filled += read;
            let found = self.buffer[from..filled]
                .windows(4)
                .position(|four| four == b"\r\n\r\n");
            if let Some(at) = found {
                break from + at + 4;
            }
        };
        let head = std::str::from_utf8(&self.buffer[..end])?;
        let status: u16 = head.get(9..12).ok_or("a short status line")?.parse()?;
        let header = |name: &str| {
            head.lines().skip(1).find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        let location = if status == 202 { header("location") } else { None };
        let empty = bodiless || status == 204 || status == 304;
        let length: u64 = match header("content-length") {
            _ if empty => 0,
            Some(length) => length.parse()?,
            None => return Err(format!("an answer of status {status} without its length").into()),
        };
        let mut left = length
            .checked_sub((filled - end) as u64)
            .ok_or("more bytes than the answer has")?;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            match self.stream.read(&mut self.buffer[..most])? {
                0 => return Err("the answer broke off".into()),
                read => left -= read as u64,
            }
        }
        Ok(Answer {
            status,
            location,
            bytes: length,
        })
    }
}

impl Answer {
    fn expect(self, status: u16, what: &str) -> Outcome<Self> {
        if self.status == status {
            Ok(self)
        } else {
            Err(format!("{what}: status {} instead of {status}", self.status).into())
        }
    }

    /// The upload's path, with the start of a query that ends in the digest.
    fn session(self) -> Outcome<(String, char)> {
        let location = self.location.ok_or("an upload without Location")?;
        let path = match location.strip_prefix("http://") {
            Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]).to_owned(),
            None => location,
        };
        let joint = if path.contains('?') { '&' } else { '?' };
        Ok((path, joint))
    }
}

/// Runs `work` in so many threads at once. Each gets its number and tells what it did; the time runs from
/// the moment that all are connected.
fn together<'t>(
    target: &'t Target,
    threads: u64,
    work: impl Fn(u64, &mut Client<'t>) -> Outcome<(u64, u64)> + Sync,
) -> Outcome<Done> {
    let start = Barrier::new(usize::try_from(threads)? + 1);
    let (operations, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|number| {
                let (start, operations, bytes, work) = (&start, &operations, &bytes, &work);
                scope.spawn(move || -> Outcome<()> {
                    let client = Client::connect(&target.host);
                    start.wait();
                    let (did, moved) = work(number, &mut client?)?;
                    operations.fetch_add(did, Ordering::Relaxed);
                    bytes.fetch_add(moved, Ordering::Relaxed);
                    Ok(())
                })
            })
            .collect();
        start.wait();
        let begun = Instant::now();
        for thread in running {
            thread.join().map_err(|_| "a client panicked")??;
        }
        Ok(Done {
            operations: operations.load(Ordering::Relaxed),
            bytes: bytes.load(Ordering::Relaxed),
            seconds: begun.elapsed().as_secs_f64(),
        })
    })
}

/// Repeats one read on every connection until the time is over.
fn read(method: &str, target: &Target, connections: u64, seconds: f64) -> Outcome<Done> {
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    together(target, connections, |_, client| {
        let request = client.head(method, &target.path, "");
        let (mut reads, mut bytes) = (0, 0);
        while Instant::now() < until {
            client.stream.write_all(request.as_bytes())?;
            bytes += client.answer(method == "HEAD")?.expect(200, "read")?.bytes;
            reads += 1;
        }
        Ok((reads, bytes))
    })
}

/// Blob bytes that no other blob has: a block repeated, after its number.
struct Content {
    block: Vec<u8>,
    size: u64,
}

impl Content {
    fn new(size: u64, seed: u64) -> Self {
        // xorshift: incompressible is enough, and reproducible.
        let mut state = seed | 1;
        let mut block = vec![0; PIECE];
        for word in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        Self { block, size }
    }

    /// The pieces of a range whose ends are multiples of a piece, or the blob's end.
    fn pieces(&self, from: u64, to: u64) -> impl Iterator<Item = &[u8]> {
        (from..to)
            .step_by(PIECE)
            .map(move |at| &self.block[..usize::try_from(to - at).unwrap_or(PIECE).min(PIECE)])
    }

    fn digest(&self) -> String {
        let mut hash = Sha256::new();
        self.pieces(0, self.size).for_each(|piece| hash.update(piece));
        hex(&hash.finalize())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A seed that differs between runs, so that no run finds another's blobs.
fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |now| u64::try_from(now.as_nanos()).unwrap_or(1)) ^ u64::from(std::process::id())
}

/// Pushes `count` blobs of `size` bytes at once, whole or in chunks. Their digests are known before the clock
/// starts.
fn blobs(target: &Target, size: u64, chunk: u64, count: u64) -> Outcome<Done> {
    if !chunk.is_multiple_of(PIECE as u64) {
        return Err(format!("a chunk is a multiple of {PIECE} bytes").into());
    }
    let seed = seed();
    let blobs: Vec<_> = (0..count)
        .map(|number| {
            let content = Content::new(size, seed.wrapping_add(number << 32));
            let digest = content.digest();
            (content, digest)
        })
        .collect();
    together(target, count, |number, client| {
        let (content, digest) = &blobs[usize::try_from(number)?];
        push_large(client, &target.path, content, digest, chunk)?;
        Ok((1, size))
    })
}

fn push_large(
    client: &mut Client<'_>,
    repository: &str,
    content: &Content,
    digest: &str,
    chunk: u64,
) -> Outcome<()> {
    let size = content.size;
    let begun = client.request("POST", &format!("{repository}/blobs/uploads/"), "", b"")?;
    let (mut path, mut joint) = begun.expect(202, "start of an upload")?.session()?;
    let mut sent = 0;
    while chunk > 0 && sent < size {
        let end = size.min(sent + chunk);
        let more = format!(
            "Content-Type: application/octet-stream\r\nContent-Range: {sent}-{}\r\nContent-Length: {}\r\n",
            end - 1,
            end - sent
        );
        let head = client.head("PATCH", &path, &more);
        client.stream.write_all(head.as_bytes())?;
        for piece in content.pieces(sent, end) {
            client.stream.write_all(piece)?;
        }
        (path, joint) = client.answer(false)?.expect(202, "chunk")?.session()?;
        sent = end;
    }
    let more = format!(
        "Content-Type: application/octet-stream\r\nContent-Length: {}\r\n",
        size - sent
    );
    let head = client.head("PUT", &format!("{path}{joint}digest=sha256:{digest}"), &more);
    client.stream.write_all(head.as_bytes())?;
    for piece in content.pieces(sent, size) {
        client.stream.write_all(piece)?;
    }
    client.answer(false)?.expect(201, "end of an upload")?;
    Ok(())
}

/// Pushes small images until the time is over: a config and two layers, each by POST and PUT, then the
/// manifest under a tag of its own.
fn images(target: &Target, workers: u64, seconds: f64) -> Outcome<Done> {
    let seed = seed();
    let over = AtomicBool::new(false);
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    together(target, workers, |number, client| {
        let (mut pushed, mut bytes) = (0, 0);
        while !over.load(Ordering::Relaxed) {
            let serial = seed.wrapping_add(number << 48).wrapping_add(pushed << 16);
            bytes += push_image(client, &target.path, serial, &format!("w{number}-{pushed}"))?;
            pushed += 1;
            if Instant::now() >= until {
                over.store(true, Ordering::Relaxed);
            }
        }
        Ok((pushed, bytes))
    })
}

fn push_image(client: &mut Client<'_>, repository: &str, serial: u64, tag: &str) -> Outcome<u64> {
    let mut digests = Vec::new();
    for part in 0..3 {
        let mut blob = vec![0; usize::try_from(SMALL_BLOB)?];
        blob[..8].copy_from_slice(&serial.wrapping_add(part).to_le_bytes());
        let digest = hex(&Sha256::digest(&blob));
        let begun = client.request("POST", &format!("{repository}/blobs/uploads/"), "", b"")?;
        let (path, joint) = begun.expect(202, "start of an upload")?.session()?;
        let path = format!("{path}{joint}digest=sha256:{digest}");
        client
            .request("PUT", &path, "Content-Type: application/octet-stream\r\n", &blob)?
            .expect(201, "end of an upload")?;
        digests.push(digest);
    }
    let descriptor = |media_type: &str, digest: &str| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.{media_type}","size":{SMALL_BLOB},"digest":"sha256:{digest}"}}"#
        )
    };
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{},"layers":[{},{}]}}"#,
        descriptor("config.v1+json", &digests[0]),
        descriptor("layer.v1.tar", &digests[1]),
        descriptor("layer.v1.tar", &digests[2]),
    );
    client
        .request(
            "PUT",
            &format!("{repository}/manifests/{tag}"),
            &format!("Content-Type: {media_type}\r\n"),
            manifest.as_bytes(),
        )?
        .expect(201, "manifest")?;
    Ok(3 * SMALL_BLOB + manifest.len() as u64)
}

/// How fast one core hashes.
fn hash(seconds: f64) -> Done {
    let content = Content::new(PIECE as u64, 1);
    let mut hash = Sha256::new();
    let begun = Instant::now();
    let mut operations = 0;
    while begun.elapsed().as_secs_f64() < seconds {
        hash.update(&content.block);
        operations += 1;
    }
    std::hint::black_box(hash.finalize());
    Done {
        operations,
        bytes: operations * PIECE as u64,
        seconds: begun.elapsed().as_secs_f64(),
    }
}
