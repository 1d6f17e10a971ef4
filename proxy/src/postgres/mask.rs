//! Masks on result rows.
//!
//! A [`RowPlan`] says for each column of a result what leaves: it is compiled once a result's types
//! and formats are known, and no row is sent without one. Transforms that do not fit a column's
//! type, format or lineage become NULL; nothing falls back to the clear value.

use bytes::{BufMut, Bytes, BytesMut};
use chaperone_contract::{Lineage, Transform};

use super::protocol::{ColumnDescription, Fields, Malformed};

/// OIDs of built-in types (`pg_type.dat`; they never change).
mod oid {
    pub(super) const NAME: u32 = 19;
    pub(super) const TEXT: u32 = 25;
    pub(super) const UNKNOWN: u32 = 705;
    pub(super) const BPCHAR: u32 = 1042;
    pub(super) const VARCHAR: u32 = 1043;
    pub(super) const DATE: u32 = 1082;
    pub(super) const TIMESTAMP: u32 = 1114;
    pub(super) const TIMESTAMPTZ: u32 = 1184;
}

/// What happens to the cells of one column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    Keep,
    Null,
    /// `also_null`: NULL is replaced as well, where being NULL is itself computed from PHI.
    Fixed {
        text: Bytes,
        also_null: bool,
    },
    KeepLast(usize),
    Zip3,
    KeyedHash,
    YearText,
    YearDate,
    YearTimestamp,
    /// The module (index into the policy set) that rewrites it, and the tag it asked for.
    Custom {
        module: usize,
        tag: String,
    },
}

/// What leaves of each column.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct RowPlan {
    cells: Vec<Cell>,
}

/// What a policy set says about one output.
#[derive(Clone, Debug)]
pub(crate) struct Rule<'a> {
    pub(crate) transform: &'a Transform,
    /// The module whose `rewrite` a custom transform means.
    pub(crate) module: Option<usize>,
    pub(crate) lineage: &'a Lineage,
}

impl RowPlan {
    /// Nothing to mask in `columns` columns.
    pub(crate) fn clear(columns: usize) -> Self {
        Self {
            cells: vec![Cell::Keep; columns],
        }
    }

    /// Compiles the rules for a result whose columns are described, in the formats of its Bind.
    pub(crate) fn compile<'a>(
        rules: impl IntoIterator<Item = Rule<'a>>,
        columns: &[ColumnDescription],
        format: impl Fn(usize) -> i16,
        has_hash_key: bool,
    ) -> Self {
        let cells = rules
            .into_iter()
            .zip(columns)
            .enumerate()
            .map(|(index, (rule, column))| cell(&rule, column, format(index), has_hash_key))
            .collect();
        Self { cells }
    }

    pub(crate) fn len(&self) -> usize {
        self.cells.len()
    }

    pub(crate) fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// Whether rows can go on untouched.
    pub(crate) fn is_clear(&self) -> bool {
        self.cells.iter().all(|cell| *cell == Cell::Keep)
    }

    /// The columns that modules rewrite.
    pub(crate) fn custom(&self) -> impl Iterator<Item = (usize, usize, &str)> {
        self.cells
            .iter()
            .enumerate()
            .filter_map(|(column, cell)| match cell {
                Cell::Custom { module, tag } => Some((column, *module, tag.as_str())),
                _ => None,
            })
    }

    /// Appends the masked form of a DataRow's body. `rewritten` holds the finished values of the
    /// custom columns of this row, in column order.
    pub(crate) fn apply<'a>(
        &self,
        body: &[u8],
        key: Option<&ring::hmac::Key>,
        mut rewritten: impl Iterator<Item = Option<&'a [u8]>>,
        out: &mut BytesMut,
    ) -> Result<(), Malformed> {
        let mut fields = Fields::new("DataRow", body);
        let count = usize::from(fields.u16()?);
        if count != self.cells.len() {
            return Err(Malformed::Invalid("DataRow"));
        }
        out.put_u16(u16::try_from(count).unwrap_or(u16::MAX));
        for cell in &self.cells {
            let value = fields.value()?;
            match (cell, value) {
                (Cell::Keep, value) => put(out, value),
                (Cell::Fixed { text, also_null }, value) => {
                    put(
                        out,
                        (value.is_some() || *also_null).then_some(text.as_ref()),
                    );
                }
                (Cell::Custom { .. }, _) => put(out, rewritten.next().flatten()),
                (Cell::Null, _) | (_, None) => put(out, None),
                (Cell::KeepLast(count), Some(value)) => put_keep_last(out, value, *count),
                (Cell::Zip3, Some(value)) => put(out, zip3(value)),
                (Cell::KeyedHash, Some(value)) => match key {
                    Some(key) => put(out, Some(&keyed_hash(key, value))),
                    None => put(out, None),
                },
                (Cell::YearText, Some(value)) => match year_text(value) {
                    Some(text) => put(out, Some(text.as_bytes())),
                    None => put(out, None),
                },
                (Cell::YearDate, Some(value)) => match year_date(value) {
                    Some(days) => put(out, Some(&days.to_be_bytes())),
                    None => put(out, None),
                },
                (Cell::YearTimestamp, Some(value)) => match year_timestamp(value) {
                    Some(microseconds) => put(out, Some(&microseconds.to_be_bytes())),
                    None => put(out, None),
                },
            }
        }
        fields.end()
    }
}

