//! A real browser that goes through a flow of `tests/browser/flows`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::client::Client;
use crate::environment::{output_folder, program};

/// What drives the browser; it finds its packages beside the program `playwright-core` on `PATH`.
const DRIVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/browser");

/// Longest time of a flow. Several go on at once, beside other tests, on two cores.
const LIMIT: Duration = Duration::from_secs(420);

/// A browser with an empty profile for each flow. The driver ends a flow after 360 seconds and shows where it stood;
/// should the driver itself hang, it is killed like every [`Client`], by its process id after 420 seconds, and Chromium
/// ends with it.
#[derive(Debug, Default)]
pub struct Browser {
    variables: Vec<(String, String)>,
}

/// What a flow left.
#[derive(Debug, Deserialize)]
pub struct BrowserOutcome {
    /// The pictures and `result.json`: `browser/<test>/<flow>` in the output folder.
    #[serde(skip)]
    pub folder: PathBuf,
    /// The steps in their order; all of them passed.
    pub steps: Vec<BrowserStep>,
    /// The figures that the flow noted, by name.
    pub notes: Map<String, Value>,
}

/// One step of a flow.
#[derive(Debug, Deserialize)]
pub struct BrowserStep {
    /// What it shows, a sentence.
    pub name: String,
    /// How long it took.
    pub milliseconds: u64,
}

impl Browser {
    /// A browser without further variables.
    pub fn new() -> Browser {
        Browser::default()
    }

    /// A further environment variable of every flow: `BASE_URL`, the pages under test, and what the flow asks for.
    pub fn variable(mut self, name: &str, value: &str) -> Browser {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Goes through `tests/browser/flows/<flow>.mjs`. What a flow of that name left for the same test before is gone.
    ///
    /// # Panics
    /// If a step fails; the message shows what the driver printed, the folder has a picture of the page.
    pub async fn run(&self, flow: &str) -> BrowserOutcome {
        // Says what to do if nothing of it is installed.
        program("playwright-core");
        let chromium = program("chromium");
        let test = std::thread::current().name().unwrap_or("test").replace("::", ".");
        let folder = output_folder("browser", &format!("{test}/{flow}"));
        let node = Client::new("node")
            .limit(LIMIT)
            .variable("CHROMIUM", &chromium.to_string_lossy())
            .variable("BROWSER_OUTPUT", &folder.to_string_lossy());
        let node = self
            .variables
            .iter()
            .fold(node, |node, (name, value)| node.variable(name, value));

        let runner = format!("{DRIVER}/run.mjs");
        node.run(&[&runner, &format!("{DRIVER}/flows/{flow}.mjs")]).await;

        let result = folder.join("result.json");
        let text = std::fs::read(&result).unwrap_or_else(|e| panic!("{}: {e}", result.display()));
        let outcome = serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", result.display()));
        BrowserOutcome { folder, ..outcome }
    }
}
