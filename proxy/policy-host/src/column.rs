//! Columns on their way to a module's `rewrite` and back.

use crate::bindings::policy;
use crate::failure::{Failure, FailureCode};

/// One column of a batch: `rows + 1` offsets into `data`; bit i of `validity` set = row i is not
/// null.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// The tag of the `custom` mask, by which the module knows what to do.
    pub tag: String,
    /// One bit per row, least significant first.
    pub validity: Vec<u8>,
    /// Where each row starts, and where the last one ends.
    pub offsets: Vec<u32>,
    /// All values, one after the other.
    pub data: Vec<u8>,
}

impl Column {
    /// A column without rows.
    #[must_use]
    pub fn new(tag: impl Into<String>) -> Self {
        Column {
            tag: tag.into(),
            offsets: vec![0],
            ..Column::default()
        }
    }

    /// Appends a value; `None` is null.
    pub fn push(&mut self, value: Option<&[u8]>) {
        let row = self.rows();
        if row.is_multiple_of(8) {
            self.validity.push(0);
        }
        if let Some(value) = value {
            if let Some(byte) = self.validity.last_mut() {
                *byte |= 1 << (row % 8);
            }
            self.data.extend_from_slice(value);
        }
        // A batch is cut long before 4 GiB; a column that is not is refused by `check`.
        self.offsets
            .push(u32::try_from(self.data.len()).unwrap_or(u32::MAX));
    }

    /// How many rows it has.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// The value of a row; `None` is null, or a row that does not exist.
    #[must_use]
    pub fn get(&self, row: usize) -> Option<&[u8]> {
        let byte = *self.validity.get(row / 8)?;
        if byte & (1 << (row % 8)) == 0 {
            return None;
        }
        let (start, end) = (*self.offsets.get(row)?, *self.offsets.get(row + 1)?);
        self.data.get(start as usize..end as usize)
    }

    /// Whether it has exactly `rows` rows, and all of them lie within its data.
    fn is_sound(&self, rows: usize) -> bool {
        self.offsets.len() == rows + 1
            && self.validity.len() == rows.div_ceil(8)
            && self.offsets.first() == Some(&0)
            && self.offsets.is_sorted()
            && self.offsets.last().map(|&end| end as usize) == Some(self.data.len())
    }
}

impl From<Column> for policy::Column {
    fn from(column: Column) -> Self {
        policy::Column {
            tag: column.tag,
            validity: column.validity,
            offsets: column.offsets,
            data: column.data,
        }
    }
}

impl From<policy::Column> for Column {
    fn from(column: policy::Column) -> Self {
        Column {
            tag: column.tag,
            validity: column.validity,
            offsets: column.offsets,
            data: column.data,
        }
    }
}

/// Believes an answer only if it has one sound column for each that was asked about.
pub(crate) fn check(
    rows: u32,
    tags: &[String],
    answer: impl ExactSizeIterator<Item = Column>,
) -> Result<Vec<Column>, Failure> {
    let bad = |what: &str| Err(Failure::new(FailureCode::BadAnswer, what));
    if answer.len() != tags.len() {
        return bad("its rewrite returned another number of columns than it was given");
    }
    let mut columns = Vec::with_capacity(tags.len());
    for (mut column, tag) in answer.zip(tags) {
        if !column.is_sound(rows as usize) {
            return bad(
                "its rewrite returned another number of rows than it was given, or offsets that \
                 do not fit the data",
            );
        }
        column.tag.clone_from(tag);
        columns.push(column);
    }
    Ok(columns)
}

