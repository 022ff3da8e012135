//! What an expression may cost over these claims, by an estimate from above: nodes that are evaluated, and entries and bytes that
//! they compare and copy, since lists are copied whole wherever they are joined.
//!
//! Only macros repeat anything, and only they and `+` make long values of short ones: each goes over a list or a map that is the
//! claims', is written out, or is put together of such. So a walk over the parsed expression bounds time and memory, however
//! macros nest.

use std::collections::HashMap;

use cel::IdedExpr;
use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedEntryExpr, LiteralValue, operators,
};
use serde_json::Value;

/// Evaluation of one node.
const NODE: u64 = 10;
/// One entry of a list or a map, as it lies in memory.
const ENTRY: u64 = 32;
/// A number or a truth.
const SMALL: u64 = 8;
/// Each byte of a regular expression as it is compiled, which it is each time.
const COMPILED: u64 = 10;
/// So many bytes of it cost as much as one of the text that it is held against.
const SEARCHED: u64 = 256;
/// Longest text of a number.
const NUMBER_TEXT: usize = 350;
/// The name of the claims.
const CLAIMS: &str = "claims";

/// Functions whose value is a number or a truth.
const OF_NUMBERS: [&str; 25] = [
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::LESS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::GREATER_EQUALS,
    operators::IN,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::NOT_STRICTLY_FALSE,
    operators::SUBSTRACT,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::NEGATE,
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "size",
    "int",
    "uint",
    "double",
    "bool",
];

/// What a value is at most.
#[derive(Debug, Clone, Copy, Default)]
struct Bound {
    /// Entries of a list or a map.
    len: u64,
    /// Memory of all of it.
    weight: u64,
    /// The same of its heaviest entry.
    entry: u64,
}

/// What a part of an expression costs, and its value.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    steps: u64,
    value: Bound,
}

/// Bytes of each regular expression as it is compiled.
pub(super) type Patterns = HashMap<String, usize>;

/// Names, the innermost first.
enum Names<'a> {
    Claims(&'a Value, &'a Patterns),
    Local {
        name: &'a str,
        value: Bound,
        outer: &'a Names<'a>,
    },
}

/// What an expression costs at most.
pub(super) fn steps(expression: &IdedExpr, claims: &Value, patterns: &Patterns) -> u64 {
    Names::Claims(claims, patterns).cost(expression).steps
}

