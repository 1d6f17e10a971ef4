//! PostgreSQL's own functions, operators and types, as far as they are trusted: an allow-list.

use bitflags::bitflags;

use crate::builtin_data::{FUNCTIONS, TYPES};

bitflags! {
    /// What is known of a trusted function.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Builtin: u8 {
        /// Cannot fail, warn or notice for any value of its argument types.
        const TOTAL = 1;
        /// An aggregate.
        const AGGREGATE = 1 << 1;
        /// A window function.
        const WINDOW = 1 << 2;
        /// Returns a set.
        const SET = 1 << 3;
        /// Another result every time.
        const VOLATILE = 1 << 4;
        /// Changes something (a sequence).
        const EFFECT = 1 << 5;
    }
}

/// A trusted function.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) flags: Builtin,
    /// Columns that it has as a table, if its result is composite.
    pub(crate) columns: &'static str,
    /// Its result type where all its variants have the same, else empty.
    pub(crate) result: &'static str,
}

/// The trusted function of this name in `pg_catalog`.
pub(crate) fn function(name: &str) -> Option<Function> {
    let index = FUNCTIONS.binary_search_by(|entry| entry.0.cmp(name)).ok()?;
    let &(name, flags, columns, result) = FUNCTIONS.get(index)?;
    Some(Function {
        name,
        flags: Builtin::from_bits_truncate(flags),
        columns,
        result,
    })
}

/// The builtin type of this name, as a static string.
pub(crate) fn type_name(name: &str) -> Option<&'static str> {
    let index = TYPES.binary_search(&name).ok()?;
    TYPES.get(index).copied()
}

/// Types whose values any other type's value can be written as, without fail.
pub(crate) fn is_text(name: &str) -> bool {
    matches!(name, "text" | "varchar" | "bpchar" | "name" | "char")
}

/// What an operator of `pg_catalog` can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    /// Cannot fail.
    Total,
    /// Cannot fail while its pattern is a plain constant.
    Like,
    /// Cannot fail while its pattern is a constant regular expression that is surely well-formed.
    Regex,
    /// Concatenation: cannot fail on text.
    Concat,
    /// Can fail.
    Partial,
}

/// The operator of this name in `pg_catalog`.
pub(crate) fn operator(name: &str) -> Option<Operator> {
    Some(match name {
        "=" | "<>" | "!=" | "<" | "<=" | ">" | ">=" | "->" | "->>" | "#>" | "#>>" | "@>" | "<@"
        | "&&" | "?" | "?|" | "?&" | "^@" | "@@" | "~<~" | "~<=~" | "~>~" | "~>=~" => {
            Operator::Total
        }
        "~~" | "~~*" | "!~~" | "!~~*" => Operator::Like,
        "~" | "~*" | "!~" | "!~*" => Operator::Regex,
        "||" => Operator::Concat,
        "!!" | "#" | "##" | "#-" | "%" | "&" | "&<" | "&<|" | "&>" | "*" | "*<" | "*<=" | "*<>"
        | "*=" | "*>" | "*>=" | "+" | "-" | "-|-" | "/" | "<->" | "<<" | "<<=" | "<<|" | "<@>"
        | "<^" | ">>" | ">>=" | ">^" | "?#" | "?-" | "?-|" | "?||" | "@" | "@-@" | "@?" | "@@@"
        | "^" | "|" | "|&>" | "|/" | "|>>" | "||/" | "~=" => Operator::Partial,
        _ => return None,
    })
}

/// Whether the operator answers yes or no.
pub(crate) fn is_condition(name: &str) -> bool {
    matches!(
        name,
        "=" | "<>"
            | "!="
            | "<"
            | "<="
            | ">"
            | ">="
            | "~~"
            | "~~*"
            | "!~~"
            | "!~~*"
            | "~"
            | "~*"
            | "!~"
            | "!~*"
            | "@>"
            | "<@"
            | "&&"
            | "?"
            | "?|"
            | "?&"
            | "^@"
            | "@@"
    )
}

/// Whether a constant LIKE pattern is one that no value can make fail.
pub(crate) fn plain_like(pattern: &str) -> bool {
    !pattern.contains('\\')
}

