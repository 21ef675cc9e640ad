//! An action in words: every field, so that what an officer reads is all that the officer signs.

use zixt_crypto::digest;
use zixt_types::{Action, CustodyMode, Decision, Hash, KeyPurpose, ProtectorKind};

/// Bytes in hexadecimal groups of four digits, eight groups a line: the form in which people compare them aloud.
#[must_use]
pub fn grouped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 5 / 2);
    for (number, pair) in bytes.chunks(2).enumerate() {
        if number > 0 {
            text.push(if number % 8 == 0 { '\n' } else { ' ' });
        }
        for byte in pair {
            text.push_str(&format!("{byte:02x}"));
        }
    }
    text
}

/// Every field of an action as a name and words. Hashes stand in groups, see [`grouped`].
#[must_use]
pub fn describe(action: &Action) -> Vec<(String, String)> {
    describe_named(action, &|_| None)
}

/// As [`describe`]; `name_of` gives the name of an officer or network that the caller knows by its hash.
#[must_use]
pub fn describe_named(action: &Action, name_of: &dyn Fn(&Hash) -> Option<String>) -> Vec<(String, String)> {
    let named = |hash: &Hash| match name_of(hash) {
        Some(name) => format!("{name}\n{}", grouped(&hash.0)),
        None => grouped(&hash.0),
    };
    let mut fields = Vec::new();
    let mut field = |name: &str, words: String| fields.push((name.to_owned(), words));
    field("what", what(&action.decision).to_owned());
    match &action.decision {
        Decision::AddProtector { protector, kind, description } => {
            field("protector", grouped(&protector.0));
            field("kind", protector_words(*kind).to_owned());
            field("description", format!("\"{description}\""));
        }
        Decision::RemoveProtector { protector } => field("protector", grouped(&protector.0)),
        Decision::SetRecovery { threshold, holders } => {
            field("shares", format!("any {threshold} of {} give the recovery key back", holders.len()));
            for (number, holder) in (1u8..=u8::MAX).zip(holders) {
                field(&format!("holder {number}"), named(&holder.officer));
                field(&format!("holder {number}'s ML-KEM key"), named(&holder.kem));
            }
        }
        Decision::RotateRoot => {}
        Decision::ActivateKey { purpose, retires, activates, suite, custody } => {
            field("key", key_words(*purpose).to_owned());
            field("retires", grouped(&retires.0));
            field("activates", grouped(&activates.0));
            field("suite", suite.name().to_owned());
            field("the new key lives", custody_words(*custody).to_owned());
        }
        Decision::DestroyKey { purpose, key } => {
            field("key", key_words(*purpose).to_owned());
            field("destroys", grouped(&key.0));
        }
        Decision::Recover { backup, recipient } => {
            field("backup", grouped(&backup.0));
            field("the machine's ML-KEM key", grouped(&recipient.0));
        }
        Decision::SetRoles { account, roles } => {
            field("account", grouped(&account.0));
            let names: Vec<&str> = roles.iter().map(|role| role.name()).collect();
            field("roles", names.join(", "));
        }
    }
    field("network", named(&action.genesis));
    field("appliance", grouped(&action.appliance.0));
    field("decision number", action.sequence.to_string());
    field("good until", action.expires_at.utc());
    field("format version", action.version.to_string());
    field("hash of all this", grouped(&digest::action_hash(action).0));
    fields
}

/// [`describe`] as lines for a terminal or paper.
#[must_use]
pub fn describe_text(fields: &[(String, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, words) in fields {
        for (number, line) in words.lines().enumerate() {
            let name = if number == 0 { name.as_str() } else { "" };
            text.push_str(&format!("{name:<width$}  {line}\n"));
        }
    }
    text
}

const fn what(decision: &Decision) -> &'static str {
    match decision {
        Decision::AddProtector { .. } => "ADD A PROTECTOR: one more thing can unwrap the root key",
        Decision::RemoveProtector { .. } => "REMOVE A PROTECTOR, and replace the root key",
        Decision::SetRecovery { .. } => {
            "SET THE RECOVERY KEY: give new shares to the holders below, and replace the root key; older shares open \
             nothing that is made from now on"
        }
        Decision::RotateRoot => "REPLACE THE ROOT KEY",
        Decision::ActivateKey { .. } => "ACTIVATE A KEY: the old one signs nothing from then on",
        Decision::DestroyKey { .. } => "DESTROY A RETIRED KEY: it cannot be brought back",
        Decision::SetRoles { .. } => {
            "GIVE AN ACCOUNT THESE ROLES, and no others: whoever has it may do what they allow"
        }
        Decision::Recover { .. } => "RECOVER: the machine with the key below may open the backup",
    }
}

