//! The masks on their own, for benchmarks.

use bytes::BytesMut;
use chaperone_contract::{Lineage, Transform};

use super::{
    mask::{RowPlan, Rule},
    protocol::ColumnDescription,
};

/// What happens to rows whose columns are text and come straight from labelled fields.
#[derive(Debug)]
pub struct TextMasks {
    plan: RowPlan,
    key: ring::hmac::Key,
}

impl TextMasks {
    /// One transform for each column; those that modules compute are not among them.
    #[must_use]
    pub fn new(transforms: &[Transform]) -> Self {
        /// `text` in `pg_type.dat`.
        const TEXT: u32 = 25;
        let column = ColumnDescription {
            table: 0,
            attribute: 0,
            type_oid: TEXT,
            type_modifier: -1,
            format: 0,
        };
        let rules = transforms.iter().map(|transform| Rule {
            transform,
            module: None,
            lineage: &Lineage::Exact(0),
        });
        let columns = vec![column; transforms.len()];
        Self {
            plan: RowPlan::compile(rules, &columns, |_| 0, true),
            key: ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"of no use"),
        }
    }

    /// Appends the masked form of the body of a DataRow. Says whether it is one.
    pub fn apply(&self, row: &[u8], out: &mut BytesMut) -> bool {
        let none = std::iter::empty();
        self.plan.apply(row, Some(&self.key), none, out).is_ok()
    }
}
