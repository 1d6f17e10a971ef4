//! What is found out about a text, and how it is printed.

use std::fmt::Write as _;

use chaperone_contract::Limits;
use serde::Serialize;

/// Everything about one text.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) subject: String,
    pub(super) issuer: String,
    pub(super) groups: Vec<String>,
    pub(super) purpose: Option<String>,
    pub(super) target: String,
    pub(super) role: String,
    pub(super) statements: Vec<Statement>,
}

/// One statement of it.
#[derive(Debug, Serialize)]
pub(super) struct Statement {
    pub(super) text: String,
    pub(super) command: String,
    pub(super) verdict: Verdict,
    pub(super) policies: Vec<Policy>,
    pub(super) limits: Limits,
    pub(super) outputs: Vec<Output>,
    pub(super) read_only: bool,
    pub(super) filtered: bool,
    pub(super) row_limit: Option<u64>,
    pub(super) objects: Vec<Object>,
    pub(super) fields: Vec<Field>,
    pub(super) functions: Vec<String>,
    pub(super) gaps: Vec<String>,
    pub(super) notes: Vec<String>,
}

/// May it run?
#[derive(Debug, Default, Serialize)]
pub(super) struct Verdict {
    /// `allow`, `hold`, `deny`, `abstain`, `failed`, `not asked`, `by name`.
    pub(super) outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sqlstate: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) approval: Option<Approval>,
}

/// Who has to let it through.
#[derive(Debug, Serialize)]
pub(super) struct Approval {
    pub(super) groups: Vec<String>,
    pub(super) approvers: u8,
    pub(super) ttl_seconds: u32,
}

/// What one policy says.
#[derive(Debug, Serialize)]
pub(super) struct Policy {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) verdict: Verdict,
    pub(super) limits: Limits,
}

/// A column of the answer.
#[derive(Debug, Serialize)]
pub(super) struct Output {
    pub(super) column: String,
    #[serde(rename = "type")]
    pub(super) type_name: String,
    /// `constant`, `exact`, `derived` or `unknown`.
    pub(super) lineage: &'static str,
    pub(super) from: Vec<String>,
    pub(super) labels: Vec<String>,
    /// What leaves.
    pub(super) shown: String,
    /// Which policy says so, or the host's code.
    pub(super) by: String,
}

/// What is touched.
#[derive(Debug, Serialize)]
pub(super) struct Object {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) actions: Vec<String>,
    pub(super) labels: Vec<String>,
}

/// Which field, and how.
#[derive(Debug, Serialize)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) labels: Vec<String>,
    pub(super) usages: Vec<String>,
}

impl Report {
    /// For people.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        let groups = listed(&self.groups, "none");
        let purpose = self.purpose.as_deref().unwrap_or("none");
        line(
            &mut out,
            "caller",
            &format!("{}, groups {groups}, purpose {purpose}", self.subject),
        );
        line(
            &mut out,
            "connects",
            &format!("to {} as {}", self.target, self.role),
        );
        for statement in &self.statements {
            out.push('\n');
            statement.print(&mut out);
        }
        out
    }
}

