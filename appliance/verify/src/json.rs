//! The report for programs. Names and values stay as they are; new ones may join.

use crate::text::{content_text, describe, is_harmful, place};
use crate::{Checked, Error, Options};
use serde_json::{Map, Value, json};
use zixt_ledger::evidence::{EntryReport, Report, Signer, Verdict};
use zixt_types::{Author, BodyKind, CustodyMode};

/// The report. Times are milliseconds since 1970 in UTC.
#[must_use]
pub fn report(checked: &Checked, options: Options) -> String {
    print(&match checked {
        Checked::Evidence(report) => evidence(report, options),
        Checked::Fork(Ok(fork)) => json!({
            "kind": "fork",
            "ok": true,
            "network": fork.network,
            "lab": fork.lab,
            "height": fork.height.0,
            "first": fork.first.to_hex(),
            "second": fork.second.to_hex(),
            "signed_both": fork.signed_both.iter().map(|id| id.to_hex()).collect::<Vec<_>>(),
        }),
        Checked::Fork(Err(error)) => json!({ "kind": "fork", "ok": false, "error": describe(error) }),
    })
}

/// What stands in the report's place when there is none.
#[must_use]
pub fn error(error: &Error) -> String {
    print(&json!({ "kind": "error", "ok": false, "exit": error.exit() as u8, "error": error.to_string() }))
}

fn evidence(report: &Report, options: Options) -> Value {
    let verdicts: Map<String, Value> = report
        .verdicts()
        .iter()
        .map(|(name, verdict)| ((*name).to_owned(), self::verdict(verdict)))
        .collect();
    json!({
        "kind": "evidence",
        "ok": report.is_ok(),
        "network": report.network,
        "genesis": report.genesis.to_hex(),
        "lab": report.lab,
        "height": report.height.0,
        "header": report.header.to_hex(),
        "header_time": report.header_time.0,
        "suite": report.suite.name(),
        "round": report.round.0,
        "stake": report.stake.map(|stake| json!({ "signed": stake.signed, "total": stake.total })),
        "signers": report.signers.iter().map(signer).collect::<Vec<_>>(),
        "thread": report.thread.to_hex(),
        "entries": report.entries.iter().map(|entry| self::entry(entry, options)).collect::<Vec<_>>(),
        "verdicts": verdicts,
    })
}

/// A signer whose key the genesis names has no `activated`.
fn signer(signer: &Signer) -> Value {
    let mut value = json!({
        "appliance": signer.appliance.to_hex(),
        "stake": signer.stake,
        "custody": custody(signer.custody),
    });
    if let (Some(activated), Some(map)) = (&signer.activated, value.as_object_mut()) {
        let activated = json!({ "time": activated.time.0, "officers": activated.officers });
        map.insert("activated".to_owned(), activated);
    }
    value
}

fn verdict(verdict: &Verdict) -> Value {
    let findings: Vec<Value> = verdict
        .findings()
        .iter()
        .map(|finding| {
            json!({
                "place": place(&finding.place),
                "code": finding.fault.code(),
                "text": finding.fault.to_string(),
            })
        })
        .collect();
    let word = match verdict {
        Verdict::Ok => "ok",
        Verdict::Failed(_) => "failed",
        Verdict::NotIncluded => "not-included",
    };
    json!({ "verdict": word, "findings": findings })
}

fn entry(entry: &EntryReport, options: Options) -> Value {
    let member = match entry.author {
        Some(Author::Device(member)) => Some(member),
        _ => None,
    };
    let content = entry.content.as_ref().filter(|_| options.content);
    json!({
        "seq": entry.seq.0,
        "hash": entry.hash.to_hex(),
        "kind": entry.kind.map(BodyKind::name),
        "account": member.map(|member| member.account.to_hex()),
        "device": member.map(|member| member.device.to_hex()),
        "name": entry.name,
        "sent_at": entry.sent_at.map(|time| time.0),
        "ledger_time": entry.ledger_time.0,
        "has_envelope": entry.has_envelope,
        "has_content": entry.content.is_some(),
        "content": content.map(|content| content_text(content)),
    })
}

const fn custody(mode: CustodyMode) -> &'static str {
    match mode {
        CustodyMode::Token => "token",
        CustodyMode::WrappedByToken => "wrapped-by-token",
        CustodyMode::SealedByTpm => "sealed-by-tpm",
        CustodyMode::Software => "software",
    }
}

/// Prints a value over several lines. Characters that could do harm on a terminal can stand in strings only, where
/// an escape means the same.
fn print(value: &Value) -> String {
    let mut out = String::new();
    for c in format!("{value:#}").chars() {
        if is_harmful(c) && c != '\n' {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_harmless_and_mean_the_same() {
        let value = json!({ "text": "a\x1b[2J\n\u{9b}\u{202e}\u{e0001}ü" });
        let printed = print(&value);
        assert!(printed.chars().all(|c| !is_harmful(c) || c == '\n'), "{printed:?}");
        assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), value);
    }
}
