//! Settings against each other, and what they name on this machine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::super::table::bytes;
use super::report::Report;
use crate::identity::keys::KeyRing;
use crate::server::tls::Certificate;
use crate::settings::{Scheme, Settings, TlsFiles};

/// Below this part of a disk, in percent, it is nearly full.
const SCARCE: u64 = 10;
/// Below this, in bytes, nothing is taken any more.
const RESERVE: u64 = 1 << 30;
/// File systems whose locks cannot be relied upon: NFS, SMB, CIFS.
const REMOTE: [i64; 3] = [0x6969, 0x517b, 0xff53_4d42];

pub(super) fn look(report: &mut Report, settings: &Settings) {
    clients(report, settings);
    if settings.holds_data_folder() {
        folder(report, &settings.data);
    }
    keys(report, settings);
    for (name, prefix, files) in [
        ("--tls-cert", "", &settings.tls),
        ("--admin-tls-cert", "admin-", &settings.admin_tls),
    ] {
        if let Some(files) = files {
            certificate(report, name, prefix, files);
        }
    }
}

/// Whether clients on other machines can use what the settings say.
fn clients(report: &mut Report, settings: &Settings) {
    let is_local = settings.domain == "localhost" || settings.domain.ends_with(".localhost");
    let check = "settings for clients";
    match settings.external_scheme {
        _ if is_local && !settings.listen.ip().is_loopback() => report.warning(
            check,
            format!("--listen {} is open to other machines, and --domain is {}", settings.listen, settings.domain),
            "set --domain to the name by which clients reach it",
        ),
        Scheme::Http if !is_local => report.warning(
            check,
            format!("--external-scheme is http for {}", settings.domain),
            "clients refuse plain HTTP except to localhost: give --tls-cert and --tls-key, or set --external-scheme https \
             behind an edge with TLS",
        ),
        _ => report.ok(check, format!("{}://{}", settings.external_scheme, settings.domain)),
    }
}

fn folder(report: &mut Report, data: &Path) {
    let check = format!("--data {}", data.display());
    let found = match fs::metadata(data) {
        Ok(found) if found.is_dir() => found,
        Ok(_) => return report.failed(check, "it is no folder", "name a folder by --data"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return report.skipped(check, "it is made by the first start");
        }
        Err(error) => {
            return report.failed(
                check,
                error.to_string(),
                "run this as the user who runs the server",
            );
        }
    };
    let mode = found.permissions().mode() & 0o077;
    if mode != 0 {
        report.warning(
            &*check,
            "other users of this machine may enter it",
            format!("chmod 0700 {}", data.display()),
        );
    }
    match rustix::fs::statfs(data) {
        Ok(system) if REMOTE.contains(&system.f_type) => report.failed(
            &*check,
            "it lies on a network file system, whose locks do not keep two processes apart",
            "put it on a local disk, or on a volume that one node mounts as a block device",
        ),
        _ => {}
    }
    match rustix::fs::statvfs(data) {
        Ok(disk) => space(
            report,
            data,
            disk.f_blocks * disk.f_frsize,
            disk.f_bavail * disk.f_frsize,
        ),
        Err(error) => report.warning(
            &*check,
            format!("its disk cannot be looked at: {error}"),
            "look at it by df",
        ),
    }
    if let Ok(disk) = rustix::fs::statvfs(data)
        && disk.f_files > 0
        && disk.f_favail < disk.f_files / 100 * 2
    {
        report.warning(
            "inodes",
            format!("{} of {} are left", disk.f_favail, disk.f_files),
            "each blob takes one: use a file system with more of them",
        );
    }
}

fn space(report: &mut Report, data: &Path, total: u64, free: u64) {
    let told = format!("{} of {} are free", bytes(free), bytes(total));
    let remedy = format!(
        "make room on the disk of {}, or shorten what is kept by a RetentionPolicy; the registry stops taking pushes \
         before it is full",
        data.display()
    );
    match () {
        () if free <= RESERVE.min(total / 50) => report.failed("disk", told, remedy),
        () if free < total / 100 * SCARCE => report.warning("disk", told, remedy),
        () => report.ok("disk", told),
    }
}

fn keys(report: &mut Report, settings: &Settings) {
    let check = format!("--keys {}", settings.keys.display());
    match KeyRing::open(&settings.keys, false) {
        Ok(ring) => {
            report.ok(&*check, format!("signing keys {}", ring.signing_ids().join(", ")));
        }
        Err(_) if settings.keys_in_data() && !settings.keys.exists() => {
            report.skipped(&*check, "they are made by the first start");
        }
        Err(error) => report.failed(
            &*check,
            error.to_string(),
            "mount the folder that all replicas share, or restore it from a backup: tokens of issuers and secrets in \
             the store cannot be read without it",
        ),
    }
    let mut secret = vec![settings.admin_key_file.clone()];
    if let Ok(entries) = fs::read_dir(&settings.keys) {
        secret.extend(entries.flatten().map(|entry| entry.path()));
    }
    for path in secret {
        // A Secret's files are links into a folder that the kubelet guards.
        let Ok(found) = fs::symlink_metadata(&path) else {
            continue;
        };
        if found.is_file() && found.permissions().mode() & 0o077 != 0 {
            report.warning(
                path.display().to_string(),
                "others than its owner may read it",
                format!("chmod 0600 {}", path.display()),
            );
        }
    }
    if !settings.admin_key_file.exists() && !settings.admin_key_in_data() {
        report.failed(
            format!("--admin-key-file {}", settings.admin_key_file.display()),
            "there is no such file",
            "mount the Secret with the admin key, or name the file that holds it",
        );
    }
}

fn certificate(report: &mut Report, name: &str, prefix: &'static str, files: &TlsFiles) {
    let check = format!("{name} {}", files.certificate.display());
    match Certificate::load(files.clone(), prefix) {
        Ok(_) => report.ok(check, "it goes with its key"),
        // It says what to change.
        Err(error) => report.failed(check, error.to_string(), format!("correct {name} or its key")),
    }
}
