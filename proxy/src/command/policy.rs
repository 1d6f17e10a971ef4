//! `chaperone policy new`, `build` and `inspect`.

mod scaffold;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use chaperone_contract::Abilities;
use chaperone_policy_host::{Format, Host, HostError, HostOptions, LoadError, Reads};

use crate::policy::write_atomically;

const TARGET: &str = "wasm32-unknown-unknown";
/// The profile of [`MODULE`].
const PROFILE: &str = "policy";
/// How a module is built, which the SDK says for everybody.
const MODULE: &str = include_str!("../../../policy-sdk/module.toml");

/// Build policy modules and look into them.
#[derive(Debug, clap::Subcommand)]
pub enum PolicyCommand {
    /// Begin a policy: a crate with a small one in it, and its test.
    ///
    /// The directory's name becomes the policy's, by which the configuration knows it.
    New {
        /// The directory to make.
        directory: PathBuf,
        /// The folder policy-sdk of a checkout; without, that of the one this program is from.
        #[arg(long, value_name = "DIR")]
        sdk: Option<PathBuf>,
    },
    /// Build a policy crate into a module.
    ///
    /// Runs `cargo build` for wasm32-unknown-unknown in DIR, with the settings of the SDK's
    /// module.toml, and prints where the module is and how large. With -o, copies it into a policy directory in one step, so that a running
    /// proxy never sees half of it.
    Build {
        /// The policy crate's directory, with its Cargo.toml.
        directory: PathBuf,
        /// A policy directory, or a file name, to copy the module to.
        #[arg(short, long, value_name = "PATH")]
        output: Option<PathBuf>,
    },
    /// Show what a module says about itself: manifest, contract version, getters, settings schema.
    Inspect {
        /// The module's file.
        file: PathBuf,
    },
}

/// Why a policy command failed.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// No such crate.
    #[error("{}: there is no Cargo.toml here. Give the directory of a policy crate", .0.display())]
    NoCrate(PathBuf),
    /// There is something already.
    #[error("{}: the directory is not empty. Give the name of a new one", .0.display())]
    NotEmpty(PathBuf),
    /// Not a name for a crate.
    #[error(
        "`{0}` cannot be a policy's name. Use small letters, digits and hyphens, with a letter first"
    )]
    BadName(String),
    /// No SDK there.
    #[error("{}: the SDK is not there. Name the folder policy-sdk of a checkout with --sdk", .0.display())]
    NoSdk(PathBuf),
    /// cargo or rustc cannot be run.
    #[error("{program} cannot be run: {error}. Install Rust from https://rustup.rs")]
    NoRust {
        /// `cargo` or `rustc`.
        program: &'static str,
        /// Why.
        error: io::Error,
    },
    /// The target's standard library is not installed.
    #[error("Rust cannot build for {TARGET} yet. Run: rustup target add {TARGET}")]
    NoTarget,
    /// cargo failed; it has said why.
    #[error("cargo failed ({0}); see its messages above")]
    Cargo(ExitStatus),
    /// The crate makes no module.
    #[error(
        "{}: the crate was built, but no .wasm came out. Put `[lib] crate-type = [\"cdylib\", \
         \"rlib\"]` into its Cargo.toml",
        .0.display()
    )]
    NoModule(PathBuf),
    /// No module to look at.
    #[error("{}: {error}. Give the file of a module: `policy build` prints where it is", path.display())]
    NoFile {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The engine does not start.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Not a policy module.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl PolicyCommand {
    /// Runs the command and writes its result to `out`.
    ///
    /// # Errors
    /// [`PolicyError`] says what failed and how to mend it.
    pub fn run(&self, out: &mut impl Write) -> Result<(), PolicyError> {
        match self {
            PolicyCommand::New { directory, sdk } => scaffold::new(directory, sdk.as_deref(), out),
            PolicyCommand::Build { directory, output } => build(directory, output.as_deref(), out),
            PolicyCommand::Inspect { file } => inspect(file, out),
        }
    }
}

fn build(directory: &Path, output: Option<&Path>, out: &mut impl Write) -> Result<(), PolicyError> {
    if !directory.join("Cargo.toml").is_file() {
        return Err(PolicyError::NoCrate(directory.to_owned()));
    }
    check_target()?;
    let cargo = Command::new("cargo")
        .args(["build", "--profile", PROFILE, "--lib", "--target", TARGET])
        .args(
            build_settings()
                .iter()
                .flat_map(|setting| ["--config", setting]),
        )
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(directory)
        // They would take the place of ours, or be added.
        .env_remove("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| PolicyError::NoRust {
            program: "cargo",
            error,
        })?;
    if !cargo.status.success() {
        return Err(PolicyError::Cargo(cargo.status));
    }
    let module = module_of(directory, &cargo.stdout)
        .ok_or_else(|| PolicyError::NoModule(directory.to_owned()))?;
    let bytes = read(&module)?;
    let host = Host::new(HostOptions::default())?;
    let inspection = host.inspect(&module.display().to_string(), bytes.clone())?;
    let path = match output {
        None => module,
        Some(output) => {
            let path = if output.is_dir() {
                output.join(module.file_name().unwrap_or_default())
            } else {
                output.to_owned()
            };
            write_atomically(&path, &bytes).map_err(|error| PolicyError::File {
                path: path.clone(),
                error,
            })?;
            path
        }
    };
    say(
        out,
        &format!(
            "{} {}: {} ({} KiB)\n",
            inspection.manifest.name,
            inspection.manifest.version,
            path.display(),
            bytes.len().div_ceil(1024)
        ),
    )
}