/// The pattern of a call of `matches`, if it is written out.
pub(super) fn pattern(call: &CallExpr) -> Option<&str> {
    match &call.args.last()?.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

impl Bound {
    fn small() -> Self {
        Self {
            weight: SMALL,
            ..Self::default()
        }
    }

    fn of(value: &Value) -> Self {
        match value {
            Value::Array(list) => Self::made(list.iter().map(|entry| Self::of(entry).weight)),
            Value::Object(object) => {
                let entries = object.iter();
                Self::made(
                    entries.map(|(key, value)| count(key.len()).saturating_add(Self::of(value).weight)),
                )
            }
            Value::String(text) => Self {
                weight: SMALL.saturating_add(count(text.len())),
                ..Self::default()
            },
            Value::Null | Value::Bool(_) | Value::Number(_) => Self::small(),
        }
    }

    /// A list or a map of entries with these weights.
    fn made(entries: impl Iterator<Item = u64>) -> Self {
        entries.fold(Self::small(), |made, entry| Self {
            len: made.len.saturating_add(1),
            weight: made.weight.saturating_add(ENTRY).saturating_add(entry),
            entry: made.entry.max(entry),
        })
    }

    /// An entry of it.
    fn part(self) -> Self {
        Self {
            len: self.entry / ENTRY,
            weight: self.entry,
            entry: self.entry,
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            len: self.len.max(other.len),
            weight: self.weight.max(other.weight),
            entry: self.entry.max(other.entry),
        }
    }

    fn joined(self, other: Self) -> Self {
        Self {
            len: self.len.saturating_add(other.len),
            weight: self.weight.saturating_add(other.weight),
            entry: self.entry.max(other.entry),
        }
    }
}

impl<'a> Names<'a> {
    fn cost(&self, expression: &IdedExpr) -> Cost {
        let of = |value: Bound| Cost { steps: NODE, value };
        // A name is looked for in all scopes, with each of its parts.
        let scopes = NODE.saturating_mul(self.scopes());
        // A part of the claims is known as it is.
        if let Some((value, parts)) = self.exact(expression) {
            return Cost {
                steps: scopes.saturating_mul(parts),
                value: Bound::of(value),
            };
        }
        match &expression.expr {
            Expr::Unspecified => of(Bound::small()),
            Expr::Literal(LiteralValue::String(text)) => of(text_of(text.inner().len())),
            Expr::Literal(LiteralValue::Bytes(bytes)) => of(text_of(bytes.inner().len())),
            Expr::Literal(_) => of(Bound::small()),
            Expr::Ident(name) => Cost {
                steps: scopes,
                value: self.bound(name),
            },
            Expr::Select(select) => {
                let operand = self.cost(&select.operand);
                let value = if select.test {
                    Bound::small()
                } else {
                    operand.value.part()
                };
                Cost {
                    // What it is a part of may be copied for it.
                    steps: operand
                        .steps
                        .saturating_add(scopes)
                        .saturating_add(operand.value.weight),
                    value,
                }
            }
            Expr::Call(call) => {
                let parts: Vec<Cost> = call
                    .target
                    .as_deref()
                    .into_iter()
                    .chain(&call.args)
                    .map(|part| self.cost(part))
                    .collect();
                let cost = self.call(&call.func_name, &parts);
                Cost {
                    steps: cost.steps.saturating_add(self.search(call, &parts)),
                    ..cost
                }
            }
            Expr::List(list) => {
                let parts: Vec<Cost> = list.elements.iter().map(|element| self.cost(element)).collect();
                made(&parts, Bound::made(parts.iter().map(|part| part.value.weight)))
            }
            Expr::Map(map) => self.entries(&map.entries),
            Expr::Struct(written) => self.entries(&written.entries),
            Expr::Comprehension(repeated) => self.repeated(repeated),
        }
    }

    /// The part of the claims that an expression names, if it names no more than that, and the parts of its name.
    fn exact(&self, expression: &IdedExpr) -> Option<(&'a Value, u64)> {
        match &expression.expr {
            Expr::Ident(name) if name == CLAIMS => Some((self.claims()?, 1)),
            Expr::Select(select) if !select.test => {
                let (value, parts) = self.exact(&select.operand)?;
                Some((value.get(&select.field)?, parts + 1))
            }
            _ => None,
        }
    }

    fn scopes(&self) -> u64 {
        match self {
            Self::Claims(..) => 1,
            Self::Local { outer, .. } => outer.scopes() + 1,
        }
    }

    /// What a search by a regular expression costs: its compilation, and the text by its size.
    fn search(&self, call: &CallExpr, parts: &[Cost]) -> u64 {
        if call.func_name != "matches" {
            return 0;
        }
        let size = pattern(call).and_then(|pattern| self.patterns().get(pattern));
        let size = size.map_or(u64::MAX, |size| count(*size));
        let text = parts.first().map_or(0, |text| text.value.weight);
        let searched = (size / SEARCHED).saturating_mul(text);
        size.saturating_mul(COMPILED).saturating_add(searched)
    }

    fn patterns(&self) -> &'a Patterns {
        match self {
            Self::Claims(_, patterns) => patterns,
            Self::Local { outer, .. } => outer.patterns(),
        }
    }

    /// The claims, unless their name stands for something else here.
    fn claims(&self) -> Option<&'a Value> {
        match self {
            Self::Claims(claims, _) => Some(claims),
            Self::Local { name, .. } if *name == CLAIMS => None,
            Self::Local { outer, .. } => outer.claims(),
        }
    }

    fn bound(&self, of: &str) -> Bound {
        match self {
            Self::Claims(claims, _) => Bound::of(claims),
            Self::Local { name, value, .. } if *name == of => *value,
            Self::Local { outer, .. } => outer.bound(of),
        }
    }

    fn call(&self, name: &str, parts: &[Cost]) -> Cost {
        let values = || parts.iter().map(|part| part.value);
        let value = match name {
            operators::ADD => values().fold(Bound::default(), Bound::joined),
            operators::INDEX | operators::OPT_INDEX | operators::OPT_SELECT => {
                values().fold(Bound::default(), |all, value| all.or(value.part()))
            }
            operators::CONDITIONAL => values().skip(1).fold(Bound::default(), Bound::or),
            name if OF_NUMBERS.contains(&name) => Bound::small(),
            "string" => values().fold(text_of(NUMBER_TEXT), Bound::or),
            // Whatever it is, it is one of them or a part of one.
            _ => values().fold(Bound::default(), |all, value| all.or(value).or(value.part())),
        };
        let looked_at = values().fold(NODE, |sum, value| sum.saturating_add(value.weight));
        Cost {
            steps: parts
                .iter()
                .fold(looked_at, |sum, part| sum.saturating_add(part.steps)),
            value,
        }
    }

    fn entries(&self, entries: &[IdedEntryExpr]) -> Cost {
        let of_entry = |entry: &IdedEntryExpr| match &entry.expr {
            EntryExpr::StructField(field) => self.cost(&field.value),
            EntryExpr::MapEntry(entry) => {
                let (key, value) = (self.cost(&entry.key), self.cost(&entry.value));
                Cost {
                    steps: key.steps.saturating_add(value.steps),
                    value: key.value.joined(value.value),
                }
            }
        };
        let parts: Vec<Cost> = entries.iter().map(of_entry).collect();
        made(&parts, Bound::made(parts.iter().map(|part| part.value.weight)))
    }

    fn repeated(&self, repeated: &ComprehensionExpr) -> Cost {
        let (range, begun) = (self.cost(&repeated.iter_range), self.cost(&repeated.accu_init));
        let times = range.value.len;
        let entry = range.value.part();
        let second = repeated.iter_var2.as_deref().unwrap_or(&repeated.iter_var);
        let first = Names::Local {
            name: &repeated.iter_var,
            value: entry,
            outer: self,
        };
        let both = Names::Local {
            name: second,
            value: entry,
            outer: &first,
        };
        let with = |gathered: Bound, part: &IdedExpr| {
            let inside = Names::Local {
                name: &repeated.accu_var,
                value: gathered,
                outer: &both,
            };
            inside.cost(part)
        };
        // What one round adds to what has been gathered; no text can name that.
        let (condition, step) = (
            with(Bound::default(), &repeated.loop_cond),
            with(Bound::default(), &repeated.loop_step),
        );
        let gathers = !matches!(repeated.accu_init.expr, Expr::Literal(_));
        let gathered = match gathers {
            true => Bound {
                len: begun
                    .value
                    .len
                    .saturating_add(times.saturating_mul(step.value.len)),
                weight: begun
                    .value
                    .weight
                    .saturating_add(times.saturating_mul(step.value.weight)),
                entry: begun.value.entry.max(step.value.entry),
            },
            false => Bound::small(),
        };
        let round = NODE
            .saturating_add(condition.steps)
            .saturating_add(step.steps)
            // Its entry is copied for each round.
            .saturating_add(entry.weight);
        let result = with(gathered, &repeated.result);
        Cost {
            steps: [
                range.steps,
                begun.steps,
                times.saturating_mul(round),
                gathered.weight,
                result.steps,
            ]
            .into_iter()
            .fold(0, u64::saturating_add),
            value: result.value,
        }
    }
}

