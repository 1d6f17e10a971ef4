//! PostgreSQL's message format, protocol version 3 (documentation chapter "Message Formats").
//!
//! Parsing is by cursor over borrowed bytes and never panics; what a message claims about lengths
//! is checked against what is there. Strings are bytes in the client's encoding, not UTF-8.

use bytes::{BufMut, BytesMut};

/// Protocol version 3.0, major in the upper 16 bits.
pub(crate) const VERSION_3_0: u32 = 3 << 16;
/// Protocol version 3.2, in which cancel keys have more than four bytes. There is no 3.1.
pub(crate) const VERSION_3_2: u32 = VERSION_3_0 + 2;
/// Code of a CancelRequest.
pub(crate) const CANCEL_REQUEST: u32 = 80_877_102;
/// Code of an SSLRequest.
pub(crate) const SSL_REQUEST: u32 = 80_877_103;
/// Code of a GSSENCRequest.
pub(crate) const GSSENC_REQUEST: u32 = 80_877_104;
/// Length of type byte and length word.
pub(crate) const HEADER: usize = 5;

/// Messages that a client sends.
pub(crate) mod frontend {
    pub(crate) const BIND: u8 = b'B';
    pub(crate) const CLOSE: u8 = b'C';
    pub(crate) const COPY_DATA: u8 = b'd';
    pub(crate) const COPY_DONE: u8 = b'c';
    pub(crate) const COPY_FAIL: u8 = b'f';
    pub(crate) const DESCRIBE: u8 = b'D';
    pub(crate) const EXECUTE: u8 = b'E';
    pub(crate) const FLUSH: u8 = b'H';
    pub(crate) const FUNCTION_CALL: u8 = b'F';
    pub(crate) const PARSE: u8 = b'P';
    pub(crate) const PASSWORD: u8 = b'p';
    pub(crate) const QUERY: u8 = b'Q';
    pub(crate) const SYNC: u8 = b'S';
    pub(crate) const TERMINATE: u8 = b'X';
}

/// Messages that a server sends.
pub(crate) mod backend {
    pub(crate) const AUTHENTICATION: u8 = b'R';
    pub(crate) const BACKEND_KEY_DATA: u8 = b'K';
    pub(crate) const BIND_COMPLETE: u8 = b'2';
    pub(crate) const CLOSE_COMPLETE: u8 = b'3';
    pub(crate) const COMMAND_COMPLETE: u8 = b'C';
    pub(crate) const COPY_DATA: u8 = b'd';
    pub(crate) const COPY_DONE: u8 = b'c';
    pub(crate) const COPY_IN_RESPONSE: u8 = b'G';
    pub(crate) const COPY_OUT_RESPONSE: u8 = b'H';
    pub(crate) const DATA_ROW: u8 = b'D';
    pub(crate) const EMPTY_QUERY_RESPONSE: u8 = b'I';
    pub(crate) const ERROR_RESPONSE: u8 = b'E';
    pub(crate) const FUNCTION_CALL_RESPONSE: u8 = b'V';
    pub(crate) const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    pub(crate) const NO_DATA: u8 = b'n';
    pub(crate) const NOTICE_RESPONSE: u8 = b'N';
    pub(crate) const NOTIFICATION_RESPONSE: u8 = b'A';
    pub(crate) const PARAMETER_DESCRIPTION: u8 = b't';
    pub(crate) const PARAMETER_STATUS: u8 = b'S';
    pub(crate) const PARSE_COMPLETE: u8 = b'1';
    pub(crate) const PORTAL_SUSPENDED: u8 = b's';
    pub(crate) const READY_FOR_QUERY: u8 = b'Z';
    pub(crate) const ROW_DESCRIPTION: u8 = b'T';
}

