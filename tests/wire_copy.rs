//! COPY, notifications and masks on the wire.

use std::sync::MutexGuard;

use chaperone_test_support::wire::frontend::*;
use chaperone_test_support::wire::rig::Rig;
use chaperone_test_support::wire::{Step, Transcript};

fn rig() -> MutexGuard<'static, Rig> {
    Rig::take(env!("CARGO_BIN_EXE_chaperone"))
}

/// Sends it all at once and reads `ready` ReadyForQuery, then until nothing comes.
fn same(parts: &[Vec<u8>], ready: usize) -> Transcript {
    let steps = [Step::Send(parts.concat()), Step::Ready(ready), Step::Quiet];
    rig().same(&steps)
}

fn begin_copy() -> [Step; 2] {
    [Step::Send(query("COPY item FROM STDIN")), Step::Until(b'G')]
}

fn count() -> Vec<u8> {
    query("SELECT count(*) FROM item")
}

#[test]
fn copy_out() {
    let said = same(&[query("COPY item TO STDOUT")], 1);
    assert_eq!(said.all("CopyData").len(), 5);
    same(
        &[
            query("COPY item TO STDOUT (FORMAT binary)"),
            query("SELECT 1"),
        ],
        2,
    );
    same(
        &[
            query("COPY (SELECT id, 1 / (3 - id) FROM item ORDER BY id) TO STDOUT"),
            query("SELECT 1"),
        ],
        2,
    );
    same(&[query("SELECT 1; COPY item TO STDOUT; SELECT 2")], 1);
    same(
        &[
            run("COPY item TO STDOUT", &[]),
            run("SELECT 1", &[]),
            sync(),
        ],
        1,
    );
}

#[test]
fn copy_in() {
    let data = [
        copy_data("10\tten\n1"),
        copy_data("1\televen\n"),
        copy_done(),
    ]
    .concat();
    let steps = |end: Vec<u8>| {
        let mut steps = begin_copy().to_vec();
        steps.extend([
            Step::Send(end),
            Step::Ready(1),
            Step::Send(count()),
            Step::Ready(1),
            Step::Quiet,
        ]);
        steps
    };
    let said = rig().same(&steps(data));
    assert_eq!(
        said.all("CommandComplete"),
        ["CommandComplete COPY 2", "CommandComplete SELECT 1"]
    );
    rig().same(&steps(
        [copy_data("10\tten\n"), copy_fail("had enough")].concat(),
    ));
    rig().same(&steps(copy_done()));
    // Flush and Sync are ignored while data comes.
    rig().same(&steps(
        [
            copy_data("10\tten\n"),
            flush(),
            sync(),
            copy_data("11\televen\n"),
            sync(),
            copy_done(),
        ]
        .concat(),
    ));
    // All of it sent ahead.
    same(
        &[
            query("COPY item FROM STDIN"),
            copy_data("10\tten\n"),
            copy_done(),
            count(),
        ],
        2,
    );
}

#[test]
fn copy_in_fails_half_way() {
    let bad = [
        copy_data("10\tten\n"),
        copy_data("ten\t10\n"),
        copy_data("11\televen\n"),
    ]
    .concat();
    for end in [
        copy_done(),
        copy_fail("no more"),
        [copy_data("12\tx\n"), copy_done()].concat(),
    ] {
        let mut steps = begin_copy().to_vec();
        steps.extend([
            Step::Send([bad.clone(), end, count()].concat()),
            Step::Ready(2),
            Step::Quiet,
        ]);
        rig().same(&steps);
    }
    // The error is heard before the data ends, and what comes later is swallowed.
    let mut steps = begin_copy().to_vec();
    let lots = copy_data(&"x".repeat(100_000));
    steps.extend([
        Step::Send([bad, lots].concat()),
        Step::Ready(1),
        Step::Send([copy_data("13\tx\n"), copy_done(), count()].concat()),
        Step::Ready(1),
        Step::Quiet,
    ]);
    rig().same(&steps);
}

