//! What a server said, as lines that two servers' answers can be compared by.

use std::fmt::{self, Write as _};

use super::Message;

/// One line a message, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transcript(pub Vec<String>);

impl Transcript {
    pub(super) fn push(&mut self, message: &Message) {
        self.0.push(line(message));
    }

    /// The same with errors reduced to their severity: what stays equal when one error stands for
    /// another.
    #[must_use]
    pub fn without_error_texts(&self) -> Self {
        let reduce = |line: &String| match line.strip_prefix("ErrorResponse ") {
            Some(fields) => {
                let severity = fields.split_once('\u{1f}').map_or(fields, |(s, _)| s);
                format!("ErrorResponse {severity}")
            }
            None => line.clone(),
        };
        Self(self.0.iter().map(reduce).collect())
    }

    /// The same without source positions in errors about names that do not exist and aborted
    /// transactions: the proxy, which has to know of these, says them itself, and was not built
    /// from the server's files.
    #[must_use]
    pub fn without_positions(&self) -> Self {
        let reduce = |line: &String| {
            let ours = ["26000", "34000", "25P02"];
            let ours = ours
                .iter()
                .any(|state| line.contains(&format!("\u{1f}C={state}")));
            let position =
                |field: &&str| ours && ["F=", "L=", "R="].contains(&field.get(..2).unwrap_or(""));
            let fields = line.split('\u{1f}').filter(|field| !position(field));
            fields.collect::<Vec<_>>().join("\u{1f}")
        };
        Self(self.0.iter().map(reduce).collect())
    }

    /// Lines that start with `prefix`.
    #[must_use]
    pub fn all(&self, prefix: &str) -> Vec<&str> {
        let lines = self.0.iter().map(String::as_str);
        lines.filter(|line| line.starts_with(prefix)).collect()
    }

    /// The SQLSTATEs of its errors.
    #[must_use]
    pub fn sqlstates(&self) -> Vec<&str> {
        let state = |line: &&str| line.split('\u{1f}').any(|field| field.starts_with("C="));
        let errors = self.all("ErrorResponse");
        errors
            .into_iter()
            .filter(state)
            .filter_map(|line| line.split('\u{1f}').find_map(|f| f.strip_prefix("C=")))
            .collect()
    }
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.0.iter();
        lines.try_for_each(|line| writeln!(f, "    {}", line.replace('\u{1f}', " | ")))
    }
}

pub(super) fn line(message: &Message) -> String {
    let mut body = Reader(&message.body);
    let mut out = name(message.kind).to_owned();
    match message.kind {
        b'R' => out.push_str(&format!(" {}", body.u32())),
        b'S' => out.push_str(&format!(" {}={}", body.text(), body.text())),
        // The process is the backend's own, but two sessions have two backends.
        b'K' => {}
        b'v' => {
            let _ = write!(out, " {:x}", body.u32());
            for _ in 0..body.u32() {
                let _ = write!(out, " {}", body.text());
            }
        }
        b'T' => {
            for _ in 0..body.u16() {
                let _ = write!(out, " [{}", body.text());
                let (table, column) = (body.u32(), body.u16());
                let _ = write!(out, " {table}.{column} {}", body.u32());
                let _ = write!(out, " {} {:x} {}]", body.u16(), body.u32(), body.u16());
            }
        }
        b't' => {
            for _ in 0..body.u16() {
                let _ = write!(out, " {}", body.u32());
            }
        }
        b'D' => {
            for _ in 0..body.u16() {
                match body.u32() {
                    u32::MAX => out.push_str(" NULL"),
                    length => {
                        let bytes = body.take(usize::try_from(length).unwrap_or(usize::MAX));
                        let _ = write!(out, " '{}'", bytes.escape_ascii());
                    }
                }
            }
        }
        b'C' => out.push_str(&format!(" {}", body.text())),
        b'Z' => out.push_str(&format!(" {}", body.take(1).escape_ascii())),
        b'A' => {
            body.u32();
            out.push_str(&format!(" {}={}", body.text(), body.text()));
        }
        b'G' | b'H' | b'W' => {
            let _ = write!(out, " {}", body.take(1).escape_ascii());
            for _ in 0..body.u16() {
                let _ = write!(out, " {}", body.u16());
            }
        }
        b'E' | b'N' => {
            let mut separator = ' ';
            loop {
                let code = body.take(1).first().copied().unwrap_or(0);
                if code == 0 {
                    break;
                }
                let _ = write!(out, "{separator}{}={}", char::from(code), body.text());
                separator = '\u{1f}';
            }
        }
        _ => {}
    }
    if !body.0.is_empty() && message.kind != b'K' {
        let _ = write!(out, " <{}>", body.0.escape_ascii());
    }
    out
}

fn name(kind: u8) -> &'static str {
    match kind {
        b'R' => "Authentication",
        b'S' => "ParameterStatus",
        b'K' => "BackendKeyData",
        b'v' => "NegotiateProtocolVersion",
        b'1' => "ParseComplete",
        b'2' => "BindComplete",
        b'3' => "CloseComplete",
        b'n' => "NoData",
        b's' => "PortalSuspended",
        b'I' => "EmptyQueryResponse",
        b'T' => "RowDescription",
        b't' => "ParameterDescription",
        b'D' => "DataRow",
        b'C' => "CommandComplete",
        b'Z' => "ReadyForQuery",
        b'E' => "ErrorResponse",
        b'N' => "NoticeResponse",
        b'A' => "NotificationResponse",
        b'G' => "CopyInResponse",
        b'H' => "CopyOutResponse",
        b'W' => "CopyBothResponse",
        b'd' => "CopyData",
        b'c' => "CopyDone",
        b'V' => "FunctionCallResponse",
        _ => "Unknown",
    }
}

/// Reads past the end as zeros, so that a malformed message shows as a wrong line.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(length.min(self.0.len()));
        self.0 = tail;
        head
    }

    fn u16(&mut self) -> u16 {
        self.take(2).try_into().map_or(0, u16::from_be_bytes)
    }

    fn u32(&mut self) -> u32 {
        self.take(4).try_into().map_or(0, u32::from_be_bytes)
    }

    fn text(&mut self) -> String {
        let end = self.0.iter().position(|&byte| byte == 0);
        let text = self.take(end.unwrap_or(self.0.len()));
        self.take(1);
        text.escape_ascii().to_string()
    }
}
