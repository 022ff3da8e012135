//! CEL expressions over claims.
//!
//! A text of at most 4 KiB over claims of at most 16 KiB. Nested macros multiply, so that [`cost`] says first how long these
//! claims may take; evaluation runs on a blocking thread with a time limit, off the reactor. Nothing can stop it there, so that
//! only a few run at once, of one tenant one, and one that has exceeded the limit is left alone by its tenant for a while.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cel::common::ast::{EntryExpr, Expr, IdedEntryExpr};
use cel::{Context, IdedExpr, Program, Value};
use moka::sync::Cache;
use regex::RegexBuilder;

use super::cost::{self, Patterns};
use crate::metadata::TenantId;
use crate::shares::Shares;

/// Longest expression in bytes.
const TEXT_LIMIT: usize = 4096;
/// Most that an evaluation may cost, as [`cost`] counts: at about a nanosecond and a byte each.
pub(super) const STEPS: u64 = 50_000_000;
/// Deepest syntax tree. Evaluation takes about 1.5 KiB of a thread's stack of 2 MiB for each level.
const DEPTH: usize = 200;
/// Stack of the parser, which recurses as deep as the text has operators.
const PARSER_STACK: usize = 64 << 20;
/// Evaluations at once, those that nobody waits for any more included; of one tenant one.
const AT_ONCE: u32 = 4;
/// For how long an expression that took too long is not evaluated again.
const LEFT_ALONE: Duration = Duration::from_secs(600);
/// Longest evaluation.
const TIME_LIMIT: Duration = Duration::from_millis(500);
/// Most compiled expressions kept.
const KEPT: u64 = 1024;

/// Largest regular expression, in bytes as it is compiled, and the steps in which its size is told.
const PATTERN_SIZES: [usize; 4] = [4 << 10, 16 << 10, 64 << 10, 128 << 10];

/// An expression, and the sizes of its regular expressions.
struct Compiled {
    program: Program,
    patterns: Patterns,
}

/// Compiled expressions.
pub(super) struct Expressions {
    compiled: Cache<String, Arc<Result<Compiled, String>>>,
    turns: Shares,
    time_limit: Duration,
    /// Expressions that took too long. What one tenant's claims make of a text is no other's matter.
    endless: Cache<(TenantId, String), ()>,
}

impl Default for Expressions {
    fn default() -> Self {
        Self {
            compiled: Cache::new(KEPT),
            turns: Shares::new(AT_ONCE, 1),
            time_limit: TIME_LIMIT,
            endless: Cache::builder()
                .max_capacity(KEPT)
                .time_to_live(LEFT_ALONE)
                .build(),
        }
    }
}

impl Expressions {
    /// Whether an expression of a tenant is true of the claims. Whatever is not plainly true is false.
    pub(super) async fn holds(&self, tenant: TenantId, text: &str, claims: &serde_json::Value) -> bool {
        let key = (tenant, text.to_owned());
        if self.endless.contains_key(&key) {
            return false;
        }
        let compiled = match self.compiled.get(text) {
            Some(compiled) => compiled,
            None => {
                let compiled = match compile(text) {
                    Ok(compiled) => Arc::new(compiled),
                    Err(error) => {
                        tracing::warn!(%error, "an expression of a trust rule cannot be read now");
                        return false;
                    }
                };
                // What cannot be read is remembered too, so that no token has it read again.
                self.compiled.insert(text.to_owned(), compiled.clone());
                compiled
            }
        };
        if compiled.is_err() {
            return false;
        }
        let (claims, expression) = (claims.clone(), text.to_owned());
        let Some(turn) = self.turns.take(tenant, 1, self.time_limit).await else {
            return false;
        };
        let evaluation = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let Ok(Compiled { program, patterns }) = &*compiled else {
                return false;
            };
            if cost::steps(program.expression(), &claims, patterns) > STEPS {
                tracing::warn!(
                    expression,
                    "a token has too much for the macros in the expression of a trust rule"
                );
                return false;
            }
            let mut context = Context::default();
            if context.add_variable("claims", claims).is_err() {
                return false;
            }
            matches!(program.execute(&context), Ok(Value::Bool(true)))
        });
        // A panic inside, or an evaluation without end, is not true.
        match tokio::time::timeout(self.time_limit, evaluation).await {
            Ok(held) => matches!(held, Ok(true)),
            Err(_) => {
                tracing::warn!(expression = text, "an expression of a trust rule takes too long");
                self.endless.insert(key, ());
                false
            }
        }
    }
}

/// Whether a text is an expression, or what is wrong with it.
pub fn check(text: &str) -> Result<(), String> {
    let compiled = compile(text).map_err(|error| format!("the expression cannot be read now: {error}"))?;
    compiled.map(drop)
}

/// An expression, or what is wrong with it; an error only if there is no thread to read it on.
fn compile(text: &str) -> io::Result<Result<Compiled, String>> {
    if text.len() > TEXT_LIMIT {
        return Ok(Err(format!("the expression has more than {TEXT_LIMIT} bytes")));
    }
    let parse = || match Program::compile(text) {
        Ok(program) if is_deep(program.expression(), DEPTH) => {
            Err("the expression is nested too deeply, or a chain of too many operators".to_owned())
        }
        Ok(program) => {
            let mut patterns = Patterns::new();
            gather(program.expression(), &mut patterns)?;
            Ok(Compiled { program, patterns })
        }
        Err(errors) => Err(errors.to_string()),
    };
    // The parser is not ours: a panic in it must not be one of the server, nor may its recursion end it.
    std::thread::scope(|scope| {
        let parser = std::thread::Builder::new().stack_size(PARSER_STACK);
        let parsed = parser.spawn_scoped(scope, parse)?.join();
        Ok(parsed.unwrap_or_else(|_| Err("the expression cannot be read".to_owned())))
    })
}

