//! Modules written by hand at the level of the canonical ABI, so that they can do what no
//! toolchain would.

use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A guest whose parts can be replaced. It allows everything as it is; `evaluate` is run only for
/// operations with bind values, so that the self-test passes.
pub struct Guest {
    pub name: &'static str,
    pub abilities: u32,
    pub schema: &'static str,
    pub protocols: bool,
    /// Body of `describe`, before the manifest is returned.
    pub describe: &'static str,
    /// Body of `configure`; leaves the result's address.
    pub configure: &'static str,
    /// Body of `evaluate`, before "allow" is returned from address 512.
    pub evaluate: &'static str,
    /// As `evaluate`, but for the self-test's empty operation too.
    pub always: &'static str,
    /// Body of `rewrite`; leaves the result's address.
    pub rewrite: &'static str,
    /// Imports beside those of the contract; only a component can have them.
    pub imports: &'static str,
    /// WIT of what `imports` are, with a world `extra`.
    pub imports_wit: &'static str,
    pub extra: &'static str,
    pub wit: (&'static str, &'static str),
}

impl Default for Guest {
    fn default() -> Self {
        Guest {
            name: "guest",
            abilities: 7,
            schema: "{}",
            protocols: false,
            describe: "",
            configure: "(i32.const 448)",
            evaluate: "",
            always: "",
            rewrite: "unreachable",
            imports: "",
            imports_wit: "",
            extra: "",
            wit: ("@0.1.0", "@0.1.0"),
        }
    }
}

fn words(words: &[usize]) -> String {
    words
        .iter()
        .flat_map(|word| u32::try_from(*word).unwrap().to_le_bytes())
        .map(|byte| format!("\\{byte:02x}"))
        .collect()
}

fn text(text: &str) -> String {
    text.bytes().map(|byte| format!("\\{byte:02x}")).collect()
}

impl Guest {
    pub fn module(&self) -> Vec<u8> {
        let protocols = if self.protocols { (380, 1) } else { (0, 0) };
        let manifest = words(&[
            1024,
            self.name.len(),
            1100,
            5,
            1100,
            5,
            protocols.0,
            protocols.1,
            self.abilities as usize,
            2048,
            self.schema.len(),
        ]);
        let wat = format!(
            r#"(module
  (import "chaperone:policy/types@0.1.0" "[resource-drop]session" (func $drop-session (param i32)))
  (import "chaperone:policy/types@0.1.0" "[resource-drop]operation" (func $drop-operation (param i32)))
  (import "chaperone:policy/types@0.1.0" "[method]operation.parameter-count" (func $count (param i32) (result i32)))
  {imports}
  (memory (export "memory") 2)
  (global $next (mut i32) (i32.const 65536))
  (data (i32.const 256) "{manifest}")
  (data (i32.const 380) "{protocol}")
  (data (i32.const 400) "http")
  (data (i32.const 1024) "{name}")
  (data (i32.const 1100) "1.0.0")
  (data (i32.const 2048) "{schema}")
  (data (i32.const 520) "\01")
  {extra}
  (func $realloc (export "cabi_realloc") (param i32 i32 i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
    (global.set $next (i32.add (local.get $at) (local.get $size)))
    (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
      (then (if (i32.eq (i32.const -1) (memory.grow (i32.add (i32.const 1)
          (i32.shr_u (i32.sub (global.get $next) (i32.mul (memory.size) (i32.const 65536))) (i32.const 16)))))
        (then unreachable))))
    (local.get $at))
  (func (export "chaperone:policy/policy@0.1.0#describe") (result i32)
    {describe}
    (i32.const 256))
  (func (export "chaperone:policy/policy@0.1.0#configure") (param $settings i32) (param $length i32) (result i32)
    {configure})
  (func (export "chaperone:policy/policy@0.1.0#evaluate") (param $session i32) (param $operation i32) (result i32)
    (local $i i32)
    {always}
    (if (call $count (local.get $operation)) (then {evaluate}))
    (call $drop-session (local.get $session))
    (call $drop-operation (local.get $operation))
    (i32.const 512))
  (func (export "chaperone:policy/policy@0.1.0#rewrite") (param $rows i32) (param $columns i32) (param $length i32) (result i32)
    {rewrite}))"#,
            protocol = words(&[400, 4]),
            name = text(self.name),
            schema = text(self.schema),
            imports = self.imports,
            extra = self.extra,
            describe = self.describe,
            configure = self.configure,
            always = self.always,
            evaluate = self.evaluate,
            rewrite = self.rewrite,
        )
        .replace(self.wit.0, self.wit.1);
        let mut bytes = wat::parse_str(wat).unwrap();
        let wit = include_str!("../../../../wit/v0.1.0/policy.wit").replace(self.wit.0, self.wit.1);
        let mut resolve = Resolve::default();
        let package = resolve.push_str("policy.wit", &wit).unwrap();
        let world = resolve
            .select_world(&[package], Some("policy-module"))
            .unwrap();
        embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8).unwrap();
        if !self.imports_wit.is_empty() {
            let mut resolve = Resolve::default();
            let package = resolve.push_str("extra.wit", self.imports_wit).unwrap();
            let world = resolve.select_world(&[package], Some("extra")).unwrap();
            embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8).unwrap();
        }
        bytes
    }
}
