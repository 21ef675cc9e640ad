//! What security officers approve, and how they say so: an action is exact, for one network and one appliance, and good
//! once. Whoever carries it out reads the same bytes that the officers signed.

use crate::{
    AccountId, ApplianceId, Canonical, CustodyMode, Hash, ProtectorId, Role, SuiteId, Timestamp, are_roles,
    limits,
};
use minicbor::{Decode, Encode};

/// What a signing key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum KeyPurpose {
    /// Names the appliance and vouches for its other keys.
    #[n(0)]
    Identity,
    /// Votes.
    #[n(1)]
    Consensus,
    /// TLS handshakes as server.
    #[n(2)]
    Tls,
    /// Invitations.
    #[n(3)]
    Enroller,
}

impl KeyPurpose {
    /// All signing keys, in the order in which they are made.
    pub const ALL: [Self; 4] = [Self::Identity, Self::Consensus, Self::Tls, Self::Enroller];

    /// The word for people and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Consensus => "consensus",
            Self::Tls => "tls",
            Self::Enroller => "enroller",
        }
    }
}

/// What keeps a copy of custody's root key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum ProtectorKind {
    /// A non-extractable key in a PKCS#11 token.
    #[n(1)]
    Pkcs11,
    /// A TPM 2.0.
    #[n(2)]
    Tpm,
    /// The officers' shares of the recovery key.
    #[n(3)]
    Recovery,
    /// A file: no hardware protects it. Lab only.
    #[n(4)]
    Software,
}

impl ProtectorKind {
    /// The word for people and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pkcs11 => "pkcs11",
            Self::Tpm => "tpm",
            Self::Recovery => "recovery",
            Self::Software => "software",
        }
    }
}

/// An officer who holds a share of the recovery key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(array)]
pub struct ShareHolder {
    /// The officer: hash of the approval key.
    #[n(0)]
    pub officer: Hash,
    /// Hash of the officer's ML-KEM key, which the share is sealed to.
    #[n(1)]
    pub kem: Hash,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Decision {
    /// Lets one more thing unwrap the root key.
    #[n(0)]
    AddProtector {
        /// The new protector.
        #[n(0)]
        protector: ProtectorId,
        /// What it is.
        #[n(1)]
        kind: ProtectorKind,
        /// Which one it is, in words that an officer can compare with the device: label, serial number, model.
        #[n(2)]
        description: String,
    },
    /// Takes a protector away and rotates the root, so that what it kept opens nothing new.
    #[n(1)]
    RemoveProtector {
        /// The protector.
        #[n(0)]
        protector: ProtectorId,
    },
    /// Makes a new recovery key, gives its shares to these officers, and rotates the root.
    #[n(2)]
    SetRecovery {
        /// How many shares give the key back.
        #[n(0)]
        threshold: u8,
        /// Who gets a share, ascending by officer, without repeats.
        #[n(1)]
        holders: Vec<ShareHolder>,
    },
    /// Replaces the root key.
    #[n(3)]
    RotateRoot,
    /// Puts a pending key in the place of another, which signs nothing from then on.
    #[n(4)]
    ActivateKey {
        /// What the key is for.
        #[n(0)]
        purpose: KeyPurpose,
        /// Hash of the key that ends.
        #[n(1)]
        retires: Hash,
        /// Hash of the key that takes its place.
        #[n(2)]
        activates: Hash,
        /// The new key's suite.
        #[n(3)]
        suite: SuiteId,
        /// Where the new key lives.
        #[n(4)]
        custody: CustodyMode,
    },
    /// Erases a retired key for ever.
    #[n(5)]
    DestroyKey {
        /// What the key was for.
        #[n(0)]
        purpose: KeyPurpose,
        /// Hash of the key.
        #[n(1)]
        key: Hash,
    },
    /// Lets a machine open a backup with the officers' shares.
    #[n(6)]
    Recover {
        /// Hash of the backup.
        #[n(0)]
        backup: Hash,
        /// Hash of the ML-KEM key of the machine that recovers: the shares are sealed to it.
        #[n(1)]
        recipient: Hash,
    },
    /// Gives an account these roles, in the place of those that it has. Whoever is to be a security officer or an
    /// administrator becomes it in this way only. Changes nothing in custody.
    #[n(7)]
    SetRoles {
        /// The account.
        #[n(0)]
        account: AccountId,
        /// All its roles from then on, ascending, without repeats.
        #[n(1)]
        roles: Vec<Role>,
    },
}

impl Decision {
    /// The word for it in reports and JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::AddProtector { .. } => "add-protector",
            Self::RemoveProtector { .. } => "remove-protector",
            Self::SetRecovery { .. } => "set-recovery",
            Self::RotateRoot => "rotate-root",
            Self::ActivateKey { .. } => "activate-key",
            Self::DestroyKey { .. } => "destroy-key",
            Self::Recover { .. } => "recover",
            Self::SetRoles { .. } => "set-roles",
        }
    }
}

