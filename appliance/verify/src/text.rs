//! The report for people. Nothing from the file reaches the terminal unescaped.

use crate::{Checked, Options};
use std::fmt::Write;
use zixt_ledger::evidence::{EntryReport, ForkError, ForkReport, Place, Report, SignerActivation, Verdict};
use zixt_types::{Author, BodyKind};

/// The report.
#[must_use]
pub fn report(checked: &Checked, options: Options) -> String {
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = match checked {
        Checked::Evidence(report) => evidence(&mut out, report, options),
        Checked::Fork(Ok(fork)) => proven_fork(&mut out, fork),
        Checked::Fork(Err(error)) => no_fork(&mut out, error),
    };
    out
}

fn evidence(out: &mut String, report: &Report, options: Options) -> std::fmt::Result {
    writeln!(out, "Evidence about conversation {}", report.thread)?;
    writeln!(out, "  network   {} (genesis {})", escape(&report.network), report.genesis)?;
    writeln!(
        out,
        "  under     header {} of height {}, ledger time {}",
        report.header,
        report.height,
        report.header_time.utc()
    )?;
    lab_warning(out, report.lab)?;
    writeln!(out)?;
    for entry in &report.entries {
        self::entry(out, entry, options)?;
    }
    writeln!(out)?;
    for (name, verdict) in report.verdicts() {
        self::verdict(out, report, name, verdict)?;
    }
    writeln!(out)?;
    if report.is_ok() {
        writeln!(out, "Result: everything that this file can prove is proven.")
    } else {
        writeln!(out, "Result: VERIFICATION FAILED. Do not rely on what is marked FAILED above.")
    }
}

fn lab_warning(out: &mut String, lab: bool) -> std::fmt::Result {
    if lab {
        writeln!(
            out,
            "  WARNING   this is a LAB network: its keys lie open, so its evidence proves nothing to anybody"
        )?;
    }
    Ok(())
}

fn entry(out: &mut String, entry: &EntryReport, options: Options) -> std::fmt::Result {
    let kind = entry.kind.map_or("unreadable entry", BodyKind::name);
    writeln!(out, "  entry {}: {kind}, hash {}", entry.seq, entry.hash)?;
    if let Some(Author::Device(member)) = entry.author {
        writeln!(out, "    by         device {} of account {}", member.device, member.account)?;
        if let Some(name) = &entry.name {
            writeln!(out, "    name       \"{}\", as the enroller recorded it", escape(name))?;
        }
    }
    if let Some(sent_at) = entry.sent_at {
        writeln!(out, "    sent       {} by the author's clock, which nobody checked", sent_at.utc())?;
    }
    writeln!(out, "    recorded   {} by the validators' clock", entry.ledger_time.utc())?;
    match &entry.content {
        Some(content) if options.content => {
            writeln!(out, "    content    \"{}\"", escape(&content_text(content)))
        }
        Some(content) => writeln!(out, "    content    {} bytes (shown with --content)", content.len()),
        None => Ok(()),
    }
}

fn verdict(out: &mut String, report: &Report, name: &str, verdict: &Verdict) -> std::fmt::Result {
    match verdict {
        Verdict::Ok => writeln!(out, "{name:<12} OK            {}", proven(report, name)),
        Verdict::NotIncluded => writeln!(out, "{name:<12} not included  {}", left_out(name)),
        Verdict::Failed(findings) => {
            writeln!(out, "{name:<12} FAILED        {}", question(name))?;
            for finding in findings {
                writeln!(
                    out,
                    "{:<26} {}: {}",
                    "",
                    place(&finding.place),
                    escape(&finding.fault.to_string())
                )?;
            }
            Ok(())
        }
    }
}

/// What an OK means, in one sentence.
fn proven(report: &Report, name: &str) -> String {
    let entries = report.entries.len();
    let first = report.entries.first().map_or(0, |entry| entry.seq.0);
    let last = report.entries.last().map_or(0, |entry| entry.seq.0);
    match name {
        "recorded" => "every entry here is in the certified ledger, unchanged and in this place".to_owned(),
        "author" => "signed by these devices, which were their accounts' at that time \
                     (genesis, enroller, invitation, device, entry: each signed the next)"
            .to_owned(),
        "envelope" => {
            let given = report.entries.iter().filter(|entry| entry.has_envelope).count();
            format!("the encrypted messages here ({given} of {entries} entries) are the recorded ones")
        }
        "content" => {
            let given = report.entries.iter().filter(|entry| entry.content.is_some()).count();
            format!("the contents here ({given} of {entries} entries) are what their authors committed to")
        }
        "time" => "ledger times are in order and not after the header's".to_owned(),
        "complete" => {
            format!(
                "nothing is missing from entry {first} to entry {last}, the last one at height {}",
                report.height
            )
        }
        "certificate" => match report.stake {
            Some(stake) => format!(
                "{} of {} stake signed the header in round {}; more than two thirds are needed",
                stake.signed, stake.total, report.round
            ),
            None => String::new(),
        },
        "custody" => {
            let signers = report.signers.iter().map(|signer| {
                let id = signer.appliance.to_hex();
                let key = signer.custody.describe();
                let activated = signer.activated.as_ref().map(activated).unwrap_or_default();
                format!("validator {}… {key}{activated}", id.get(..16).unwrap_or(&id))
            });
            signers.collect::<Vec<_>>().join("; ")
        }
        "suite" => format!("{}, as the network's policy allows", report.suite),
        _ => String::new(),
    }
}