/// A list or a map that is written out: its parts are copied into it.
fn made(parts: &[Cost], value: Bound) -> Cost {
    let own = NODE.saturating_add(value.weight);
    Cost {
        steps: parts.iter().fold(own, |sum, part| sum.saturating_add(part.steps)),
        value,
    }
}

fn text_of(bytes: usize) -> Bound {
    Bound {
        weight: SMALL.saturating_add(count(bytes)),
        ..Bound::default()
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use cel::Program;
    use serde_json::json;

    use super::super::expression::STEPS;
    use super::*;

    /// Of an expression over a list `n` of so many small numbers, a text `s` of as many bytes, and short ones.
    fn over(entries: usize, text: &str) -> u64 {
        let claims = json!({ "n": vec![1; entries], "s": "s".repeat(entries), "m": [1, 2], "t": "t" });
        steps(Program::compile(text).unwrap().expression(), &claims, &patterns())
    }

    fn patterns() -> Patterns {
        let sizes = [
            ("a", 4096),
            ("^team-[a-z]+$", 4096),
            ("^refs/heads/(main|release-.*)$", 16384),
            ("large", 131_072),
        ];
        sizes.map(|(pattern, size)| (pattern.to_owned(), size)).into()
    }

    #[test]
    fn macros_side_by_side_add_up_and_nested_ones_multiply() {
        let one = over(1000, "claims.n.exists(g, g == 1)");
        assert!((1000..300_000).contains(&one), "{one}");
        let three = "claims.n.exists(g, g == 1) || claims.n.exists(g, g == 2) || claims.n.exists(g, g == 3)";
        assert!(over(1000, three) <= one * 3 + 200);
        for nested in [
            "claims.n.all(x, claims.n.all(y, true))",
            "claims.n.existsOne(x, claims.n.existsOne(y, true))",
            "claims.n.all//a comment\n(x, claims.n.exists (y, true))",
            "claims.n.map(x, claims.n.filter(y, true)).size() == 1",
            "[claims].exists(c, c.n.all(x, c.n.all(y, true)))",
            "claims.m.all(claims, [1, 2].all(x, true)) && claims.n.all(y, claims.n.all(z, true))",
        ] {
            assert!(
                over(1000, nested) > 10_000_000,
                "{nested}: {}",
                over(1000, nested)
            );
        }
        // A list that is short is short, whatever else a token says.
        assert!(
            over(
                6000,
                "claims.m.all(x, claims.m.all(y, claims.m.all(z, x == y || y == z)))"
            ) < 10_000
        );
        let deep = "claims.n.all(a, ".repeat(12) + "true" + &")".repeat(12);
        assert_eq!(over(100, &deep), over(100, &deep).max(u64::MAX / 2));
    }

    #[test]
    fn what_people_write_is_within_the_limit() {
        let groups: Vec<String> = (0..200)
            .map(|i| format!("{i:08}-0000-0000-0000-000000000000"))
            .collect();
        let claims = json!({ "groups": groups, "ref": "refs/heads/main", "teams": ["a", "b"] });
        for text in [
            "claims.groups.exists(g, g == 'a')",
            "claims.groups.exists(g, g.startsWith('a')) || claims.groups.exists(g, g in ['b', 'c', 'd'])",
            "claims.groups.exists(g, claims.teams.exists(t, t == g))",
            "claims.groups.filter(g, g.startsWith('a')).map(g, g + '-x').size() > 1",
            "claims.groups.exists(g, g.matches('^team-[a-z]+$')) || claims.groups.exists(g, g.matches('a'))",
            "claims.groups.filter(g, g.startsWith('a')).map(g, g + '-x').filter(g, g.endsWith('b')).size() > 1",
            "claims.ref.matches('^refs/heads/(main|release-.*)$') && 'a' in claims.teams",
        ] {
            let steps = steps(Program::compile(text).unwrap().expression(), &claims, &patterns());
            assert!(steps <= STEPS, "{text}: {steps}");
        }
    }

    #[test]
    fn what_grows_in_memory_costs_all_that_is_copied() {
        for text in [
            "claims.n.map(x, claims.n + claims.n).size() == 0",
            &format!(
                "[claims.s].map(a, a{}).map(b, b{}).size() == 0",
                "+a".repeat(600),
                "+b".repeat(600)
            ),
            "claims.n.map(x, claims.n).all(y, y.all(z, true))",
            "claims.n.all(x, claims.n == claims.n)",
            "claims.n.all(x, x in claims.n)",
            "claims.n.all(x, claims.s.contains(claims.s))",
            "claims.n.map(x, [claims.s, claims.s, claims.s, claims.s, claims.s]).size() == 1",
        ] {
            assert!(over(6000, text) > STEPS, "{}: {}", &text[..40], over(6000, text));
        }
        let joined = over(1000, "(claims.n + claims.n + claims.n).all(x, true)");
        assert!(joined > 3 * over(1000, "claims.n.all(x, true)"), "{joined}");
        let written = over(
            0,
            "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10].all(x, [1, 2, 3, 4, 5].all(y, true))",
        );
        assert!((500..50_000).contains(&written), "{written}");
        let mapped = over(1000, "claims.n.map(x, x).all(y, true)");
        assert!(mapped > 2 * over(1000, "claims.n.all(x, true)"), "{mapped}");
        for text in [
            "claims.n.all(x, claims.t.matches('large'))",
            "claims.n.all(x, claims.s.matches('a'))",
            "claims.t.matches(claims.s)",
        ] {
            assert!(over(2000, text) > STEPS, "{text}: {}", over(2000, text));
        }
        // Entries are copied into the names of a macro, and numbers have long texts.
        let copied = "[[claims.n, claims.n]].all(c, claims.n.all(x, [claims.n].all(y, true)))";
        assert!(over(2000, copied) > STEPS, "{}", over(2000, copied));
        assert!(over(10, "string(1e308) + string(1e308)") > 700);
        // However long an expression is, each node is looked at once.
        assert!(over(10, &vec!["1"; 500].join("+")) < 10_000_000);
    }
}
