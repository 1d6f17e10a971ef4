//! What a file is, before anything is compiled: component or core module, its imports, its
//! contract version.

use std::borrow::Cow;

use wasm_encoder::{Module, RawSection};
use wasmparser::{ExternalKind, Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::bindings::VERSION;
use crate::error::Problem;
use crate::wasi::has_stand_in;

/// The import that every module has.
pub(crate) const TYPES: &str = "chaperone:policy/types";
/// The export that makes a component a policy.
const POLICY: &str = "chaperone:policy/policy";

/// What the contract's world is called in [`WIT`].
const WORLD: &str = "policy-module";
/// The contract itself.
const WIT: &str = include_str!("../../../wit/v0.1.0/policy.wit");
/// Custom sections in which a toolchain describes the types that a core module was built for.
const TYPE_SECTIONS: &str = "component-type";

/// How the file was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A component.
    Component,
    /// A core module whose imports and exports have the contract's names; made into a component at
    /// load.
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
                (Format::Core, Cow::Owned(componentize(bytes)?))
            }
            Some([0, b'a', b's', b'm', _, 0, 1, 0]) => (Format::Component, Cow::Borrowed(bytes)),
            Some([0, b'a', b's', b'm', ..]) => {
                return Err(Problem::Malformed("unknown format version".to_owned()));
            }
            _ => return Err(Problem::NotWasm),
        };
        let (imports, exports) = borders(&component)?;
        for import in imports.iter().filter(|import| !has_stand_in(import)) {
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

/// A core module as a component of the contract.
///
/// What the module says about its own types is thrown away and the host's copy of the contract put
/// in its place: a file cannot choose the types that it is called with, and the library that reads
/// such descriptions recurses as deep as they tell it to.
fn componentize(bytes: &[u8]) -> Result<Vec<u8>, Problem> {
    let version = core_version(bytes)?;
    let mut module = without_types(bytes)?;
    let contract = WIT.replace(&format!("@{VERSION}"), &format!("@{version}"));
    let unreadable = |error| Problem::Internal(format!("the contract: {error:#}"));
    let mut resolve = Resolve::default();
    let package = resolve
        .push_str("policy.wit", &contract)
        .map_err(|error| Problem::Internal(format!("the contract: {error}")))?;
    let world = resolve
        .select_world(&[package], Some(WORLD))
        .map_err(unreadable)?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
        .map_err(unreadable)?;
    ComponentEncoder::default()
        .module(&module)
        .and_then(|encoder| encoder.validate(true).encode())
        .map_err(|error| Problem::Componentize(format!("{error:#}")))
}

/// The contract version in the names that a core module imports and exports.
fn core_version(bytes: &[u8]) -> Result<String, Problem> {
    let mut version = None;
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
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.map_err(malformed)?;
                    let interface = export.name.split('#').next().unwrap_or_default();
                    if let (ExternalKind::Func, Some(found)) =
                        (export.kind, version_of(interface, POLICY))
                    {
                        version = Some(served(interface, found)?.to_owned());
                    }
                }
            }
            _ => {}
        }
    }
    version.ok_or(Problem::NotAPolicy)
}

/// The module without what it says about its types.
fn without_types(bytes: &[u8]) -> Result<Vec<u8>, Problem> {
    let mut module = Module::new();
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(malformed)?;
        if let Payload::CustomSection(section) = &payload
            && section.name().starts_with(TYPE_SECTIONS)
        {
            continue;
        }
        if let Some((id, range)) = payload.as_section() {
            let data = bytes
                .get(range)
                .ok_or_else(|| Problem::Malformed("a section ends outside the file".to_owned()))?;
            module.section(&RawSection { id, data });
        }
    }
    Ok(module.finish())
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
    let patch = version
        .strip_prefix(line)
        .and_then(|rest| rest.strip_prefix('.'));
    // No sign, no leading zero.
    let plain = |patch: &str| patch.parse::<u32>().is_ok_and(|n| n.to_string() == patch);
    match patch {
        Some(patch) if plain(patch) => Ok(version),
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
        for wrong in [
            "0.2.0", "0.10.0", "1.0.0", "0.1", "0.1.", "0.1.0\0", "0.1.0-x", "0.1.+1", "0.1.01",
        ] {
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
