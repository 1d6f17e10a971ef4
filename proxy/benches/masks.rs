//! What native masks cost a cell: `cargo bench -p chaperone --bench masks`.
#![allow(
    missing_docs,
    reason = "a benchmark stops where something is not as it should be"
)]

use bytes::{BufMut as _, BytesMut};
use chaperone::postgres::measure::TextMasks;
use chaperone_contract::Transform;
use divan::{Bencher, counter::ItemsCount};

/// Rows that are masked in one go, each of one cell.
const ROWS: usize = 1000;

fn main() {
    divan::main();
}

/// Each transform, and a value that it fits.
const CELLS: [(&str, &str); 6] = [
    ("keep-last", "999-00-1234"),
    ("keep-last of no ASCII", "Łucja Brzęczyszczykiewicz"),
    ("fixed", "Synthetic Person 4711"),
    ("zip3", "88801-1234"),
    ("keyed-hash", "999-00-1234"),
    ("null", "999-00-1234"),
];

fn transform(name: &str) -> Transform {
    match name {
        "fixed" => Transform::Fixed("[name]".to_owned()),
        "zip3" => Transform::Zip3,
        "keyed-hash" => Transform::KeyedHash,
        "null" => Transform::Null,
        _ => Transform::KeepLast(4),
    }
}

fn row(value: &str) -> BytesMut {
    let mut row = BytesMut::new();
    row.put_u16(1);
    row.put_i32(i32::try_from(value.len()).unwrap_or(0));
    row.put_slice(value.as_bytes());
    row
}

#[divan::bench(args = CELLS.map(|(name, _)| name))]
fn cell(bencher: Bencher<'_, '_>, name: &str) {
    let value = CELLS.iter().find(|(known, _)| *known == name);
    let (name, value) = value.copied().unwrap_or_default();
    let masks = TextMasks::new(&[transform(name)]);
    let row = row(value);
    let mut out = BytesMut::with_capacity(128 * ROWS);
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| {
        out.clear();
        for _ in 0..ROWS {
            assert!(masks.apply(divan::black_box(&row), &mut out));
        }
        out.len()
    });
}