fn cell(rule: &Rule<'_>, column: &ColumnDescription, format: i16, has_hash_key: bool) -> Cell {
    let textual = matches!(
        column.type_oid,
        oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::UNKNOWN
    );
    let exact = matches!(rule.lineage, Lineage::Exact(_));
    match rule.transform {
        Transform::Reveal => Cell::Keep,
        Transform::Fixed(text) if textual && fits(text, column) => Cell::Fixed {
            text: Bytes::copy_from_slice(text.as_bytes()),
            also_null: !exact,
        },
        // All other transforms keep something of the value, which is only what it seems to be
        // where the value is the field's own.
        _ if !exact => Cell::Null,
        Transform::KeepLast(count) if textual => Cell::KeepLast(usize::from(*count)),
        Transform::Zip3 if textual => Cell::Zip3,
        Transform::KeyedHash if has_hash_key && textual && fits_length(64, column) => {
            Cell::KeyedHash
        }
        Transform::Custom(tag) if textual => match rule.module {
            Some(module) => Cell::Custom {
                module,
                tag: tag.clone(),
            },
            None => Cell::Null,
        },
        Transform::Year => match (column.type_oid, format) {
            (oid::DATE | oid::TIMESTAMP | oid::TIMESTAMPTZ, 0) => Cell::YearText,
            (oid::DATE, 1) => Cell::YearDate,
            (oid::TIMESTAMP | oid::TIMESTAMPTZ, 1) => Cell::YearTimestamp,
            _ => Cell::Null,
        },
        _ => Cell::Null,
    }
}

/// Whether a transform keeps what it says on a column of this built-in type, as far as that can be
/// told before the backend has described it: the longest text that fits is not known then. Where it
/// does not, the column becomes NULL.
pub(crate) fn survives(
    transform: &Transform,
    lineage: &Lineage,
    type_name: &str,
    has_hash_key: bool,
) -> bool {
    let type_oid = match type_name {
        "name" => oid::NAME,
        "text" => oid::TEXT,
        "unknown" => oid::UNKNOWN,
        "bpchar" => oid::BPCHAR,
        "varchar" => oid::VARCHAR,
        "date" => oid::DATE,
        "timestamp" => oid::TIMESTAMP,
        "timestamptz" => oid::TIMESTAMPTZ,
        _ => 0,
    };
    let column = ColumnDescription {
        table: 0,
        attribute: 0,
        type_oid,
        type_modifier: -1,
        format: 0,
    };
    let rule = Rule {
        transform,
        // Which one does not matter here.
        module: Some(0),
        lineage,
    };
    cell(&rule, &column, 0, has_hash_key) != Cell::Null || *transform == Transform::Null
}

fn fits(text: &str, column: &ColumnDescription) -> bool {
    fits_length(text.chars().count(), column)
}

/// `varchar(n)` and `char(n)` carry n + 4 as their modifier; `name` holds 63 bytes.
fn fits_length(characters: usize, column: &ColumnDescription) -> bool {
    match column.type_oid {
        oid::NAME => characters <= 63,
        oid::VARCHAR | oid::BPCHAR if column.type_modifier >= 4 => {
            usize::try_from(column.type_modifier - 4).is_ok_and(|limit| characters <= limit)
        }
        _ => true,
    }
}

fn put(out: &mut BytesMut, value: Option<&[u8]>) {
    match value {
        None => out.put_i32(-1),
        Some(value) => {
            out.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
            out.put_slice(value);
        }
    }
}

