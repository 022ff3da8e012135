//! Loads of small requests, where what a registry does beside its answer shows most; and a receiver of webhooks that
//! costs little.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::{Done, Outcome, Target, seed, together};

/// Pushes manifests of nothing until the time is over, each under a tag of its own.
pub fn manifests(target: &Target, workers: u64, seconds: f64) -> Outcome<Done> {
    let (seed, until) = (seed(), Instant::now() + Duration::from_secs_f64(seconds));
    let media_type = "application/vnd.oci.image.index.v1+json";
    together(target, workers, |number, client| {
        let (mut pushed, mut bytes) = (0, 0);
        while Instant::now() < until {
            let manifest = format!(
                r#"{{"schemaVersion":2,"mediaType":"{media_type}","manifests":[],"annotations":{{"of":"{seed}-{number}-{pushed}"}}}}"#
            );
            let path = format!("{}/manifests/w{number}-{pushed}", target.path);
            let more = format!("Content-Type: {media_type}\r\n");
            client
                .request("PUT", &path, &more, manifest.as_bytes())?
                .expect(201, "manifest")?;
            pushed += 1;
            bytes += manifest.len() as u64;
        }
        Ok((pushed, bytes))
    })
}

/// Reads the manifests of the tags `t0`, `t1` and so on until the time is over, each connection from another one on.
pub fn tags(target: &Target, tags: u64, connections: u64, seconds: f64) -> Outcome<Done> {
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    together(target, connections, |number, client| {
        let (mut reads, mut bytes) = (0, 0);
        let mut tag = number * tags / connections;
        while Instant::now() < until {
            let path = format!("{}/manifests/t{}", target.path, tag % tags);
            bytes += client.request("GET", &path, "", b"")?.expect(200, "read")?.bytes;
            tag += 1;
            reads += 1;
        }
        Ok((reads, bytes))
    })
}

/// Answers every request on this port with 200, until the process is ended.
pub fn receive(port: u16) -> Outcome<Done> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    for stream in listener.incoming() {
        let stream = stream?;
        // A connection that ends, however it does, ends its thread alone.
        thread::spawn(move || take(&stream));
    }
    Err("nobody can connect any more".into())
}

fn take(stream: &TcpStream) -> Outcome<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    let mut length = 0;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if let Some((name, value)) = line.split_once(':') {
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse()?;
            }
        } else if line == "\r\n" {
            reader.read_exact(&mut vec![0; length])?;
            length = 0;
            (&*stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        }
    }
}