/// [`MODULE`] as cargo's command line takes it: `a.b.c=value`.
fn build_settings() -> Vec<String> {
    fn walk(path: &str, value: &toml::Value, all: &mut Vec<String>) {
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table {
                    let key = toml::Value::from(key.as_str());
                    let dot = if path.is_empty() { "" } else { "." };
                    walk(&format!("{path}{dot}{key}"), value, all);
                }
            }
            value => all.push(format!("{path}={value}")),
        }
    }
    let mut all = Vec::new();
    // A test sees that it is TOML.
    let table: toml::Table = toml::from_str(MODULE).unwrap_or_default();
    walk("", &toml::Value::Table(table), &mut all);
    all
}

fn check_target() -> Result<(), PolicyError> {
    let rustc = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .map_err(|error| PolicyError::NoRust {
            program: "rustc",
            error,
        })?;
    let path = String::from_utf8_lossy(&rustc.stdout);
    if rustc.status.success() && Path::new(path.trim()).is_dir() {
        Ok(())
    } else {
        Err(PolicyError::NoTarget)
    }
}

/// The last artifact of the crate in `directory` that is a module, from cargo's messages.
fn module_of(directory: &Path, messages: &[u8]) -> Option<PathBuf> {
    let manifest = directory.join("Cargo.toml").canonicalize().ok()?;
    messages
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok())
        .filter(|message| {
            message
                .get("manifest_path")
                .and_then(serde_json::Value::as_str)
                .is_some_and(|path| Path::new(path) == manifest)
        })
        .filter_map(|message| {
            let files = message.get("filenames")?.as_array()?;
            let module = |file: &serde_json::Value| {
                let path = PathBuf::from(file.as_str()?);
                path.extension()
                    .is_some_and(|ending| ending == "wasm")
                    .then_some(path)
            };
            files.iter().find_map(module)
        })
        .next_back()
}

