//! Stand-ins for the WASI that toolchains drag into a component whether it is used or not.
//!
//! Nothing is behind them: no clock, no randomness, no files, no output. Calling one stops the
//! module, which denies the statement, so there is no value of WASI that a verdict could depend on.

use wasmtime::component::types::{ComponentInstance, ComponentItem};
use wasmtime::component::{Component, Linker, ResourceType};
use wasmtime::{Engine, Result, StoreContextMut, bail};

use crate::linker::State;

/// What the standard library of wasm32-wasip2 imports. Sockets and HTTP are not here: a policy that
/// wants the network is refused when it is loaded, not when it is first asked.
const PACKAGES: [&str; 5] = [
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:filesystem/",
    "wasi:io/",
    "wasi:random/",
];
/// The line of WASI that is wasip2.
const LINE: &str = "0.2.";

/// Every resource of WASI: one type is enough, since none of them can come into being.
struct Nothing;

/// A stand-in was called.
#[derive(Debug, thiserror::Error)]
#[error("it called `{0}`, and there is no WASI behind a policy")]
pub(crate) struct Called(String);

/// Whether an import of this name gets a stand-in.
pub(crate) fn has_stand_in(import: &str) -> bool {
    import.split_once('@').is_some_and(|(interface, version)| {
        version.starts_with(LINE)
            && PACKAGES
                .iter()
                .any(|package| interface.starts_with(package))
    })
}

/// The contract's linker with stand-ins for what this component imports of WASI.
pub(crate) fn with_stand_ins(
    engine: &Engine,
    contract: &Linker<State>,
    component: &Component,
) -> Result<Linker<State>> {
    let mut linker = contract.clone();
    for (name, item) in component.component_type().imports(engine) {
        if !has_stand_in(name) {
            continue;
        }
        match item.ty {
            ComponentItem::ComponentInstance(interface) => {
                stand_in(engine, &mut linker, name, &interface)?;
            }
            _ => bail!("`{name}` is not imported as an interface"),
        }
    }
    Ok(linker)
}

fn stand_in(
    engine: &Engine,
    linker: &mut Linker<State>,
    interface: &str,
    wanted: &ComponentInstance,
) -> Result<()> {
    let mut place = linker.instance(interface)?;
    for (name, item) in wanted.exports(engine) {
        match item.ty {
            ComponentItem::ComponentFunc(_) => {
                let called = format!("{interface}#{name}");
                place.func_new(name, move |_, _, _, _| Err(Called(called.clone()).into()))?;
            }
            ComponentItem::Resource(_) => {
                place.resource(
                    name,
                    ResourceType::host::<Nothing>(),
                    |_: StoreContextMut<'_, State>, _| Ok(()),
                )?;
            }
            ComponentItem::Type(_) => {}
            _ => bail!("`{interface}` has `{name}`, which is neither a function nor a type"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_toolchains_drag_in_has_a_stand_in() {
        for import in ["wasi:clocks/wall-clock@0.2.0", "wasi:io/streams@0.2.6"] {
            assert!(has_stand_in(import), "{import}");
        }
        for import in [
            "wasi:sockets/tcp@0.2.0",
            "wasi:http/types@0.2.0",
            "wasi:clocks/wall-clock",
            "wasi:clocks/system-clock@0.3.0",
            "wasi_snapshot_preview1",
            "evil:wasi:io/streams@0.2.0",
            "wasi:io/streams@0.3.0@0.2.0",
        ] {
            assert!(!has_stand_in(import), "{import}");
        }
    }
}
