//! `make demo`: a clinic, an issuer, Chaperone, and a story played with the real psql.
//!
//! `CHECK=1` plays the story and exits with 1 if a step did not go as told; `STAY=1` skips the
//! story and stays up. `CHAPERONE_DEMO_FOLDER` names another folder than `.demo`.

mod interrupt;
mod personas;
mod show;
mod stage;
mod story;

use std::process::ExitCode;

use chaperone_test_support::clinic;
use chaperone_test_support::{Error, Result};

use interrupt::Interrupt;
use personas::{PERSONAS, Persona};
use show::Show;
use stage::{Pace, Stage};

fn main() -> ExitCode {
    let interrupt = match Interrupt::watch() {
        Ok(interrupt) => interrupt,
        Err(error) => {
            eprintln!("demo: {error}");
            return ExitCode::from(2);
        }
    };
    let code = match run(&interrupt) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(_) if let Err(Error::Interrupted { signal }) = interrupt.check_failure() => {
            // Whatever error it was, it came of this; what ran has been dropped.
            stage::sweep(&stage::folder());
            eprintln!("demo: interrupted; nothing of it is left");
            ExitCode::from(128 + signal)
        }
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::from(2)
        }
    };
    interrupt.over();
    code
}

fn run(interrupt: &Interrupt) -> Result<bool> {
    let check = asked("CHECK");
    let stay = asked("STAY");
    let mut show = Show::default();
    let mut passed = true;
    let stage = if stay {
        Stage::set(&show, Pace::ByHand, interrupt)?
    } else {
        let stage = Stage::set(&show, Pace::Story, interrupt)?;
        passed = story::play(&stage, &mut show)?;
        if check {
            finish(stage, passed);
            return Ok(passed);
        }
        show.progress("starting chaperone again, with longer waits for approvals");
        stage.restart(Pace::ByHand)?
    };
    invite(&stage)?;
    interrupt.wait();
    println!("\ncleaning up");
    finish(stage, passed);
    Ok(passed)
}

/// Cleans up; where a step did not go as told, what shows why stays.
fn finish(stage: Stage, passed: bool) {
    if passed {
        stage.clear();
    } else {
        println!("kept for a look: {}", stage.folder.display());
    }
}

/// Whether a variable is set to something other than nothing or 0.
fn asked(variable: &str) -> bool {
    std::env::var(variable).is_ok_and(|value| !value.is_empty() && value != "0")
}

fn invite(stage: &Stage) -> Result<()> {
    let environment = stage.write_environment()?;
    println!("\n== Try it by hand, in another terminal\n");
    println!("   . {}\n", environment.display());
    for persona in PERSONAS.iter().filter(|persona| !persona.role.is_empty()) {
        println!(
            "   PGPASSWORD=$CHAPERONE_TOKEN_{} psql \"host=$CHAPERONE_HOST port=$CHAPERONE_PORT \
             dbname={} user={} sslmode=verify-full sslrootcert=$CHAPERONE_CA\"",
            persona.name.to_uppercase(),
            clinic::DATABASE,
            persona.role,
        );
    }
    println!(
        "\n   $CHAPERONE_BIN approvals list      # as the approver, with CHAPERONE_ADMIN_URL and _TOKEN"
    );
    println!("   $CHAPERONE_BIN audit verify $CHAPERONE_LOG_DIR");
    println!("   curl $CHAPERONE_ADMIN_URL/metrics");
    println!(
        "   $CHAPERONE_BIN explain \"SELECT name, ssn FROM patients\" --as $CHAPERONE_PERSONA_AGENT \
         --config $CHAPERONE_CONFIG"
    );
    println!("   psql \"$CHAPERONE_DIRECT\"           # the backend itself, past Chaperone\n");
    println!("   tables      patients staff rooms encounters diagnoses medications notes claims");
    println!("   admin       {}", stage.admin_url());
    println!("   issuer      {}", stage.tokens.issuer());
    println!(
        "   policies    {}",
        stage.chaperone.policy_folder().display()
    );
    println!(
        "   audit log   {}",
        stage.chaperone.audit_folder().display()
    );
    println!(
        "   personas    {}      # what explain takes with --as",
        stage.personas_folder().display()
    );
    println!(
        "   proxy's log {}",
        stage.chaperone.folder().join("log").display()
    );
    for persona in PERSONAS {
        println!(
            "   token of {:<10} {}",
            persona.name,
            stage.tokens.of(persona)
        );
    }
    println!(
        "\n   {} is the one who approves. Ctrl-C ends everything.",
        Persona::APPROVER.subject
    );
    Ok(())
}