#[test]
fn copy_in_by_the_extended_protocol() {
    let open = || run("COPY item FROM STDIN", &[]);
    let steps = |send: Vec<u8>, ready| {
        [
            Step::Send([open(), flush()].concat()),
            Step::Until(b'G'),
            Step::Send(send),
            Step::Ready(ready),
            Step::Send(count()),
            Step::Ready(1),
            Step::Quiet,
        ]
    };
    rig().same(&steps(
        [copy_data("10\tten\n"), copy_done(), sync()].concat(),
        1,
    ));
    rig().same(&steps(
        [copy_data("10\tten\n"), copy_fail("no"), sync()].concat(),
        1,
    ));
    // A Sync during copy-in is no end of the pipeline; when the copy failed first, it is.
    rig().same(&steps(
        [
            copy_data("10\tten\n"),
            sync(),
            copy_data("11\tx\n"),
            copy_done(),
            sync(),
        ]
        .concat(),
        1,
    ));
    rig().same(&steps(
        [copy_data("bad\n"), copy_done(), sync()].concat(),
        1,
    ));
    rig().same(&steps(
        [
            copy_data("bad\n"),
            copy_data("10\tx\n"),
            copy_done(),
            run("SELECT 1", &[]),
            sync(),
            run("SELECT 2", &[]),
            sync(),
        ]
        .concat(),
        2,
    ));
    // As libpq sends it: Execute and Sync before the data.
    same(
        &[
            open(),
            sync(),
            copy_data("10\tten\n"),
            copy_done(),
            sync(),
            count(),
        ],
        2,
    );
}

#[test]
fn other_messages_during_copy_in() {
    for message in [query("SELECT 1"), run("SELECT 1", &[])] {
        let mut steps = begin_copy().to_vec();
        steps.extend([
            Step::Send([copy_data("10\tten\n"), message, sync()].concat()),
            Step::Quiet,
            Step::Send([sync(), count()].concat()),
            Step::Quiet,
        ]);
        // Which message it was that surprised the server is in the error's text only.
        let rig = rig();
        let (direct, proxied) = (rig.direct().play(&steps), rig.open().play(&steps));
        assert_eq!(direct.without_error_texts(), proxied.without_error_texts());
    }
    // Copy messages outside a copy are ignored.
    same(
        &[copy_data("10\tten\n"), copy_done(), copy_fail("x"), count()],
        1,
    );
}

#[test]
fn a_large_copy_both_ways() {
    let line = format!("{}\n", "y".repeat(1000));
    let mut parts = vec![
        query("CREATE TEMP TABLE heap (v text)"),
        query("COPY heap FROM STDIN"),
    ];
    parts.extend((0..200).map(|_| copy_data(&line.repeat(20))));
    parts.extend([
        copy_done(),
        query("SELECT count(*), sum(length(v)) FROM heap"),
    ]);
    let said = same(&parts, 3);
    assert!(said.all("DataRow '4000' '4000000'").len() == 1, "{said}");
    let said = same(
        &[query("COPY (SELECT * FROM big WHERE id <= 3000) TO STDOUT")],
        1,
    );
    assert_eq!(said.all("CopyData").len(), 3000);
}

#[test]
fn refused_copies_move_nothing() {
    let rig = rig();
    let failing = |x: &str| {
        [
            Step::Send(
                [
                    query("BEGIN"),
                    query("INSERT INTO item VALUES (10, 'x')"),
                    query(x),
                    copy_data("9\tx\n"),
                    copy_done(),
                    query("SELECT 1"),
                    query("COMMIT"),
                ]
                .concat(),
            ),
            Step::Ready(5),
            Step::Quiet,
        ]
    };
    rig.refused_as(
        &failing("COPY forbidden_not FROM STDIN"),
        &failing("COPY forbidden FROM STDIN"),
    );
    let said = rig.ruled().ask(&query("COPY patient TO STDOUT"));
    assert!(
        said.all("CopyData").is_empty() && said.sqlstates().len() == 1,
        "{said}"
    );
}

