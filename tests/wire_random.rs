//! Random conversations, the same bytes to the server and through the proxy: what is said must be the
//! same, or end in a clean error where the client has broken the protocol.
//!
//! `CHAPERONE_RANDOM=1000` plays more of them, `CHAPERONE_SEED=7` begins at another one; a failure
//! names the seed and shows the shortest conversation that still differs.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "common/conversation.rs"]
mod conversation;

use std::cell::RefCell;
use std::sync::MutexGuard;
use std::thread;
use std::time::Duration;

use chaperone_test_support::Chaperone;
use chaperone_test_support::wire::frontend::*;
use chaperone_test_support::wire::rig::Rig;
use chaperone_test_support::wire::{Step, Transcript, Wire};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use conversation::{Pool, Say, Turn, conversation};

const CHAPERONE: &str = env!("CARGO_BIN_EXE_chaperone");
/// Details of refusals begin like this.
const RECORDED: &str = "D=Recorded as request ";
const END: &str = "the end of the conversation";

fn rig() -> MutexGuard<'static, Rig> {
    Rig::take(CHAPERONE)
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

/// Plays the turns and what ends them from any state: COPY, skipping, transaction.
fn play(mut wire: Wire, turns: &[Turn], pauses: bool) -> Transcript {
    let mut steps = Vec::new();
    for turn in turns {
        let bytes: Vec<u8> = turn.messages.iter().flat_map(Say::bytes).collect();
        if !pauses {
            steps.push(Step::Send(bytes));
            continue;
        }
        let (head, tail) = bytes.split_at(turn.cut.min(bytes.len()));
        for (piece, pause) in [(head, turn.pause.min(1)), (tail, turn.pause)] {
            if !piece.is_empty() && wire.send(piece).is_err() {
                return wire.play(&[Step::End]);
            }
            thread::sleep(Duration::from_millis(pause));
        }
    }
    steps.push(Step::Send(
        [copy_fail("over"), sync(), query("ROLLBACK")].concat(),
    ));
    steps.push(Step::Send(query(&format!("SELECT '{END}'"))));
    steps.push(Step::Line(format!("DataRow '{END}'")));
    steps.push(Step::Ready(1));
    steps.push(Step::Send(terminate()));
    steps.push(Step::End);
    wire.play(&steps)
}

/// The same without what two servers' answers differ in by right: the numbers of tables that only one
/// of the two sessions has, and what docs/fidelity.md lists.
fn comparable(said: &Transcript, known: &[String]) -> Transcript {
    let lines = said.without_positions().0.into_iter().map(|line| {
        if line.starts_with("ErrorResponse") {
            return ours_told_apart(&line);
        }
        if !line.starts_with("RowDescription") {
            return line;
        }
        let words = line.split(' ').map(|word| match word.split_once('.') {
            Some((table, column))
                if table.len() >= 5
                    && table.bytes().all(|byte| byte.is_ascii_digit())
                    && !known.iter().any(|oid| oid == table) =>
            {
                format!("own.{column}")
            }
            _ => word.to_owned(),
        });
        words.collect::<Vec<_>>().join(" ")
    });
    Transcript(lines.collect())
}

/// An error without the number of its record; without the type of the message that came in the middle of
/// a COPY, which may be one of Chaperone's questions; and with one word for what a portal is that the
/// transaction has left behind.
fn ours_told_apart(error: &str) -> String {
    let fields: Vec<_> = error.split('\u{1f}').collect();
    if fields.contains(&r#"M=portal \"\" does not exist"#) || fields.contains(&"C=25P02") {
        return "ErrorResponse: aborted, or no such portal".to_owned();
    }
    let fields = fields.iter().filter(|field| !field.starts_with(RECORDED));
    let fields = fields.map(|field| match field.split_once(" type 0x") {
        Some((start, rest)) if start == "M=unexpected message" => {
            let rest = rest.trim_start_matches(|digit: char| digit.is_ascii_hexdigit());
            format!("{start}{rest}")
        }
        _ => (*field).to_owned(),
    });
    fields.collect::<Vec<_>>().join("\u{1f}")
}

/// Whether the proxied transcript is the direct one as far as it goes and then ends the session
/// because of the protocol.
fn ends_cleanly(direct: &Transcript, proxied: &Transcript) -> bool {
    let [before @ .., error, end] = proxied.0.as_slice() else {
        return false;
    };
    let told = error.starts_with("ErrorResponse S=FATAL\u{1f}V=FATAL\u{1f}C=08P01");
    told && end == "END" && direct.0.starts_with(before)
}

