//! Bind values: what policies see of them, and what the log keeps.

use chaperone_audit_log::{Blinded, Blinder, hex_encode, payload::Parameter};
use chaperone_contract::Value;

use super::protocol;

/// Values up to this many bytes are handed to policies and kept in the log; of longer ones policies
/// see the length, and the log has a digest too. It is one bound for both: without what policies saw
/// a decision could not be executed again.
const MAX_VALUE: usize = 64 << 10;
/// So many bytes of one message's values are kept, and what comes behind them is treated as too long:
/// a record, and what waits for the disk, has its bound too, and JSON needs up to six bytes for one.
const MAX_VALUES: usize = 4 << 20;

/// The bind values of one execution.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parameters {
    /// As policies see them.
    pub(crate) values: Vec<Value>,
    pub(crate) long: Digests,
}

/// Digests of the values that are too long to be kept, in the order of the parameters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Digests(Vec<Blinded>);

impl Parameters {
    /// What a Bind or FunctionCall message gives, with its format codes.
    pub(crate) fn bound(formats: &[i16], given: &[Option<&[u8]>], blinder: &Blinder) -> Self {
        let (mut long, mut room) = (Digests::default(), Room::default());
        let value = |(index, value): (usize, &Option<&[u8]>)| match value {
            None => Value::Null,
            Some(bytes) if !room.takes(bytes.len()) => long.add(bytes, blinder),
            Some(bytes) if protocol::format_of(formats, index) == 0 => std::str::from_utf8(bytes)
                .map_or_else(
                    |_| Value::Binary(bytes.to_vec()),
                    |text| Value::Text(text.to_owned()),
                ),
            Some(bytes) => Value::Binary(bytes.to_vec()),
        };
        let values = given.iter().enumerate().map(value).collect();
        Self { values, long }
    }

    /// What an EXECUTE gives, in text form.
    pub(crate) fn constants(arguments: &[Option<String>], blinder: &Blinder) -> Self {
        let (mut long, mut room) = (Digests::default(), Room::default());
        let value = |argument: &Option<String>| match argument {
            None => Value::Null,
            Some(text) if !room.takes(text.len()) => long.add(text.as_bytes(), blinder),
            Some(text) => Value::Text(text.clone()),
        };
        let values = arguments.iter().map(value).collect();
        Self { values, long }
    }

    /// How many bytes are kept of values in a message.
    pub(crate) fn kept(given: &[Option<&[u8]>]) -> usize {
        let lengths = given.iter().flatten().map(|value| value.len());
        let mut room = Room::default();
        lengths.filter(|length| room.takes(*length)).sum()
    }

    /// What they take, in bytes, about.
    pub(crate) fn weight(&self) -> usize {
        let value = |value: &Value| match value {
            Value::Text(text) => text.len(),
            Value::Binary(bytes) => bytes.len(),
            Value::Null | Value::Truncated(_) => 0,
        };
        let values: usize = self.values.iter().map(value).sum();
        values + size_of_val(self.long.0.as_slice())
    }

    /// As they stand in the log.
    pub(crate) fn recorded(&self) -> Vec<Parameter> {
        self.long.recorded(&self.values)
    }
}

/// How many bytes of a message's values are kept already.
#[derive(Default)]
struct Room(usize);

impl Room {
    /// Whether a value of that length is kept too.
    fn takes(&mut self, length: usize) -> bool {
        let fits = length <= MAX_VALUE && self.0 + length <= MAX_VALUES;
        self.0 += if fits { length } else { 0 };
        fits
    }
}

impl Digests {
    fn add(&mut self, bytes: &[u8], blinder: &Blinder) -> Value {
        self.0.push(blinder.of_long(bytes));
        Value::Truncated(bytes.len() as u64)
    }

    /// Values that these digests go with, as they stand in the log.
    pub(crate) fn recorded(&self, values: &[Value]) -> Vec<Parameter> {
        let mut digests = self.0.iter();
        let parameter = |value: &Value| match value {
            Value::Null => Parameter::Null,
            Value::Text(text) => Parameter::Text(text.clone()),
            Value::Binary(bytes) => Parameter::Binary(hex_encode(bytes)),
            Value::Truncated(bytes) => match digests.next() {
                Some(&digest) => Parameter::Digest {
                    bytes: *bytes,
                    digest,
                },
                None => Parameter::Truncated { bytes: *bytes },
            },
        };
        values.iter().map(parameter).collect()
    }
}

#[cfg(test)]
mod tests {
    use chaperone_audit_log::{DataKey, PrivateKey};
    use uuid::Uuid;

    use super::*;

    fn blinder() -> Blinder {
        let public = PrivateKey::generate("auditor").unwrap().public();
        let (key, _) = DataKey::generate(Uuid::now_v7(), 1, &[public]).unwrap();
        key.blinder().clone()
    }

    #[test]
    fn long_values_go_into_the_log_by_their_own_digests() {
        let blinder = blinder();
        let (fits, long) = ("x".repeat(MAX_VALUE), "y".repeat(MAX_VALUE + 1));
        let binary = vec![0xff; MAX_VALUE + 2];
        let formats = [0, 0, 0, 1, 1];
        let given: [Option<&[u8]>; 5] = [
            Some(fits.as_bytes()),
            Some(long.as_bytes()),
            None,
            Some(&binary),
            Some(&[1, 255]),
        ];
        let bound = Parameters::bound(&formats, &given, &blinder);
        let digest = |bytes: &[u8]| Parameter::Digest {
            bytes: bytes.len() as u64,
            digest: blinder.of_long(bytes),
        };
        let recorded = [
            Parameter::Text(fits.clone()),
            digest(long.as_bytes()),
            Parameter::Null,
            digest(&binary),
            Parameter::Binary("01ff".to_owned()),
        ];
        assert_eq!(bound.recorded(), recorded);
        assert_eq!(Parameters::kept(&given), MAX_VALUE + 2);
        assert_eq!(bound.weight(), MAX_VALUE + 2 + 2 * 32);
        assert_eq!(bound.values[1], Value::Truncated(long.len() as u64));

        let constants = [Some(fits), Some(long), None];
        let given = Parameters::constants(&constants, &blinder);
        assert_eq!(given.recorded(), recorded[..3]);
    }

    #[test]
    fn a_list_has_the_same_digest_when_it_was_read_and_is_written_again() {
        let digest = blinder().of_long(b"long");
        let list = [
            Parameter::Digest { bytes: 4, digest },
            Parameter::Null,
            Parameter::Text("\u{1}\"ä".to_owned()),
        ];
        let written = serde_json::to_string(&list).unwrap();
        let read: serde_json::Value = serde_json::from_str(&written).unwrap();
        assert_eq!(read.to_string(), written);
    }
}
