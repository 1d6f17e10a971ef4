//! What a client says, byte by byte (protocol section "Message Formats"). Nothing is checked here:
//! tests want to send wrong messages too.

/// A message with a type byte and a length word.
#[must_use]
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[kind], &length.to_be_bytes()[..], body].concat()
}

/// A start-up packet of the given version, such as `0x0003_0000`.
#[must_use]
pub fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend(text(name));
        body.extend(text(value));
    }
    body.push(0);
    packet(&body)
}

/// A packet without a type byte.
#[must_use]
pub fn packet(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], body].concat()
}

/// SSLRequest.
#[must_use]
pub fn ssl_request() -> Vec<u8> {
    packet(&80_877_103u32.to_be_bytes())
}

/// GSSENCRequest.
#[must_use]
pub fn gssenc_request() -> Vec<u8> {
    packet(&80_877_104u32.to_be_bytes())
}

/// CancelRequest.
#[must_use]
pub fn cancel_request(pid: u32, secret: &[u8]) -> Vec<u8> {
    packet(&[&80_877_102u32.to_be_bytes(), &pid.to_be_bytes(), secret].concat())
}

/// PasswordMessage.
#[must_use]
pub fn password(word: &str) -> Vec<u8> {
    message(b'p', &text(word))
}

/// Query.
#[must_use]
pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &text(sql))
}

/// Parse, with the types of the first parameters.
#[must_use]
pub fn parse(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    let mut body = [text(name), text(sql)].concat();
    body.extend(count(types.len()));
    for oid in types {
        body.extend(oid.to_be_bytes());
    }
    message(b'P', &body)
}

/// Bind with parameters in text format and one result format for all columns.
#[must_use]
pub fn bind(portal: &str, statement: &str, parameters: &[Option<&str>], format: u16) -> Vec<u8> {
    let parameters: Vec<_> = parameters.iter().map(|p| p.map(str::as_bytes)).collect();
    bind_formats(portal, statement, &[], &parameters, &[format])
}

/// Bind in full.
#[must_use]
pub fn bind_formats(
    portal: &str,
    statement: &str,
    parameter_formats: &[u16],
    parameters: &[Option<&[u8]>],
    result_formats: &[u16],
) -> Vec<u8> {
    let mut body = [text(portal), text(statement)].concat();
    body.extend(count(parameter_formats.len()));
    body.extend(parameter_formats.iter().flat_map(|f| f.to_be_bytes()));
    body.extend(count(parameters.len()));
    for value in parameters {
        match value {
            None => body.extend((-1i32).to_be_bytes()),
            Some(bytes) => {
                body.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
                body.extend(*bytes);
            }
        }
    }
    body.extend(count(result_formats.len()));
    body.extend(result_formats.iter().flat_map(|f| f.to_be_bytes()));
    message(b'B', &body)
}

/// Describe of a statement.
#[must_use]
pub fn describe_statement(name: &str) -> Vec<u8> {
    message(b'D', &[&b"S"[..], &text(name)].concat())
}

/// Describe of a portal.
#[must_use]
pub fn describe_portal(name: &str) -> Vec<u8> {
    message(b'D', &[&b"P"[..], &text(name)].concat())
}

/// Execute; 0 rows means all.
#[must_use]
pub fn execute(portal: &str, rows: u32) -> Vec<u8> {
    message(b'E', &[&text(portal)[..], &rows.to_be_bytes()].concat())
}

/// Close of a statement.
#[must_use]
pub fn close_statement(name: &str) -> Vec<u8> {
    message(b'C', &[&b"S"[..], &text(name)].concat())
}

/// Close of a portal.
#[must_use]
pub fn close_portal(name: &str) -> Vec<u8> {
    message(b'C', &[&b"P"[..], &text(name)].concat())
}

/// Flush.
#[must_use]
pub fn flush() -> Vec<u8> {
    message(b'H', &[])
}

/// Sync.
#[must_use]
pub fn sync() -> Vec<u8> {
    message(b'S', &[])
}

/// CopyData.
#[must_use]
pub fn copy_data(data: &str) -> Vec<u8> {
    message(b'd', data.as_bytes())
}

/// CopyDone.
#[must_use]
pub fn copy_done() -> Vec<u8> {
    message(b'c', &[])
}

/// CopyFail.
#[must_use]
pub fn copy_fail(why: &str) -> Vec<u8> {
    message(b'f', &text(why))
}

/// FunctionCall with arguments in text form.
#[must_use]
pub fn function_call(oid: u32, arguments: &[&str]) -> Vec<u8> {
    let mut body = [&oid.to_be_bytes()[..], &[0, 0]].concat();
    body.extend((arguments.len() as u16).to_be_bytes());
    for argument in arguments {
        body.extend((argument.len() as u32).to_be_bytes());
        body.extend(argument.as_bytes());
    }
    body.extend([0, 0]);
    message(b'F', &body)
}

/// Terminate.
#[must_use]
pub fn terminate() -> Vec<u8> {
    message(b'X', &[])
}

/// Parse, Bind, Execute of the unnamed statement in the unnamed portal, text throughout.
#[must_use]
pub fn run(sql: &str, parameters: &[Option<&str>]) -> Vec<u8> {
    [
        parse("", sql, &[]),
        bind("", "", parameters, 0),
        execute("", 0),
    ]
    .concat()
}

/// A statement of the extended protocol without parameters, and without a Sync behind it.
#[must_use]
pub fn unsynced(sql: &str) -> Vec<u8> {
    run(sql, &[])
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn count(count: usize) -> [u8; 2] {
    u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes()
}
