//! What tokio-postgres does with a server, printed so that two servers can be compared.

use std::env::var;
use std::error::Error;
use std::future::poll_fn;
use std::io::Cursor;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, TryStreamExt, future::join_all};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, SimpleQueryMessage, types::Type};
use tokio_postgres_rustls::MakeRustlsConnect;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn show(title: &str, value: impl std::fmt::Debug) {
    println!("{title}: {value:?}");
}

fn failed<T>(title: &str, result: Result<T, tokio_postgres::Error>) {
    match result.err().as_ref().and_then(|error| error.as_db_error()) {
        Some(error) => show(
            title,
            (
                error.severity(),
                error.code(),
                error.message(),
                error.detail(),
                error.position(),
                error.constraint(),
            ),
        ),
        None => show(title, "no error of the server"),
    }
}

fn tls() -> Outcome<Option<MakeRustlsConnect>> {
    let Ok(ca) = var("PGSSLROOTCERT") else {
        return Ok(None);
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?;
    Ok(Some(MakeRustlsConnect::new(
        config.with_root_certificates(roots).with_no_client_auth(),
    )))
}

/// A session; what comes unasked is printed by a task of its own.
async fn connect() -> Outcome<Client> {
    let mut config = Config::new();
    config
        .host(var("PGHOST")?)
        .port(var("PGPORT")?.parse()?)
        .user(var("PGUSER")?);
    config
        .password(var("PGPASSWORD")?)
        .dbname(var("PGDATABASE")?);
    config
        .application_name("tokio smoke")
        .options("-c geqo=off -c app.tenant=four");
    macro_rules! session {
        ($tls:expr) => {{
            let (client, mut connection) = config.connect($tls).await?;
            tokio::spawn(async move {
                while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                    match message {
                        AsyncMessage::Notice(notice) => {
                            show("notice", (notice.severity(), notice.message()))
                        }
                        AsyncMessage::Notification(heard) => {
                            show("heard", (heard.channel(), heard.payload()))
                        }
                        _ => {}
                    }
                }
            });
            Ok(client)
        }};
    }
    match tls()? {
        Some(tls) => {
            config.ssl_mode(tokio_postgres::config::SslMode::Require);
            session!(tls)
        }
        None => session!(NoTls),
    }
}

async fn queries(client: &Client) -> Outcome<()> {
    let row = client.query_one("SELECT current_setting('geqo'), current_setting('app.tenant'), current_setting('application_name')", &[]).await?;
    show(
        "settings",
        (0..3).map(|i| row.get::<_, String>(i)).collect::<Vec<_>>(),
    );
    client.batch_execute("DROP TABLE IF EXISTS smoke").await?;
    client
        .batch_execute("CREATE TABLE smoke (id int PRIMARY KEY, body text)")
        .await?;
    let insert = client
        .prepare("INSERT INTO smoke VALUES ($1, $2) RETURNING id")
        .await?;
    // Which OID a table gets depends on what the server has made meanwhile.
    let columns = insert.columns().iter();
    let columns = columns.map(|one| {
        (
            one.name(),
            one.table_oid().is_some(),
            one.column_id(),
            one.type_(),
        )
    });
    show("types", (insert.params(), columns.collect::<Vec<_>>()));
    // Sent one behind the other, answered in order.
    let rows = (0..500).map(|i| {
        let insert = &insert;
        async move { client.query_one(insert, &[&i, &format!("row {i}")]).await }
    });
    let ids = join_all(rows)
        .await
        .into_iter()
        .map(|row| row.map(|row| row.get::<_, i32>(0)));
    show("pipelined", ids.sum::<Result<i32, _>>()?);
    let typed = client
        .prepare_typed("SELECT $1, $2", &[Type::INT8, Type::TEXT_ARRAY])
        .await?;
    let row = client.query_one(&typed, &[&7_i64, &vec!["a", "ü"]]).await?;
    show(
        "typed",
        (row.get::<_, i64>(0), row.get::<_, Vec<String>>(1)),
    );
    for message in client
        .simple_query("SELECT 1; SELECT NULL AS n; UPDATE smoke SET body = 'x' WHERE id < 3")
        .await?
    {
        match message {
            SimpleQueryMessage::Row(row) => show("simple", row.get(0)),
            SimpleQueryMessage::CommandComplete(count) => show("complete", count),
            _ => {}
        }
    }
    failed("double", client.execute(&insert, &[&1, &"again"]).await);
    failed("syntax", client.prepare("SELEC 1").await);
    failed("zero", client.query("SELECT 1/$1::int", &[&0]).await);
    failed(
        "several",
        client
            .batch_execute("INSERT INTO smoke VALUES (900, ''); SELECT 1/0")
            .await,
    );
    show(
        "kept",
        client
            .query_one("SELECT count(*) FROM smoke WHERE id = 900", &[])
            .await?
            .get::<_, i64>(0),
    );
    Ok(())
}