/// Whether the tree has more levels than these.
fn is_deep(expression: &IdedExpr, levels: usize) -> bool {
    levels == 0
        || parts(expression)
            .into_iter()
            .any(|part| is_deep(part, levels - 1))
}

/// The regular expressions in a tree, with their sizes. Each is written out and small: they are compiled at each use.
fn gather(expression: &IdedExpr, patterns: &mut Patterns) -> Result<(), String> {
    if let Expr::Call(call) = &expression.expr
        && call.func_name == "matches"
    {
        let pattern = cost::pattern(call).ok_or("the pattern of matches is a text that is written out")?;
        let size = PATTERN_SIZES.into_iter().find_map(|size| {
            match RegexBuilder::new(pattern).size_limit(size).build() {
                Ok(_) => Some(Ok(size)),
                Err(regex::Error::CompiledTooBig(_)) => None,
                Err(error) => Some(Err(error.to_string())),
            }
        });
        let size = size.ok_or_else(|| format!("the pattern {pattern:?} is too large"))??;
        patterns.insert(pattern.to_owned(), size);
    }
    parts(expression)
        .into_iter()
        .try_for_each(|part| gather(part, patterns))
}

/// What an expression is made of.
fn parts(expression: &IdedExpr) -> Vec<&IdedExpr> {
    fn of_entry(entry: &IdedEntryExpr) -> Vec<&IdedExpr> {
        match &entry.expr {
            EntryExpr::StructField(field) => vec![&field.value],
            EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
        }
    }
    match &expression.expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => Vec::new(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().flat_map(of_entry).collect(),
        Expr::Struct(written) => written.entries.iter().flat_map(of_entry).collect(),
        Expr::Comprehension(repeated) => vec![
            &repeated.iter_range,
            &repeated.accu_init,
            &repeated.loop_cond,
            &repeated.loop_step,
            &repeated.result,
        ],
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
            assert!(expressions.holds(TenantId(1), text, &claims).await, "{text}");
        }
        for text in [
            "claims.ref == 'x'",
            "claims.absent == 'x'",
            "'true'",
            "claims.n",
            "1 / 0 == 1",
            "other.ref == 'x'",
        ] {
            assert!(!expressions.holds(TenantId(1), text, &claims).await, "{text}");
        }
    }

    #[tokio::test]
    async fn a_long_evaluation_takes_its_tenants_one_thread_and_is_left_alone_by_it() {
        let numbers: Vec<u32> = (0..300).collect();
        let claims = json!({ "n": numbers });
        // Ninety thousand rounds: some hundredths of a second, and it ends.
        let long = "claims.n.all(x, claims.n.all(y, x + y >= 0))";
        let (one, other) = (TenantId(1), TenantId(2));
        let expressions = Expressions {
            time_limit: Duration::from_millis(2),
            ..Expressions::default()
        };
        assert!(!expressions.holds(one, long, &claims).await);
        // Its thread is still at it, and others are free.
        assert!(expressions.turns.take(one, 1, Duration::ZERO).await.is_none());
        assert!(expressions.turns.take(other, 1, Duration::ZERO).await.is_some());
        let is_left_alone = |tenant| expressions.endless.contains_key(&(tenant, long.to_owned()));
        assert!(
            is_left_alone(one) && !is_left_alone(other),
            "what another's claims make of it is another matter"
        );
        let patient = Expressions::default();
        assert!(patient.holds(other, "claims.n.size() == 300", &claims).await);
    }

    #[tokio::test]
    async fn lists_that_are_too_long_for_nested_macros_are_not_gone_through() {
        let numbers: Vec<u32> = (0..4000).collect();
        let claims = json!({ "n": numbers, "m": [1, 2] });
        let expressions = Expressions::default();
        let once = "claims.n.exists(x, x == 3999)";
        assert!(expressions.holds(TenantId(1), once, &claims).await);
        for text in [
            "claims.n.all(x, claims.n.exists(y, x == y))",
            "claims.n.existsOne(x, claims.n.existsOne(y, x == y))",
        ] {
            let begun = std::time::Instant::now();
            assert!(!expressions.holds(TenantId(1), text, &claims).await, "{text}");
            assert!(begun.elapsed() < TIME_LIMIT, "{text}");
        }
        let short = json!({ "n": [1, 2, 3], "m": [1, 2] });
        let nested = "claims.n.all(x, claims.n.exists(y, claims.m.exists(z, x == y)))";
        assert!(expressions.holds(TenantId(1), nested, &short).await);
    }

    #[test]
    fn many_of_the_same_side_by_side_are_no_depth() {
        let names: Vec<String> = (0..100).map(|i| format!("claims.sub == 'team-{i}'")).collect();
        assert_eq!(check(&names.join(" || ")), Ok(()));
        let listed: Vec<String> = (0..150).map(|i| format!("'a-b-c-d.{i}.example.com'")).collect();
        assert_eq!(check(&format!("claims.sub in [{}]", listed.join(", "))), Ok(()));
    }

    #[test]
    fn what_is_no_expression_is_refused_with_a_reason() {
        let nested = "(".repeat(2000);
        // Each of them has no more than 4 KiB; the last operators stand on top of all others.
        let sum = ["1"; 1700].join("+");
        let (same, indexed) = (["1"; 1300].join("=="), format!("claims{}", "[0]".repeat(1300)));
        let fields = format!("size(claims){}", ".a".repeat(2000));
        for text in [
            "",
            "claims.ref ==",
            "claims.ref = 'x'",
            "claims.ref.matches(claims.pattern)",
            "claims.ref.matches('(')",
            r"claims.ref.matches('(\\w{200}){20}')",
            &nested,
            &sum,
            &same,
            &indexed,
            &fields,
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