/// What officers approve: exact, for one network, one appliance, once.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Action {
    /// Format version: 1.
    #[n(0)]
    pub version: u64,
    /// Hash of the genesis: the network.
    #[n(1)]
    pub genesis: Hash,
    /// The appliance that shall do it.
    #[n(2)]
    pub appliance: ApplianceId,
    /// The appliance's count of decisions so far. It takes an action with its present number only and then counts on,
    /// so that an approval is good once.
    #[n(3)]
    pub sequence: u64,
    /// Not after this time, by the wall clock of who carries it out.
    #[n(4)]
    pub expires_at: Timestamp,
    /// What is to be done.
    #[n(5)]
    pub decision: Decision,
}

impl Action {
    /// The format version that this program writes.
    pub const VERSION: u64 = 1;
}

/// Characters that a screen does not show, or shows elsewhere than they stand: text that an officer reads and approves
/// must be the text that is there. Controls, line and paragraph separators, soft hyphens, zero-width characters,
/// direction marks (Unicode Technical Report 36, section 2), invisible operators, byte order marks and tag characters.
fn deceives(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180B}'
                ..='\u{180F}'
                    | '\u{200B}'..='\u{200F}'
                    | '\u{2028}'..='\u{202E}'
                    | '\u{2060}'..='\u{206F}'
                    | '\u{3164}'
                    | '\u{FE00}'..='\u{FE0F}'
                    | '\u{FEFF}'
                    | '\u{FFA0}'
                    | '\u{FFF0}'..='\u{FFFB}'
                    | '\u{E0000}'..='\u{E0FFF}'
        )
}

/// Whether an officer can read `text` as it is: not empty, not longer than `bytes_max`, and without characters that a
/// screen hides or moves.
#[must_use]
pub fn is_readable(text: &str, bytes_max: usize) -> bool {
    !text.trim().is_empty() && text.len() <= bytes_max && !text.chars().any(deceives)
}

impl Canonical for Action {
    const WHAT: &'static str = "action";
    const BYTES_MAX: usize = limits::ACTION_BYTES_MAX;
    const VERSION: Option<u64> = Some(Self::VERSION);

    fn check(&self) -> Result<(), &'static str> {
        if self.expires_at.0 > limits::CLOCK_MS_MAX {
            return Err("it expires after the year 2198");
        }
        match &self.decision {
            Decision::AddProtector { description, .. } => {
                if !is_readable(description, limits::DESCRIPTION_BYTES_MAX) {
                    return Err(
                        "the protector's description is empty, too long, or has characters that hide",
                    );
                }
            }
            Decision::SetRecovery { threshold, holders } => {
                if holders.len() > limits::GENESIS_KEYS_MAX {
                    return Err("the recovery key has more holders than a network has officers");
                }
                if !holders.windows(2).all(|pair| pair[0].officer < pair[1].officer) {
                    return Err("the holders are not sorted or repeat an officer");
                }
                // One ML-KEM key that opens two shares would make M of N less than it says.
                let mut keys: Vec<Hash> = holders.iter().map(|holder| holder.kem).collect();
                keys.sort_unstable();
                if keys.windows(2).any(|pair| pair[0] == pair[1]) {
                    return Err("two holders have the same ML-KEM key");
                }
                if *threshold < 2 || usize::from(*threshold) > holders.len() {
                    return Err("the shares required are fewer than 2 or more than there are holders");
                }
            }
            Decision::ActivateKey { retires, activates, .. } => {
                if retires == activates {
                    return Err("it retires the key that it activates");
                }
            }
            Decision::SetRoles { roles, .. } => {
                if !roles.windows(2).all(|pair| pair[0] < pair[1]) || !are_roles(roles) {
                    return Err("the roles are none, not sorted, repeat one, or exclude each other");
                }
            }
            Decision::RemoveProtector { .. }
            | Decision::RotateRoot
            | Decision::DestroyKey { .. }
            | Decision::Recover { .. } => {}
        }
        Ok(())
    }
}

