//! Auditors' key pairs and their files.
//!
//! A key file is text:
//!
//! ```text
//! chaperone-audit-public-key 1
//! name: alice
//! x25519: 64 hexadecimal digits
//! ```
//!
//! The private file's first line is `chaperone-audit-private-key 1`, its `x25519` is the secret.
//! Lines that begin with `#` and empty lines are comments.

use std::{
    fmt,
    fs::OpenOptions,
    io::Write as _,
    path::{Path, PathBuf},
};

use hpke::{Deserializable as _, Kem as _, Serializable as _};
use zeroize::Zeroizing;

use crate::value::{Code, Digest, hex_decode, hex_encode};

pub(crate) type Kem = hpke::kem::X25519HkdfSha256;

const PUBLIC: &str = "chaperone-audit-public-key 1";
const PRIVATE: &str = "chaperone-audit-private-key 1";

/// What is wrong with a key file.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("{}: {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What, and how to mend it.
        problem: &'static str,
    },
    /// A recipient's name that is no code.
    #[error("the name of a key is 1 to 64 characters out of a-z, 0-9 and '-'")]
    Name,
    /// The cryptographic library refuses.
    #[error("the key could not be made or used")]
    Crypto,
}

/// A recipient of data keys: whoever has the private half can open sealed parts.
#[derive(Clone)]
pub struct PublicKey {
    name: Code,
    key: <Kem as hpke::Kem>::PublicKey,
}

impl PublicKey {
    /// Reads a `.pub` file.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let text = read(path)?;
        Self::parse(&text).map_err(|problem| KeyError::Format {
            path: path.to_owned(),
            problem,
        })
    }

    /// Reads the text of a `.pub` file.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (name, bytes) = fields(text, PUBLIC)?;
        let key = <Kem as hpke::Kem>::PublicKey::from_bytes(&bytes)
            .map_err(|_| "its x25519 line is not a public key")?;
        Ok(Self { name, key })
    }

    /// The name that its maker gave it.
    #[must_use]
    pub fn name(&self) -> &Code {
        &self.name
    }

    /// The first 16 hexadecimal digits of the SHA3-256 of its 32 bytes.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hex = Digest::of(&self.key.to_bytes()).to_hex();
        hex.truncate(16);
        hex
    }

    /// The text of a `.pub` file.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!(
            "{PUBLIC}\n# For Chaperone's configuration, [audit] recipients. No secret.\nname: {}\nx25519: {}\n",
            self.name,
            hex_encode(&self.key.to_bytes())
        )
    }

    pub(crate) fn inner(&self) -> &<Kem as hpke::Kem>::PublicKey {
        &self.key
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {})", self.name, self.fingerprint())
    }
}

/// An auditor's key pair. Its memory is wiped when it is dropped.
pub struct PrivateKey {
    name: Code,
    key: <Kem as hpke::Kem>::PrivateKey,
}

impl PrivateKey {
    /// Makes a new pair.
    pub fn generate(name: &str) -> Result<Self, KeyError> {
        let name = Code::new(name).map_err(|_| KeyError::Name)?;
        let mut seed = Zeroizing::new([0u8; 32]);
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), seed.as_mut_slice())
            .map_err(|_| KeyError::Crypto)?;
        let (key, _) = Kem::derive_keypair(seed.as_slice());
        Ok(Self { name, key })
    }

    /// Reads a `.key` file.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let text = Zeroizing::new(read(path)?);
        Self::parse(&text).map_err(|problem| KeyError::Format {
            path: path.to_owned(),
            problem,
        })
    }

    /// Reads the text of a `.key` file.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (name, bytes) = fields(text, PRIVATE)?;
        let key = <Kem as hpke::Kem>::PrivateKey::from_bytes(&bytes)
            .map_err(|_| "its x25519 line is not a private key")?;
        Ok(Self { name, key })
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey {
            name: self.name.clone(),
            key: Kem::sk_to_pk(&self.key),
        }
    }

    /// Writes `DIR/NAME.key`, readable for its owner only, and `DIR/NAME.pub`. Neither may be there
    /// yet: a key that is overwritten is evidence that nobody can read any more.
    pub fn write(&self, dir: &Path) -> Result<(PathBuf, PathBuf), KeyError> {
        let private = dir.join(format!("{}.key", self.name));
        let public = dir.join(format!("{}.pub", self.name));
        let secret = Zeroizing::new(self.key.to_bytes().to_vec());
        let secret = Zeroizing::new(hex_encode(&secret));
        let text = Zeroizing::new(format!(
            "{PRIVATE}\n# Opens the sealed parts of audit logs. Keep it away from the proxy's machine.\nname: {}\nx25519: {}\n",
            self.name,
            secret.as_str()
        ));
        if public.exists() {
            return Err(KeyError::Format {
                path: public,
                problem: "is there already; choose another name or move it away",
            });
        }
        create(&private, &text, 0o600)?;
        create(&public, &self.public().to_text(), 0o644)?;
        Ok((private, public))
    }

    pub(crate) fn inner(&self) -> &<Kem as hpke::Kem>::PrivateKey {
        &self.key
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({}, not shown)", self.name)
    }
}

