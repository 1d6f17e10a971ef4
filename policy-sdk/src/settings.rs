//! Settings from JSON text.
//!
//! A reader of its own because a module pays for what it links: the usual one brings the formatting
//! of floating point numbers and of positions along, a fifth of a small module's size.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, IntoDeserializer, Unexpected, Visitor};

/// Settings nest a few levels; the module's stack is small.
const MAX_DEPTH: u8 = 32;

/// Settings as the contract hands them over, where nothing means the defaults.
pub(crate) fn parse<S>(json: &str) -> Result<S, String>
where
    S: de::DeserializeOwned + Default,
{
    match json.trim() {
        "" | "null" => Ok(S::default()),
        json => from_json(json).map_err(|Error(what)| format!("the settings do not fit: {what}")),
    }
}

fn from_json<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, Error> {
    let mut json = Json {
        text,
        at: 0,
        depth: 0,
    };
    let value = T::deserialize(&mut json)?;
    match json.peek() {
        None => Ok(value),
        Some(_) => Err(json.wrong("the end")),
    }
}

/// What is wrong, for people.
#[derive(Debug)]
struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Error(what.to_string())
    }

    // Without the value: its Display is where the formatting of floating point numbers comes in.
    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let found = match found {
            Unexpected::Bool(_) => "true or false",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
            Unexpected::Str(_) => "a text",
            Unexpected::Seq => "a list",
            Unexpected::Map => "an object",
            Unexpected::Unit => "null",
            _ => "something else",
        };
        Error(format!("{found} where {expected} is expected"))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Error(format!("a value that is not {expected}"))
    }
}

struct Json<'de> {
    text: &'de str,
    at: usize,
    depth: u8,
}

enum Number {
    Positive(u64),
    Negative(i64),
    Float(f64),
}

// Not inlined: each of them is called for every type that settings are made of.
impl<'de> Json<'de> {
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is not white space, which stays.
    #[inline(never)]
    fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.byte() {
            self.at += 1;
        }
        self.byte()
    }

    #[inline(never)]
    fn wrong(&self, expected: &str) -> Error {
        Error(format!("byte {} is not {expected}", self.at))
    }

    #[inline(never)]
    fn expect(&mut self, wanted: u8, name: &str) -> Result<(), Error> {
        if self.peek() != Some(wanted) {
            return Err(self.wrong(name));
        }
        self.at += 1;
        Ok(())
    }

    #[inline(never)]
    fn word(&mut self, word: &str) -> Result<(), Error> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word) {
            return Err(self.wrong("JSON"));
        }
        self.at += word.len();
        Ok(())
    }

    #[inline(never)]
    fn enter(&mut self) -> Result<(), Error> {
        self.at += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Error("they nest too deep".to_owned()));
        }
        Ok(())
    }

    #[inline(never)]
    fn leave(&mut self, end: u8, name: &str) -> Result<(), Error> {
        self.depth -= 1;
        self.expect(end, name)
    }

    #[inline(never)]
    fn string(&mut self) -> Result<Cow<'de, str>, Error> {
        self.expect(b'"', "a text")?;
        let mut start = self.at;
        let mut whole = String::new();
        loop {
            match self.byte() {
                Some(b'"') => {
                    let piece = self.text.get(start..self.at).unwrap_or_default();
                    self.at += 1;
                    if whole.is_empty() {
                        return Ok(Cow::Borrowed(piece));
                    }
                    whole.push_str(piece);
                    return Ok(Cow::Owned(whole));
                }
                Some(b'\\') => {
                    whole.push_str(self.text.get(start..self.at).unwrap_or_default());
                    self.at += 1;
                    whole.push(self.escaped()?);
                    start = self.at;
                }
                None | Some(..0x20) => return Err(self.wrong("a character of a text")),
                Some(_) => self.at += 1,
            }
        }
    }

    fn escaped(&mut self) -> Result<char, Error> {
        let escape = self.byte();
        self.at += 1;
        Ok(match escape {
            Some(plain @ (b'"' | b'\\' | b'/')) => plain.into(),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => self.unicode()?,
            _ => return Err(self.wrong("behind an escape")),
        })
    }

    fn unicode(&mut self) -> Result<char, Error> {
        let mut code = self.hex()?;
        if (0xd800..0xdc00).contains(&code) {
            self.word("\\u")?;
            let low = self.hex()?;
            if !(0xdc00..0xe000).contains(&low) {
                return Err(self.wrong("behind half a character"));
            }
            code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        }
        char::from_u32(code).ok_or_else(|| self.wrong("behind a character"))
    }

    fn hex(&mut self) -> Result<u32, Error> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.byte().and_then(|byte| char::from(byte).to_digit(16));
            code = code * 16 + digit.ok_or_else(|| self.wrong("a hexadecimal digit"))?;
            self.at += 1;
        }
        Ok(code)
    }

    /// Digits behind each other: at least one.
    fn digits(&mut self, mut each: impl FnMut(u8)) -> Result<(), Error> {
        let start = self.at;
        while let Some(digit @ b'0'..=b'9') = self.byte() {
            each(digit - b'0');
            self.at += 1;
        }
        if self.at == start {
            return Err(self.wrong("a digit"));
        }
        Ok(())
    }

    #[inline(never)]
    fn number(&mut self) -> Result<Number, Error> {
        let negative = self.byte() == Some(b'-');
        self.at += usize::from(negative);
        // Digits that do not fit are counted only.
        let (mut mantissa, mut exponent) = (0_u64, 0_i32);
        let mut add = |digit: u8, step: i32| {
            let more = mantissa
                .checked_mul(10)
                .and_then(|it| it.checked_add(digit.into()));
            match more {
                Some(more) if exponent == 0 || step < 0 => {
                    mantissa = more;
                    exponent = exponent.saturating_add(step);
                }
                _ => exponent = exponent.saturating_add(step + 1),
            }
        };
        let start = self.at;
        self.digits(|digit| add(digit, 0))?;
        if self.at > start + 1 && self.text.as_bytes().get(start) == Some(&b'0') {
            return Err(self.wrong("a number without zeros in front"));
        }
        let mut whole = true;
        if self.byte() == Some(b'.') {
            whole = false;
            self.at += 1;
            self.digits(|digit| add(digit, -1))?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            whole = false;
            self.at += 1;
            let down = self.byte() == Some(b'-');
            self.at += usize::from(matches!(self.byte(), Some(b'+' | b'-')));
            let mut written = 0_i32;
            self.digits(|digit| written = written.saturating_mul(10).saturating_add(digit.into()))?;
            exponent = exponent.saturating_add(if down { -written } else { written });
        }
        if whole && exponent == 0 {
            if !negative {
                return Ok(Number::Positive(mantissa));
            }
            if let Some(value @ ..0) = 0_i64.checked_sub_unsigned(mantissa) {
                return Ok(Number::Negative(value));
            }
        }
        let value = scaled(mantissa, exponent);
        if value.is_infinite() {
            return Err(self.wrong("behind a number that fits"));
        }
        Ok(Number::Float(if negative { -value } else { value }))
    }
}

