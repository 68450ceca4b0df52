//! Who we are to a registry: from variables, the configuration, or what docker's own login wrote.
//!
//! Looked for in that order, and the first that says anything decides. Helpers that docker's file may name are
//! programs, and none is started.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::{Zeroize, Zeroizing};

use crate::refusal::{Refusal, cut};
use crate::settings::Settings;

/// The variable with the user's name.
pub const USERNAME_VARIABLE: &str = "NINETEEN_OCI_USERNAME";
/// The variable with the password or access token.
pub const PASSWORD_VARIABLE: &str = "NINETEEN_OCI_PASSWORD";

/// The most bytes of a file with secrets.
const MOST: u64 = 1 << 20;

/// A name and a password. Neither is printed by `Debug`, and the password is wiped from memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    username: String,
    password: Zeroizing<String>,
    from: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials(from {})", self.from)
    }
}

impl Credentials {
    /// Credentials that somebody has.
    ///
    /// # Errors
    /// [`Refusal::Credentials`] if the name is empty or has a colon, or one of them has control characters.
    pub fn new(
        username: impl Into<String>,
        password: impl Into<String>,
        from: &str,
    ) -> Result<Self, Refusal> {
        let (username, password) = (username.into(), Zeroizing::new(password.into()));
        let refuse = |why: &str| Refusal::Credentials { source_name: from.to_owned(), why: why.to_owned() };
        if username.is_empty() || username.contains(':') {
            return Err(refuse("a user's name is not empty and has no colon"));
        }
        if username.chars().chain(password.chars()).any(char::is_control) {
            return Err(refuse(
                "a name or password has a control character: is there a line break too many?",
            ));
        }
        Ok(Self { username, password, from: from.to_owned() })
    }

    /// Where they came from, for messages.
    #[must_use]
    pub fn from(&self) -> &str {
        &self.from
    }

    pub(crate) fn username(&self) -> &str {
        &self.username
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// Looks for credentials for a registry on this machine; `None` is nobody in particular.
    ///
    /// # Errors
    /// [`Refusal::Credentials`] where something was given that cannot be used: going on as nobody would hide it.
    pub fn find(settings: &Settings, registry: &str) -> Result<Option<Self>, Refusal> {
        Self::find_with(settings, registry, &|name| std::env::var_os(name))
    }

    /// As [`Credentials::find`], with a function that reads the environment.
    ///
    /// # Errors
    /// As [`Credentials::find`].
    pub fn find_with(
        settings: &Settings,
        registry: &str,
        variable: &dyn Fn(&str) -> Option<std::ffi::OsString>,
    ) -> Result<Option<Self>, Refusal> {
        let read = |name: &str| -> Result<Option<String>, Refusal> {
            match variable(name).filter(|value| !value.is_empty()).map(std::ffi::OsString::into_string) {
                None => Ok(None),
                Some(Ok(value)) => Ok(Some(value)),
                Some(Err(_)) => {
                    Err(Refusal::Credentials { source_name: name.to_owned(), why: "it is no UTF-8".into() })
                }
            }
        };
        let (name, password) = (read(USERNAME_VARIABLE)?, read(PASSWORD_VARIABLE)?);
        let name = name.or_else(|| settings.username.clone());
        match (name, password, &settings.password_file) {
            (Some(name), Some(password), _) => {
                return Self::new(name, password, USERNAME_VARIABLE).map(Some);
            }
            (Some(name), None, Some(file)) => {
                let password = read_secret(file)?;
                let trimmed = password.trim_end_matches(['\r', '\n']).to_owned();
                return Self::new(name, trimmed, "oci.password_file").map(Some);
            }
            (Some(_), None, None) => {
                return Err(Refusal::Credentials {
                    source_name: PASSWORD_VARIABLE.into(),
                    why: "there is a user's name and no password: set it, or oci.password_file".into(),
                });
            }
            (None, Some(_), _) | (None, None, Some(_)) => {
                return Err(Refusal::Credentials {
                    source_name: USERNAME_VARIABLE.into(),
                    why: "there is a password and no user's name: set it, or oci.username".into(),
                });
            }
            (None, None, None) => {}
        }
        let folder =
            variable("DOCKER_CONFIG").filter(|value| !value.is_empty()).map(PathBuf::from).or_else(|| {
                Some(PathBuf::from(variable("HOME").filter(|home| !home.is_empty())?).join(".docker"))
            });
        match folder.map(|folder| folder.join("config.json")).filter(|file| file.is_file()) {
            Some(file) => from_docker(&file, registry),
            None => Ok(None),
        }
    }
}

/// Reads a file that only its owner may read.
fn read_secret(file: &Path) -> Result<Zeroizing<String>, Refusal> {
    let refuse = |why: String| Refusal::Credentials { source_name: file.display().to_string(), why };
    let meta = std::fs::metadata(file).map_err(|e| refuse(format!("cannot be read: {e}")))?;
    if meta.len() > MOST {
        return Err(refuse(format!("{} bytes are no password", meta.len())));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        if meta.permissions().mode() & 0o077 != 0 {
            return Err(refuse("others may read it: chmod 600 it".into()));
        }
    }
    std::fs::read_to_string(file).map(Zeroizing::new).map_err(|e| refuse(format!("cannot be read: {e}")))
}

/// What `docker login` and its like write. Unknown keys are theirs.
#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: std::collections::BTreeMap<String, DockerAuth>,
}