/// One officer's signature over an action's exact bytes. It carries its key, so that it can be checked alone; that the
/// key is an officer's, the network's rule says.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Approval {
    /// The suite of key and signature.
    #[n(0)]
    pub suite: SuiteId,
    /// The officer's approval key.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub public_key: Vec<u8>,
    /// The signature: COSE `Sig_structure` with the label `OFFICER_APPROVAL`.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub signature: Vec<u8>,
}

impl Approval {
    fn fits(&self) -> bool {
        let fits = |bytes: &[u8], max: usize| !bytes.is_empty() && bytes.len() <= max;
        fits(&self.public_key, limits::PUBLIC_KEY_BYTES_MAX)
            && fits(&self.signature, limits::SIGNATURE_BYTES_MAX)
    }
}

impl Canonical for Approval {
    const WHAT: &'static str = "approval";
    const BYTES_MAX: usize = limits::APPROVAL_BYTES_MAX;

    fn check(&self) -> Result<(), &'static str> {
        if self.fits() { Ok(()) } else { Err("its key or its signature is empty or too long") }
    }
}

/// An action with the officers' approvals: what custody, the ledger and the verifier read.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Transcript {
    /// Format version: 1.
    #[n(0)]
    pub version: u64,
    /// The action's exact bytes.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub action: Vec<u8>,
    /// The approvals, ascending by the hash of the officer's key, without repeats.
    #[n(2)]
    pub approvals: Vec<Approval>,
}

impl Transcript {
    /// The format version that this program writes.
    pub const VERSION: u64 = 1;
}

impl Canonical for Transcript {
    const WHAT: &'static str = "transcript";
    const BYTES_MAX: usize = limits::TRANSCRIPT_BYTES_MAX;
    const VERSION: Option<u64> = Some(Self::VERSION);

