//! `oidc-issuer`: the issuer as a program, for trying things by hand.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chaperone_test_support::Result;
use chaperone_test_support::error::{Context as _, Error};
use chaperone_test_support::issuer::{Issuer, SigningKey};
use chaperone_test_support::tls::write_private;
use serde_json::Value;

const USAGE: &str = "usage: oidc-issuer [--listen 127.0.0.1:0] --dir DIR --personas FILE.json\n  \
    FILE.json: {\"NAME\": {\"sub\": \"...\", further claims}, ...}\n  \
    writes DIR/issuer-url, DIR/issuer-ca.pem and DIR/NAME.token, then serves until it is killed";

fn main() -> ExitCode {
    let mut options = BTreeMap::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let known = ["--listen", "--dir", "--personas"].contains(&name.as_str());
        match arguments.next() {
            Some(value) if known => options.insert(name, value),
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        };
    }
    let (Some(dir), Some(personas)) = (options.get("--dir"), options.get("--personas")) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let listen = options
        .get("--listen")
        .map_or("127.0.0.1:0", String::as_str);
    match run(listen, &PathBuf::from(dir), Path::new(personas)) {
        Ok(_issuer) => loop {
            std::thread::park();
        },
        Err(error) => {
            eprintln!("oidc-issuer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(listen: &str, dir: &Path, personas: &Path) -> Result<Issuer> {
    let text = fs::read_to_string(personas).context(format!("read {}", personas.display()))?;
    let personas: BTreeMap<String, Value> =
        serde_json::from_str(&text).map_err(|error| Error::Missing {
            what: format!("an object of personas in {} ({error})", personas.display()),
            mend: USAGE.to_owned(),
        })?;
    let issuer = Issuer::start_on(listen, SigningKey::es256("key-1")?)?;
    fs::create_dir_all(dir).context(format!("make {}", dir.display()))?;
    for (name, claims) in &personas {
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or(name);
        let token = issuer.token(subject, claims)?;
        write_private(&dir.join(format!("{name}.token")), &token)?;
    }
    write_private(&dir.join("issuer-ca.pem"), issuer.ca_pem())?;
    // Last, so that whoever waits for it finds everything else.
    write_private(&dir.join("issuer-url"), issuer.url())?;
    println!("{}", issuer.url());
    Ok(issuer)
}
