//! What clients ask for, and what has to come of it.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use chaperone_test_support::clinic;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error};

use crate::stage::{AGENT, DBA, DOCTOR, Stage};
use crate::tally::Tally;

/// Statements after which a client connects anew.
const A_SESSION: u64 = 400;

/// Runs so many clients until the deadline, each in a thread of its own.
pub fn crowd(stage: &Stage, tally: &Tally, clients: usize, deadline: Instant) {
    thread::scope(|scope| {
        for number in 0..clients {
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                match runtime {
                    Ok(runtime) => runtime.block_on(work(stage, tally, number, deadline)),
                    Err(error) => tally.wrong("runtime", &error.to_string()),
                }
            });
        }
    });
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Agent,
    Doctor,
    Dba,
}

async fn work(stage: &Stage, tally: &Tally, number: usize, deadline: Instant) {
    let (who, role, token) = match number % 10 {
        0 => (Who::Dba, "dba", DBA),
        1..=3 => (Who::Doctor, "clinician", DOCTOR),
        _ => (Who::Agent, "agent_ro", AGENT),
    };
    while Instant::now() < deadline {
        let session = stage
            .chaperone()
            .client(clinic::DATABASE, role, token)
            .await;
        let session = match session {
            Ok(session) => session,
            Err(error) => {
                tally.wrong("connect", &format!("{error:?}"));
                return;
            }
        };
        tally.sessions.fetch_add(1, Ordering::Relaxed);
        let worker = Worker {
            tally,
            client: &session.client,
            number,
        };
        for round in 0..A_SESSION {
            if Instant::now() >= deadline {
                break;
            }
            let done = match who {
                Who::Agent => worker.agent(round).await,
                Who::Doctor => worker.doctor(round).await,
                Who::Dba => worker.dba(round).await,
            };
            if let Err(error) = done {
                let state = error.code().map_or("none", |state| state.code());
                tally.wrong(state, &format!("{role}, round {round}: {error:?}"));
                break;
            }
        }
        drop(session.client);
        // Its end is on record before the proxy is told to stop.
        let _ = tokio::time::timeout(Duration::from_secs(20), session.connection).await;
    }
}

struct Worker<'a> {
    tally: &'a Tally,
    client: &'a Client,
    number: usize,
}

impl Worker<'_> {
    /// An id that is in the tables, another one each time.
    fn id(&self, round: u64) -> i32 {
        let mixed = u64::try_from(self.number).unwrap_or(0) * 7919 + round * 31;
        i32::try_from(mixed % 5_000).unwrap_or(0) + 1
    }

    /// One statement of the extended protocol, without a name.
    async fn ask(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<(), Error> {
        self.client.query(sql, values).await?;
        self.tally.ran(1);
        Ok(())
    }

    /// Statements of one simple query.
    async fn simple(&self, sql: &str, statements: u64) -> Result<(), Error> {
        self.client.simple_query(sql).await?;
        self.tally.ran(statements);
        Ok(())
    }

    /// One that the backend fails to run.
    async fn fails(&self, sql: &str, state: &str) -> Result<(), Error> {
        match self.client.simple_query(sql).await {
            Err(error) if told(&error, state) => self.tally.failed(state),
            Err(error) => return Err(error),
            Ok(_) => self.tally.wrong("no error", sql),
        }
        Ok(())
    }

    /// One that policies refuse.
    async fn refused(&self, sql: &str, state: &str) -> Result<(), Error> {
        match self.client.simple_query(sql).await {
            Err(error) if told(&error, state) => self.tally.refused(state),
            Err(error) => return Err(error),
            Ok(_) => self.tally.wrong("no refusal", sql),
        }
        Ok(())
    }

    async fn agent(&self, round: u64) -> Result<(), Error> {
        let id = self.id(round);
        match round % 12 {
            0 | 4 | 8 => {
                let sql = "SELECT id, name, ssn, birth_date, zip FROM patients WHERE id = $1";
                let statement = self.client.prepare(sql).await?;
                for next in 0..3 {
                    self.client.query(&statement, &[&(id + next)]).await?;
                    self.tally.ran(1);
                }
                Ok(())
            }
            1 | 7 => {
                let sql = "SELECT count(*) FROM encounters WHERE patient_id = $1";
                self.ask(sql, &[&id]).await
            }
            2 => {
                self.simple("SELECT name, beds FROM rooms ORDER BY id", 1)
                    .await
            }
            3 => {
                let sql = "SELECT * FROM patients WHERE id > $1 ORDER BY id LIMIT 200";
                self.ask(sql, &[&id]).await
            }
            5 => {
                let sql = "SELECT body FROM notes WHERE patient_id = $1";
                self.ask(sql, &[&id]).await
            }
            6 => {
                self.fails("SELECT id / (beds - beds) FROM rooms", "22012")
                    .await
            }
            9 => {
                self.refused("SELECT * FROM claims WHERE id = 1", "42501")
                    .await
            }
            10 => {
                self.simple("BEGIN", 1).await?;
                self.ask("SELECT name FROM staff WHERE id = $1", &[&(id % 20)])
                    .await?;
                self.simple("COMMIT", 1).await
            }
            _ => {
                self.simple("SELECT 1; SELECT name FROM rooms WHERE id = 1", 2)
                    .await
            }
        }
    }

    async fn doctor(&self, round: u64) -> Result<(), Error> {
        let id = self.id(round);
        match round % 8 {
            0 | 4 => {
                let sql = "SELECT p.name, d.icd10 FROM patients p JOIN diagnoses d \
                           ON d.patient_id = p.id WHERE p.id = $1";
                self.ask(sql, &[&id]).await
            }
            1 => {
                let sql = "UPDATE medications SET dose = $1 WHERE id = $2";
                self.ask(sql, &[&format!("{} mg", round % 90 + 10), &id])
                    .await
            }
            2 => {
                let sql = "INSERT INTO medications SELECT id, patient_id, drug, dose, started_on \
                           FROM medications WHERE id = 1";
                self.fails(sql, "23505").await
            }
            3 | 7 => {
                let sql = "SELECT body FROM notes WHERE patient_id = $1";
                self.ask(sql, &[&id]).await
            }
            5 => {
                self.refused("DELETE FROM medications WHERE id = 1", "42501")
                    .await
            }
            _ => {
                self.simple("BEGIN", 1).await?;
                let sql = "UPDATE diagnoses SET description = description WHERE id = $1";
                self.ask(sql, &[&id]).await?;
                self.simple(
                    if round % 16 == 6 {
                        "ROLLBACK"
                    } else {
                        "COMMIT"
                    },
                    1,
                )
                .await
            }
        }
    }

    /// Each asks for an approval now and then, for a table of its own.
    async fn dba(&self, round: u64) -> Result<(), Error> {
        if !round.is_multiple_of(20) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            return self.simple("SELECT count(*) FROM staff", 1).await;
        }
        let sql = format!(
            "UPDATE import_soak_{} SET id = id + 1",
            self.number / 10 % 20
        );
        match self.client.simple_query(&sql).await {
            Ok(_) => {
                self.tally.ran(1);
                self.tally.released.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(error) if told(&error, "42501") => {
                self.tally.refused("42501");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

fn told(error: &Error, state: &str) -> bool {
    error.code().is_some_and(|code| code.code() == state)
}
