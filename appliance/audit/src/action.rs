//! What can be recorded: a closed list. A name and a number are never given a second meaning, and never reused.

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

/// What an action weighs when the disk is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Weight {
    /// It can wait: it is refused while the journal lives on its reserve.
    Routine,
    /// It concerns keys, access, rules or the journal: the reserve is for it.
    Security,
}

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal, $weight:ident;)*) => {
        /// What was done, or tried. Versions of the format only add to this list.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u16)]
        pub enum Action {
            $($(#[$doc])* $name = $number,)*
        }

        impl Action {
            /// Every action that this version knows.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name in exports, in syslog (as MSGID) and in queries. Never renamed.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What it weighs when the disk is full.
            #[must_use]
            pub const fn weight(self) -> Weight {
                match self { $(Self::$name => Weight::$weight,)* }
            }
        }
    };
}

actions! {
    // The journal itself
    /// The journal was opened by a process. The first record of each.
    JournalOpened = 1, "journal-opened", Security;
    /// After a crash: a torn end was dropped, or records were found that nobody may have been told of.
    JournalRecovered = 2, "journal-recovered", Security;
    /// The disk is full: from here on the journal writes into its reserve.
    JournalReserveUsed = 3, "journal-reserve-used", Security;
    /// There is a reserve again. Says how many events were refused meanwhile.
    JournalReserveRestored = 4, "journal-reserve-restored", Security;
    /// A record was written, but its caller had given up waiting: that action was refused.
    JournalUnclaimed = 5, "journal-unclaimed", Security;
    /// Anchored segments were removed.
    JournalSegmentsRemoved = 6, "journal-segments-removed", Security;
    /// The journal goes on behind damage that was set aside.
    JournalContinued = 7, "journal-continued", Security;
    /// Somebody read the journal.
    JournalRead = 8, "journal-read", Routine;
    /// A range of the journal was exported.
    JournalExported = 9, "journal-exported", Security;
    /// A sink was told that records are missing.
    SinkGap = 10, "sink-gap", Security;
    /// A sink was set up, changed or removed.
    SinkConfigured = 11, "sink-configured", Security;

    // The appliance
    /// The appliance started.
    ApplianceStarted = 20, "appliance-started", Security;
    /// The appliance stopped in order.
    ApplianceStopped = 21, "appliance-stopped", Security;
    /// Too few validators answer: nothing is certified.
    QuorumLost = 22, "quorum-lost", Security;
    /// Enough validators answer again.
    QuorumRegained = 23, "quorum-regained", Security;
    /// An officer set the clock.
    ClockSet = 24, "clock-set", Security;
    /// The clock differs from the ledger's.
    ClockDrift = 25, "clock-drift", Security;
    /// The configuration was changed.
    ConfigurationChanged = 26, "configuration-changed", Security;
    /// An update was installed, or refused.
    UpdateInstalled = 27, "update-installed", Security;
    /// A backup was made.
    BackupMade = 28, "backup-made", Security;
    /// A backup was restored.
    BackupRestored = 29, "backup-restored", Security;
    /// Two officers did what the rules do not foresee.
    BreakGlass = 30, "break-glass", Security;
    /// An alert was raised, or answered.
    Alert = 31, "alert", Security;
    /// The vulnerability feed was read, or overridden.
    FeedApplied = 32, "feed-applied", Security;

    // Custody
    /// Custody was asked to unlock.
    CustodyUnlock = 40, "custody-unlock", Security;
    /// Custody was locked.
    CustodyLock = 41, "custody-lock", Security;
    /// Custody carried out a decision of officers.
    CustodyDecision = 42, "custody-decision", Security;
    /// A key was activated.
    KeyActivated = 43, "key-activated", Security;
    /// A PIN was changed.
    PinChanged = 44, "pin-changed", Security;
    /// A protector was added.
    ProtectorAdded = 45, "protector-added", Security;
    /// A protector was removed.
    ProtectorRemoved = 46, "protector-removed", Security;

    // Sign-in
    /// Somebody signed in, or tried.
    SignIn = 60, "sign-in", Security;
    /// Somebody signed out.
    SignOut = 61, "sign-out", Routine;
    /// Sessions were ended by somebody else.
    SessionsRevoked = 62, "sessions-revoked", Security;
    /// An account or a source was locked out for some time.
    LockedOut = 63, "locked-out", Security;
    /// A factor was enrolled.
    FactorEnrolled = 64, "factor-enrolled", Security;
    /// A factor was removed.
    FactorRemoved = 65, "factor-removed", Security;
    /// A password was changed.
    PasswordChanged = 66, "password-changed", Security;
    /// Backup codes were made.
    BackupCodesMade = 67, "backup-codes-made", Security;
    /// A backup code was used.
    BackupCodeUsed = 68, "backup-code-used", Security;

    // Accounts
    /// An account was invited.
    AccountInvited = 80, "account-invited", Security;
    /// An account was created.
    AccountCreated = 81, "account-created", Security;
    /// An account was suspended.
    AccountSuspended = 82, "account-suspended", Security;
    /// An account was let in again.
    AccountResumed = 83, "account-resumed", Security;
    /// An account was ended, with its devices.
    AccountRemoved = 84, "account-removed", Security;
    /// An account was recovered.
    AccountRecovered = 85, "account-recovered", Security;
    /// A device was added.
    DeviceAdded = 86, "device-added", Security;
    /// A device was revoked.
    DeviceRevoked = 87, "device-revoked", Security;
    /// A role was granted.
    RoleGranted = 88, "role-granted", Security;
    /// A role was taken away.
    RoleRevoked = 89, "role-revoked", Security;
    /// A group's members were changed.
    GroupChanged = 90, "group-changed", Security;
    /// A token for a program was issued.
    TokenIssued = 91, "token-issued", Security;
    /// A token of a program was revoked.
    TokenRevoked = 92, "token-revoked", Security;
    /// The sealed vault of a user's keys was fetched.
    VaultRead = 93, "vault-read", Routine;
    /// The sealed vault of a user's keys was stored.
    VaultWritten = 94, "vault-written", Security;

    // Directories and single sign-on
    /// A directory was set up, changed or removed.
    DirectoryConfigured = 110, "directory-configured", Security;
    /// A directory was read.
    DirectorySynced = 111, "directory-synced", Routine;
    /// What a directory said was held back: it would have removed too many.
    DirectoryHeld = 112, "directory-held", Security;
    /// An officer let through what had been held back.
    DirectoryOverridden = 113, "directory-overridden", Security;
    /// An identity provider was set up, changed or removed.
    ProviderConfigured = 114, "provider-configured", Security;

    // Rules, officers, partners
    /// A policy was changed.
    PolicyChanged = 120, "policy-changed", Security;
    /// A decision of officers was recorded.
    OfficersDecided = 121, "officers-decided", Security;
    /// A partner was added, changed or removed.
    PartnerChanged = 122, "partner-changed", Security;
    /// A peer was added, changed or removed.
    PeerChanged = 123, "peer-changed", Security;
    /// A bundle of a partner was read.
    BundleImported = 124, "bundle-imported", Security;
    /// A bundle for a partner was written.
    BundleExported = 125, "bundle-exported", Security;

    // Data
    /// Somebody read what only some may read.
    DataRead = 140, "data-read", Routine;
    /// Evidence was exported.
    EvidenceExported = 141, "evidence-exported", Routine;
    /// Content was deleted by a rule of retention.
    ContentDeleted = 142, "content-deleted", Security;
    /// A caller was refused by the rules of access.
    AccessRefused = 143, "access-refused", Security;
}

impl Action {
    /// The number in the format.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// Reads what [`Self::name`] wrote.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|action| action.name() == name)
    }
}

impl<C> Encode<C> for Action {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.u16(self.number())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Action {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        let number = d.u16()?;
        Self::ALL.iter().copied().find(|action| action.number() == number).ok_or_else(|| {
            decode::Error::message(format!("action {number} is not known to this version")).at(at)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_unique_and_fit_into_syslog() {
        for (i, a) in Action::ALL.iter().enumerate() {
            // RFC 5424 section 6: MSGID = 1*32PRINTUSASCII.
            assert!(a.name().len() <= 32 && a.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
            assert_eq!(Action::from_name(a.name()), Some(*a));
            for b in &Action::ALL[i + 1..] {
                assert_ne!(a.name(), b.name());
                assert!(a.number() < b.number(), "{a:?} {b:?}");
            }
        }
    }
}