#[derive(Deserialize)]
struct DockerAuth {
    #[serde(default)]
    auth: String,
}

impl Drop for DockerAuth {
    fn drop(&mut self) {
        self.auth.zeroize();
    }
}

fn from_docker(file: &Path, registry: &str) -> Result<Option<Credentials>, Refusal> {
    let source_name = file.display().to_string();
    let refuse = |why: String| Refusal::Credentials { source_name: source_name.clone(), why };
    let length = std::fs::metadata(file).map_err(|e| refuse(format!("cannot be read: {e}")))?.len();
    if length > MOST {
        return Err(refuse(format!("{length} bytes are no config.json")));
    }
    let text = std::fs::read_to_string(file)
        .map(Zeroizing::new)
        .map_err(|e| refuse(format!("cannot be read: {e}")))?;
    // serde's words could quote the file: its place is enough.
    let config: DockerConfig = serde_json::from_str(&text)
        .map_err(|e| refuse(format!("line {}: is no JSON of docker's", e.line())))?;
    let written = [registry.to_owned(), format!("https://{registry}"), format!("https://{registry}/v1/")];
    let Some(entry) =
        written.iter().find_map(|key| config.auths.get(key)).filter(|entry| !entry.auth.is_empty())
    else {
        return Ok(None);
    };
    let decoded = STANDARD
        .decode(entry.auth.trim_end())
        .map(Zeroizing::new)
        .map_err(|_| refuse(format!("auths.{}.auth: is no base64", cut(registry, 80))))?;
    let text = std::str::from_utf8(&decoded).ok().and_then(|text| text.split_once(':'));
    let (name, password) =
        text.ok_or_else(|| refuse(format!("auths.{}.auth: is not name:password", cut(registry, 80))))?;
    Credentials::new(name, password, &source_name).map(Some)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::ffi::OsString;

    use super::*;

    fn find(settings: &Settings, variables: &[(&str, &str)]) -> Result<Option<(String, String)>, String> {
        let set: HashMap<&str, OsString> = variables.iter().map(|(k, v)| (*k, (*v).into())).collect();
        Credentials::find_with(settings, "r.example:5000", &|name| set.get(name).cloned())
            .map(|found| found.map(|c| (c.username().to_owned(), c.password().to_owned())))
            .map_err(|e| e.to_string())
    }

    fn owned(file: &Path, text: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(file, text).unwrap();
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    #[test]
    fn variables_come_before_the_configuration_and_that_before_docker() {
        let folder = tempfile::tempdir().unwrap();
        let docker = folder.path().to_str().unwrap();
        let auth = STANDARD.encode("d:from-docker");
        std::fs::write(
            folder.path().join("config.json"),
            format!(r#"{{"auths":{{"r.example:5000":{{"auth":"{auth}"}}}},"credsStore":"x"}}"#),
        )
        .unwrap();
        let file = folder.path().join("password");
        owned(&file, "from-file\n");
        let settings =
            Settings { username: Some("c".into()), password_file: Some(file), ..Settings::default() };
        let both =
            [(USERNAME_VARIABLE, "v"), (PASSWORD_VARIABLE, "from-variable"), ("DOCKER_CONFIG", docker)];
        let pair = |a: &str, b: &str| Ok(Some((a.to_owned(), b.to_owned())));
        assert_eq!(find(&settings, &both), pair("v", "from-variable"));
        assert_eq!(find(&settings, &both[2..]), pair("c", "from-file"));
        assert_eq!(find(&Settings::default(), &both[2..]), pair("d", "from-docker"));
        assert_eq!(find(&Settings::default(), &[]), Ok(None));
    }

    #[test]
    fn half_of_them_is_said_and_not_passed_over() {
        let said = find(&Settings::default(), &[(USERNAME_VARIABLE, "u")]).unwrap_err();
        assert!(said.contains(PASSWORD_VARIABLE), "{said}");
        let said = find(&Settings::default(), &[(PASSWORD_VARIABLE, "hunter2")]).unwrap_err();
        assert!(said.contains(USERNAME_VARIABLE) && !said.contains("hunter2"), "{said}");
    }

    #[test]
    fn a_password_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "hunter2").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let settings =
            Settings { username: Some("u".into()), password_file: Some(file), ..Settings::default() };
        let said = find(&settings, &[]).unwrap_err();
        assert!(said.contains("chmod 600") && !said.contains("hunter2"), "{said}");
    }

    #[test]
    fn broken_files_of_docker_are_named_and_never_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let docker = [("DOCKER_CONFIG", folder.path().to_str().unwrap())];
        let secret = STANDARD.encode("no colon, hunter2");
        for text in [
            "hunter2".to_owned(),
            r#"{"auths":{"r.example:5000":{"auth":"hunter2!"}}}"#.to_owned(),
            format!(r#"{{"auths":{{"r.example:5000":{{"auth":"{secret}"}}}}}}"#),
        ] {
            std::fs::write(folder.path().join("config.json"), &text).unwrap();
            let said = find(&Settings::default(), &docker).unwrap_err();
            assert!(said.contains("config.json") && !said.contains("hunter2"), "{text}: {said}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let c = Credentials::new("somebody", "hunter2", USERNAME_VARIABLE).unwrap();
        let shown = format!("{c:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("somebody"), "{shown}");
        assert!(Credentials::new("a:b", "x", "t").is_err() && Credentials::new("a", "x\ny", "t").is_err());
    }
}
