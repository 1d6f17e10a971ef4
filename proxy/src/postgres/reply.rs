//! What a backend's replies consist of. Most are passed on as they are, so they must be no more than
//! they have to be: a backend that has lost its way, or means no good, gets nothing out in them.

use super::protocol::{Fields, Malformed, backend};

/// That a message has the fields of its kind and nothing else. Those that are looked into anyway (rows,
/// their descriptions, errors) are not looked at here.
pub(crate) fn check(kind: u8, body: &[u8]) -> Result<(), Malformed> {
    let fields = |name| Fields::new(name, body);
    match kind {
        backend::PARSE_COMPLETE => fields("ParseComplete").end(),
        backend::BIND_COMPLETE => fields("BindComplete").end(),
        backend::CLOSE_COMPLETE => fields("CloseComplete").end(),
        backend::NO_DATA => fields("NoData").end(),
        backend::PORTAL_SUSPENDED => fields("PortalSuspended").end(),
        backend::EMPTY_QUERY_RESPONSE => fields("EmptyQueryResponse").end(),
        backend::COPY_DONE => fields("CopyDone").end(),
        backend::COMMAND_COMPLETE => {
            let mut fields = fields("CommandComplete");
            let tag = fields.cstr()?;
            // "???" is of commands that the server has no name for.
            let known = |byte: &u8| byte.is_ascii_uppercase() || b" 0123456789?".contains(byte);
            if !tag.iter().all(known) {
                return Err(Malformed::Invalid("CommandComplete"));
            }
            fields.end()
        }
        backend::READY_FOR_QUERY => {
            let mut fields = fields("ReadyForQuery");
            match fields.u8()? {
                b'I' | b'T' | b'E' => fields.end(),
                _ => Err(Malformed::Invalid("ReadyForQuery")),
            }
        }
        backend::PARAMETER_DESCRIPTION => {
            let mut fields = fields("ParameterDescription");
            for _ in 0..fields.u16()? {
                fields.u32()?;
            }
            fields.end()
        }
        backend::PARAMETER_STATUS => {
            let mut fields = fields("ParameterStatus");
            fields.cstr()?;
            fields.cstr()?;
            fields.end()
        }
        backend::NOTIFICATION_RESPONSE => {
            let mut fields = fields("NotificationResponse");
            fields.u32()?;
            fields.cstr()?;
            fields.cstr()?;
            fields.end()
        }
        backend::COPY_IN_RESPONSE | backend::COPY_OUT_RESPONSE => {
            let mut fields = fields("CopyResponse");
            fields.u8()?;
            for _ in 0..fields.u16()? {
                fields.i16()?;
            }
            fields.end()
        }
        backend::FUNCTION_CALL_RESPONSE => {
            let mut fields = fields("FunctionCallResponse");
            fields.value()?;
            fields.end()
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &[(u8, &[u8])] = &[
        (b'1', b""),
        (b'2', b""),
        (b'3', b""),
        (b'n', b""),
        (b's', b""),
        (b'I', b""),
        (b'c', b""),
        (b'C', b"INSERT 0 1\0"),
        (b'C', b"???\0"),
        (b'Z', b"T"),
        (b't', b"\0\x01\0\0\0\x17"),
        (b'S', b"TimeZone\0UTC\0"),
        (b'A', b"\0\0\0\x09channel\0payload\0"),
        (b'G', b"\0\0\x02\0\0\0\x01"),
        (b'H', b"\x01\0\0"),
        (b'V', b"\xff\xff\xff\xff"),
        (b'V', b"\0\0\0\x01x"),
    ];

    #[test]
    fn messages_have_their_fields_and_nothing_else() {
        for (kind, body) in GOOD {
            assert_eq!(check(*kind, body), Ok(()), "{}", char::from(*kind));
            let more = [body, &b"\0"[..]].concat();
            assert!(check(*kind, &more).is_err(), "{}", char::from(*kind));
            if let Some((_, less)) = body.split_last() {
                assert!(check(*kind, less).is_err(), "{}", char::from(*kind));
            }
        }
        assert!(check(b'Z', b"?").is_err());
        for tag in [&b"SELECT x\0"[..], b"a name\0", b"SELECT\n1\0"] {
            assert!(check(b'C', tag).is_err());
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(kind in any::<u8>(), body in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = check(kind, &body);
        }
    }
}
