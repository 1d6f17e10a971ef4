//! Bytes that wait for their evidence: answers for the client, statements with effects for the
//! backend.
//!
//! Nothing is written before it is released, and only a [`Durable`] record or the explicit
//! statement that no evidence is needed releases anything. What a later record covers waits behind
//! what an earlier one does, so that the order of messages is kept.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};
use chaperone_audit_log::{Durable, Seq};

/// A session's output to one side.
#[derive(Default)]
pub(crate) struct Outbox {
    /// Everything that is not written yet.
    buffer: BytesMut,
    /// How much of `buffer` may be written.
    released: usize,
    /// Ends of stretches behind `released`, with the record that each waits for.
    marks: VecDeque<(usize, Option<Seq>)>,
}

impl Outbox {
    /// Where messages are appended.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Everything appended so far may go once `evidence` is durable; with `None`, once everything
    /// before it may.
    pub(crate) fn mark(&mut self, evidence: Option<Seq>) {
        let end = self.buffer.len();
        if end == self.marked_end() {
            return;
        }
        match (evidence, self.marks.back_mut()) {
            (None, None) => self.released = end,
            (None, Some(last)) => last.0 = end,
            (Some(seq), Some(last)) if last.1 >= Some(seq) => last.0 = end,
            (Some(_), _) => self.marks.push_back((end, evidence)),
        }
    }

    /// The record that the next stretch waits for.
    pub(crate) fn waits_for(&self) -> Option<Seq> {
        self.marks.front().and_then(|mark| mark.1)
    }

    /// Releases what `proof` covers.
    pub(crate) fn release(&mut self, proof: Durable) {
        while let Some(&(end, seq)) = self.marks.front() {
            if seq.is_some_and(|seq| seq > proof.record().seq) {
                break;
            }
            self.released = end;
            self.marks.pop_front();
        }
    }

    /// What may be written now.
    pub(crate) fn writable(&self) -> &[u8] {
        self.buffer.get(..self.released).unwrap_or_default()
    }

    /// `count` bytes of [`Self::writable`] have been written.
    pub(crate) fn written(&mut self, count: usize) {
        let count = count.min(self.released);
        self.buffer.advance(count);
        self.released -= count;
        for mark in &mut self.marks {
            mark.0 -= count;
        }
    }

    /// How much is held, for back-pressure.
    pub(crate) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// How much has been appended since the last mark.
    pub(crate) fn unmarked(&self) -> usize {
        self.buffer.len() - self.marked_end()
    }

    /// Drops everything that is not released: its evidence will never come.
    pub(crate) fn withhold(&mut self) {
        self.buffer.truncate(self.released);
        self.marks.clear();
    }

    /// Drops what was appended since the last mark: part of an answer that has no record yet.
    pub(crate) fn drop_unmarked(&mut self) {
        let end = self.marked_end();
        self.buffer.truncate(end);
    }

    fn marked_end(&self) -> usize {
        self.marks.back().map_or(self.released, |mark| mark.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_unmarked_can_be_written() {
        let mut out = Outbox::default();
        out.buffer().extend_from_slice(b"abc");
        assert_eq!(out.writable(), b"");
        out.mark(None);
        assert_eq!(out.writable(), b"abc");
        out.written(1);
        out.buffer().extend_from_slice(b"def");
        out.mark(Some(Seq(7)));
        out.buffer().extend_from_slice(b"g");
        out.mark(None);
        assert_eq!(out.writable(), b"bc");
        assert_eq!(out.waits_for(), Some(Seq(7)));
        out.buffer().extend_from_slice(b"secret");
        assert_eq!(out.unmarked(), 6);
        out.withhold();
        assert_eq!(out.len(), 2);
        assert_eq!(out.unmarked(), 0);
    }

    #[test]
    fn dropping_what_is_unmarked_keeps_what_waits() {
        let mut out = Outbox::default();
        out.buffer().extend_from_slice(b"ab");
        out.mark(Some(Seq(1)));
        out.buffer().extend_from_slice(b"cd");
        out.drop_unmarked();
        assert_eq!(out.len(), 2);
        assert_eq!(out.writable(), b"");
    }
}