/// Calls `rewrite` for runs of rows of at most `budget` bytes, and joins the answers. A row with
/// more than that alone is not shown to the module: its cells become null.
pub(crate) fn in_batches(
    rows: u32,
    columns: Vec<Column>,
    budget: usize,
    rewrite: impl Fn(u32, Vec<Column>) -> Result<Vec<Column>, Failure>,
) -> Result<Vec<Column>, Failure> {
    let count = rows as usize;
    if columns.iter().any(|column| !column.is_sound(count)) {
        return Err(Failure::new(
            FailureCode::BadAnswer,
            "the batch for its rewrite is not sound",
        ));
    }
    // Offsets and validity cross too.
    let overhead = columns.len().saturating_mul(5);
    let size = |row: usize| {
        columns.iter().fold(overhead, |sum, column| {
            sum.saturating_add(column.get(row).map_or(0, <[u8]>::len))
        })
    };
    let total = (0..count).fold(0_usize, |sum, row| sum.saturating_add(size(row)));
    if total <= budget {
        return rewrite(rows, columns);
    }

    let mut joined: Vec<Column> = columns.iter().map(|c| Column::new(&*c.tag)).collect();
    let mut row = 0;
    while row < count {
        if size(row) > budget {
            joined.iter_mut().for_each(|column| column.push(None));
            row += 1;
            continue;
        }
        let mut batch: Vec<Column> = columns.iter().map(|c| Column::new(&*c.tag)).collect();
        let mut bytes = 0_usize;
        let mut taken = 0_u32;
        while row < count && bytes.saturating_add(size(row)) <= budget {
            bytes = bytes.saturating_add(size(row));
            for (part, column) in batch.iter_mut().zip(&columns) {
                part.push(column.get(row));
            }
            row += 1;
            taken += 1;
        }
        let answer = rewrite(taken, batch)?;
        for (whole, part) in joined.iter_mut().zip(&answer) {
            for index in 0..taken as usize {
                whole.push(part.get(index));
            }
        }
    }
    Ok(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(values: &[Option<&str>]) -> Column {
        let mut column = Column::new("t");
        for value in values {
            column.push(value.map(str::as_bytes));
        }
        column
    }

    #[test]
    fn values_come_back() {
        let values: Vec<Option<&str>> = (0..20)
            .map(|i| [Some("abc"), None, Some("")][i % 3])
            .collect();
        let column = column(&values);
        assert!(column.is_sound(20));
        for (row, value) in values.iter().enumerate() {
            assert_eq!(column.get(row), value.map(str::as_bytes));
        }
        assert_eq!(column.get(20), None);
    }

    #[test]
    fn unsound_answers_are_not_believed() {
        let tags = ["t".to_owned()];
        let good = column(&[Some("ab"), None, Some("c")]);
        let checked = |columns: Vec<Column>| check(3, &tags, columns.into_iter());
        assert!(checked(vec![good.clone()]).is_ok());
        assert!(checked(vec![]).is_err());
        assert!(checked(vec![good.clone(), good.clone()]).is_err());
        let broken: [fn(&mut Column); 7] = [
            |c| c.offsets.push(3),
            |c| c.offsets[1] = 7,
            |c| c.offsets[0] = 1,
            |c| c.offsets[3] = 2,
            |c| c.data.push(b'x'),
            |c| c.validity.push(0),
            |c| c.offsets.clear(),
        ];
        for break_it in broken {
            let mut column = good.clone();
            break_it(&mut column);
            assert!(checked(vec![column]).is_err());
        }
    }

    #[test]
    fn batches_are_split_and_joined() {
        let big = "x".repeat(200);
        let values = [Some("a"), None, Some(big.as_str()), Some("bc"), Some("d")];
        let upper = |rows: u32, columns: Vec<Column>| {
            assert!(rows < 5);
            Ok(columns
                .iter()
                .map(|column| {
                    let mut out = Column::new(&*column.tag);
                    for row in 0..rows as usize {
                        out.push(column.get(row).map(<[u8]>::to_ascii_uppercase).as_deref());
                    }
                    out
                })
                .collect())
        };
        let result = in_batches(5, vec![column(&values)], 14, upper).unwrap();
        assert_eq!(
            result,
            [column(&[Some("A"), None, None, Some("BC"), Some("D")])]
        );
    }
}
