//! What a file is, before anything is compiled: component or core module, its imports, its
//! contract version.

use std::borrow::Cow;

use wasmparser::{Parser, Payload};
use wit_component::ComponentEncoder;

use crate::bindings::VERSION;
use crate::error::Problem;

/// The import that every module has.
pub(crate) const TYPES: &str = "chaperone:policy/types";
/// The export that makes a component a policy.
const POLICY: &str = "chaperone:policy/policy";

/// How the file was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A component.
    Component,
    /// A core module with the component type in a custom section; made into a component at load.
    Core,
}

/// A file that looks like a policy, as a component.
#[derive(Debug)]
pub(crate) struct Shape<'a> {
    pub(crate) format: Format,
    pub(crate) component: Cow<'a, [u8]>,
    /// Version of the contract that it was built for.
    pub(crate) contract: String,
    pub(crate) imports: Vec<String>,
}

impl<'a> Shape<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Result<Self, Problem> {
        let (format, component) = match bytes.get(..8) {
            Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => {
                check_core(bytes)?;
                (Format::Core, Cow::Owned(componentize(bytes)?))
            }
            Some([0, b'a', b's', b'm', _, 0, 1, 0]) => (Format::Component, Cow::Borrowed(bytes)),
            Some([0, b'a', b's', b'm', ..]) => {
                return Err(Problem::Malformed("unknown format version".to_owned()));
            }
            _ => return Err(Problem::NotWasm),
        };
        let (imports, exports) = borders(&component)?;
        for import in &imports {
            check_import(import)?;
        }
        let mut contract = None;
        for export in &exports {
            if let Some(version) = version_of(export, POLICY) {
                contract = Some(served(export, version)?.to_owned());
            }
        }
        Ok(Shape {
            format,
            contract: contract.ok_or(Problem::NotAPolicy)?,
            imports,
            component,
        })
    }
}

fn check_core(bytes: &[u8]) -> Result<(), Problem> {
    let mut contract = false;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(malformed)? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.map_err(malformed)?;
                    if !import.module.starts_with(TYPES) {
                        return Err(Problem::ForbiddenImport(format!(
                            "{}#{}",
                            import.module, import.name
                        )));
                    }
                    check_import(import.module)?;
                }
            }
            Payload::CustomSection(section) => {
                contract |= section.name().starts_with("component-type");
            }
            _ => {}
        }
    }
    if contract {
        Ok(())
    } else {
        Err(Problem::NoContract)
    }
}

fn componentize(bytes: &[u8]) -> Result<Vec<u8>, Problem> {
    ComponentEncoder::default()
        .module(bytes)
        .and_then(|encoder| encoder.validate(true).encode())
        .map_err(|error| Problem::Componentize(format!("{error:#}")))
}

/// Names of what the outermost component imports and exports.
fn borders(component: &[u8]) -> Result<(Vec<String>, Vec<String>), Problem> {
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(malformed)? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(import.map_err(malformed)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export.map_err(malformed)?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok((imports, exports))
}

fn check_import(name: &str) -> Result<(), Problem> {
    match version_of(name, TYPES) {
        Some(version) => served(name, version).map(|_| ()),
        None => Err(Problem::ForbiddenImport(name.to_owned())),
    }
}

fn version_of<'a>(name: &'a str, interface: &str) -> Option<&'a str> {
    name.strip_prefix(interface)?.strip_prefix('@')
}

/// Every 0.1.x links with the 0.1 that is served, as long as it uses nothing newer.
fn served<'a>(name: &str, version: &'a str) -> Result<&'a str, Problem> {
    let line = VERSION.rsplit_once('.').map_or(VERSION, |(line, _)| line);
    match version.strip_prefix(line) {
        Some(patch) if patch.starts_with('.') => Ok(version),
        _ => Err(Problem::ContractVersion {
            found: name.to_owned(),
            served: VERSION,
        }),
    }
}

fn malformed(error: wasmparser::BinaryReaderError) -> Problem {
    Problem::Malformed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patch_versions_are_served_and_others_are_not() {
        assert!(check_import("chaperone:policy/types@0.1.0").is_ok());
        assert!(check_import("chaperone:policy/types@0.1.7").is_ok());
        for wrong in ["0.2.0", "0.10.0", "1.0.0", "0.1"] {
            assert!(matches!(
                check_import(&format!("chaperone:policy/types@{wrong}")),
                Err(Problem::ContractVersion { .. })
            ));
        }
        assert!(matches!(
            check_import("wasi:clocks/wall-clock@0.2.0"),
            Err(Problem::ForbiddenImport(name)) if name.contains("wall-clock")
        ));
        assert!(matches!(
            check_import("chaperone:policy/types"),
            Err(Problem::ForbiddenImport(_))
        ));
    }

    #[test]
    fn rubbish_is_not_wasm() {
        for bytes in [&b""[..], b"MZ", b"\0asm", b"#!/bin/sh\necho"] {
            assert!(matches!(Shape::of(bytes), Err(Problem::NotWasm)));
        }
    }
}