async fn transactions(client: &mut Client) -> Outcome<()> {
    let mut transaction = client.transaction().await?;
    transaction
        .execute("DELETE FROM smoke WHERE id = 1", &[])
        .await?;
    let inner = transaction.savepoint("deeper").await?;
    failed(
        "inner",
        inner
            .execute("INSERT INTO smoke VALUES (2, 'again')", &[])
            .await,
    );
    inner.rollback().await?;
    let portal = transaction
        .bind("SELECT id FROM smoke ORDER BY id", &[])
        .await?;
    for _ in 0..3 {
        show(
            "portal",
            transaction
                .query_portal(&portal, 7)
                .await?
                .iter()
                .map(|row| row.get::<_, i32>(0))
                .sum::<i32>(),
        );
    }
    transaction.commit().await?;
    drop(client.transaction().await?); // rolled back
    let rows = client
        .query_raw("SELECT id FROM smoke", std::iter::empty::<i32>())
        .await?;
    show(
        "stream",
        rows.try_fold(0, |sum, row| async move { Ok(sum + row.get::<_, i32>(0)) })
            .await?,
    );
    Ok(())
}

async fn copies(client: &Client) -> Outcome<()> {
    let mut sink = pin!(
        client
            .copy_in::<_, Cursor<Vec<u8>>>("COPY smoke FROM STDIN")
            .await?
    );
    for i in 1000..4000 {
        sink.send(Cursor::new(format!("{i}\tcopied\n").into_bytes()))
            .await?;
    }
    show("copied", sink.finish().await?);
    let mut sink = pin!(
        client
            .copy_in::<_, Cursor<Vec<u8>>>("COPY smoke FROM STDIN")
            .await?
    );
    sink.send(Cursor::new(b"5000\tkept?\n1\ttwo\tthree\n".to_vec()))
        .await?;
    failed("broken", sink.finish().await);
    {
        let mut sink = Box::pin(
            client
                .copy_in::<_, Cursor<Vec<u8>>>("COPY smoke FROM STDIN")
                .await?,
        );
        sink.feed(Cursor::new(b"5001\tnever\n".to_vec())).await?;
        // Dropped: the driver sends CopyFail.
    }
    let out = client
        .copy_out("COPY (SELECT * FROM smoke ORDER BY id) TO STDOUT (FORMAT binary)")
        .await?;
    show(
        "out",
        out.map_ok(|bytes| bytes.len())
            .try_fold(0, |sum, n| async move { Ok(sum + n) })
            .await?,
    );
    Ok(())
}

async fn others(client: &Client) -> Outcome<()> {
    client
        .batch_execute("LISTEN bell; NOTIFY bell, 'ding'; DO $$ BEGIN RAISE NOTICE 'said'; END $$")
        .await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let cancel = client.cancel_token();
    let stop = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        match tls() {
            Ok(Some(tls)) => cancel.cancel_query(tls).await,
            _ => cancel.cancel_query(NoTls).await,
        }
    };
    let (slept, stopped) = tokio::join!(client.query("SELECT pg_sleep(30)", &[]), stop);
    stopped?;
    failed("cancelled", slept);
    show(
        "alive",
        client
            .query_one("SELECT length(repeat('x', 8000000))", &[])
            .await?
            .get::<_, i32>(0),
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut client = connect().await?;
    queries(&client).await?;
    transactions(&mut client).await?;
    copies(&client).await?;
    others(&client).await?;
    client.batch_execute("DROP TABLE smoke").await?;
    Ok(())
}
