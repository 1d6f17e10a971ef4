//! Errors and notices of the backend (protocol section "Error and Notice Message Fields").

use bytes::BytesMut;

use super::{
    protocol::{self, Fields, Malformed},
    refusal::sqlstate,
};

/// The text that stands for a message which may carry data.
const WITHHELD: &str = "message withheld: the statement touches protected data (severity and \
                        SQLSTATE are the server's)";

/// An ErrorResponse or NoticeResponse, as far as it has to be understood.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) severity: String,
    pub(crate) sqlstate: String,
    message: Vec<u8>,
    /// A position in the text that the client sent.
    has_position: bool,
    /// A text of the server's own making, or what it was in the middle of.
    has_inner: bool,
    /// The file of the server's source that it comes from.
    file: Vec<u8>,
}

impl Report {
    pub(crate) fn read(body: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new("ErrorResponse", body);
        let mut report = Self::default();
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        loop {
            let kind = fields.u8()?;
            if kind == 0 {
                break;
            }
            let value = fields.cstr()?;
            match kind {
                b'V' => report.severity = text(value),
                b'S' if report.severity.is_empty() => report.severity = text(value),
                b'C' => report.sqlstate = text(value),
                b'M' => report.message = value.to_vec(),
                b'P' => report.has_position = true,
                b'p' | b'q' | b'W' => report.has_inner = true,
                b'F' => report.file = value.to_vec(),
                _ => {}
            }
        }
        fields.end()?;
        let code = &report.sqlstate;
        if code.len() != 5 || !code.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            "XX000".clone_into(&mut report.sqlstate);
        }
        Ok(report)
    }

    pub(crate) fn is_fatal(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }

    /// Whether parse analysis has found fault with the client's own text: an unknown column, table
    /// or function, an ambiguous name. Nothing has run then, so it quotes that text and names of
    /// the catalog, never a row.
    ///
    /// The SQLSTATE alone proves nothing, since RAISE takes any, and a text that a function puts
    /// together from rows is analysed like any other. But no function can choose the source file
    /// that is reported, and what is analysed or raised inside of one is reported with an inner
    /// text or a context, and without a position in the client's.
    pub(crate) fn is_about_the_text(&self) -> bool {
        let in_the_parser = self.file.starts_with(b"parse_") || self.file == b"analyze.c";
        in_the_parser && self.sqlstate.starts_with("42") && self.has_position && !self.has_inner
    }

    /// Whether it finds fault with a setting that a session was to start with. It quotes what the
    /// client sent then, and no code of a user's can choose the source file.
    pub(crate) fn is_about_a_setting(&self) -> bool {
        self.file.starts_with(b"guc") || self.file == b"postgres.c" && self.sqlstate == "42601"
    }

    /// What it says of a statement that was cancelled, by request or by a timeout.
    pub(crate) fn words_of_cancel(&self) -> Option<String> {
        (self.sqlstate == sqlstate::CANCELLED)
            .then(|| String::from_utf8_lossy(&self.message).into_owned())
    }

    /// Appends it reduced to severity and SQLSTATE.
    pub(crate) fn write_reduced(&self, out: &mut BytesMut, kind: u8) {
        self.write_with(out, kind, WITHHELD.as_bytes());
    }

    /// Appends it without its fields about a text that the client did not send.
    pub(crate) fn write_bare(&self, out: &mut BytesMut, kind: u8) {
        self.write_with(out, kind, &self.message);
    }

    fn write_with(&self, out: &mut BytesMut, kind: u8, message: &[u8]) {
        let fields: [(u8, &[u8]); 4] = [
            (b'S', self.severity.as_bytes()),
            (b'V', self.severity.as_bytes()),
            (b'C', self.sqlstate.as_bytes()),
            (b'M', message),
        ];
        protocol::report(out, kind, &fields);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn report(fields: &[&str]) -> Report {
        let mut body = Vec::new();
        for field in fields {
            body.extend_from_slice(field.as_bytes());
            body.push(0);
        }
        body.push(0);
        Report::read(&body).unwrap()
    }

    #[test]
    fn severity_and_sqlstate_are_found() {
        let read = report(&["SFEHLER", "VERROR", "C22012", "MDivision durch Null"]);
        assert_eq!((&*read.severity, &*read.sqlstate), ("ERROR", "22012"));
        // Data may stand where a SQLSTATE should.
        assert_eq!(report(&["SERROR", "Cname of a patient"]).sqlstate, "XX000");
    }

    #[test]
    fn only_parse_analysis_of_the_client_s_text_is_about_it() {
        let unknown = ["SERROR", "C42703", "Mcolumn \"x\" does not exist", "P8"];
        let with = |more: &[&str]| report(&[&unknown[..], more].concat()).is_about_the_text();
        assert!(with(&["Fparse_relation.c"]));
        assert!(!with(&["Fpl_exec.c"]));
        assert!(!with(&[]));
        for inner in ["WPL/pgSQL function f()", "p8", "qSELECT x"] {
            assert!(!with(&["Fparse_relation.c", inner]), "{inner}");
        }
        let raised = ["SERROR", "C42703", "Mx", "Fparse_relation.c"];
        assert!(!report(&raised).is_about_the_text());
        let cast = ["SERROR", "C22P02", "Mx", "P8", "Fparse_coerce.c"];
        assert!(!report(&cast).is_about_the_text());
    }

    #[test]
    fn a_setting_is_told_by_where_the_error_comes_from() {
        let fault = ["SFATAL", "C22023", "Minvalid value for parameter"];
        let from = |file| report(&[&fault[..], &[file]].concat()).is_about_a_setting();
        assert!(from("Fguc.c"));
        assert!(!from("Fpl_exec.c"));
        assert!(!from("Fpostgres.c"));
    }

    #[test]
    fn what_is_reduced_has_nothing_else() {
        let mut out = BytesMut::new();
        let all = [
            "SERROR",
            "C23505",
            "MKey (ssn)=(900-11-2233)",
            "Dmore",
            "tt",
        ];
        report(&all).write_reduced(&mut out, b'E');
        let text = String::from_utf8_lossy(&out);
        assert!(text.contains("C23505") && !text.contains("900") && !text.contains("more"));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Report::read(&body);
        }
    }
}
