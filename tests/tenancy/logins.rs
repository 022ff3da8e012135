//! Real clients, logged in to two tenants with one configuration.

use harness::{Client, Image, Layout};

use super::{DOMAIN, settings, two_tenants};

struct Login {
    program: &'static str,
    login: &'static [&'static str],
    logged_in: &'static str,
}

async fn log_in_to_both(login: Login) {
    let (berth, admin) = two_tenants(settings()).await;
    let program = Client::new(login.program)
        .variable("HTTP_PROXY", &berth.url(""))
        .variable("DOCKER_CONFIG", "docker");
    let mut tokens = Vec::new();
    for tenant in ["acme", "other"] {
        let host = format!("{tenant}.{DOMAIN}");
        let token = admin.token(tenant, &["team/**"], &["pull", "push"]).await;
        if login.program == "regctl" {
            program
                .run(&["registry", "set", "--tls", "disabled", "--skip-check", &host])
                .await;
        }
        let arguments: Vec<&str> = login
            .login
            .iter()
            .map(|argument| match *argument {
                "HOST" => host.as_str(),
                "TOKEN" => token.as_str(),
                other => other,
            })
            .collect();
        let output = program.run(&arguments).await;
        let said = format!("{}{}", output.text(), output.stderr);
        assert!(said.to_lowercase().contains(login.logged_in), "{said}");
        // The wrong tenant's token is refused where it is not known.
        let other = if tenant == "acme" { "other" } else { "acme" };
        let foreign = admin.token(other, &["**"], &["pull"]).await;
        let stranger = Client::new(login.program).variable("HTTP_PROXY", &berth.url(""));
        if login.program == "regctl" {
            stranger
                .run(&["registry", "set", "--tls", "disabled", "--skip-check", &host])
                .await;
        }
        let arguments: Vec<&str> = arguments
            .iter()
            .map(|a| if *a == token { foreign.as_str() } else { *a })
            .collect();
        // crane writes its configuration without asking the registry.
        if login.program != "crane" {
            assert!(!stranger.attempt(&arguments).await.success, "{tenant}");
        }
        tokens.push(token);
    }
    // Pushes with the logins of that one configuration, read back by digest.
    for (number, tenant) in ["acme", "other"].into_iter().enumerate() {
        let image = Image::new(number as u64 + 1, 50_000);
        let layout = Layout::of_image(&program.path(&format!("image-{tenant}")), &image, "v1");
        let reference = format!("{tenant}.{DOMAIN}/team/app:v1");
        let oci = format!("oci:{}:v1", layout.path());
        let (from, to) = (
            format!("ocidir://{}:v1", layout.path()),
            format!("docker://{reference}"),
        );
        let layout_reference = format!("{}:v1", layout.path());
        match login.program {
            "crane" => {
                program
                    .run(&["push", "--insecure", layout.path(), &reference])
                    .await
            }
            "skopeo" => {
                program
                    .run(&[
                        "--insecure-policy",
                        "copy",
                        "--preserve-digests",
                        "--dest-tls-verify=false",
                        "--authfile=auth.json",
                        &oci,
                        &to,
                    ])
                    .await
            }
            "oras" => {
                program
                    .run(&[
                        "copy",
                        "--from-oci-layout",
                        "--to-plain-http",
                        &layout_reference,
                        &reference,
                    ])
                    .await
            }
            _ => program.run(&["image", "copy", &from, &reference]).await,
        };
        let host = format!("{tenant}.{DOMAIN}");
        let path = format!("/v2/team/app/manifests/{}", image.digest());
        let stored = super::get(&berth, &host, &tokens[number], &path).await;
        assert_eq!(stored.expect(200).body, image.manifest);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crane_pushes_to_two_tenants_with_one_configuration() {
    log_in_to_both(Login {
        program: "crane",
        login: &["auth", "login", "HOST", "-u", "x-token", "-p", "TOKEN"],
        logged_in: "logged in",
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skopeo_pushes_to_two_tenants_with_one_configuration() {
    log_in_to_both(Login {
        program: "skopeo",
        login: &[
            "login",
            "--tls-verify=false",
            "--authfile=auth.json",
            "-u",
            "x-token",
            "-p",
            "TOKEN",
            "HOST",
        ],
        logged_in: "login succeeded",
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oras_pushes_to_two_tenants_with_one_configuration() {
    log_in_to_both(Login {
        program: "oras",
        login: &["login", "--plain-http", "-u", "x-token", "-p", "TOKEN", "HOST"],
        logged_in: "login succeeded",
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regctl_pushes_to_two_tenants_with_one_configuration() {
    log_in_to_both(Login {
        program: "regctl",
        login: &["registry", "login", "HOST", "-u", "x-token", "-p", "TOKEN"],
        logged_in: "",
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn helm_pushes_charts_to_two_tenants_with_one_configuration() {
    let (berth, admin) = two_tenants(settings()).await;
    let helm = Client::new("helm").variable("HTTP_PROXY", &berth.url(""));
    helm.run(&["create", "web"]).await;
    helm.run(&["package", "web"]).await;
    for tenant in ["acme", "other"] {
        let host = format!("{tenant}.{DOMAIN}");
        let token = admin.token(tenant, &["charts/**"], &["pull", "push"]).await;
        helm.run(&[
            "registry",
            "login",
            "--plain-http",
            "-u",
            "x-token",
            "-p",
            &token,
            &host,
        ])
        .await;
    }
    for tenant in ["acme", "other"] {
        let charts = format!("oci://{tenant}.{DOMAIN}/charts");
        helm.run(&["push", "--plain-http", "web-0.1.0.tgz", &charts])
            .await;
        let shown = helm
            .run(&["show", "chart", "--plain-http", &format!("{charts}/web")])
            .await;
        assert!(shown.text().contains("name: web"), "{}", shown.text());
        // Outside of what the token is for.
        let elsewhere = format!("oci://{tenant}.{DOMAIN}/elsewhere");
        assert!(
            !helm
                .attempt(&["push", "--plain-http", "web-0.1.0.tgz", &elsewhere])
                .await
                .success
        );
    }
}
