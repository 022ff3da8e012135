//! A tenant of a release.

use std::process::Command;

use serde_json::{Value, json};

use super::clients::{entry, http, logged_in};
use super::machine::node_file;
use super::{PATIENCE, Release};
use crate::client::Client;
use crate::wait::eventually;

/// A tenant that a test has made.
pub struct TenantOf<'a> {
    /// Where it lives.
    pub release: &'a Release,
    /// Its name, which its namespace has too.
    pub name: String,
    /// Its host.
    pub host: String,
    /// The Secret with a token that may do everything.
    pub secret: Value,
}

impl TenantOf<'_> {
    /// Waits until the edge leads to it.
    pub async fn is_open(&self) {
        let http = http();
        eventually(&format!("{} is open", self.host), PATIENCE, async || {
            let request = http.get(format!("https://{}/v2/", self.host));
            let answer = request
                .basic_auth("x-token", Some(self.token()))
                .send()
                .await
                .ok()?;
            (answer.status() == 200).then_some(())
        })
        .await;
    }

    /// The token.
    pub fn token(&self) -> String {
        entry(&self.secret, "token")
    }

    /// A client program that is logged in, and trusts the edge's authority.
    pub fn client(&self, program: &str) -> Client {
        logged_in(program, &self.secret)
    }

    /// The pull Secret in a new namespace `<tenant>-<suffix>`, as the operator makes it for those who only read.
    pub async fn pull_secret(&self, suffix: &str) -> Value {
        let namespace = format!("{}-{suffix}", self.name);
        self.release
            .namespace(&namespace, json!({ "pull": self.name }))
            .await;
        let name = format!("berth-{}", self.name);
        self.release
            .plane
            .wait("Secret", &namespace, &name, |_| true)
            .await
    }

    /// Pushes an image that runs: a shell with all that busybox knows, and a layer of `size` random bytes that no other
    /// image has. Its reference, by tag.
    pub async fn push_runnable(&self, repository: &str, tag: &str, size: usize) -> String {
        let reference = format!("{}/{repository}:{tag}", self.host);
        let crane = self.client("crane");
        let base = node_file("images/busybox.tar");
        let unpacked = crane.path_text("base");
        std::fs::create_dir(&unpacked).expect("a folder");
        let done = Command::new("tar").args(["-xf", &base, "-C", &unpacked]).status();
        assert!(done.expect("tar runs").success());
        crane.run(&["push", &unpacked, &reference]).await;
        let mut random = vec![0; size];
        std::io::Read::read_exact(
            &mut std::fs::File::open("/dev/urandom").expect("random bytes"),
            &mut random,
        )
        .expect("random bytes");
        let layer = crane.file("layer.tar", &crate::content::tar("unique", &random));
        crane
            .run(&[
                "append",
                "--base",
                &reference,
                "--new_layer",
                &layer,
                "--new_tag",
                &reference,
            ])
            .await;
        reference
    }
}
