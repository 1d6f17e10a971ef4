//! `chaperone policy new`: a policy crate to begin from.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{PolicyError, say};

const MANIFEST: &str = include_str!("../../../../policy-sdk/template/Cargo.toml.in");
const SOURCE: &str = include_str!("../../../../policy-sdk/template/lib.rs.in");
/// Where the SDK is in the checkout that this program was built from.
const CHECKOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../policy-sdk");

/// Writes the crate and says what to do next.
pub(super) fn new(
    directory: &Path,
    sdk: Option<&Path>,
    out: &mut impl Write,
) -> Result<(), PolicyError> {
    let name = name_of(directory)?;
    let sdk = find_sdk(sdk)?;
    let file = |path: PathBuf| move |error| PolicyError::File { path, error };
    if directory.exists() {
        let mut entries = fs::read_dir(directory).map_err(file(directory.to_owned()))?;
        if entries.next().is_some() {
            return Err(PolicyError::NotEmpty(directory.to_owned()));
        }
    }
    // TOML's own quoting, whatever the path has in it.
    let sdk = toml::Value::from(sdk.to_string_lossy().as_ref()).to_string();
    let manifest = MANIFEST.replace("\"@SDK@\"", &sdk).replace("@NAME@", &name);
    let source = SOURCE.replace("@NAME@", &name);
    fs::create_dir_all(directory.join("src")).map_err(file(directory.to_owned()))?;
    for (path, text) in [("Cargo.toml", manifest), ("src/lib.rs", source)] {
        let path = directory.join(path);
        fs::write(&path, text).map_err(file(path))?;
    }
    let home = directory.display();
    say(
        out,
        &format!(
            "{name}: {home}/src/lib.rs\n\
             test it:  cargo test --manifest-path {home}/Cargo.toml\n\
             build it: chaperone policy build {home} -o POLICY-DIRECTORY\n"
        ),
    )
}

/// The crate's and the policy's name: that of the directory.
fn name_of(directory: &Path) -> Result<String, PolicyError> {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    let letters = name
        .bytes()
        .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if letters && name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Ok(name.into_owned());
    }
    Err(PolicyError::BadName(name.into_owned()))
}

fn find_sdk(given: Option<&Path>) -> Result<PathBuf, PolicyError> {
    let path = given.unwrap_or(Path::new(CHECKOUT));
    let found = path.canonicalize().and_then(|path| {
        let is_there = path.join("Cargo.toml").is_file() && path.join("module.toml").is_file();
        if is_there {
            return Ok(path);
        }
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            "it is not policy-sdk",
        ))
    });
    found.map_err(|_| PolicyError::NoSdk(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_is_written_once() {
        let folder = tempfile::TempDir::new().unwrap();
        let home = folder.path().join("my-rules");
        let mut said = Vec::new();
        new(&home, None, &mut said).unwrap();
        assert!(String::from_utf8_lossy(&said).starts_with("my-rules: "));
        let manifest: toml::Table =
            toml::from_str(&fs::read_to_string(home.join("Cargo.toml")).unwrap()).unwrap();
        assert_eq!(manifest["package"]["name"].as_str(), Some("my-rules"));
        let sdk = manifest["dependencies"]["policy-sdk"]["path"]
            .as_str()
            .unwrap();
        assert!(Path::new(sdk).join("module.toml").is_file());
        let again = new(&home, None, &mut said).unwrap_err().to_string();
        assert!(again.contains("is not empty"), "{again}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let folder = tempfile::TempDir::new().unwrap();
        for name in ["Rules", "7rules", "my rules", "r\"ules", "-x", "..", "a.b"] {
            let error = new(&folder.path().join(name), None, &mut Vec::new()).unwrap_err();
            assert!(matches!(error, PolicyError::BadName(_)), "{name}: {error}");
        }
        let error = new(
            &folder.path().join("x"),
            Some(folder.path()),
            &mut Vec::new(),
        );
        assert!(error.unwrap_err().to_string().contains("--sdk"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