/// A message that does not follow the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// The length word is smaller than itself or larger than the protocol allows.
    #[error("a {kind:?} message claims an impossible length of {length}")]
    Length { kind: char, length: i32 },
    /// A field runs past the end of its message.
    #[error("a {0} message ends in the middle of a field")]
    Truncated(&'static str),
    /// A message has bytes after its last field.
    #[error("a {0} message has bytes after its last field")]
    Trailing(&'static str),
    /// A message type that nobody knows or that does not belong here.
    #[error("message type 0x{0:02x} is not understood here")]
    UnknownType(u8),
    /// A field has a value that the protocol does not know.
    #[error("a {0} message has an invalid field")]
    Invalid(&'static str),
}

/// Type and total length (header included) of the message that starts `bytes`, once the header is
/// there.
pub(crate) fn header(bytes: &[u8]) -> Result<Option<(u8, usize)>, Malformed> {
    let Some((&[kind, a, b, c, d], _)) = bytes.split_first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let length = i32::from_be_bytes([a, b, c, d]);
    match usize::try_from(length) {
        Ok(len) if len >= 4 && length < i32::MAX => Ok(Some((kind, len + 1))),
        _ => Err(Malformed::Length {
            kind: char::from(kind),
            length,
        }),
    }
}

/// Reads fields off the front of a message's body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    message: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(message: &'static str, body: &'a [u8]) -> Self {
        Self {
            message,
            rest: body,
        }
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (chunk, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(Malformed::Truncated(self.message))?;
        self.rest = rest;
        Ok(*chunk)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.chunk::<1>().map(|[byte]| byte)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, Malformed> {
        self.chunk().map(i16::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.chunk().map(u16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Malformed> {
        self.chunk().map(i32::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.chunk().map(u32::from_be_bytes)
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(Malformed::Truncated(self.message))?;
        self.rest = rest;
        Ok(head)
    }

    /// A string up to its NUL, which is consumed and not returned.
    pub(crate) fn cstr(&mut self) -> Result<&'a [u8], Malformed> {
        let end = self
            .rest
            .iter()
            .position(|&byte| byte == 0)
            .ok_or(Malformed::Truncated(self.message))?;
        let text = self.bytes(end)?;
        self.u8()?;
        Ok(text)
    }

    /// A length-prefixed value; -1 is NULL.
    pub(crate) fn value(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        match self.i32()? {
            -1 => Ok(None),
            length => match usize::try_from(length) {
                Ok(length) => self.bytes(length).map(Some),
                Err(_) => Err(Malformed::Invalid(self.message)),
            },
        }
    }

    /// That nothing is left.
    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Malformed::Trailing(self.message))
        }
    }
}

/// A Parse message.
#[derive(Debug)]
pub(crate) struct Parse<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) text: &'a [u8],
    /// Parameter types that the client fixes; 0 leaves one open.
    pub(crate) types: Vec<u32>,
}

impl<'a> Parse<'a> {
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new("Parse", body);
        let (name, text) = (fields.cstr()?, fields.cstr()?);
        let types = (0..fields.u16()?)
            .map(|_| fields.u32())
            .collect::<Result<_, _>>()?;
        fields.end()?;
        Ok(Self { name, text, types })
    }
}

/// A Bind message.
#[derive(Debug)]
pub(crate) struct Bind<'a> {
    pub(crate) portal: &'a [u8],
    pub(crate) statement: &'a [u8],
    /// Format codes of the parameters: none, one for all, or one each.
    pub(crate) parameter_formats: Vec<i16>,
    pub(crate) parameters: Vec<Option<&'a [u8]>>,
    /// Format codes of the results: none, one for all, or one each.
    pub(crate) result_formats: Vec<i16>,
}

impl<'a> Bind<'a> {
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new("Bind", body);
        let (portal, statement) = (fields.cstr()?, fields.cstr()?);
        let parameter_formats = formats(&mut fields)?;
        let count = fields.u16()?;
        let mut parameters = Vec::with_capacity(usize::from(count).min(1024));
        for _ in 0..count {
            parameters.push(fields.value()?);
        }
        let result_formats = formats(&mut fields)?;
        fields.end()?;
        Ok(Self {
            portal,
            statement,
            parameter_formats,
            parameters,
            result_formats,
        })
    }
}

/// A FunctionCall message.
#[derive(Debug)]
pub(crate) struct FunctionCall<'a> {
    pub(crate) function: u32,
    /// Format codes of the arguments: none, one for all, or one each.
    pub(crate) formats: Vec<i16>,
    pub(crate) arguments: Vec<Option<&'a [u8]>>,
}

impl<'a> FunctionCall<'a> {
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new("FunctionCall", body);
        let function = fields.u32()?;
        let formats = formats(&mut fields)?;
        let arguments = (0..fields.u16()?)
            .map(|_| fields.value())
            .collect::<Result<_, _>>()?;
        // The format of the result.
        fields.i16()?;
        fields.end()?;
        Ok(Self {
            function,
            formats,
            arguments,
        })
    }
}

fn formats(fields: &mut Fields<'_>) -> Result<Vec<i16>, Malformed> {
    (0..fields.u16()?).map(|_| fields.i16()).collect()
}

/// The format code that holds for item `index` when a message gave `codes`: none means text, one
/// holds for all.
pub(crate) fn format_of(codes: &[i16], index: usize) -> i16 {
    match codes {
        [] => 0,
        [all] => *all,
        each => each.get(index).copied().unwrap_or(0),
    }
}