fn inspect(file: &Path, out: &mut impl Write) -> Result<(), PolicyError> {
    let bytes = fs::read(file).map_err(|error| PolicyError::NoFile {
        path: file.to_owned(),
        error,
    })?;
    let host = Host::new(HostOptions::default())?;
    let seen = host.inspect(&file.display().to_string(), bytes)?;
    let manifest = &seen.manifest;
    let list = |items: &[String], none: &str| {
        if items.is_empty() {
            none.to_owned()
        } else {
            items.join(", ")
        }
    };
    let format = match seen.format {
        Format::Component => "component",
        Format::Core => "core module",
    };
    let abilities: Vec<String> = [
        (Abilities::DECIDES, "decides"),
        (Abilities::MASKS, "masks"),
        (Abilities::REWRITES, "rewrites"),
    ]
    .into_iter()
    .filter(|(ability, _)| manifest.abilities.contains(*ability))
    .map(|(_, name)| name.to_owned())
    .collect();
    let reads: Vec<String> = [
        (Reads::PARAMETERS, "bind values"),
        (Reads::CLOCK, "the clock"),
        (Reads::TRANSACTION, "the transaction's state"),
        (Reads::TEXT, "constants in the text"),
    ]
    .into_iter()
    .filter(|(input, _)| seen.reads.contains(*input))
    .map(|(_, name)| name.to_owned())
    .collect();
    let mut text = String::new();
    for (key, value) in [
        ("name", manifest.name.clone()),
        ("version", manifest.version.clone()),
        ("description", manifest.description.clone()),
        ("protocols", list(&manifest.protocols, "all")),
        ("abilities", list(&abilities, "none")),
        ("contract", seen.contract.clone()),
        ("format", format.to_owned()),
        ("size", format!("{} bytes", seen.size)),
        ("sha3-256", seen.digest.to_string()),
        ("imports", list(&seen.imports, "none")),
        ("getters", list(&seen.getters, "none")),
        (
            "re-used until",
            if reads.is_empty() {
                "session, operation or policies change".to_owned()
            } else {
                format!("also {} change", reads.join(", "))
            },
        ),
    ] {
        text.push_str(&format!("{key:14} {}\n", printable(&value)));
    }
    let schema = serde_json::from_str::<serde_json::Value>(&manifest.settings_schema)
        .ok()
        .and_then(|schema| serde_json::to_string_pretty(&schema).ok());
    text.push_str(&format!(
        "settings schema\n{}\n",
        schema.unwrap_or_else(|| printable(&manifest.settings_schema))
    ));
    say(out, &text)
}

/// A module's words go to a terminal, where control characters could lie about the rest.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn read(path: &Path) -> Result<Vec<u8>, PolicyError> {
    fs::read(path).map_err(|error| PolicyError::File {
        path: path.to_owned(),
        error,
    })
}

fn say(out: &mut impl Write, text: &str) -> Result<(), PolicyError> {
    out.write_all(text.as_bytes())
        .map_err(|error| PolicyError::File {
            path: PathBuf::from("standard output"),
            error,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_found_in_cargos_messages() {
        let folder = tempfile::TempDir::new().unwrap();
        fs::write(folder.path().join("Cargo.toml"), "").unwrap();
        let manifest = folder.path().join("Cargo.toml").canonicalize().unwrap();
        let line = |manifest: &str, file: &str| {
            serde_json::json!({"manifest_path": manifest, "filenames": [file]}).to_string()
        };
        let messages = [
            line("/other/Cargo.toml", "/t/other.wasm"),
            line(manifest.to_str().unwrap(), "/t/mine.wasm"),
            "not json".to_owned(),
        ];
        assert_eq!(
            module_of(folder.path(), messages.join("\n").as_bytes()),
            Some(PathBuf::from("/t/mine.wasm"))
        );
    }

    #[test]
    fn the_build_settings_are_cargos() {
        let settings = build_settings();
        for wanted in [
            r#""profile"."policy"."panic"="abort""#,
            r#""profile"."policy"."package"."*"."opt-level"="s""#,
        ] {
            assert!(settings.iter().any(|it| it == wanted), "{settings:#?}");
        }
        let flags = format!(r#""target"."{TARGET}"."rustflags"=["#);
        assert!(
            settings.iter().any(|it| it.starts_with(&flags)),
            "{settings:#?}"
        );
        assert!(MODULE.contains(&format!("[profile.{PROFILE}]")));
    }

    #[test]
    fn errors_say_what_to_do() {
        let folder = tempfile::TempDir::new().unwrap();
        let run = |command: PolicyCommand| command.run(&mut Vec::new()).unwrap_err().to_string();
        let error = run(PolicyCommand::Build {
            directory: folder.path().to_owned(),
            output: None,
        });
        assert!(
            error.contains("Give the directory of a policy crate"),
            "{error}"
        );
        let error = run(PolicyCommand::Inspect {
            file: folder.path().join("missing.wasm"),
        });
        assert!(error.contains("missing.wasm: "), "{error}");
        assert!(error.contains("Give the file of a module"), "{error}");
        let file = folder.path().join("x.wasm");
        fs::write(&file, "hello").unwrap();
        let error = run(PolicyCommand::Inspect { file });
        assert!(error.contains("not a WebAssembly binary"), "{error}");
    }
}
