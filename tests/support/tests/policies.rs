//! Policy modules come out of their sources.

use chaperone_test_support::policies;

#[test]
fn an_example_builds_to_wasm() {
    let module = policies::example("allow-all").unwrap();
    let bytes = std::fs::read(module).unwrap();
    assert!(bytes.starts_with(b"\0asm"));
    // The contract's type travels in a custom section of the core module.
    assert!(bytes.windows(14).any(|window| window == b"component-type"));
}

#[test]
fn a_broken_policy_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("broken");
    std::fs::create_dir_all(home.join("src")).unwrap();
    let manifest = "[package]\nname = 'broken'\nversion = '0.1.0'\nedition = '2024'\n\
        [lib]\ncrate-type = ['cdylib']\n[workspace]\n";
    std::fs::write(home.join("Cargo.toml"), manifest).unwrap();
    std::fs::write(home.join("src/lib.rs"), "pub fn f() -> u8 { \"text\" }").unwrap();
    let error = policies::build(&home).unwrap_err().to_string();
    assert!(error.contains("mismatched types"), "{error}");
}
