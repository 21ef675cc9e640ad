//! What the commands print.

use zixt_hsm_protocol::{Finding, KeyStatus, ProtectorInfo, Status};
use zixt_types::UnlockMode;

const fn unlock_name(mode: UnlockMode) -> &'static str {
    match mode {
        UnlockMode::Attended => "attended",
        UnlockMode::Unattended => "unattended",
    }
}

/// What a thief gets who takes the switched-off appliance and its token, in the words for officers.
const fn unlock_text(mode: UnlockMode) -> &'static str {
    match mode {
        UnlockMode::Attended => "attended: after a power-on it signs only when a person has entered the PIN",
        UnlockMode::Unattended => {
            "unattended: whoever takes the box with its devices and switches it on has an appliance that signs"
        }
    }
}

fn protector_text(protector: &ProtectorInfo) -> String {
    let device = match &protector.token {
        Some(token) => {
            let software = if token.software { ", SOFTWARE: no hardware protects its keys" } else { "" };
            format!("serial {}, {}{software}", token.serial, token.model)
        }
        None => protector.problem.clone(),
    };
    let role = match (protector.enrolled, protector.open) {
        (true, true) => "wraps the root, open",
        (true, false) => "wraps the root",
        (false, _) => "not used",
    };
    let anchor = match (protector.anchored, protector.anchored_closed) {
        (true, true) => ", notices rollback",
        (true, false) => ", notices rollback while it is open",
        (false, _) => "",
    };
    format!("{:<9} {} ({role}{anchor}; {device})", protector.name, protector.kind.name())
}

pub(crate) fn as_text(status: &Status) -> String {
    let mut lines = vec![format!("state      {}", status.state)];
    if !status.reason.is_empty() {
        lines.push(format!("reason     {}", status.reason));
    }
    if !status.advice.is_empty() {
        lines.push(format!("to do      {}", status.advice));
    }
    if let Some(genesis) = status.genesis {
        lines.push(format!("genesis    {genesis}"));
    }
    if status.lab == Some(true) {
        lines.push("lab        yes: these keys are not for production".to_owned());
    }
    lines.push(format!("unlock     {}", unlock_text(status.unlock)));
    for protector in &status.protectors {
        lines.push(format!("protector  {}", protector_text(protector)));
    }
    if let Some((needed, of)) = status.recovery {
        lines.push(format!("recovery   {needed} of {of} officers can recover the root"));
    }
    if status.keys.is_empty() {
        return lines.join("\n") + "\n";
    }
    lines.push(format!("decisions  {} taken", status.sequence));
    if let Some(vote) = status.last_vote {
        lines.push(format!("last vote  {vote}"));
    }
    if let Some(precommit) = status.last_precommit {
        lines.push(format!("precommit  {precommit}"));
    }
    for key in status.keys.iter().filter(|key| key.status != KeyStatus::Retired) {
        let pending = if key.status == KeyStatus::Pending { "PENDING, " } else { "" };
        let what = format!("{pending}{}, {}", key.suite, key.custody.describe());
        lines.push(format!("key        {:<9} {} ({what})", key.purpose.name(), key.hash));
    }
    lines.push(String::new());
    lines.join("\n")
}

pub(crate) fn as_json(status: &Status) -> serde_json::Value {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let keys = status.keys.iter().map(|key| {
        serde_json::json!({
            "purpose": key.purpose.name(),
            "hash": key.hash.to_hex(),
            "suite": key.suite.name(),
            "public_key": hex(&key.public_key),
            "custody": key.custody.describe(),
            "version": key.version,
            "status": key.status.name(),
        })
    });
    serde_json::json!({
        "state": status.state.name(),
        "reason": status.reason,
        "advice": status.advice,
        "genesis": status.genesis.map(|genesis| genesis.to_hex()),
        "lab": status.lab,
        "unlock": unlock_name(status.unlock),
        "last_vote": status.last_vote.map(|vote| serde_json::json!({
            "height": vote.height.0,
            "round": vote.round.0,
            "step": format!("{:?}", vote.step).to_lowercase(),
        })),
        "last_precommit": status.last_precommit.map(|precommit| serde_json::json!({
            "height": precommit.height.0,
            "round": precommit.round.0,
            "header": precommit.header.to_hex(),
        })),
        "protectors": status.protectors.iter().map(|protector| serde_json::json!({
            "name": protector.name,
            "kind": protector.kind.name(),
            "id": protector.id.map(|id| id.to_hex()),
            "enrolled": protector.enrolled,
            "configured": protector.configured,
            "open": protector.open,
            "anchored": protector.anchored,
            "anchored_closed": protector.anchored_closed,
            "problem": protector.problem,
            "device": protector.token.as_ref().map(|token| serde_json::json!({
                "label": token.label,
                "serial": token.serial,
                "model": token.model,
                "software": token.software,
            })),
        })).collect::<Vec<_>>(),
        "sequence": status.sequence,
        "appliance": status.appliance.map(|appliance| appliance.to_hex()),
        "recovery": status.recovery.map(|(needed, of)| serde_json::json!({ "needed": needed, "of": of })),
        "keys": keys.collect::<Vec<_>>(),
    })
}

/// Every key, retired ones too.
pub(crate) fn keys(status: &Status) -> String {
    let mut lines = vec![format!("{:<10} {:>3}  {:<8} {:<8} hash", "purpose", "no.", "status", "suite")];
    for key in &status.keys {
        lines.push(format!(
            "{:<10} {:>3}  {:<8} {:<8} {}  {}",
            key.purpose.name(),
            key.version,
            key.status.name(),
            key.suite.name(),
            key.hash,
            key.custody.describe()
        ));
    }
    lines.join("\n") + "\n"
}

/// What `doctor` and `self-test` found.
pub(crate) fn findings(findings: &[Finding]) -> String {
    let mut lines = Vec::new();
    for finding in findings {
        let mark = if finding.good { "ok " } else { "BAD" };
        lines.push(format!("{mark}  {:<20} {}", finding.what, finding.found));
        if !finding.advice.is_empty() {
            lines.push(format!("     {:<20} -> {}", "", finding.advice));
        }
    }
    lines.join("\n") + "\n"
}

pub(crate) fn findings_json(findings: &[Finding]) -> serde_json::Value {
    let rows = findings.iter().map(|finding| {
        serde_json::json!({
            "what": finding.what,
            "good": finding.good,
            "found": finding.found,
            "advice": finding.advice,
        })
    });
    serde_json::Value::Array(rows.collect())
}