fn read(path: &Path) -> Result<String, KeyError> {
    let io = |source| KeyError::Io {
        path: path.to_owned(),
        source,
    };
    let length = std::fs::metadata(path).map_err(io)?.len();
    if length > 64 * 1024 {
        return Err(KeyError::Format {
            path: path.to_owned(),
            problem: "is far too long for a key file",
        });
    }
    std::fs::read_to_string(path).map_err(io)
}

fn create(path: &Path, text: &str, mode: u32) -> Result<(), KeyError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let io = |source: std::io::Error| KeyError::Io {
        path: path.to_owned(),
        source,
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(io)?;
    file.write_all(text.as_bytes()).map_err(io)?;
    file.sync_all().map_err(io)
}

fn fields(text: &str, first: &'static str) -> Result<(Code, Zeroizing<Vec<u8>>), &'static str> {
    let mut lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    match lines.next() {
        Some(line) if line == first => {}
        Some(PRIVATE) => return Err("is a private key; give the .pub file here"),
        Some(PUBLIC) => return Err("is a public key; give the .key file here"),
        _ => {
            return Err(
                "is not a Chaperone audit key of version 1 (made by `chaperone audit keygen NAME`)",
            );
        }
    }
    let (mut name, mut key) = (None, None);
    for line in lines {
        let (field, value) = line
            .split_once(':')
            .ok_or("has a line that is not `field: value`")?;
        let (slot, value) = match field.trim() {
            "name" => (&mut name, value.trim()),
            "x25519" => (&mut key, value.trim()),
            _ => return Err("has a field other than name and x25519"),
        };
        if slot.replace(value).is_some() {
            return Err("has a field twice");
        }
    }
    let name = name.ok_or("has no name line")?;
    let name = Code::new(name).map_err(|_| "its name is not 1 to 64 of a-z, 0-9 and '-'")?;
    let key = key.ok_or("has no x25519 line")?;
    let key = hex_decode(key)
        .map(Zeroizing::new)
        .filter(|key| key.len() == 32)
        .ok_or("its x25519 line is not 64 lower-case hexadecimal digits")?;
    Ok((name, key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn key_files_go_there_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let made = PrivateKey::generate("alice").unwrap();
        let (private, public) = made.write(dir.path()).unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&private).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let read = PrivateKey::read(&private).unwrap();
        assert_eq!(read.public().to_text(), made.public().to_text());
        let read = PublicKey::read(&public).unwrap();
        assert_eq!(read.fingerprint(), made.public().fingerprint());
        assert!(made.write(dir.path()).is_err(), "never overwritten");
        let error = PublicKey::read(&private).unwrap_err().to_string();
        assert!(error.contains("give the .pub file"), "{error}");
        let error = PrivateKey::read(&public).unwrap_err().to_string();
        assert!(error.contains("give the .key file"), "{error}");
        assert!(!format!("{made:?}").contains("x25519"));
    }

    #[test]
    fn names_are_file_names() {
        for name in ["", "../x", "A", "a b"] {
            assert!(PrivateKey::generate(name).is_err(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(chaperone-audit-(public|private)-key 1\n)?(name: a\n)?(x25519: )?[ -~\n]{0,80}") {
            let _ = PublicKey::parse(&text);
            let _ = PrivateKey::parse(&text);
        }
    }
}