impl Statement {
    fn print(&self, out: &mut String) {
        line(out, "statement", &self.text);
        line(out, "verdict", &self.verdict.text());
        if let Some(hint) = &self.verdict.hint {
            line(out, "hint", hint);
        }
        if let Some(limits) = limits(&self.limits) {
            line(out, "limits", &limits);
        }
        for note in &self.notes {
            line(out, "note", note);
        }
        let rows = self.policies.iter().map(|policy| {
            let mut says = policy.verdict.text();
            if let Some(limits) = limits(&policy.limits) {
                says = format!("{says}; {limits}");
            }
            vec![policy.name.clone(), policy.version.clone(), says]
        });
        table(out, &["policy", "version", "says"], rows);
        let rows = self.outputs.iter().map(|output| {
            let from = match output.lineage {
                "derived" => format!("computed from {}", output.from.join(", ")),
                "exact" => output.from.join(", "),
                "constant" => "no field".to_owned(),
                other => other.to_owned(),
            };
            vec![
                output.column.clone(),
                output.type_name.clone(),
                from,
                listed(&output.labels, "clear"),
                output.shown.clone(),
                output.by.clone(),
            ]
        });
        let head = ["column", "type", "from", "labels", "shown", "because of"];
        table(out, &head, rows);
        let rows = self.objects.iter().map(|object| {
            vec![
                object.name.clone(),
                object.kind.clone(),
                listed(&object.actions, "none"),
                listed(&object.labels, "clear"),
            ]
        });
        table(out, &["object", "kind", "actions", "labels"], rows);
        let rows = self.fields.iter().map(|field| {
            vec![
                field.name.clone(),
                listed(&field.usages, "none"),
                listed(&field.labels, "clear"),
            ]
        });
        table(out, &["field", "used in", "labels"], rows);
        out.push('\n');
        line(out, "command", &self.command);
        line(out, "functions", &listed(&self.functions, "none"));
        line(out, "reads only", yes(self.read_only));
        line(out, "filtered", yes(self.filtered));
        if let Some(rows) = self.row_limit {
            line(out, "LIMIT", &rows.to_string());
        }
        line(out, "gaps", if self.gaps.is_empty() { "none" } else { "" });
        for gap in &self.gaps {
            let _ = writeln!(out, "  - {}", printable(gap));
        }
    }
}

impl Verdict {
    fn text(&self) -> String {
        let mut text = self.outcome.to_owned();
        if let Some(sqlstate) = self.sqlstate {
            let _ = write!(text, " with {sqlstate}");
        }
        if let Some(approval) = &self.approval {
            let who = listed(&approval.groups, "the configured groups");
            let _ = write!(
                text,
                " for approval by {} of {who} within {} s",
                approval.approvers.max(1),
                approval.ttl_seconds
            );
        }
        if let Some(code) = &self.code {
            let _ = write!(text, " [{code}]");
        }
        if let Some(message) = &self.message {
            let _ = write!(text, " {message}");
        }
        text
    }
}

fn limits(limits: &Limits) -> Option<String> {
    let mut all = Vec::new();
    if let Some(rows) = limits.max_rows {
        all.push(format!("at most {rows} rows"));
    }
    if let Some(bytes) = limits.max_bytes {
        all.push(format!("at most {bytes} bytes"));
    }
    if let Some(timeout) = limits.timeout_ms {
        all.push(format!("at most {timeout} ms"));
    }
    for budget in &limits.budgets {
        all.push(format!(
            "budget {}: {} rows in {} s",
            budget.name, budget.max, budget.window_seconds
        ));
    }
    (!all.is_empty()).then(|| all.join(", "))
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

fn listed(items: &[String], none: &str) -> String {
    if items.is_empty() {
        none.to_owned()
    } else {
        items.join(", ")
    }
}

fn line(out: &mut String, key: &str, value: &str) {
    let text = format!("{key:<10} {}", printable(value));
    out.push_str(text.trim_end());
    out.push('\n');
}

fn table(out: &mut String, head: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let rows: Vec<Vec<String>> = rows
        .map(|row| row.iter().map(|cell| printable(cell)).collect())
        .collect();
    if rows.is_empty() {
        return;
    }
    let head: Vec<String> = head.iter().map(|&name| name.to_owned()).collect();
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            let cells = std::iter::once(&head).chain(&rows);
            cells
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    out.push('\n');
    for row in std::iter::once(&head).chain(&rows) {
        let mut text = String::new();
        for (cell, &width) in row.iter().zip(&widths) {
            let _ = write!(text, "{cell:<width$}  ");
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
}

/// Names and policies' words go to a terminal, where control characters could lie about the rest.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_nothing_steers_the_terminal() {
        let mut out = String::new();
        let rows = [["a\u{1b}[2J", "x"], ["lönger name", "y"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        table(&mut out, &["one", "two"], rows.into_iter());
        assert_eq!(out, "\none          two\na [2J        x\nlönger name  y\n");
    }

    #[test]
    fn an_empty_table_is_not_printed() {
        let mut out = String::new();
        table(&mut out, &["one"], std::iter::empty());
        assert_eq!(out, "");
    }
}
