//! What an update of the image brings along: approvals, and register values.

use crate::{Failure, read};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;
use zixt_hsm::config::Config;
use zixt_hsm::protector::{APPROVAL_EXTENSION, read_approval};
use zixt_measured::{NONCE_BYTES, PcrValues, PolicyRef, nonce_from_hex, registers_from_text};
use zixt_types::Canonical as _;

/// Checks an approval as custody will, and puts it into the configured folder.
pub(crate) fn install_approval(config: &Config, path: &Path) -> Result<ExitCode, Failure> {
    let said = |why: String| format!("{}: {why}", path.display());
    let settings = config.tpm.as_ref().ok_or("there is no [tpm] in the configuration")?.settings()?;
    let (Some(key), Some(folder)) = (&settings.policy_key, &settings.approvals) else {
        return Err("approvals count only with `policy_key` and `approvals` under [tpm]".into());
    };
    let approval = read_approval(path).map_err(said)?;
    approval
        .verify(key, &PolicyRef::images(), settings.registers)
        .map_err(|error| said(error.to_string()))?;
    let name = path.file_name().filter(|_| path.extension().is_some_and(|end| end == APPROVAL_EXTENSION));
    let name = name.ok_or_else(|| said(format!("its name has to end with .{APPROVAL_EXTENSION}")))?;
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let installed = folder.join(name);
    // Under another name first: custody reads what ends like an approval, and never half of one.
    let fresh = installed.with_extension("new");
    let write = || {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o644).open(&fresh)?;
        file.write_all(&approval.to_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, &installed)?;
        std::fs::File::open(folder)?.sync_all()
    };
    write().map_err(|error| format!("{}: {error}", installed.display()))?;
    println!("installed {}", installed.display());
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn nonce(text: &str) -> Result<[u8; NONCE_BYTES], String> {
    nonce_from_hex(text).ok_or_else(|| format!("a nonce has {} hexadecimal digits", 2 * NONCE_BYTES))
}

/// Reads what registers will hold.
pub(crate) fn read_registers(path: &Path) -> Result<PcrValues, Failure> {
    let said = |why: String| format!("{}: {why}", path.display());
    let text = String::from_utf8(read(path)?).map_err(|_| said("it is no text".to_owned()))?;
    Ok(registers_from_text(&text).map_err(|error| said(error.to_string()))?)
}