/// By whose decision a validator has its key.
fn activated(activation: &SignerActivation) -> String {
    let officers: Vec<String> = activation.officers.iter().map(|name| escape(name)).collect();
    format!(" (key activated {} by officers {})", activation.time.utc(), officers.join(", "))
}

/// What it means that a verdict cannot be given.
fn left_out(name: &str) -> &'static str {
    match name {
        "envelope" => "the file holds no encrypted messages",
        "content" => "the file does not disclose what was said",
        "complete" => "the file proves the entries that it holds, not that nothing follows them",
        _ => "the file does not hold what would answer this",
    }
}

/// What a verdict answers.
fn question(name: &str) -> &'static str {
    match name {
        "recorded" => "are these entries in the certified ledger, unchanged and in this place?",
        "author" => "did these devices sign, and were they their accounts' at that time?",
        "envelope" => "are the encrypted messages here the recorded ones?",
        "content" => "are the contents here what their authors committed to?",
        "time" => "are the ledger times in order?",
        "complete" => "is nothing missing up to the header?",
        "certificate" => "did validators with more than two thirds of all stake sign the header?",
        "custody" => "where did the keys live that signed the header?",
        "suite" => "does the network's policy allow the cryptography that was used?",
        _ => "",
    }
}

/// Where something failed.
#[must_use]
pub fn place(place: &Place) -> String {
    match place {
        Place::Keyring => "public keys".to_owned(),
        Place::Header => "header".to_owned(),
        Place::Certificate => "certificate".to_owned(),
        Place::System => "officers' decisions".to_owned(),
        Place::SystemEntry(seq) => format!("officers' decision {seq}"),
        Place::Account(account) => format!("account {account}"),
        Place::AccountEntry(account, seq) => format!("account {account}, entry {seq}"),
        Place::Thread => "conversation".to_owned(),
        Place::Entry(seq) => format!("entry {seq}"),
    }
}

fn proven_fork(out: &mut String, fork: &ForkReport) -> std::fmt::Result {
    writeln!(out, "Fork of network {}: PROVEN", escape(&fork.network))?;
    lab_warning(out, fork.lab)?;
    writeln!(out, "  height {} has two headers, each in a history that validators certified:", fork.height)?;
    writeln!(out, "    {}", fork.first)?;
    writeln!(out, "    {}", fork.second)?;
    for validator in &fork.signed_both {
        writeln!(out, "  validator {validator} signed for both")?;
    }
    writeln!(out)?;
    writeln!(
        out,
        "Result: the validators showed different histories to different people. Rely on nothing from height"
    )?;
    writeln!(out, "{} on until the officers have found out why.", fork.height)
}

fn no_fork(out: &mut String, error: &ForkError) -> std::fmt::Result {
    writeln!(out, "Fork: NOT PROVEN")?;
    writeln!(out, "  {}", escape(&describe(error)))?;
    writeln!(out)?;
    writeln!(out, "Result: this file proves nothing against the validators.")
}

/// A fork proof's fault with its cause.
#[must_use]
pub fn describe(error: &ForkError) -> String {
    match error {
        ForkError::Certificate { which, source } => format!("the {which} header is not certified: {source}"),
        ForkError::Activation { index, source } => format!("activation {index} does not stand: {source}"),
        other => other.to_string(),
    }
}

/// What a person would read in a canonical content: array of version, kind, message id, header seen, text, and more.
#[must_use]
pub fn content_text(content: &[u8]) -> String {
    let text = || -> Result<String, minicbor::decode::Error> {
        let mut decoder = minicbor::Decoder::new(content);
        decoder.array()?;
        let title = match (decoder.u64()?, decoder.u64()?) {
            (1, 0) => "",
            (1, 2) => "(title of the conversation) ",
            _ => return Err(minicbor::decode::Error::message("another version or kind")),
        };
        decoder.skip()?;
        decoder.skip()?;
        decoder.str().map(|text| format!("{title}{text}"))
    };
    text().unwrap_or_else(|_| String::from_utf8_lossy(content).into_owned())
}

/// Makes foreign text harmless: control characters could move the cursor or rewrite the verdicts above, and marks of
/// writing direction could reorder what is read.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            _ if is_harmful(c) => out.extend(c.escape_default()),
            _ => out.push(c),
        }
    }
    out
}

/// Control characters, line and paragraph separators, and marks that change the direction of writing or cannot be seen.
pub(crate) fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_rewrite_the_report() {
        assert_eq!(escape("a\x1b[2J\r\nb\u{202e}c\u{9b}\\"), "a\\u{1b}[2J\\r\\nb\\u{202e}c\\u{9b}\\\\");
        assert_eq!(escape("grüße, 世界"), "grüße, 世界");
    }

    #[test]
    fn the_text_is_read_from_canonical_content() {
        let content = [&[0x86, 1, 0, 0x41, 9, 0xF6, 0x62][..], b"hi", &[0x80]].concat();
        assert_eq!(content_text(&content), "hi");
        assert_eq!(content_text(b"plain"), "plain");
        assert_eq!(content_text(&[0x86, 2, 0, 0xFF]), "\u{fffd}\u{2}\0\u{fffd}");
    }
}
