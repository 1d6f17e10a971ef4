//! Random conversations of a client with a server: legal messages and others, with names that
//! collide, errors in the middle, transactions, strings of several statements, COPY.

use chaperone_test_support::wire::frontend;
use proptest::prelude::*;
use proptest::sample::select;

/// What a client says at once, and how long it waits before it goes on.
#[derive(Clone, Debug)]
pub struct Turn {
    pub messages: Vec<Say>,
    /// Milliseconds. Servers answer in order, so this changes nothing that they say.
    pub pause: u64,
    /// The bytes go in two pieces, cut behind so many.
    pub cut: usize,
}

/// One message.
#[derive(Clone, Debug)]
pub enum Say {
    Query(&'static str),
    Parse(&'static str, &'static str, Vec<u32>),
    Bind {
        portal: &'static str,
        statement: &'static str,
        formats: Vec<u16>,
        values: Vec<Option<&'static str>>,
        results: Vec<u16>,
    },
    DescribeStatement(&'static str),
    DescribePortal(&'static str),
    Execute(&'static str, u32),
    CloseStatement(&'static str),
    ClosePortal(&'static str),
    Flush,
    Sync,
    CopyData(&'static str),
    CopyDone,
    CopyFail,
    Call,
    /// No message of the protocol.
    Broken(Vec<u8>),
}

impl Say {
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Say::Query(text) => frontend::query(text),
            Say::Parse(name, text, types) => frontend::parse(name, text, types),
            Say::Bind {
                portal,
                statement,
                formats,
                values,
                results,
            } => {
                let values: Vec<_> = values.iter().map(|v| v.map(str::as_bytes)).collect();
                frontend::bind_formats(portal, statement, formats, &values, results)
            }
            Say::DescribeStatement(name) => frontend::describe_statement(name),
            Say::DescribePortal(name) => frontend::describe_portal(name),
            Say::Execute(name, rows) => frontend::execute(name, *rows),
            Say::CloseStatement(name) => frontend::close_statement(name),
            Say::ClosePortal(name) => frontend::close_portal(name),
            Say::Flush => frontend::flush(),
            Say::Sync => frontend::sync(),
            Say::CopyData(data) => frontend::copy_data(data),
            Say::CopyDone => frontend::copy_done(),
            Say::CopyFail => frontend::copy_fail("no more"),
            Say::Call => frontend::function_call(999_999, &[]),
            Say::Broken(bytes) => bytes.clone(),
        }
    }
}

/// What the texts of a conversation may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Anything.
    All,
    /// What is understood wherever masks apply.
    Understood,
}

const STATEMENTS: [&str; 3] = ["", "a", "b"];
const PORTALS: [&str; 3] = ["", "p", "c"];

const READS: &[&str] = &[
    "SELECT 1",
    "SELECT 1, NULL, 'x'",
    "SELECT id, body FROM item ORDER BY id",
    "SELECT count(*) FROM item",
    "SELECT * FROM item WHERE id = 99",
    "SELECT FROM item WHERE id = 1",
    "VALUES (1), (2), (3)",
    "SHOW work_mem",
    "SELECT generate_series(1, 4)",
    "WITH w AS (SELECT id FROM item) SELECT max(id) FROM w",
    "SELECT say('x')",
];
const PARAMETERS: &[&str] = &[
    "SELECT $1::int + 1",
    "SELECT $1::text, $2::int",
    "SELECT id FROM item WHERE id < $1 ORDER BY id",
    "INSERT INTO item VALUES ($1, $2)",
    "UPDATE item SET body = $1 WHERE id = $2",
    "SELECT 1 / $1::int",
    "SELECT $2::int",
];
const WRITES: &[&str] = &[
    "INSERT INTO item VALUES (10, 'ten')",
    "INSERT INTO item VALUES (1, 'again')",
    "UPDATE item SET body = 'u' WHERE id = 2",
    "DELETE FROM item WHERE id = 3",
    "INSERT INTO item SELECT id + 100, body FROM item WHERE id < 3",
];
const ERRORS: &[&str] = &[
    "SELECT 1/0",
    "SELEC 1",
    "SELECT nothing",
    "SELECT * FROM nowhere",
    "SELECT 'x'::int",
    "SELECT id, 1 / (id - 3) FROM item ORDER BY id",
    "INSERT INTO item VALUES (NULL)",
    "SELECT no_such_function()",
];
const CONTROL: &[&str] = &[
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "RELEASE s",
    "START TRANSACTION READ ONLY",
    "COMMIT AND CHAIN",
    "BEGIN ISOLATION LEVEL SERIALIZABLE",
];
const SEVERAL: &[&str] = &[
    "",
    ";",
    "SELECT 1; SELECT 2",
    "SELECT 1; SELECT 1/0; SELECT 2",
    "BEGIN; INSERT INTO item VALUES (20, 'b'); COMMIT",
    "INSERT INTO item VALUES (21, 'x'); SELECT 1/0",
    "BEGIN; SELECT 1",
    "INSERT INTO item VALUES (22, 'x'); COMMIT; SELECT 1/0",
    "ROLLBACK; SELECT 1",
];
const COPIES: &[&str] = &[
    "COPY item FROM STDIN",
    "COPY item FROM STDIN (FORMAT csv)",
    "COPY item (id) FROM STDIN",
    "COPY (SELECT id, body FROM item ORDER BY id) TO STDOUT",
    "COPY (SELECT 1) TO STDOUT (FORMAT binary)",
    "COPY nowhere FROM STDIN",
    "COPY (SELECT 1 / (id - 3) FROM item ORDER BY id) TO STDOUT",
    "SELECT 1; COPY item FROM STDIN; SELECT 2",
    "COPY item FROM STDIN; COPY item FROM STDIN",
    "COPY (SELECT 1) TO STDOUT; SELECT 1/0",
];
const NAMES: &[&str] = &[
    "PREPARE a AS SELECT 1",
    "PREPARE a AS SELECT id FROM item WHERE id < 3 ORDER BY id",
    "PREPARE b AS INSERT INTO item VALUES (40, 'p')",
    "EXECUTE a",
    "EXECUTE b",
    "DEALLOCATE a",
    "DEALLOCATE ALL",
    "DECLARE c CURSOR FOR SELECT id FROM item ORDER BY id",
    "DECLARE c CURSOR WITH HOLD FOR VALUES (1), (2)",
    "FETCH 2 FROM c",
    "FETCH ALL FROM c",
    "MOVE 1 IN c",
    "CLOSE c",
    "CLOSE ALL",
];
const SETTINGS: &[&str] = &[
    "SET application_name = 'random'",
    "RESET application_name",
    "SET LOCAL TimeZone = 'Asia/Tokyo'",
    "SET DateStyle = 'German'",
    "SHOW TimeZone",
    "SET nonsense = 1",
    "SET search_path = pg_catalog",
    "RESET search_path",
];
/// Of these some are refused wherever masks apply.
const OTHERS: &[&str] = &[
    "DELETE FROM item WHERE id = 3 RETURNING id, body",
    "EXPLAIN (COSTS OFF) SELECT * FROM item WHERE body = 'x'",
    "DISCARD ALL",
    "DISCARD PLANS",
    "EXECUTE a (1)",
    "SET standard_conforming_strings = off",
    r"SELECT 'a\'b'",
    r"SELECT 'a\'; SELECT 2; --'",
    "SET client_encoding = 'LATIN1'",
    "CREATE TEMP TABLE t (a int, b text)",
    "INSERT INTO t VALUES (1, 'x')",
    "SELECT * FROM t",
    "ALTER TABLE t ADD c int",
    "DROP TABLE t",
    "CREATE TABLE item (x int)",
    "LISTEN x",
    "NOTIFY x, 'hello'",
    "UNLISTEN *",
    "SET CONSTRAINTS ALL DEFERRED",
    "SET ROLE app",
    "RESET ROLE",
    "DO $$ BEGIN RAISE NOTICE 'done'; END $$",
    "VACUUM item",
    "LOCK TABLE item",
];
const DATA: &[&str] = &[
    "11\televen\n",
    "12\n",
    "13\tthir",
    "teen\n",
    "1\tagain\n",
    "x\ty\n",
    "\\.\n",
    "30,csv\n",
    "",
];

fn text(pool: Pool) -> impl Strategy<Value = &'static str> {
    let others = if pool == Pool::All { OTHERS } else { READS };
    prop_oneof![
        4 => select(READS),
        3 => select(WRITES),
        2 => select(ERRORS),
        3 => select(CONTROL),
        2 => select(SEVERAL),
        2 => select(COPIES),
        2 => select(NAMES),
        1 => select(SETTINGS),
        2 => select(others),
    ]
}

fn bind(portal: &'static str, statement: &'static str) -> impl Strategy<Value = Say> {
    let values = prop_oneof![
        4 => Just(Vec::new()),
        2 => proptest::collection::vec(select(vec![None, Some("1"), Some("7"), Some("x")]), 1..3),
    ];
    let formats = select(vec![
        vec![],
        vec![],
        vec![],
        vec![0],
        vec![1],
        vec![0, 1],
        vec![2],
    ]);
    let results = select(vec![vec![], vec![], vec![0], vec![1], vec![0, 1], vec![7]]);
    (values, formats, results).prop_map(move |(values, formats, results)| Say::Bind {
        portal,
        statement,
        formats,
        values,
        results,
    })
}

/// Parse, Bind, Describe and Execute of one statement, as drivers send them, or without some.
fn extended(pool: Pool) -> impl Strategy<Value = Vec<Say>> {
    let names = (select(&STATEMENTS[..]), select(&PORTALS[..]));
    let text = prop_oneof![3 => text(pool), 2 => select(PARAMETERS)];
    // A type that is not PostgreSQL's own is refused wherever masks apply.
    let foreign = if pool == Pool::All { 999_999 } else { 23 };
    let types = select(vec![vec![], vec![], vec![23], vec![0, 25], vec![foreign]]);
    (names, text, types, 0u8..64, select(vec![0, 0, 0, 1, 2])).prop_flat_map(
        |((statement, portal), text, types, kept, rows)| {
            bind(portal, statement).prop_map(move |bind| {
                let bind = match (&bind, text.matches('$').count()) {
                    // Mostly as many values as there are parameters.
                    (Say::Bind { results, .. }, count @ 1..) if kept % 4 != 0 => Say::Bind {
                        portal,
                        statement,
                        formats: Vec::new(),
                        values: vec![Some(if kept % 3 == 0 { "3" } else { "50" }); count],
                        results: results.clone(),
                    },
                    _ => bind,
                };
                let all = [
                    (true, Say::Parse(statement, text, types.clone())),
                    (kept & 1 == 0, Say::DescribeStatement(statement)),
                    (true, bind),
                    (kept & 2 == 0, Say::DescribePortal(portal)),
                    (kept & 12 != 0, Say::Execute(portal, rows)),
                    (kept & 48 == 0, Say::Execute(portal, rows)),
                    (kept & 16 == 0, Say::Sync),
                ];
                let kept = all.into_iter().filter(|(kept, _)| *kept);
                kept.map(|(_, say)| say).collect()
            })
        },
    )
}

/// A COPY with its data, whole or broken off.
fn copy() -> impl Strategy<Value = Vec<Say>> {
    let data = proptest::collection::vec(select(DATA), 0..5);
    let end = prop_oneof![
        4 => Just(vec![Say::CopyDone]),
        2 => Just(vec![Say::CopyFail]),
        1 => Just(vec![]),
        1 => Just(vec![Say::Sync]),
        1 => Just(vec![Say::CopyDone, Say::CopyDone]),
    ];
    (select(COPIES), any::<bool>(), data, end).prop_map(|(text, simple, data, end)| {
        let mut all = if simple {
            vec![Say::Query(text)]
        } else {
            let bind = Say::Bind {
                portal: "",
                statement: "",
                formats: Vec::new(),
                values: Vec::new(),
                results: Vec::new(),
            };
            let parse = Say::Parse("", text, Vec::new());
            vec![parse, bind, Say::Execute("", 0)]
        };
        all.extend(data.into_iter().map(Say::CopyData));
        all.extend(end);
        if !simple {
            all.push(Say::Sync);
        }
        all
    })
}

/// Any message at any place.
fn stray(pool: Pool) -> impl Strategy<Value = Say> {
    let (statement, portal) = (select(&STATEMENTS[..]), select(&PORTALS[..]));
    let bind = (portal.clone(), statement.clone()).prop_flat_map(|(p, s)| bind(p, s));
    let call = if pool == Pool::All {
        Say::Call
    } else {
        Say::Flush
    };
    prop_oneof![
        4 => Just(Say::Sync),
        2 => Just(Say::Flush),
        3 => bind,
        2 => statement.clone().prop_map(Say::DescribeStatement),
        2 => portal.clone().prop_map(Say::DescribePortal),
        3 => (portal.clone(), 0u32..3).prop_map(|(name, rows)| Say::Execute(name, rows)),
        2 => statement.clone().prop_map(Say::CloseStatement),
        2 => portal.prop_map(Say::ClosePortal),
        2 => (statement, text(pool)).prop_map(|(name, text)| Say::Parse(name, text, Vec::new())),
        1 => select(DATA).prop_map(Say::CopyData),
        1 => Just(Say::CopyDone),
        1 => Just(Say::CopyFail),
        1 => Just(call),
    ]
}

/// A message that breaks the protocol.
fn broken() -> impl Strategy<Value = Say> {
    // A Terminate of any length is one: nobody is owed an answer behind it.
    let kinds = select(b"BCDdEFfHPQScp?\0".to_vec());
    let body = proptest::collection::vec(any::<u8>(), 0..12);
    let framed = (kinds, body.clone()).prop_map(|(kind, body)| frontend::message(kind, &body));
    let kind = any::<u8>().prop_filter("Terminate", |kind| *kind != b'X');
    let length = (kind, any::<u32>(), body)
        .prop_map(|(kind, length, body)| [&[kind], &length.to_be_bytes()[..], &body].concat());
    prop_oneof![3 => framed, 1 => length].prop_map(Say::Broken)
}

/// A conversation.
pub fn conversation(pool: Pool, with_broken: bool) -> impl Strategy<Value = Vec<Turn>> {
    let broken = if with_broken {
        broken().prop_map(|say| vec![say]).boxed()
    } else {
        stray(pool).prop_map(|say| vec![say]).boxed()
    };
    let messages = prop_oneof![
        5 => text(pool).prop_map(|text| vec![Say::Query(text)]),
        6 => extended(pool),
        2 => copy(),
        6 => proptest::collection::vec(stray(pool), 1..4),
        1 => broken,
    ];
    let pause = prop_oneof![4 => Just(0u64), 2 => Just(2u64), 1 => 5u64..30];
    let turn = (
        messages,
        pause,
        prop_oneof![3 => Just(0usize), 1 => 1usize..40],
    )
        .prop_map(|(messages, pause, cut)| Turn {
            messages,
            pause,
            cut,
        });
    proptest::collection::vec(turn, 1..10).prop_map(without_doubtful_syncs)
}

/// A Sync between the data of a COPY and its end is ignored, or it is not, if the data were bad before
/// it: only the server knows, so what the proxy says may differ. Here the end comes before it.
fn without_doubtful_syncs(turns: Vec<Turn>) -> Vec<Turn> {
    let copies = |text: &str| text.contains("FROM STDIN");
    // A COPY may have been prepared; one may be open; data may have come.
    let (mut prepared, mut open, mut data) = (false, false, false);
    let mut turns = turns;
    for turn in &mut turns {
        let mut messages = Vec::new();
        for say in std::mem::take(&mut turn.messages) {
            match &say {
                Say::Query(text) if copies(text) => (open, data) = (true, false),
                Say::Parse(_, text, _) => prepared |= copies(text),
                Say::Execute(..) if prepared => (open, data) = (true, false),
                Say::CopyData(_) => data = true,
                Say::CopyDone | Say::CopyFail => open = false,
                Say::Sync if open && data => {
                    messages.push(Say::CopyFail);
                    open = false;
                }
                _ => {}
            }
            messages.push(say);
        }
        turn.messages = messages;
    }
    turns
}