    // Order and repeats are by the hash of a key, and so for who can hash: `zixt_ceremony::judge`.
    fn check(&self) -> Result<(), &'static str> {
        if self.action.is_empty() || self.action.len() > limits::ACTION_BYTES_MAX {
            return Err("its action is empty or too long");
        }
        if self.approvals.is_empty() || self.approvals.len() > limits::GENESIS_KEYS_MAX {
            return Err("it has no approval, or more than a network has officers");
        }
        if !self.approvals.iter().all(Approval::fits) {
            return Err("an approval's key or signature is empty or too long");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ParseError;
    use proptest::prelude::*;

    fn holders(count: u8) -> Vec<ShareHolder> {
        (0..count).map(|n| ShareHolder { officer: Hash([n; 48]), kem: Hash([!n; 48]) }).collect()
    }

    fn action(decision: Decision) -> Action {
        Action {
            version: 1,
            genesis: Hash([1; 48]),
            appliance: ApplianceId([2; 48]),
            sequence: 3,
            expires_at: Timestamp(4),
            decision,
        }
    }

    fn add(description: &str) -> Action {
        action(Decision::AddProtector {
            protector: ProtectorId([5; 16]),
            kind: ProtectorKind::Pkcs11,
            description: description.to_owned(),
        })
    }

    fn recovery(threshold: u8, holders: Vec<ShareHolder>) -> Action {
        action(Decision::SetRecovery { threshold, holders })
    }

    fn refused(action: &Action) -> bool {
        matches!(Action::parse(&action.to_bytes()), Err(ParseError::Invalid { what: "action", .. }))
    }

    fn decisions() -> impl Strategy<Value = Decision> {
        let hash = || any::<u8>().prop_map(|n| Hash([n; 48]));
        let purpose = || prop::sample::select(&KeyPurpose::ALL[..]);
        let kind = prop::sample::select(vec![
            ProtectorKind::Pkcs11,
            ProtectorKind::Tpm,
            ProtectorKind::Recovery,
            ProtectorKind::Software,
        ]);
        let custody = prop::sample::select(vec![
            CustodyMode::Token,
            CustodyMode::WrappedByToken,
            CustodyMode::SealedByTpm,
            CustodyMode::Software,
        ]);
        let suite = prop::sample::select(&SuiteId::ALL[..]);
        prop_oneof![
            (any::<[u8; 16]>(), kind, "[a-zäß0-9][ -~äö€]{0,60}").prop_map(|(id, kind, description)| {
                Decision::AddProtector { protector: ProtectorId(id), kind, description }
            }),
            any::<[u8; 16]>().prop_map(|id| Decision::RemoveProtector { protector: ProtectorId(id) }),
            (2u8..=128).prop_flat_map(|count| (2..=count, Just(count))).prop_map(|(threshold, count)| {
                Decision::SetRecovery { threshold, holders: holders(count) }
            }),
            Just(Decision::RotateRoot),
            (purpose(), 0u8..128, suite, custody).prop_map(|(purpose, n, suite, custody)| {
                Decision::ActivateKey {
                    purpose,
                    retires: Hash([n; 48]),
                    activates: Hash([!n; 48]),
                    suite,
                    custody,
                }
            }),
            (purpose(), hash()).prop_map(|(purpose, key)| Decision::DestroyKey { purpose, key }),
            (hash(), hash()).prop_map(|(backup, recipient)| Decision::Recover { backup, recipient }),
            (any::<[u8; 16]>(), 0..6usize, any::<bool>()).prop_map(|(account, at, user)| {
                let mut roles = vec![Role::ALL[at]];
                if user && at < 4 {
                    roles.push(Role::User);
                }
                Decision::SetRoles { account: AccountId(account), roles }
            }),
        ]
    }

    #[test]
    fn numbers_of_the_wire_stay() {
        let last = |bytes: Vec<u8>| bytes.last().copied();
        for (number, purpose) in (0u8..).zip(KeyPurpose::ALL) {
            let mut bytes = Vec::new();
            minicbor::encode(purpose, &mut bytes).unwrap();
            assert_eq!(bytes, [number]);
        }
        for (number, kind) in [
            (1, ProtectorKind::Pkcs11),
            (2, ProtectorKind::Tpm),
            (3, ProtectorKind::Recovery),
            (4, ProtectorKind::Software),
        ] {
            let mut bytes = Vec::new();
            minicbor::encode(kind, &mut bytes).unwrap();
            assert_eq!(bytes, [number]);
        }
        // A decision is its number and its fields.
        assert_eq!(last(action(Decision::RotateRoot).to_bytes()), Some(0x80));
        assert!(action(Decision::RotateRoot).to_bytes().ends_with(&[0x82, 0x03, 0x80]));
    }

    #[test]
    fn a_description_is_what_it_looks_like() {
        assert!(!refused(&add("SoftHSM v2, token \"zixt\", serial 0123-45")));
        assert!(!refused(&add(&"x".repeat(limits::DESCRIPTION_BYTES_MAX))));
        for bad in [
            "",
            "  ",
            "a\nb",
            "a\u{1b}[2Kb",
            "a\u{7f}",
            "a\u{85}",
            "a\u{202e}b",
            "a\u{200b}b",
            "a\u{2028}b",
            "a\u{feff}",
            "a\u{e0041}",
            &"x".repeat(limits::DESCRIPTION_BYTES_MAX + 1),
        ] {
            assert!(refused(&add(bad)), "{bad:?}");
        }
    }

    #[test]
    fn holders_are_counted_once() {
        assert!(!refused(&recovery(2, holders(3))));
        assert!(!refused(&recovery(128, holders(128))));
        let mut one_kem = holders(3);
        one_kem[2].kem = one_kem[0].kem;
        let reversed = holders(3).into_iter().rev().collect();
        let twice = [holders(2), holders(2)].concat();
        for (why, bad) in [
            ("one share is the key", recovery(1, holders(3))),
            ("none", recovery(0, vec![])),
            ("more than there are", recovery(4, holders(3))),
            ("too many", recovery(2, holders(129))),
            ("one ML-KEM key for two", recovery(2, one_kem)),
            ("not sorted", recovery(2, reversed)),
            ("twice", recovery(2, twice)),
        ] {
            assert!(refused(&bad), "{why}");
        }
    }

    #[test]
    fn a_key_does_not_replace_itself_and_times_end() {
        let hash = Hash([1; 48]);
        assert!(refused(&action(Decision::ActivateKey {
            purpose: KeyPurpose::Consensus,
            retires: hash,
            activates: hash,
            suite: SuiteId::Standard,
            custody: CustodyMode::Token,
        })));
        let late = Timestamp(limits::CLOCK_MS_MAX + 1);
        assert!(refused(&Action { expires_at: late, ..action(Decision::RotateRoot) }));
    }

    #[test]
    fn a_transcript_of_every_officer_fits() {
        let approval = Approval {
            suite: SuiteId::Cnsa,
            public_key: vec![1; limits::PUBLIC_KEY_BYTES_MAX],
            signature: vec![2; limits::SIGNATURE_BYTES_MAX],
        };
        assert_eq!(Approval::parse(&approval.to_bytes()), Ok(approval.clone()));
        let mut transcript = Transcript {
            version: 1,
            action: vec![0; limits::ACTION_BYTES_MAX],
            approvals: vec![approval.clone(); limits::GENESIS_KEYS_MAX],
        };
        assert_eq!(Transcript::parse(&transcript.to_bytes()), Ok(transcript.clone()));
        transcript.approvals.push(approval);
        assert_eq!(transcript.check(), Err("it has no approval, or more than a network has officers"));
        transcript.approvals.clear();
        assert!(transcript.check().is_err());
        let largest = recovery(128, holders(128)).to_bytes().len();
        assert!(largest <= limits::ACTION_BYTES_MAX, "{largest}");
    }

    #[test]
    fn an_approval_is_bounded() {
        for (key, signature) in
            [(0, 1), (1, 0), (limits::PUBLIC_KEY_BYTES_MAX + 1, 1), (1, limits::SIGNATURE_BYTES_MAX + 1)]
        {
            let approval = Approval {
                suite: SuiteId::Standard,
                public_key: vec![1; key],
                signature: vec![1; signature],
            };
            assert!(Approval::parse(&approval.to_bytes()).is_err(), "{key} {signature}");
        }
    }

    proptest! {
        #[test]
        fn actions_round_trip(decision in decisions(), sequence: u64, expires in 0..=limits::CLOCK_MS_MAX) {
            let action = Action { sequence, expires_at: Timestamp(expires), ..action(decision) };
            prop_assert_eq!(Action::parse(&action.to_bytes()), Ok(action));
        }

        #[test]
        fn a_changed_byte_is_another_action_or_none(
            decision in decisions(),
            at: prop::sample::Index,
            to: u8,
        ) {
            let action = action(decision);
            let mut bytes = action.to_bytes();
            let at = at.index(bytes.len());
            prop_assume!(bytes[at] != to);
            bytes[at] = to;
            if let Ok(other) = Action::parse(&bytes) {
                prop_assert_ne!(&other, &action);
                prop_assert_eq!(other.to_bytes(), bytes);
            }
        }

        #[test]
        fn a_cut_or_longer_action_is_none(decision in decisions(), cut: prop::sample::Index, more: u8) {
            let mut bytes = action(decision).to_bytes();
            prop_assert!(Action::parse(&bytes[..cut.index(bytes.len())]).is_err());
            bytes.push(more);
            prop_assert!(Action::parse(&bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Action::parse(&bytes);
            let _ = Approval::parse(&bytes);
            let _ = Transcript::parse(&bytes);
        }
    }
}
