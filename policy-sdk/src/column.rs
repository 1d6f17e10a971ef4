//! Column batches for `rewrite`.

/// One column of a batch of rows: `rows + 1` offsets into `data`; bit i of `validity` set = row i
/// is not NULL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// As given in `Transform::Custom`.
    pub tag: String,
    /// One bit a row, least significant first.
    pub validity: Vec<u8>,
    /// Where each row's bytes start in `data`, and where the last one's end.
    pub offsets: Vec<u32>,
    /// All values, one behind the other.
    pub data: Vec<u8>,
}

/// What became of one cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// What was appended to the output.
    Written,
    /// NULL, whatever was appended.
    Null,
}

impl Column {
    /// A column from values; `None` is NULL.
    #[must_use]
    pub fn from_values<'a>(
        tag: impl Into<String>,
        values: impl IntoIterator<Item = Option<&'a str>>,
    ) -> Self {
        let mut builder = Builder::default();
        let mut data = String::new();
        for value in values {
            data.push_str(value.unwrap_or_default());
            builder.end_row(data.len(), value.is_some());
        }
        builder.finish(tag.into(), data)
    }

    /// The bytes of a row; `None` for NULL and for rows that do not exist.
    #[must_use]
    pub fn get(&self, row: usize) -> Option<&[u8]> {
        let valid = self.validity.get(row / 8)? >> (row % 8) & 1 == 1;
        let (start, end) = (self.offsets.get(row)?, self.offsets.get(row + 1)?);
        valid.then(|| self.data.get(*start as usize..*end as usize))?
    }

    /// All rows as text; NULL and what is not UTF-8 is `None`.
    pub fn texts(&self) -> impl Iterator<Item = Option<&str>> {
        (0..self.offsets.len().saturating_sub(1))
            .map(|row| self.get(row).and_then(|bytes| str::from_utf8(bytes).ok()))
    }

    /// A column of the same shape with every text replaced by what `rewrite` appends.
    ///
    /// # Errors
    ///
    /// The first error of `rewrite`; a batch that is not as it should be; more than 4 GiB.
    pub fn map_text(
        &self,
        rows: u32,
        mut rewrite: impl FnMut(&str, &mut String) -> Result<Cell, String>,
    ) -> Result<Column, String> {
        let rows = rows as usize;
        if self.offsets.len() != rows + 1 || self.validity.len() < rows.div_ceil(8) {
            return Err("the batch's offsets or validity do not fit its number of rows".into());
        }
        let mut builder = Builder::default();
        builder.offsets.reserve(rows);
        let mut data = String::with_capacity(self.data.len());
        for row in 0..rows {
            let start = data.len();
            let cell = match self.get(row).map(str::from_utf8) {
                Some(Ok(text)) => rewrite(text, &mut data)?,
                Some(Err(_)) | None => Cell::Null,
            };
            if cell == Cell::Null {
                data.truncate(start);
            }
            if u32::try_from(data.len()).is_err() {
                return Err("the rewritten batch is too large".into());
            }
            builder.end_row(data.len(), cell == Cell::Written);
        }
        Ok(builder.finish(self.tag.clone(), data))
    }
}

struct Builder {
    validity: Vec<u8>,
    offsets: Vec<u32>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            validity: Vec::new(),
            offsets: vec![0],
        }
    }
}

impl Builder {
    fn end_row(&mut self, end: usize, valid: bool) {
        let row = self.offsets.len() - 1;
        if row.is_multiple_of(8) {
            self.validity.push(0);
        }
        if let (true, Some(last)) = (valid, self.validity.last_mut()) {
            *last |= 1 << (row % 8);
        }
        self.offsets.push(u32::try_from(end).unwrap_or(u32::MAX));
    }

    fn finish(self, tag: String, data: String) -> Column {
        Column {
            tag,
            validity: self.validity,
            offsets: self.offsets,
            data: data.into_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_row_by_row_and_keeps_nulls() {
        let values: Vec<_> = (0..19).map(|row| (row % 3 != 0).then_some("abc")).collect();
        let column = Column::from_values("t", values.iter().copied());
        let mapped = column
            .map_text(19, |text, out| {
                out.push_str(text);
                out.push('!');
                Ok(Cell::Written)
            })
            .unwrap();
        let expected: Vec<_> = values.iter().map(|v| v.map(|_| "abc!")).collect();
        assert_eq!(mapped.texts().collect::<Vec<_>>(), expected);
        assert_eq!(mapped.validity.len(), 3);
    }

    #[test]
    fn what_is_not_utf8_becomes_null() {
        let column = Column {
            tag: String::new(),
            validity: vec![0b11],
            offsets: vec![0, 1, 2],
            data: vec![0xff, b'a'],
        };
        let mapped = column
            .map_text(2, |text, out| {
                out.push_str(text);
                Ok(Cell::Written)
            })
            .unwrap();
        assert_eq!(mapped.texts().collect::<Vec<_>>(), [None, Some("a")]);
    }

    #[test]
    fn a_batch_of_the_wrong_shape_is_an_error() {
        let column = Column::from_values("t", [Some("a")]);
        assert!(column.map_text(2, |_, _| Ok(Cell::Written)).is_err());
    }
}