/// At most half of a value is kept, so that a short one is not shown whole. Stars stand for
/// characters, not for bytes.
fn put_keep_last(out: &mut BytesMut, value: &[u8], count: usize) {
    let Ok(text) = std::str::from_utf8(value) else {
        return put(out, None);
    };
    let length = if text.is_ascii() {
        text.len()
    } else {
        text.chars().count()
    };
    let hidden = length - count.min(length / 2);
    let tail = if length == text.len() {
        text.get(hidden..)
    } else {
        text.char_indices()
            .nth(hidden)
            .map_or(Some(""), |(at, _)| text.get(at..))
    };
    let Some(tail) = tail else {
        return put(out, None);
    };
    out.put_i32(i32::try_from(hidden + tail.len()).unwrap_or(i32::MAX));
    out.put_bytes(b'*', hidden);
    out.put_slice(tail.as_bytes());
}

/// The three-digit ZIP areas of at most 20,000 people by the 2000 census, as the guidance of HHS on
/// 45 CFR 164.514(b)(2)(i)(B) lists them.
const SPARSE_AREAS: [&[u8]; 17] = [
    b"036", b"059", b"063", b"102", b"203", b"556", b"692", b"790", b"821", b"823", b"830", b"831",
    b"878", b"879", b"884", b"890", b"893",
];

fn zip3(value: &[u8]) -> Option<&[u8]> {
    let area = value.get(..3)?;
    let rest = value.get(3..)?;
    let is_zip = area.iter().all(u8::is_ascii_digit)
        && rest.len() >= 2
        && rest
            .iter()
            .all(|byte| byte.is_ascii_digit() || *byte == b'-');
    is_zip.then_some(if SPARSE_AREAS.contains(&area) {
        b"000"
    } else {
        area
    })
}

