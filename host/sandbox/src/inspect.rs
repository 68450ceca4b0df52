//! What a file says of itself, before anything is compiled: kind, imports, exports.

use wasmparser::{Encoding, Parser, Payload};

use crate::error::LoadFault;

/// Names at the outermost level of a component.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outline {
    pub(crate) imports: Vec<String>,
    pub(crate) exports: Vec<String>,
}

/// Reads a component's outline; the whole file is parsed, so that a cut one shows here.
pub(crate) fn outline(bytes: &[u8]) -> Result<Outline, LoadFault> {
    if !bytes.starts_with(b"\0asm") {
        return Err(LoadFault::NotWasm);
    }
    let damaged = |e: wasmparser::BinaryReaderError| LoadFault::Malformed(e.to_string());
    let mut outline = Outline::default();
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(damaged)? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                return Err(LoadFault::CoreModule);
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    outline.imports.push(import.map_err(damaged)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    outline.exports.push(export.map_err(damaged)?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(outline)
}

/// Splits `package/interface@version`.
pub(crate) fn split(name: &str) -> Option<(&str, &str, semver::Version)> {
    let (path, version) = name.split_once('@')?;
    let (package, interface) = path.split_once('/')?;
    Some((package, interface, version.parse().ok()?))
}