/// `mantissa * 10^exponent`, correctly rounded for what people write: up to fifteen digits and
/// powers up to 22.
#[expect(clippy::cast_precision_loss, reason = "beyond 2^53 it is rounded")]
fn scaled(mantissa: u64, exponent: i32) -> f64 {
    let power = |count: u32| (0..count.min(400)).fold(1.0, |all, _| all * 10.0);
    let value = mantissa as f64;
    let count = exponent.unsigned_abs();
    match exponent {
        _ if mantissa == 0 => 0.0,
        0.. => value * power(count),
        -300.. => value / power(count),
        _ => value / power(300) / power(count - 300),
    }
}

impl<'de> de::Deserializer<'de> for &mut Json<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.peek() {
            Some(b'n') => self.word("null").and_then(|()| visitor.visit_unit()),
            Some(b't') => self.word("true").and_then(|()| visitor.visit_bool(true)),
            Some(b'f') => self.word("false").and_then(|()| visitor.visit_bool(false)),
            Some(b'"') => match self.string()? {
                Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
                Cow::Owned(text) => visitor.visit_string(text),
            },
            Some(b'-' | b'0'..=b'9') => match self.number()? {
                Number::Positive(value) => visitor.visit_u64(value),
                Number::Negative(value) => visitor.visit_i64(value),
                Number::Float(value) => visitor.visit_f64(value),
            },
            Some(b'[') => {
                self.enter()?;
                let value = visitor.visit_seq(Items::of(self))?;
                self.leave(b']', "the end of a list")?;
                Ok(value)
            }
            Some(b'{') => {
                self.enter()?;
                let value = visitor.visit_map(Items::of(self))?;
                self.leave(b'}', "the end of an object")?;
                Ok(value)
            }
            _ => Err(self.wrong("JSON")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.peek() == Some(b'n') {
            self.word("null")?;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if self.peek() == Some(b'"') {
            let name = self.string()?;
            return visitor.visit_enum(IntoDeserializer::<Error>::into_deserializer(&*name));
        }
        if self.peek() != Some(b'{') {
            return Err(self.wrong("a name or an object"));
        }
        self.enter()?;
        let value = visitor.visit_enum(Variant(self))?;
        self.leave(b'}', "the end of an object")?;
        Ok(value)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// What is between brackets.
struct Items<'a, 'de> {
    json: &'a mut Json<'de>,
    first: bool,
}

impl<'a, 'de> Items<'a, 'de> {
    fn of(json: &'a mut Json<'de>) -> Self {
        Self { json, first: true }
    }

    /// Whether there is another one, at which it then stands.
    fn more(&mut self, end: u8) -> Result<bool, Error> {
        if self.json.peek() == Some(end) {
            return Ok(false);
        }
        if !std::mem::take(&mut self.first) {
            self.json
                .expect(b',', "a comma or the end of what was begun")?;
        }
        Ok(true)
    }
}

impl<'de> de::SeqAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    fn next_element_seed<S: de::DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        if !self.more(b']')? {
            return Ok(None);
        }
        seed.deserialize(&mut *self.json).map(Some)
    }
}

