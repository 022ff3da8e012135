//! Writing log lines without a system call in each request.
//!
//! Lines are collected in memory for a moment and written by one thread, many with one call, so that who
//! logs neither waits for the output nor wakes a thread each time. A reader that does not keep up slows
//! the writers down; nothing is dropped and memory stays bounded.

use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Bytes that may wait; beyond it, who logs waits too.
const MOST_WAITING: usize = 1024 * 1024;
/// How long a line may wait for others before it is written.
const GATHER: Duration = Duration::from_millis(5);
/// Bytes that are written without waiting for more.
const ENOUGH: usize = 128 * 1024;

/// Owns the thread; dropping it writes what waits.
pub(super) struct LogWriter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Takes lines; cheap to clone.
#[derive(Clone)]
pub(super) struct Lines(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    more: Condvar,
    room: Condvar,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// The thread sleeps and must be woken.
    asleep: bool,
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what comes until the end. A failing output loses its lines: there is nowhere to say so.
    fn write_to(&self, mut output: impl Write) {
        let mut batch = Vec::new();
        loop {
            let mut waiting = self.lock();
            while waiting.bytes.is_empty() {
                if waiting.ended {
                    return;
                }
                waiting.asleep = true;
                waiting = self.more.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            let gathering = |waiting: &mut Waiting| waiting.bytes.len() < ENOUGH && !waiting.ended;
            let gathered = self.more.wait_timeout_while(waiting, GATHER, gathering);
            let mut waiting = gathered.unwrap_or_else(PoisonError::into_inner).0;
            mem::swap(&mut waiting.bytes, &mut batch);
            drop(waiting);
            self.room.notify_all();
            let _ = output.write_all(&batch).and_then(|()| output.flush());
            batch.clear();
        }
    }
}

impl LogWriter {
    pub(super) fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let thread = thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || theirs.write_to(output))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    pub(super) fn lines(&self) -> Lines {
        Lines(self.shared.clone())
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.more.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.0.lock();
        while waiting.bytes.len() >= MOST_WAITING && !waiting.ended {
            waiting = self.0.room.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let before = waiting.bytes.len();
        waiting.bytes.extend_from_slice(line);
        let enough = before < ENOUGH && waiting.bytes.len() >= ENOUGH;
        let wake = mem::take(&mut waiting.asleep) || enough;
        drop(waiting);
        if wake {
            self.0.more.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_is_written_whole_and_in_its_thread_s_order_by_the_end() {
        let kept = Kept::default();
        let writer = LogWriter::start(kept.clone()).unwrap();
        thread::scope(|scope| {
            for name in 0..4 {
                let mut lines = writer.lines();
                scope.spawn(move || {
                    for number in 0..20_000 {
                        lines
                            .write_all(format!("{name} {number:0>60}\n").as_bytes())
                            .unwrap();
                    }
                });
            }
        });
        drop(writer);
        let text = String::from_utf8(mem::take(&mut *kept.0.lock().unwrap())).unwrap();
        let mut next = [0; 4];
        for line in text.lines() {
            let (name, number) = line.split_once(' ').unwrap();
            let name: usize = name.parse().unwrap();
            assert_eq!(number.parse::<usize>().unwrap(), next[name]);
            next[name] += 1;
        }
        assert_eq!(next, [20_000; 4]);
    }
}
