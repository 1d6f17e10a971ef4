//! How much memory and table space one instance may take.

use wasmtime::ResourceLimiter;

/// Refuses growth past the limits and remembers that it did.
#[derive(Debug)]
pub(crate) struct Limiter {
    memory: usize,
    table_elements: usize,
    refused: bool,
}

impl Limiter {
    pub(crate) fn new(memory: usize, table_elements: usize) -> Self {
        Limiter {
            memory,
            table_elements,
            refused: false,
        }
    }

    pub(crate) fn refused(&self) -> bool {
        self.refused
    }

    fn allow(&mut self, desired: usize, limit: usize, maximum: Option<usize>) -> bool {
        let fits = desired <= limit && maximum.is_none_or(|maximum| desired <= maximum);
        self.refused |= !fits;
        fits
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.allow(desired, self.memory, maximum))
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.allow(desired, self.table_elements, maximum))
    }
}