const fn key_words(purpose: KeyPurpose) -> &'static str {
    match purpose {
        KeyPurpose::Identity => "identity (names the appliance and vouches for its other keys)",
        KeyPurpose::Consensus => "consensus (votes, and so certifies the ledger)",
        KeyPurpose::Tls => "tls (what clients pin)",
        KeyPurpose::Enroller => "enroller (invites people)",
    }
}

const fn protector_words(kind: ProtectorKind) -> &'static str {
    match kind {
        ProtectorKind::Pkcs11 => "a PKCS#11 token (HSM)",
        ProtectorKind::Tpm => "a TPM 2.0",
        ProtectorKind::Recovery => "shares of officers",
        ProtectorKind::Software => "software only: NO HARDWARE PROTECTS IT (lab)",
    }
}

const fn custody_words(custody: CustodyMode) -> &'static str {
    custody.describe()
}

#[cfg(test)]
mod tests {
    use super::*;
    use zixt_types::{ApplianceId, ProtectorId, ShareHolder, SuiteId, Timestamp};

    fn action(decision: Decision) -> Action {
        Action {
            version: 1,
            genesis: Hash([0x11; 48]),
            appliance: ApplianceId([0x22; 48]),
            sequence: 9,
            expires_at: Timestamp(951_782_400_000),
            decision,
        }
    }

    fn every_decision() -> Vec<Decision> {
        let holder = |n| ShareHolder { officer: Hash([n; 48]), kem: Hash([n + 0x10; 48]) };
        vec![
            Decision::AddProtector {
                protector: ProtectorId([0x33; 16]),
                kind: ProtectorKind::Tpm,
                description: "TPM of rack 4".to_owned(),
            },
            Decision::RemoveProtector { protector: ProtectorId([0x33; 16]) },
            Decision::SetRecovery { threshold: 2, holders: vec![holder(0x44), holder(0x45), holder(0x46)] },
            Decision::RotateRoot,
            Decision::ActivateKey {
                purpose: KeyPurpose::Consensus,
                retires: Hash([0x61; 48]),
                activates: Hash([0x62; 48]),
                suite: SuiteId::Cnsa,
                custody: CustodyMode::Token,
            },
            Decision::DestroyKey { purpose: KeyPurpose::Tls, key: Hash([0x63; 48]) },
            Decision::Recover { backup: Hash([0x64; 48]), recipient: Hash([0x65; 48]) },
        ]
    }

    #[test]
    fn hashes_stand_in_groups() {
        assert_eq!(grouped(&[0xAB, 1, 2]), "ab01 02");
        let text = grouped(&[0; 48]);
        assert_eq!(text.lines().count(), 3);
        assert!(text.lines().all(|line| line.len() == 39));
    }

    /// Two actions that differ anywhere must not read the same, the hash of all left aside.
    #[test]
    fn every_field_is_told() {
        let read = |action: &Action| {
            let fields = describe(action);
            describe_text(&fields[..fields.len() - 1])
        };
        let mut texts = Vec::new();
        for decision in every_decision() {
            let base = action(decision);
            let bytes = zixt_types::Canonical::to_bytes(&base);
            texts.push(read(&base));
            for at in 0..bytes.len() {
                for bit in 0..8 {
                    let mut other = bytes.clone();
                    other[at] ^= 1 << bit;
                    if let Ok(other) = <Action as zixt_types::Canonical>::parse(&other) {
                        texts.push(read(&other));
                    }
                }
            }
        }
        let all = texts.len();
        assert!(all > 1000, "{all}");
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), all);
    }

    #[test]
    fn names_stand_beside_hashes_and_never_in_their_place() {
        let action = action(every_decision().swap_remove(2));
        let named = describe_named(&action, &|hash| (hash.0[0] == 0x44).then(|| "Ada".to_owned()));
        let text = describe_text(&named);
        assert!(text.contains("Ada\n"), "{text}");
        assert!(text.contains("4444 4444"), "{text}");
        assert!(text.contains("any 2 of 3"), "{text}");
        assert!(text.contains("2000-02-29T00:00:00.000Z"), "{text}");
    }
}