impl<'de> de::MapAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    fn next_key_seed<S: de::DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        if !self.more(b'}')? {
            return Ok(None);
        }
        let key = self.json.string()?;
        seed.deserialize(IntoDeserializer::<Error>::into_deserializer(&*key))
            .map(Some)
    }

    fn next_value_seed<S: de::DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        self.json.expect(b':', "a colon")?;
        seed.deserialize(&mut *self.json)
    }
}

/// `{"name": content}`.
struct Variant<'a, 'de>(&'a mut Json<'de>);

impl<'de> de::EnumAccess<'de> for Variant<'_, 'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: de::DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let name = self.0.string()?;
        let value = seed.deserialize(IntoDeserializer::<Error>::into_deserializer(&*name))?;
        self.0.expect(b':', "a colon")?;
        Ok((value, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_, 'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Deserialize::deserialize(self.0)
    }

    fn newtype_variant_seed<S: de::DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self.0)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        de::Deserializer::deserialize_any(self.0, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        de::Deserializer::deserialize_any(self.0, visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Settings {
        name: String,
        count: Option<u8>,
        share: f64,
        kinds: BTreeMap<Kind, Vec<Kind>>,
        pair: (i8, bool),
    }

    #[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
    #[serde(rename_all = "kebab-case")]
    enum Kind {
        OneThing,
        Many(Vec<u8>),
        Named { name: String },
    }

    #[test]
    fn settings_are_read() {
        let text = r#" {"name": "a\n\u00e9\ud83d\ude00", "count": 7, "share": 0.125, "pair": [-1, true],
            "kinds": {"one-thing": ["one-thing", {"many": [1, 2]}, {"named": {"name": "x"}}]}} "#;
        let kinds = vec![
            Kind::OneThing,
            Kind::Many(vec![1, 2]),
            Kind::Named { name: "x".into() },
        ];
        let expected = Settings {
            name: "a\n\u{e9}\u{1f600}".into(),
            count: Some(7),
            share: 0.125,
            kinds: [(Kind::OneThing, kinds)].into(),
            pair: (-1, true),
        };
        assert_eq!(parse::<Settings>(text), Ok(expected));
        assert_eq!(parse::<Settings>(" null "), Ok(Settings::default()));
        assert_eq!(parse::<Settings>(""), Ok(Settings::default()));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, said) in [
            (r#"{"nam": "x"}"#, "unknown field `nam`"),
            (r#"{"name": 1.5}"#, "a number where a string is expected"),
            (r#"{"count": 256}"#, "a value that is not u8"),
            (r#"{"kinds": {"one": []}}"#, "unknown variant `one`"),
            (r#"{"name": "x",}"#, "byte 13 is not a text"),
            (r#"{"name": "x"} x"#, "byte 14 is not the end"),
            (r#"{"pair": [1, true, 2]}"#, "the end of a list"),
            (
                r#"{"kinds": {"one-thing": [{"many": [1], "x": 1}]}}"#,
                "the end of an object",
            ),
        ] {
            let error = parse::<Settings>(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
        let deep = "[".repeat(100_000);
        assert!(from_json::<Value>(&deep).is_err());
    }

    fn equal(a: &Value, b: &Value) -> bool {
        match (a, b) {
            (Value::Number(a), Value::Number(b)) => {
                let close = |(a, b): (f64, f64)| (a - b).abs() <= a.abs() * 1e-13;
                a == b || a.as_f64().zip(b.as_f64()).is_some_and(close)
            }
            (Value::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
            }
            (Value::Object(a), Value::Object(b)) => {
                let same = |((k, a), (l, b)): ((&String, &Value), (&String, &Value))| {
                    k == l && equal(a, b)
                };
                a.len() == b.len() && a.iter().zip(b).all(same)
            }
            _ => a == b,
        }
    }

    fn agree(text: &str) {
        let theirs = serde_json::from_str::<Value>(text);
        let ours = from_json::<Value>(text);
        match (&ours, &theirs) {
            (Ok(ours), Ok(theirs)) => assert!(equal(ours, theirs), "{text}: {ours} {theirs}"),
            (Err(_), Err(_)) => {}
            _ => panic!("{text}: {ours:?} {theirs:?}"),
        }
    }

    proptest! {
        #[test]
        fn it_reads_what_others_read(
            text in r#"(\{"a":|\[|\]|\}|,|"|\\|\\u00e9|\\ud83d\\ude00|[0-9.eE+-]{1,6}|true|null| |x|é){0,12}"#
        ) {
            agree(&text);
        }

        #[test]
        fn numbers(text in r"-?[0-9]{1,22}(\.[0-9]{1,22})?([eE][+-]?[0-9]{1,3})?") {
            agree(&text);
        }

        #[test]
        fn any_text(text in ".*") {
            agree(&text);
            agree(&serde_json::to_string(&text).unwrap());
        }
    }
}
