//! Every file of the corpus, and what becomes of it by changes that need no coverage.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{TARGETS, Target};

/// Mutations of each target.
const ROUNDS: usize = 4000;
/// Longest input.
const LONGEST: usize = 64 << 10;
/// What no input may take, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);

fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target.name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
        .into_iter()
        .map(|file| (file.clone(), std::fs::read(&file).unwrap()))
        .collect()
}

/// Runs a target; whoever sees a failure needs the input.
fn run(target: &Target, input: &[u8], origin: &str) {
    let begun = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let took = begun.elapsed();
    let shown = || format!("{} on {origin}: {}", target.name, hex::encode(input));
    assert!(outcome.is_ok(), "{}", shown());
    assert!(took < PATIENCE, "{took:?}: {}", shown());
}

/// One to four changes, some of them by pieces of another file.
fn mutate(input: &mut Vec<u8>, other: &[u8], dice: &mut StdRng) {
    for _ in 0..dice.random_range(1..=4) {
        let at = dice.random_range(0..=input.len());
        let to = dice.random_range(at..=input.len().min(at + 64));
        match dice.random_range(0..7) {
            0 if at < input.len() => input[at] ^= 1 << dice.random_range(0..8),
            1 if at < input.len() => {
                input[at] = *b"\0\xff{}[](),:;=/%\"'-+*.0"
                    .get(dice.random_range(0..23))
                    .unwrap_or(&b'9')
            }
            2 => drop(input.drain(at..to)),
            3 => {
                let piece = input[at..to].to_vec();
                let times = dice.random_range(1..=200);
                let piece = piece.repeat(times);
                input.splice(at..at, piece);
            }
            4 if !other.is_empty() => {
                let from = dice.random_range(0..other.len());
                let until = dice.random_range(from..=other.len().min(from + 256));
                input.splice(at..at, other[from..until].iter().copied());
            }
            5 => input.truncate(at),
            _ => input.insert(at, dice.random()),
        }
        input.truncate(LONGEST);
    }
}

#[test]
fn no_parser_panics_or_takes_long_on_the_corpus_or_on_what_it_turns_into() {
    let seed: u64 = rand::random();
    for target in &TARGETS {
        let corpus = corpus(target);
        assert!(corpus.len() >= 3, "{} has too few examples", target.name);
        run(target, b"", "nothing");
        for (file, input) in &corpus {
            run(target, input, &file.display().to_string());
        }
        let mut dice = StdRng::seed_from_u64(seed);
        for _ in 0..ROUNDS {
            let (file, input) = &corpus[dice.random_range(0..corpus.len())];
            let (_, other) = &corpus[dice.random_range(0..corpus.len())];
            let mut input = input.clone();
            mutate(&mut input, other, &mut dice);
            run(
                target,
                &input,
                &format!("a mutation of {} (seed {seed})", file.display()),
            );
        }
    }
}

#[test]
fn every_folder_of_the_corpus_is_a_target_s() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(super::target(name.to_str().unwrap()).is_some(), "{name:?}");
    }
}