/// What Describe and Close name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named<'a> {
    Statement(&'a [u8]),
    Portal(&'a [u8]),
}

impl<'a> Named<'a> {
    pub(crate) fn read(message: &'static str, body: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(message, body);
        let kind = fields.u8()?;
        let name = fields.cstr()?;
        fields.end()?;
        match kind {
            b'S' => Ok(Named::Statement(name)),
            b'P' => Ok(Named::Portal(name)),
            _ => Err(Malformed::Invalid(message)),
        }
    }
}

/// One column of a RowDescription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ColumnDescription {
    /// OID of the table that the column comes straight from, or 0.
    pub(crate) table: u32,
    /// Its attribute number there, or 0.
    pub(crate) attribute: i16,
    /// OID of the data type.
    pub(crate) type_oid: u32,
    /// Type modifier, -1 for none.
    pub(crate) type_modifier: i32,
    /// 0 = text, 1 = binary; always 0 in the answer to Describe of a statement.
    pub(crate) format: i16,
}

/// The columns of a RowDescription.
pub(crate) fn row_description(body: &[u8]) -> Result<Vec<ColumnDescription>, Malformed> {
    let mut fields = Fields::new("RowDescription", body);
    let count = fields.u16()?;
    let mut columns = Vec::with_capacity(usize::from(count).min(1664));
    for _ in 0..count {
        fields.cstr()?;
        let (table, attribute, type_oid) = (fields.u32()?, fields.i16()?, fields.u32()?);
        fields.i16()?;
        columns.push(ColumnDescription {
            table,
            attribute,
            type_oid,
            type_modifier: fields.i32()?,
            format: fields.i16()?,
        });
    }
    fields.end()?;
    Ok(columns)
}

/// Appends a message whose body `write` appends.
pub(crate) fn message(out: &mut BytesMut, kind: u8, write: impl FnOnce(&mut BytesMut)) {
    out.put_u8(kind);
    let at = out.len();
    out.put_u32(0);
    write(out);
    let length = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    if let Some(word) = out.get_mut(at..at + 4) {
        word.copy_from_slice(&length.to_be_bytes());
    }
}

/// Appends a NUL-terminated string; NULs inside are dropped, since they would end it early.
pub(crate) fn cstr(out: &mut BytesMut, text: &[u8]) {
    out.extend(text.iter().filter(|&&byte| byte != 0));
    out.put_u8(0);
}

/// Appends an ErrorResponse or NoticeResponse with the given fields.
pub(crate) fn report(out: &mut BytesMut, kind: u8, fields: &[(u8, impl AsRef<[u8]>)]) {
    message(out, kind, |out| {
        for (field, text) in fields {
            out.put_u8(*field);
            cstr(out, text.as_ref());
        }
        out.put_u8(0);
    });
}

/// Appends a ReadyForQuery.
pub(crate) fn ready_for_query(out: &mut BytesMut, status: u8) {
    message(out, backend::READY_FOR_QUERY, |out| out.put_u8(status));
}

/// Appends a Parse without parameter types.
pub(crate) fn parse(out: &mut BytesMut, name: &[u8], text: &[u8]) {
    message(out, frontend::PARSE, |out| {
        cstr(out, name);
        cstr(out, text);
        out.put_u16(0);
    });
}

/// Appends a Bind without parameters and with text results.
pub(crate) fn bind(out: &mut BytesMut, portal: &[u8], statement: &[u8]) {
    message(out, frontend::BIND, |out| {
        cstr(out, portal);
        cstr(out, statement);
        out.put_slice(&[0; 6]);
    });
}

/// Appends an Execute for all rows.
pub(crate) fn execute(out: &mut BytesMut, portal: &[u8]) {
    message(out, frontend::EXECUTE, |out| {
        cstr(out, portal);
        out.put_u32(0);
    });
}

/// Appends a Describe (`frontend::DESCRIBE`) or Close (`frontend::CLOSE`).
pub(crate) fn named(out: &mut BytesMut, kind: u8, name: Named<'_>) {
    message(out, kind, |out| match name {
        Named::Statement(name) => {
            out.put_u8(b'S');
            cstr(out, name);
        }
        Named::Portal(name) => {
            out.put_u8(b'P');
            cstr(out, name);
        }
    });
}

