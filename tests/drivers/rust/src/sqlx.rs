//! What sqlx does with a server, printed so that two servers can be compared.

use std::env::var;
use std::error::Error;

use futures_util::{TryStreamExt, future::try_join_all};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolCopyExt, PgPoolOptions, PgSslMode};
use sqlx::{Column, Connection, Executor, PgPool, Row, Statement, TypeInfo, types::Json};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn show(title: &str, value: impl std::fmt::Debug) {
    println!("{title}: {value:?}");
}

fn failed<T>(title: &str, result: Result<T, sqlx::Error>) {
    match result.err().and_then(sqlx::Error::into_database_error) {
        Some(error) => show(
            title,
            (
                error.code(),
                error.message(),
                error.constraint(),
                error.kind(),
            ),
        ),
        None => show(title, "no error of the server"),
    }
}

fn how() -> Outcome<PgConnectOptions> {
    let options = PgConnectOptions::new()
        .host(&var("PGHOST")?)
        .port(var("PGPORT")?.parse()?);
    let options = options
        .username(&var("PGUSER")?)
        .password(&var("PGPASSWORD")?)
        .database(&var("PGDATABASE")?);
    let options = options
        .application_name("sqlx smoke")
        .options([("geqo", "off"), ("app.tenant", "three")]);
    Ok(match var("PGSSLROOTCERT") {
        Ok(ca) => options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert(ca),
        Err(_) => options.ssl_mode(PgSslMode::Disable),
    })
}

async fn queries(pool: &PgPool) -> Outcome<()> {
    let row = sqlx::query("SELECT current_setting('geqo'), current_setting('app.tenant'), current_setting('application_name')").fetch_one(pool).await?;
    show(
        "settings",
        (0..3).map(|i| row.get::<String, _>(i)).collect::<Vec<_>>(),
    );
    sqlx::raw_sql("DROP TABLE IF EXISTS smoke; CREATE TABLE smoke (id int PRIMARY KEY, body text, doc jsonb, tags text[])").execute(pool).await?;
    for i in 0..200_i32 {
        sqlx::query("INSERT INTO smoke VALUES ($1, $2, $3, $4)")
            .bind(i)
            .bind(format!("row {i}"))
            .bind(Json(vec![i, i + 1]))
            .bind(vec!["a".to_owned(), format!("ü{i}")])
            .execute(pool)
            .await?;
    }
    let rows: Vec<(i32, String, Json<Vec<i32>>, Vec<String>)> =
        sqlx::query_as("SELECT * FROM smoke ORDER BY id LIMIT 2")
            .fetch_all(pool)
            .await?;
    show("rows", rows);
    let mut connection = pool.acquire().await?;
    let statement = connection
        .prepare("SELECT id, body, doc FROM smoke WHERE id = ANY($1)")
        .await?;
    show(
        "columns",
        statement
            .columns()
            .iter()
            .map(|c| (c.name(), c.type_info().name()))
            .collect::<Vec<_>>(),
    );
    let sum = sqlx::query_scalar::<_, i32>("SELECT id FROM smoke")
        .fetch(&mut *connection)
        .try_fold(0, |sum, id| async move { Ok(sum + id) })
        .await?;
    show("stream", sum);
    failed(
        "double",
        sqlx::query("INSERT INTO smoke (id) VALUES (1)")
            .execute(&mut *connection)
            .await,
    );
    failed(
        "syntax",
        sqlx::query("SELEC 1").execute(&mut *connection).await,
    );
    failed(
        "zero",
        sqlx::query_scalar::<_, i32>("SELECT 1/$1")
            .bind(0)
            .fetch_one(&mut *connection)
            .await,
    );
    sqlx::raw_sql("ALTER TABLE smoke ADD more int")
        .execute(&mut *connection)
        .await?;
    failed(
        "changed",
        sqlx::query("SELECT * FROM smoke ORDER BY id LIMIT 2")
            .fetch_all(&mut *connection)
            .await,
    );
    show("ping", connection.ping().await.is_ok());
    Ok(())
}

async fn others(pool: &PgPool) -> Outcome<()> {
    let mut transaction = pool.begin().await?;
    sqlx::query("DELETE FROM smoke")
        .execute(&mut *transaction)
        .await?;
    let mut inner = transaction.begin().await?;
    failed(
        "inner",
        sqlx::query("SELECT nothing FROM smoke")
            .execute(&mut *inner)
            .await,
    );
    inner.rollback().await?;
    transaction.rollback().await?;
    show(
        "kept",
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM smoke")
            .fetch_one(pool)
            .await?,
    );
    let mut copy = pool.copy_in_raw("COPY smoke (id, body) FROM STDIN").await?;
    for i in 1000..3000 {
        copy.send(format!("{i}\tcopied\n").as_bytes()).await?;
    }
    show("copied", copy.finish().await?);
    let mut copy = pool.copy_in_raw("COPY smoke (id, body) FROM STDIN").await?;
    copy.send(&b"9000\tnever\n"[..]).await?;
    copy.abort("changed my mind").await?;
    let out = pool.copy_out_raw("COPY smoke TO STDOUT").await?;
    show(
        "out",
        out.try_fold(0, |sum, bytes| async move { Ok(sum + bytes.len()) })
            .await?,
    );
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen("bell").await?;
    sqlx::query("SELECT pg_notify('bell', $1)")
        .bind("ding")
        .execute(pool)
        .await?;
    let heard = listener.recv().await?;
    show("heard", (heard.channel(), heard.payload()));
    let values = (0..300).map(|i| {
        sqlx::query_scalar::<_, i32>("SELECT $1 + 1")
            .bind(i)
            .fetch_one(pool)
    });
    show("at once", try_join_all(values).await?.iter().sum::<i32>());
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let pool = PgPoolOptions::new()
        .max_connections(4)
        .connect_with(how()?)
        .await?;
    queries(&pool).await?;
    others(&pool).await?;
    sqlx::raw_sql("DROP TABLE smoke").execute(&pool).await?;
    pool.close().await;
    Ok(())
}