/// Whether a constant regular expression is surely well-formed and cheap: ordinary characters,
/// classes, groups, alternatives and single quantifiers. Says no to what it does not know.
pub(crate) fn plain_regex(pattern: &str) -> bool {
    let mut chars = pattern.chars().peekable();
    let mut groups = 0_usize;
    let mut atom = false;
    if pattern.starts_with("***") || pattern.starts_with("(?") || pattern.len() > 256 {
        return false;
    }
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(
                    'd' | 's' | 'w' | 'D' | 'S' | 'W' | '.' | '-' | '/' | '(' | ')' | '+' | '*'
                    | '?',
                ) => {
                    atom = true;
                }
                _ => return false,
            },
            '[' => {
                if chars.peek() == Some(&'^') {
                    chars.next();
                }
                let mut members = 0_usize;
                let mut last = '\0';
                loop {
                    match chars.next() {
                        Some(']') if members > 0 => break,
                        Some('-') => match (last, chars.next()) {
                            (low, Some(high))
                                if low.is_ascii_alphanumeric()
                                    && high.is_ascii_alphanumeric()
                                    && low <= high =>
                            {
                                last = '\0';
                            }
                            _ => return false,
                        },
                        Some(c) if c.is_alphanumeric() || c == ' ' || c == '_' => {
                            members += 1;
                            last = c;
                        }
                        _ => return false,
                    }
                }
                atom = true;
            }
            '(' => {
                if chars.peek() == Some(&'?') {
                    return false;
                }
                groups += 1;
                atom = false;
            }
            ')' => {
                if groups == 0 || !atom {
                    return false;
                }
                groups -= 1;
                atom = true;
            }
            '*' | '+' | '?' => {
                if !atom {
                    return false;
                }
                atom = false;
                if chars.peek() == Some(&'?') {
                    chars.next();
                }
                if matches!(chars.peek(), Some('*' | '+' | '?')) {
                    return false;
                }
                // What follows is a new atom; a group's end still has one before it.
                if matches!(chars.peek(), Some(')')) {
                    atom = true;
                }
            }
            '|' => {
                if !atom {
                    return false;
                }
                atom = false;
            }
            '^' | '$' => {
                if matches!(chars.peek(), Some('*' | '+' | '?' | ')')) {
                    return false;
                }
            }
            '{' | '}' | ']' => return false,
            _ => atom = true,
        }
    }
    groups == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted() {
        assert!(FUNCTIONS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(TYPES.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn what_reads_elsewhere_is_not_trusted() {
        for name in [
            "query_to_xml",
            "query_to_xmlschema",
            "table_to_xml",
            "schema_to_xml",
            "database_to_xml",
            "cursor_to_xml",
            "ts_stat",
            "ts_rewrite",
            "set_config",
            "pg_sleep",
            "pg_notify",
            "pg_read_file",
            "pg_read_binary_file",
            "pg_ls_dir",
            "lo_get",
            "lo_from_bytea",
            "loread",
            "pg_stat_get_activity",
            "pg_cancel_backend",
            "pg_advisory_lock",
            "dblink",
            "pg_logical_slot_get_changes",
            "pg_terminate_backend",
            "pg_reload_conf",
            "pg_stat_file",
            "current_query",
            "pg_cursor",
            "pg_export_snapshot",
            "pg_switch_wal",
            "pg_logical_emit_message",
            "lo_export",
            "pg_current_xact_id",
            "txid_current",
            "pg_prepared_statement",
            "pg_mcv_list_items",
        ] {
            assert!(function(name).is_none(), "{name}");
        }
    }

    #[test]
    fn regexes() {
        for good in [
            "^Zyph",
            r"(\d+)-(\d+)-(\d+)",
            "a|b",
            "x+?y",
            "[a-z0-9]*",
            "vexmoor",
            "(ab)+c",
        ] {
            assert!(plain_regex(good), "{good}");
        }
        for bad in [
            "(", ")", "[", "a{2}", "**", "+", r"\", r"(a)\1", "(?=x)", "a**", "()", "***:x",
            "[z-a]", "a||b",
        ] {
            assert!(!plain_regex(bad), "{bad}");
        }
    }
}