/// Appends a message without a body.
pub(crate) fn bare(out: &mut BytesMut, kind: u8) {
    message(out, kind, |_| {});
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        for length in [-1i32, 0, 3, i32::MIN, i32::MAX] {
            let mut bytes = vec![b'Q'];
            bytes.extend(length.to_be_bytes());
            assert!(matches!(header(&bytes), Err(Malformed::Length { .. })));
        }
        assert_eq!(header(b"Q\0\0\0\x04"), Ok(Some((b'Q', 5))));
        assert_eq!(header(b"Q\0\0\0"), Ok(None));
    }

    #[test]
    fn a_message_has_its_length() {
        let mut out = BytesMut::new();
        parse(&mut out, b"s", b"SELECT 1");
        let (kind, length) = header(&out).unwrap().unwrap();
        assert_eq!((kind, length), (b'P', out.len()));
        let read = Parse::read(&out[HEADER..]).unwrap();
        assert_eq!((read.name, read.text), (&b"s"[..], &b"SELECT 1"[..]));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            name in "[^\0]{0,20}",
            text in "[^\0]{0,80}",
            types in proptest::collection::vec(any::<u32>(), 0..5),
            formats in proptest::collection::vec(any::<i16>(), 0..4),
            values in proptest::collection::vec(proptest::option::of(
                proptest::collection::vec(any::<u8>(), 0..20)), 0..5),
            rest in proptest::collection::vec(any::<u8>(), 1..10),
        ) {
            let count = |out: &mut BytesMut, count: usize| out.put_u16(u16::try_from(count).unwrap());
            let mut out = BytesMut::new();
            message(&mut out, frontend::PARSE, |out| {
                cstr(out, name.as_bytes());
                cstr(out, text.as_bytes());
                count(out, types.len());
                types.iter().for_each(|oid| out.put_u32(*oid));
            });
            let parse_length = out.len();
            message(&mut out, frontend::BIND, |out| {
                cstr(out, text.as_bytes());
                cstr(out, name.as_bytes());
                count(out, formats.len());
                formats.iter().for_each(|code| out.put_i16(*code));
                count(out, values.len());
                for value in &values {
                    match value {
                        None => out.put_i32(-1),
                        Some(bytes) => {
                            out.put_i32(i32::try_from(bytes.len()).unwrap());
                            out.put_slice(bytes);
                        }
                    }
                }
                count(out, 0);
            });
            // Each is as long as it says, whatever comes behind it.
            prop_assert_eq!(header(&out), Ok(Some((frontend::PARSE, parse_length))));
            let (first, second) = out.split_at(parse_length);
            prop_assert_eq!(header(second), Ok(Some((frontend::BIND, second.len()))));
            let (first, second) = (&first[HEADER..], &second[HEADER..]);
            let parse = Parse::read(first).unwrap();
            prop_assert_eq!((parse.name, parse.text), (name.as_bytes(), text.as_bytes()));
            prop_assert_eq!(parse.types, types);
            let bind = Bind::read(second).unwrap();
            prop_assert_eq!((bind.portal, bind.statement), (text.as_bytes(), name.as_bytes()));
            prop_assert_eq!(bind.parameter_formats, formats);
            let read: Vec<_> = bind.parameters.iter().map(|v| v.map(<[u8]>::to_vec)).collect();
            prop_assert_eq!(read, values);
            // Nothing is taken from beyond a message, and nothing of it is left.
            prop_assert!(Parse::read(&[first, &rest].concat()).is_err());
            prop_assert!(Bind::read(&[second, &rest].concat()).is_err());
            for end in 0..first.len() {
                prop_assert!(Parse::read(&first[..end]).is_err());
            }
            for end in 0..second.len() {
                prop_assert!(Bind::read(&second[..end]).is_err());
            }
        }

        #[test]
        fn reports_and_names_are_read_as_they_were_written(
            name in "[^\0]{0,70}",
            fields in proptest::collection::vec((1u8..=255, "[^\0]{0,30}"), 0..6),
        ) {
            let mut out = BytesMut::new();
            named(&mut out, frontend::CLOSE, Named::Portal(name.as_bytes()));
            prop_assert_eq!(Named::read("Close", &out[HEADER..]), Ok(Named::Portal(name.as_bytes())));
            let mut out = BytesMut::new();
            report(&mut out, backend::ERROR_RESPONSE, &fields);
            let mut left = Fields::new("ErrorResponse", &out[HEADER..]);
            for (kind, text) in &fields {
                prop_assert_eq!((left.u8(), left.cstr()), (Ok(*kind), Ok(text.as_bytes())));
            }
            prop_assert_eq!(left.u8(), Ok(0));
            prop_assert_eq!(left.end(), Ok(()));
        }

        #[test]
        fn garbage_never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = header(&body);
            let _ = Parse::read(&body);
            let _ = Bind::read(&body);
            let _ = Named::read("Describe", &body);
            let _ = row_description(&body);
        }
    }
}
