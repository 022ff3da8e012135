//! The log: where lines go, how they look, which are wanted.

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::log_json::JsonLines;
use super::log_writer::{Lines, LogWriter};
use crate::settings::LogFormat;
use crate::telemetry::Traces;

/// How lines look, decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Json,
}

/// The running log; what it holds back is written when this is dropped.
pub(super) struct Log {
    form: Form,
    _writer: LogWriter,
}

impl Log {
    pub(super) fn form(&self) -> Form {
        self.form
    }
}

/// Why the log could not be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogError {
    #[error("--log {0}: {1}")]
    Filter(String, tracing_subscriber::filter::ParseError),
    #[error("the log cannot be started: {0}")]
    Start(String),
}

/// Lines for people.
fn text<S>(terminal: bool, lines: Lines) -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fmt::layer()
        .with_ansi(terminal)
        .with_writer(move || lines.clone())
}

/// Sends the process's events to its standard error, and its spans to `traces`, whatever the filter of events says.
pub(super) fn start(filter: &str, format: LogFormat, traces: Option<&Traces>) -> Result<Log, LogError> {
    let terminal = std::io::stderr().is_terminal();
    let form = match format {
        LogFormat::Text => Form::Text,
        LogFormat::Json => Form::Json,
        LogFormat::Auto if terminal => Form::Text,
        LogFormat::Auto => Form::Json,
    };
    let filter = EnvFilter::try_new(filter).map_err(|error| LogError::Filter(filter.to_owned(), error))?;
    let writer = LogWriter::start(std::io::stderr()).map_err(|error| LogError::Start(error.to_string()))?;
    let lines = writer.lines();
    let registry = tracing_subscriber::registry();
    let started = match (form, traces) {
        (Form::Text, None) => registry.with(filter).with(text(terminal, lines)).try_init(),
        (Form::Json, None) => registry.with(filter).with(JsonLines::new(lines)).try_init(),
        (Form::Text, Some(traces)) => registry
            .with(text(terminal, lines).with_filter(filter))
            .with(traces.layer())
            .try_init(),
        (Form::Json, Some(traces)) => registry
            .with(JsonLines::new(lines).with_filter(filter))
            .with(traces.layer())
            .try_init(),
    };
    started.map_err(|error| LogError::Start(error.to_string()))?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or("no text");
        tracing::error!(place, panic = text, "a thread panicked");
    }));
    Ok(Log {
        form,
        _writer: writer,
    })
}
