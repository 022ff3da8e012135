//! CEL expressions over claims.
//!
//! A text of at most 4 KiB over claims of at most 16 KiB. Nested macros multiply, so the number of them in one
//! expression is bounded too; evaluation runs on a blocking thread with a time limit, off the reactor. Nothing can stop it
//! there, so that only a few run at once, and one that has exceeded the limit is left alone for a while.

use std::sync::Arc;
use std::time::Duration;

use cel::{Context, Program, Value};
use moka::sync::Cache;
use tokio::sync::Semaphore;

/// Longest expression in bytes.
const TEXT_LIMIT: usize = 4096;
/// Most macros (`all`, `exists`, `map`, `filter`, ...) in one expression.
const MACROS: usize = 3;
/// Evaluations at once, those that nobody waits for any more included.
const AT_ONCE: usize = 2;
/// For how long an expression that took too long is not evaluated again.
const LEFT_ALONE: Duration = Duration::from_secs(600);
/// Longest evaluation.
const TIME_LIMIT: Duration = Duration::from_millis(500);
/// Most compiled expressions kept.
const KEPT: u64 = 1024;

/// Compiled expressions.
pub(super) struct Expressions {
    compiled: Cache<String, Arc<Program>>,
    turns: Arc<Semaphore>,
    /// Expressions that took too long.
    endless: Cache<String, ()>,
}

impl Default for Expressions {
    fn default() -> Self {
        Self {
            compiled: Cache::new(KEPT),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            endless: Cache::builder()
                .max_capacity(KEPT)
                .time_to_live(LEFT_ALONE)
                .build(),
        }
    }
}

impl Expressions {
    /// Whether an expression is true of the claims. Whatever is not plainly true is false.
    pub(super) async fn holds(&self, text: &str, claims: &serde_json::Value) -> bool {
        if self.endless.contains_key(text) {
            return false;
        }
        let program = match self.compiled.get(text) {
            Some(program) => program,
            None => match compile(text) {
                Ok(program) => {
                    let program = Arc::new(program);
                    self.compiled.insert(text.to_owned(), program.clone());
                    program
                }
                Err(_) => return false,
            },
        };
        let claims = claims.clone();
        let turn = tokio::time::timeout(TIME_LIMIT, self.turns.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return false;
        };
        let evaluation = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let mut context = Context::default();
            if context.add_variable("claims", claims).is_err() {
                return false;
            }
            matches!(program.execute(&context), Ok(Value::Bool(true)))
        });
        // A panic inside, or an evaluation without end, is not true.
        match tokio::time::timeout(TIME_LIMIT, evaluation).await {
            Ok(held) => matches!(held, Ok(true)),
            Err(_) => {
                tracing::warn!(expression = text, "an expression of a trust rule takes too long");
                self.endless.insert(text.to_owned(), ());
                false
            }
        }
    }
}

/// Whether a text is an expression, or what is wrong with it.
pub fn check(text: &str) -> Result<(), String> {
    compile(text).map(drop)
}

fn compile(text: &str) -> Result<Program, String> {
    if text.len() > TEXT_LIMIT {
        return Err(format!("the expression has more than {TEXT_LIMIT} bytes"));
    }
    let depth = text.chars().scan(0_usize, |depth, c| {
        *depth = match c {
            '(' | '[' | '{' => *depth + 1,
            ')' | ']' | '}' => depth.saturating_sub(1),
            _ => *depth,
        };
        Some(*depth)
    });
    if depth.max().unwrap_or_default() > 64 || text.matches(['!', '-', '?']).count() > 256 {
        return Err("the expression is nested too deeply".to_owned());
    }
    let macros = [".all(", ".exists(", ".exists_one(", ".map(", ".filter("];
    let packed: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    if macros
        .iter()
        .map(|name| packed.matches(name).count())
        .sum::<usize>()
        > MACROS
    {
        return Err(format!(
            "the expression uses more than {MACROS} of all, exists, exists_one, map and filter"
        ));
    }
    // The parser is not ours: a panic in it must not be one of the server.
    let parsed = std::panic::catch_unwind(|| Program::compile(text));
    match parsed {
        Ok(Ok(program)) => Ok(program),
        Ok(Err(errors)) => Err(errors.to_string()),
        Err(_) => Err("the expression cannot be read".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn only_what_is_plainly_true_holds() {
        let claims =
            json!({ "ref": "refs/heads/main", "repository": "acme/app", "n": 3, "teams": ["a", "b"] });
        let expressions = Expressions::default();
        for text in [
            "claims.ref == 'refs/heads/main'",
            "claims.repository.startsWith('acme/') && claims.n > 2",
            "claims.teams.exists(t, t == 'b')",
            "claims.ref.matches('^refs/heads/(main|release-.*)$')",
        ] {
            assert!(check(text).is_ok(), "{text}");
            assert!(expressions.holds(text, &claims).await, "{text}");
        }
        for text in [
            "claims.ref == 'x'",
            "claims.absent == 'x'",
            "'true'",
            "claims.n",
            "1 / 0 == 1",
            "other.ref == 'x'",
        ] {
            assert!(!expressions.holds(text, &claims).await, "{text}");
        }
    }

    #[tokio::test]
    async fn an_expression_without_end_takes_one_thread_and_is_left_alone() {
        let numbers: Vec<u32> = (0..150).collect();
        let claims = json!({ "n": numbers });
        // Millions of steps, some seconds, and it ends.
        let endless = "claims.n.all(x, claims.n.all(y, claims.n.all(z, x + y + z >= 0)))";
        let expressions = Expressions::default();
        assert!(!expressions.holds(endless, &claims).await);
        assert_eq!(expressions.turns.available_permits(), AT_ONCE - 1);
        let begun = std::time::Instant::now();
        assert!(!expressions.holds(endless, &claims).await);
        assert!(begun.elapsed() < TIME_LIMIT);
        assert!(expressions.holds("claims.n.size() == 150", &claims).await);
    }

    #[test]
    fn what_is_no_expression_is_refused_with_a_reason() {
        let nested = "(".repeat(2000);
        let macros = "claims.a.all(x, claims.a.all(y, claims.a.all(z, claims.a.all(w, true))))";
        for text in [
            "",
            "claims.ref ==",
            "claims.ref = 'x'",
            &nested,
            macros,
            &"a".repeat(5000),
        ] {
            assert!(
                check(text).is_err_and(|why| !why.is_empty()),
                "{}",
                &text[..text.len().min(40)]
            );
        }
    }
}
