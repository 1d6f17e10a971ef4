//! A clinic full of invented people: the same rows each time, more than 10,000 patients.

use crate::error::Result;
use crate::postgres::Postgres;

/// The database that [`seed`] makes.
pub const DATABASE: &str = "clinic";

/// How many patients there are.
pub const PATIENTS: u32 = 12_000;

/// The backend roles that [`seed`] makes, each with [`role_password`].
pub const ROLES: [&str; 4] = ["agent_ro", "clinician", "billing", "dba"];

const ROLES_SQL: &str = include_str!("../seed/roles.sql");
const CLINIC_SQL: &str = include_str!("../seed/clinic.sql");

/// The backend password of a role, which Chaperone's callers never learn.
#[must_use]
pub fn role_password(role: &str) -> String {
    format!("backend-secret-of-{role}")
}

/// Makes the roles, the database `clinic` and everything in it.
///
/// # Errors
/// A statement failed.
pub fn seed(postgres: &Postgres) -> Result<()> {
    let mut roles = ROLES_SQL.to_owned();
    for role in ROLES {
        roles.push_str(&format!(
            "ALTER ROLE {role} PASSWORD '{}';\n",
            role_password(role)
        ));
    }
    postgres.script("postgres", &roles)?;
    postgres.script(DATABASE, CLINIC_SQL)
}

/// Tables, views, labels and grants with no rows in them: what the seed starts with.
#[must_use]
pub fn ddl() -> &'static str {
    CLINIC_SQL.split("-- rows\n").next().unwrap_or(CLINIC_SQL)
}
