//! How durations, sizes and free-form settings are written.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _};

/// `"50ms"`, `"30s"`, `"15m"`, `"8h"`, `"7d"` or several of them: `"1h30m"`.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at_checked(digits)?;
        let number: u64 = number.parse().ok()?;
        let letters = tail
            .find(|c: char| !c.is_ascii_lowercase())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(letters)?;
        let seconds = |unit: u64| number.checked_mul(unit).map(Duration::from_secs);
        let part = match unit {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => seconds(60)?,
            "h" => seconds(3600)?,
            "d" => seconds(86_400)?,
            _ => return None,
        };
        total = total.checked_add(part)?;
        rest = tail.trim_start();
    }
    Some(total)
}

/// `"4MiB"`, `"64KiB"`, `"1GiB"`, `"512B"`.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let factor: u64 = match unit.trim() {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

pub(super) fn segment_bytes() -> u64 {
    64 << 20
}

pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    match parse_duration(&text) {
        Some(duration) if !duration.is_zero() => Ok(duration),
        Some(_) => Err(D::Error::custom(
            "a duration of zero; write a longer one, such as \"30s\"",
        )),
        None => Err(D::Error::custom(format!(
            "{text:?} is not a duration; write a number with ms, s, m, h or d, such as \"30s\""
        ))),
    }
}

pub(super) fn duration_or_zero<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).ok_or_else(|| {
        D::Error::custom(format!(
            "{text:?} is not a duration; write a number with ms, s, m, h or d, such as \"30s\""
        ))
    })
}

#[derive(serde::Deserialize)]
#[serde(
    untagged,
    expecting = "not a size; write a number of bytes or a string such as \"4MiB\""
)]
enum Size {
    Number(u64),
    Text(String),
}

pub(super) fn size_u64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let size = match Size::deserialize(deserializer)? {
        Size::Number(number) => number,
        Size::Text(text) => parse_size(&text).ok_or_else(|| {
            D::Error::custom(format!(
                "{text:?} is not a size; write a number of bytes or one with B, KiB, MiB or GiB, such as \"4MiB\""
            ))
        })?,
    };
    if size == 0 {
        return Err(D::Error::custom(
            "a size of zero; write a larger one, such as \"64KiB\"",
        ));
    }
    Ok(size)
}

pub(super) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    usize::try_from(size_u64(deserializer)?)
        .map_err(|_| D::Error::custom("more than this machine can address; write a smaller size"))
}

/// TOML to JSON; a date or time becomes its text.
pub(super) fn settings<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, serde_json::Value>, D::Error> {
    let tables = BTreeMap::<String, Module>::deserialize(deserializer)?;
    Ok(tables
        .into_iter()
        .map(|(name, module)| (name, module.0))
        .collect())
}

/// One module's settings; a type of its own so that an error points at them.
struct Module(serde_json::Value);

impl<'de> Deserialize<'de> for Module {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = toml::Table::deserialize(deserializer)?;
        json(toml::Value::Table(table))
            .map(Module)
            .ok_or_else(|| D::Error::custom("inf and nan cannot be settings; write finite numbers"))
    }
}

/// `None` for the two numbers that JSON does not have.
fn json(value: toml::Value) -> Option<serde_json::Value> {
    Some(match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => serde_json::Number::from_f64(number)?.into(),
        toml::Value::Boolean(truth) => truth.into(),
        toml::Value::Datetime(when) => when.to_string().into(),
        toml::Value::Array(items) => {
            let items: Option<Vec<_>> = items.into_iter().map(json).collect();
            items?.into()
        }
        toml::Value::Table(table) => {
            let members = table
                .into_iter()
                .map(|(key, value)| json(value).map(|value| (key, value)));
            serde_json::Value::Object(members.collect::<Option<_>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let ok = |text| parse_duration(text).map(|d| d.as_millis());
        assert_eq!(ok("50ms"), Some(50));
        assert_eq!(ok("1h30m"), Some(5_400_000));
        assert_eq!(ok("2d"), Some(172_800_000));
        for bad in [
            "",
            "5",
            "s",
            "-1s",
            "1.5s",
            "1w",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("4MiB"), Some(4 << 20));
        assert_eq!(parse_size("64 KiB"), Some(64 << 10));
        for bad in ["", "4", "MiB", "4MB", "-4MiB", "18446744073709551615GiB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(text: String) {
            let _ = (parse_duration(&text), parse_size(&text));
        }
    }
}