#[test]
fn notifications() {
    let rig = rig();
    let steps = |channel: &str| {
        let q = |text: &str| query(&text.replace("chan", channel));
        [
            Step::Send(
                [
                    q("LISTEN chan"),
                    q("NOTIFY chan, 'own'"),
                    q("BEGIN; NOTIFY chan, 'a'; NOTIFY chan, 'b'; SELECT 1"),
                    q("COMMIT"),
                    q("UNLISTEN chan"),
                    q("NOTIFY chan, 'unheard'"),
                    q("SELECT 1"),
                ]
                .concat(),
            ),
            Step::Ready(7),
            Step::Quiet,
        ]
    };
    let said = rig.same(&steps("chan"));
    assert_eq!(said.all("NotificationResponse").len(), 3, "{said}");
    // To an idle session, from another one.
    let mut listener = rig.open();
    listener.ask(&query("LISTEN other"));
    rig.open().ask(&query("NOTIFY other, 'hello'"));
    let heard = listener.play(&[Step::Until(b'A')]);
    assert_eq!(heard.0, ["NotificationResponse other=hello"]);
}

#[test]
fn masked_columns_in_text_and_binary() {
    let rig = rig();
    let mut wire = rig.ruled();
    let all = "SELECT id, name, born, ssn FROM patient ORDER BY id";
    let masked = "DataRow '1' '[name]' '1931-01-01' '*******2233'";
    let rows = |said: &Transcript| said.all("DataRow").join("\n");
    let text = wire.ask(&query(all));
    let year = rows(&text).contains("'1931'") || rows(&text).contains("1931-01-01");
    assert!(
        year && rows(&text).contains("'[name]'") && rows(&text).contains("2233'"),
        "{masked} {text}"
    );
    assert!(
        !rows(&text).contains("Testperson")
            && !rows(&text).contains("900-11")
            && !rows(&text).contains("04-05"),
        "{text}"
    );
    assert_eq!(
        text.all("DataRow")[1],
        "DataRow '2' NULL NULL NULL",
        "{text}"
    );
    // Prepared, in parts, and in a mix of formats, always the same.
    for formats in [&[][..], &[0], &[1], &[0, 1, 0, 1], &[1, 0, 1, 0]] {
        let said = wire.ask(
            &[
                parse("", all, &[]),
                describe_statement(""),
                bind_formats("p", "", &[], &[], formats),
                describe_portal("p"),
                execute("p", 1),
                execute("p", 1),
                execute("p", 0),
                sync(),
            ]
            .concat(),
        );
        let row = said.all("DataRow")[0];
        assert!(
            !row.contains("Testperson") && !row.contains("900-11") && row.contains("'[name]'"),
            "{said}"
        );
        assert!(
            said.sqlstates().is_empty() && said.all("DataRow").len() == 2,
            "{said}"
        );
        let described = said.all("RowDescription");
        assert_eq!(described.len(), 2, "{said}");
        // A statement does not know its formats yet.
        assert!(!described[0].contains(" 1]"), "{said}");
    }
    // A second Bind of the statement with another format.
    let said = wire.ask(
        &[
            parse("m", all, &[]),
            bind("", "m", &[], 0),
            execute("", 1),
            bind("", "m", &[], 1),
            execute("", 1),
            bind("", "m", &[], 0),
            execute("", 1),
            sync(),
        ]
        .concat(),
    );
    let said_rows = said.all("DataRow");
    assert_eq!(said_rows[0], said_rows[2]);
    assert_ne!(said_rows[0], said_rows[1]);
    assert!(
        said_rows.iter().all(|row| !row.contains("Testperson")),
        "{said}"
    );
}

#[test]
fn errors_and_notices_about_protected_data_are_reduced() {
    let rig = rig();
    let mut wire = rig.ruled();
    let said = wire.ask(&query("SELECT name, 1 / (id - id) FROM patient"));
    assert_eq!(said.sqlstates(), ["22012"], "{said}");
    assert!(
        said.all("ErrorResponse")[0].contains("M=message withheld"),
        "{said}"
    );
}
