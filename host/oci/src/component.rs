//! What a component imports and exports, read off its sections without compiling or running anything.

use wasmparser::{Encoding, Parser, Payload};

/// Names of a component's own imports and exports, sorted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Surface {
    pub(crate) imports: Vec<String>,
    pub(crate) exports: Vec<String>,
}

/// More names than a task's component has.
const MOST_NAMES: usize = 1_000;

/// Reads the surface. The error is for an author.
pub(crate) fn surface(bytes: &[u8]) -> Result<Surface, String> {
    let mut found = Surface { imports: Vec::new(), exports: Vec::new() };
    // Components nest: only what stands at the top is the component's own.
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload
            .map_err(|e| format!("is no WebAssembly component: {}", crate::refusal::cut(e.message(), 160)))?
        {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                return Err("is a core module and no component: make one of it with wit-component".into());
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    found.imports.push(
                        import.map_err(|e| crate::refusal::cut(e.message(), 160))?.name.name.to_owned(),
                    );
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    found.exports.push(
                        export.map_err(|e| crate::refusal::cut(e.message(), 160))?.name.name.to_owned(),
                    );
                }
            }
            _ => {}
        }
        if found.imports.len() + found.exports.len() > MOST_NAMES {
            return Err(format!("has more than {MOST_NAMES} imports and exports"));
        }
    }
    found.imports.sort();
    found.exports.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_surface_is_that_of_the_outermost_component() {
        let bytes = wat::parse_str(
            r#"(component
                (import "nineteen:task/log@0.1.0" (instance))
                (component (import "inner:x/y" (instance)) (export "inner:z/w" (instance 0)))
                (core module (func (export "f")))
                (instance $i)
                (export "nineteen:task/task@0.1.0" (instance $i)))"#,
        )
        .unwrap();
        let found = surface(&bytes).unwrap();
        assert_eq!(found.imports, ["nineteen:task/log@0.1.0"]);
        assert_eq!(found.exports, ["nineteen:task/task@0.1.0"]);
    }

    #[test]
    fn modules_and_other_bytes_are_told_apart() {
        assert!(surface(&wat::parse_str("(module)").unwrap()).unwrap_err().contains("core module"));
        for bytes in [&b""[..], b"\0asm", b"MZ", &[0xff; 4096]] {
            assert!(surface(bytes).is_err());
        }
    }
}