/// Whether the proxied transcript is the direct one up to a statement that is refused, and comes to the
/// same end.
fn refuses_cleanly(direct: &Transcript, proxied: &Transcript, said: &Transcript) -> bool {
    let refused = |line: &String| {
        let start = "ErrorResponse S=ERROR\u{1f}V=ERROR\u{1f}C=0A000\u{1f}M=refused: ";
        line.starts_with(start) || line.contains(RECORDED)
    };
    let at = said.0.iter().position(refused);
    let last = |said: &Transcript| said.0[said.0.len().saturating_sub(4)..].to_vec();
    at.is_some_and(|at| direct.0.starts_with(&proxied.0[..at])) && last(direct) == last(proxied)
}

/// How the two agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Agreed {
    Whole,
    /// Up to a message that breaks the protocol.
    Ended,
    /// Up to a statement that is not understood.
    Refused,
}

fn compare(
    rig: &Rig,
    proxy: &Chaperone,
    pool: Pool,
    turns: &[Turn],
    known: &[String],
) -> Result<Agreed, String> {
    rig.reset();
    let direct = comparable(&play(rig.direct(), turns, false), known);
    let left = rig.items();
    rig.reset();
    let said = play(Rig::through(proxy), turns, true);
    let proxied = comparable(&said, known);
    let broken = turns.iter().any(|turn| {
        turn.messages
            .iter()
            .any(|say| matches!(say, Say::Broken(_)))
    });
    if direct == proxied {
        let now = rig.items();
        return if left == now {
            Ok(Agreed::Whole)
        } else {
            Err(format!("in the table there is {left} and {now}\n{direct}"))
        };
    }
    if broken && ends_cleanly(&direct, &proxied) {
        return Ok(Agreed::Ended);
    }
    if pool == Pool::Understood && refuses_cleanly(&direct, &proxied, &said) {
        return Ok(Agreed::Refused);
    }
    Err(format!(
        "the server says\n{direct}\nthe proxy says\n{proxied}"
    ))
}

/// Plays `count` conversations, each from a seed of its own.
fn converse(rig: &Rig, proxy: &Chaperone, pool: Pool, with_broken: bool, usual: u64) {
    let known: Vec<String> = ["item", "big"]
        .iter()
        .map(|table| format!("SELECT '{table}'::regclass::oid"))
        .map(|ask| rig.postgres.value("wire", &ask).unwrap())
        .collect();
    let agreed = RefCell::new(Vec::new());
    let first = number("CHAPERONE_SEED", 0);
    for seed in first..first + number("CHAPERONE_RANDOM", usual) {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let config = Config {
            cases: 1,
            max_shrink_iters: u32::try_from(number("CHAPERONE_SHRINK", 200)).unwrap(),
            failure_persistence: None,
            ..Config::default()
        };
        let mut runner = TestRunner::new_with_rng(config, random);
        let outcome = runner.run(&conversation(pool, with_broken), |turns| {
            let how = compare(rig, proxy, pool, &turns, &known).map_err(TestCaseError::fail)?;
            agreed.borrow_mut().push(how);
            Ok(())
        });
        if let Err(error) = outcome {
            panic!("CHAPERONE_SEED={seed}: {error}");
        }
    }
    let agreed = agreed.into_inner();
    let count = |how| agreed.iter().filter(|one| **one == how).count();
    let (whole, ended, refused) = (
        count(Agreed::Whole),
        count(Agreed::Ended),
        count(Agreed::Refused),
    );
    println!("{whole} alike, {ended} ended by the protocol, {refused} refused");
    assert!(whole > ended + refused, "hardly anything was compared");
}

#[test]
fn what_is_let_through_is_what_the_server_says() {
    let rig = rig();
    converse(&rig, &rig.open, Pool::All, false, 60);
}

#[test]
fn what_breaks_the_protocol_ends_the_session_or_is_the_server_s_to_answer() {
    let rig = rig();
    converse(&rig, &rig.open, Pool::All, true, 30);
}

#[test]
fn where_masks_apply_tables_without_any_are_as_the_server_s_own() {
    let rig = rig();
    let proxy = rig.masking(CHAPERONE, "").start().unwrap();
    converse(&rig, &proxy, Pool::Understood, false, 60);
}