/// HMAC-SHA-256 in hexadecimal.
fn keyed_hash(key: &ring::hmac::Key, value: &[u8]) -> [u8; 64] {
    let digit = |half: u8| {
        if half < 10 {
            b'0' + half
        } else {
            b'a' + half - 10
        }
    };
    let mut text = [0; 64];
    let tag = ring::hmac::sign(key, value);
    for (pair, byte) in text.chunks_exact_mut(2).zip(tag.as_ref()) {
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
    text
}

/// ISO output only: in any other DateStyle the year's place is not certain.
fn year_text(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    let (year, rest) = text.split_once('-')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (month, rest) = rest.split_at_checked(2)?;
    let (day, rest) = rest.strip_prefix('-')?.split_at_checked(2)?;
    if year.len() < 4 || !digits(year) || !digits(month) || !digits(day) || rest.contains("BC") {
        return None;
    }
    match rest.split_once(' ') {
        None if rest.is_empty() => Some(format!("{year}-01-01")),
        Some(("", time)) => {
            let zone = time.find(['+', '-']).and_then(|at| time.get(at..));
            Some(format!("{year}-01-01 00:00:00{}", zone.unwrap_or_default()))
        }
        _ => None,
    }
}

/// Days from 2000-01-01 to the first of January of the year in which `days` after it lies.
fn year_start(days: i64) -> i64 {
    // Civil calendar in 400-year cycles of 146,097 days, counted from 2000-01-01, which starts one.
    let cycle = days.div_euclid(146_097);
    let day = days.rem_euclid(146_097);
    let start = |year: i64| {
        // The cycle's own year 0 is a leap year, hence the rounding up.
        year * 365 + (year + 3) / 4 - (year + 99) / 100 + (year + 399) / 400
    };
    let mut year = day / 366;
    while start(year + 1) <= day {
        year += 1;
    }
    cycle * 146_097 + start(year)
}

fn year_date(value: &[u8]) -> Option<i32> {
    let days = i32::from_be_bytes(value.try_into().ok()?);
    if matches!(days, i32::MIN | i32::MAX) {
        return None;
    }
    i32::try_from(year_start(days.into())).ok()
}

fn year_timestamp(value: &[u8]) -> Option<i64> {
    const DAY: i64 = 86_400_000_000;
    let microseconds = i64::from_be_bytes(value.try_into().ok()?);
    if matches!(microseconds, i64::MIN | i64::MAX) {
        return None;
    }
    year_start(microseconds.div_euclid(DAY)).checked_mul(DAY)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn column(type_oid: u32, type_modifier: i32) -> ColumnDescription {
        ColumnDescription {
            table: 0,
            attribute: 0,
            type_oid,
            type_modifier,
            format: 0,
        }
    }

    fn compile(
        transform: &Transform,
        lineage: &Lineage,
        column: ColumnDescription,
        format: i16,
    ) -> Cell {
        let rule = Rule {
            transform,
            module: Some(0),
            lineage,
        };
        RowPlan::compile([rule], &[column], |_| format, true).cells[0].clone()
    }

    #[test]
    fn what_does_not_fit_becomes_null() {
        let exact = Lineage::Exact(0);
        let derived = Lineage::Derived(vec![0]);
        let fixed = Transform::Fixed("[MASKED]".into());
        let is_null = |transform: &Transform, lineage, column| {
            compile(transform, lineage, column, 0) == Cell::Null
        };
        assert!(!is_null(&fixed, &exact, column(oid::TEXT, -1)));
        assert!(is_null(&fixed, &exact, column(oid::DATE, -1)));
        assert!(is_null(&fixed, &exact, column(oid::VARCHAR, 9)));
        assert!(!is_null(&fixed, &exact, column(oid::VARCHAR, 12)));
        assert!(is_null(
            &Transform::KeepLast(4),
            &derived,
            column(oid::TEXT, -1)
        ));
        assert!(is_null(&Transform::Year, &exact, column(oid::TEXT, -1)));
        assert!(is_null(
            &Transform::Zip3,
            &Lineage::Unknown,
            column(oid::TEXT, -1)
        ));
    }

    #[test]
    fn a_derived_null_says_nothing() {
        let fixed = Transform::Fixed("x".into());
        let derived = compile(&fixed, &Lineage::Derived(vec![0]), column(oid::TEXT, -1), 0);
        let plan = RowPlan {
            cells: vec![derived],
        };
        let mut out = BytesMut::new();
        plan.apply(
            &[0, 1, 255, 255, 255, 255],
            None,
            std::iter::empty(),
            &mut out,
        )
        .unwrap();
        assert_eq!(&out[..], [0, 1, 0, 0, 0, 1, b'x']);
    }

    #[test]
    fn a_row_of_another_width_is_refused() {
        let mut out = BytesMut::new();
        let row = [0, 1, 0, 0, 0, 1, b'x'];
        assert!(
            RowPlan::clear(2)
                .apply(&row, None, std::iter::empty(), &mut out)
                .is_err()
        );
    }

    #[test]
    fn transforms_keep_what_they_say() {
        let kept = |value: &[u8], count| {
            let mut out = BytesMut::new();
            put_keep_last(&mut out, value, count);
            out
        };
        for (value, count, left) in [
            ("MRN-0042", 4, "****0042"),
            ("abc", 4, "**c"),
            ("abc", 0, "***"),
            ("", 4, ""),
            ("Jörg Ö", 2, "****\u{20}Ö"),
            ("ÄÖ", 9, "*Ö"),
        ] {
            let mut expected = BytesMut::new();
            put(&mut expected, Some(left.as_bytes()));
            assert_eq!(kept(value.as_bytes(), count), expected, "{value}");
        }
        assert_eq!(kept(b"\xff1234", 4)[..], [255; 4]);
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"Jefe");
        assert_eq!(
            std::str::from_utf8(&keyed_hash(&key, b"what do ya want for nothing?")),
            // RFC 4231, test case 2
            Ok("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
        );
        assert_eq!(zip3(b"88801"), Some(&b"888"[..]));
        assert_eq!(zip3(b"03601-1234"), Some(&b"000"[..]));
        assert_eq!(zip3(b"SW1A 1AA"), None);
        assert_eq!(year_text(b"1907-11-23").unwrap(), "1907-01-01");
        assert_eq!(
            year_text(b"1988-03-05 04:17:31.25+05:45").unwrap(),
            "1988-01-01 00:00:00+05:45"
        );
        for other in [
            "23.11.1907",
            "infinity",
            "0044-03-15 BC",
            "",
            "1907-1",
            "x-01-01",
        ] {
            assert_eq!(year_text(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn years_start_where_the_calendar_says() {
        // 2000-01-01, 2000-12-31, 2001-01-01, 1999-12-31, 1907-11-23
        for (days, start) in [(0, 0), (365, 0), (366, 366), (-1, -365), (-33_642, -33_968)] {
            assert_eq!(year_start(days), start, "{days}");
        }
    }

    proptest! {
        #[test]
        fn a_year_is_365_or_366_days(days in -2_000_000i64..2_000_000) {
            let start = year_start(days);
            prop_assert!(start <= days && days - start < 366);
            prop_assert_eq!(year_start(start), start);
            let length = year_start(start + 366) - start;
            prop_assert!(length == 365 || length == 366);
        }

        #[test]
        fn garbage_never_panics(body in proptest::collection::vec(any::<u8>(), 0..80)) {
            let cells = vec![Cell::KeepLast(3), Cell::YearText, Cell::YearDate];
            let mut out = BytesMut::new();
            let _ = RowPlan { cells }.apply(&body, None, std::iter::empty(), &mut out);
        }
    }
}
