//! A policy that fails as it is told: by the word behind `whim_` in the statement's text.

use policy_sdk::prelude::*;

struct Whims;

impl Policy for Whims {
    type Settings = NoSettings;

    fn manifest() -> Manifest {
        let abilities = Abilities::DECIDES | Abilities::MASKS | Abilities::REWRITES;
        policy_sdk::manifest!().abilities(abilities)
    }

    fn configure(_: NoSettings) -> Result<Self, String> {
        Ok(Whims)
    }

    fn evaluate(&self, _: &Session, operation: &Operation) -> Result<Decision, Reason> {
        let text = operation.text();
        let whim = text.split("whim_").nth(1).unwrap_or_default();
        let whim: String = whim.chars().take_while(char::is_ascii_lowercase).collect();
        let masked = |transform: Transform| {
            let outputs = (0u32..).zip(operation.outputs());
            outputs.fold(Decision::allow(), |decision, (output, _)| {
                decision.mask(output, transform.clone())
            })
        };
        Ok(match whim.as_str() {
            "trap" => panic!("as told"),
            "loop" => loop {
                core::hint::black_box(0);
            },
            "hog" => {
                let mut held = Vec::new();
                loop {
                    held.push(core::hint::black_box(vec![1u8; 1 << 16]));
                }
            }
            "deep" => masked(Transform::Fixed(deep(0).to_string())),
            "deny" => return Err(deny("as-told", "Denied, as told.")),
            "hold" => return Ok(require_approval("as-told", "Held, as told.").into()),
            "abstain" => Decision::abstain(),
            "rows" => masked(Transform::Reveal).limit_rows(3),
            "bytes" => masked(Transform::Reveal).limit_bytes(10),
            "time" => masked(Transform::Reveal).timeout_ms(300),
            "fixed" => masked(Transform::Fixed("fixed".to_owned())),
            "few" | "fail" | "fall" | "bend" => masked(Transform::Custom(whim)),
            // Nothing is said about what is shown.
            "silent" => Decision::allow(),
            _ => masked(Transform::Reveal),
        })
    }

    fn rewrite(&self, rows: u32, mut columns: Vec<Column>) -> Result<Vec<Column>, String> {
        let tag = columns.first().map(|column| column.tag.clone());
        match tag.as_deref() {
            Some("few") => columns = Vec::new(),
            Some("fail") => return Err("as told".to_owned()),
            Some("fall") => panic!("as told"),
            _ => {}
        }
        columns
            .into_iter()
            .map(|column| {
                column.map_text(rows, |_, out| {
                    out.push_str("bent");
                    Ok(Cell::Written)
                })
            })
            .collect()
    }
}

#[allow(unconditional_recursion, reason = "it is there to use up the stack")]
fn deep(level: u64) -> u64 {
    core::hint::black_box(deep(level + 1)) + 1
}

policy_sdk::export_policy!(Whims);
