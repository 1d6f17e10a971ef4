//! The texts of a session that are understood already.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;

use super::understand::Script;

/// So many texts are remembered per session.
const TEXTS: usize = 2_000;
/// So many bytes of texts; what is known about them takes a few times as much.
const BYTES: usize = 4 << 20;

/// Texts and what they were understood as. Forgets everything when it is full: which text comes
/// next is not known better than that.
#[derive(Default)]
pub(super) struct Scripts {
    known: HashMap<Bytes, Arc<Script>>,
    bytes: usize,
}

impl Scripts {
    pub(super) fn get(&self, text: &[u8]) -> Option<&Arc<Script>> {
        self.known.get(text)
    }

    pub(super) fn insert(&mut self, text: Bytes, script: Arc<Script>) {
        if self.known.len() >= TEXTS || self.bytes.saturating_add(text.len()) > BYTES {
            self.clear();
        }
        let length = text.len();
        if self.known.insert(text, script).is_none() {
            self.bytes = self.bytes.saturating_add(length);
        }
    }

    pub(super) fn clear(&mut self) {
        self.known = HashMap::new();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &Bytes) -> Arc<Script> {
        Arc::new(Script::new(text.clone(), Vec::new()))
    }

    #[test]
    fn few_large_texts_and_many_small_ones_are_bounded() {
        let mut scripts = Scripts::default();
        for i in 0..10_000_u32 {
            let text = Bytes::from(i.to_string());
            scripts.insert(text.clone(), script(&text));
            assert!(scripts.get(&text).is_some() && scripts.known.len() <= TEXTS);
        }
        for i in 0..20_u8 {
            let text = Bytes::from(vec![i; 1 << 20]);
            scripts.insert(text.clone(), script(&text));
            scripts.insert(text.clone(), script(&text));
            let held: usize = scripts.known.keys().map(Bytes::len).sum();
            assert!(held == scripts.bytes && held <= BYTES, "{held}");
        }
    }
}
