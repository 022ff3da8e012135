//! How long an expression may take over these claims, by an estimate from above: how many of its nodes are evaluated.
//!
//! Only macros repeat anything: each goes over a list or a map that is the claims', is written out, or is put together of such. So
//! a walk over the parsed expression knows how often what stands in a macro runs at most, however macros nest.

use cel::IdedExpr;
use cel::common::ast::{ComprehensionExpr, EntryExpr, Expr};
use serde_json::Value;

/// What a regular expression costs, which is compiled each time, in nodes.
const MATCH: u64 = 1000;

/// Of a part of an expression.
#[derive(Clone, Copy, Default)]
struct Cost {
    /// Nodes that are evaluated.
    steps: u64,
    /// Entries of the longest list or map in its value.
    longest: u64,
}

impl Cost {
    /// One after the other; the value may be of either.
    fn and(self, other: Self) -> Self {
        Self {
            steps: self.steps.saturating_add(other.steps),
            longest: self.longest.max(other.longest),
        }
    }
}

/// How many nodes are evaluated at most.
pub(super) fn steps(expression: &IdedExpr, claims: &Value) -> u64 {
    cost(expression, longest(claims)).steps
}

/// `given` is the longest list or map in what a name may stand for.
fn cost(expression: &IdedExpr, given: u64) -> Cost {
    let node = |longest| Cost { steps: 1, longest };
    match &expression.expr {
        Expr::Unspecified | Expr::Literal(_) => node(0),
        Expr::Ident(_) => node(given),
        Expr::Select(select) => node(given).and(cost(&select.operand, given)),
        Expr::Call(call) => {
            let own = if call.func_name == "matches" { MATCH } else { 1 };
            // Lists are joined; nothing else that is known here makes longer ones.
            let joins = call.func_name == "_+_";
            let parts = call.target.as_deref().into_iter().chain(&call.args);
            parts.fold(
                Cost {
                    steps: own,
                    longest: 0,
                },
                |sum, part| {
                    let part = cost(part, given);
                    let joined = sum.longest.saturating_add(part.longest);
                    let both = sum.and(part);
                    Cost {
                        longest: if joins { joined } else { both.longest },
                        ..both
                    }
                },
            )
        }
        Expr::List(list) => {
            let entries = u64::try_from(list.elements.len()).unwrap_or(u64::MAX);
            let elements = list.elements.iter().map(|element| cost(element, given));
            elements.fold(node(entries), Cost::and)
        }
        Expr::Map(map) => of_entries(&map.entries, given),
        Expr::Struct(made) => of_entries(&made.entries, given),
        Expr::Comprehension(macros) => of_macro(macros, given),
    }
}

fn of_entries(entries: &[cel::common::ast::IdedEntryExpr], given: u64) -> Cost {
    let made = Cost {
        steps: 1,
        longest: u64::try_from(entries.len()).unwrap_or(u64::MAX),
    };
    entries.iter().fold(made, |sum, entry| match &entry.expr {
        EntryExpr::StructField(field) => sum.and(cost(&field.value, given)),
        EntryExpr::MapEntry(entry) => sum.and(cost(&entry.key, given)).and(cost(&entry.value, given)),
    })
}

fn of_macro(macros: &ComprehensionExpr, given: u64) -> Cost {
    let (range, begun) = (cost(&macros.iter_range, given), cost(&macros.accu_init, given));
    let times = range.longest;
    // What its own names stand for: an entry of the range, or what has been gathered, of which each round adds one.
    let inside = given.max(times);
    let round = cost(&macros.loop_cond, inside).and(cost(&macros.loop_step, inside));
    let result = cost(&macros.result, inside);
    let rounds = round.steps.saturating_add(1).saturating_mul(times);
    Cost {
        steps: [range.steps, begun.steps, rounds, result.steps]
            .into_iter()
            .fold(0, u64::saturating_add),
        longest: times.saturating_add(round.longest),
    }
}

/// How many entries the longest list or object has.
fn longest(value: &Value) -> u64 {
    let (own, within) = match value {
        Value::Array(list) => (list.len(), list.iter().map(longest).max()),
        Value::Object(object) => (object.len(), object.values().map(longest).max()),
        _ => (0, None),
    };
    let own = u64::try_from(own).unwrap_or(u64::MAX);
    own.max(within.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use cel::Program;
    use serde_json::json;

    use super::*;

    /// Of an expression over a list `n` of so many entries.
    fn over(entries: usize, text: &str) -> u64 {
        let claims = json!({ "n": vec![1; entries] });
        steps(Program::compile(text).unwrap().expression(), &claims)
    }

    #[test]
    fn macros_side_by_side_add_up_and_nested_ones_multiply() {
        let one = over(1000, "claims.n.exists(g, g == 1)");
        assert!((1000..20_000).contains(&one), "{one}");
        let three = "claims.n.exists(g, g == 1) || claims.n.exists(g, g == 2) || claims.n.exists(g, g == 3)";
        assert!(over(1000, three) <= one * 3 + 10);
        for nested in [
            "claims.n.all(x, claims.n.all(y, true))",
            "claims.n.existsOne(x, claims.n.existsOne(y, true))",
            "claims.n.all//a comment\n(x, claims.n.exists (y, true))",
            "claims.n.map(x, claims.n.filter(y, true)).size() == 1",
        ] {
            let steps = over(1000, nested);
            assert!((1_000_000..50_000_000).contains(&steps), "{nested}: {steps}");
        }
        let deep = "claims.n.all(a, ".repeat(12) + "true" + &")".repeat(12);
        assert_eq!(over(1000, &deep), u64::MAX);
    }

    #[test]
    fn lists_that_are_made_count_with_all_that_they_are_made_of() {
        let joined = over(1000, "(claims.n + claims.n + claims.n).all(x, true)");
        assert!(joined >= 3000, "{joined}");
        let written = over(
            0,
            "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10].all(x, [1, 2, 3, 4, 5].all(y, true))",
        );
        assert!((50..5000).contains(&written), "{written}");
        let mapped = over(1000, "claims.n.map(x, x).all(y, true)");
        assert!(mapped >= 2000, "{mapped}");
        let gathered = over(1000, "claims.n.map(x, claims.n).all(y, y.all(z, true))");
        assert!(gathered >= 1_000_000, "{gathered}");
        assert!(over(10, "claims.s.matches('a')") > over(10, "claims.s.contains('a')") + 900);
        // Commas and pluses in texts are none.
        // However long an expression is, each node is looked at once.
        assert!(over(10, &vec!["1"; 500].join("+")) < 2000);
        let texts = over(100, "claims.n.all(x, 'a,b,c,d+e+f'.contains(','))");
        assert!(texts < 2000, "{texts}");
    }
}
