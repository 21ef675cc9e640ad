//! Looks at everything, and says in words for officers what is wrong and what to do.

use super::Service;
use super::anchors::Anchor;
use crate::state::{Custody, CustodyRecord, Held, Open};
use zixt_crypto::selftest;
use zixt_hsm_protocol::{CustodyError, Finding, KeyStatus, ProtectorInfo, StateKind};
use zixt_types::{ProtectorKind, UnlockMode};

/// Free space below which the state folder is said to be nearly full: a backup and a hundred decisions.
const FREE_BYTES_MIN: u64 = 16 << 20;

impl Service {
    /// Tries the algorithms, the root and every active key.
    pub(super) fn self_test(&self) -> Vec<Finding> {
        let algorithms = match selftest::run(&*self.devices.crypto) {
            Ok(()) => good("algorithms", "every known answer is right"),
            Err(error) => bad(
                "algorithms",
                &error.to_string(),
                "Do not use this machine: its memory or processor fails.",
            ),
        };
        let mut findings = vec![algorithms];
        let custody = self.read();
        match custody.open() {
            Ok(open) => findings.extend(self.try_keys(open)),
            Err(error) => findings.push(bad("keys", &error.to_string(), error.advice())),
        }
        findings
    }

    fn try_keys(&self, Open { record, root }: &Open) -> Vec<Finding> {
        let mut findings = Vec::new();
        findings.push(match record.check_mac(root) {
            Ok(()) => good("state file", "it is what the root authenticated"),
            Err(error) => bad("state file", &error.to_string(), error.advice()),
        });
        for key in record.keys.iter().filter(|key| key.status != KeyStatus::Retired) {
            let what = format!("{} key, {}", key.purpose.name(), key.status.name());
            let tried = self.devices.keys.load(root, key).and_then(|signer| {
                selftest::pairwise_check(&*signer)
                    .map_err(|error| CustodyError::Internal { detail: error.to_string() })
            });
            findings.push(match tried {
                Ok(()) => {
                    good(&what, &format!("signs, and its signature verifies ({})", key.mode.describe()))
                }
                Err(error) => bad(&what, &error.to_string(), error.advice()),
            });
        }
        findings
    }

    /// Everything that can be seen without changing anything.
    pub(super) fn doctor(&self) -> Vec<Finding> {
        self.examine(true)
    }

    /// The same by what closed devices told last and without a search of tokens: for who asks often.
    #[must_use]
    pub fn doctor_as_last_seen(&self) -> Vec<Finding> {
        self.examine(false)
    }

    fn examine(&self, ask: bool) -> Vec<Finding> {
        let devices = self.look_at_devices();
        let custody = self.read();
        let protectors = self.protectors(&custody, devices);
        let (reason, advice) = match &*custody {
            Custody::Operational(_) => ("it signs".to_owned(), ""),
            Custody::Locked(_) => ("it is locked".to_owned(), CustodyError::Locked.advice()),
            Custody::Unprovisioned(held) => (
                match held {
                    Held::Nothing => "there are no keys yet".to_owned(),
                    _ => "there are keys, and no genesis is pinned".to_owned(),
                },
                CustodyError::Unprovisioned.advice(),
            ),
            Custody::Quarantined(reason, held) => (
                reason.clone(),
                match held {
                    Held::Open(_) if self.is_unvouched() => {
                        "Switch the device on, or put it back into hsmd.toml. If it is lost, make a new consensus key, let the \
                         officers activate it, and remove the device."
                    }
                    Held::Open(_) => {
                        "Make a new consensus key (`zixt-hsm generate consensus`), propose its activation and let the \
                         officers approve it."
                    }
                    Held::Sealed(_) => {
                        "Unlock, then make a new consensus key and let the officers activate it."
                    }
                    Held::Nothing => {
                        "Do not repair files by hand. Restore this machine's own newest state, or recover from backup and \
                         officers' shares on a fresh one."
                    }
                },
            ),
            Custody::Failed(reason) => {
                (reason.clone(), "Read the log of zixt-hsmd, remove the cause, and restart it.")
            }
        };
        let mut findings = vec![Finding {
            what: "state".to_owned(),
            good: custody.kind() == StateKind::Operational,
            found: format!("{}: {reason}", custody.kind()),
            advice: advice.to_owned(),
        }];
        findings.extend(protectors.iter().map(protector));
        if let Some(record) = custody.record() {
            findings.extend(safety(record, &protectors));
        }
        let anchors = custody.open().and_then(|open| self.reached(open)).unwrap_or_default();
        let record = custody.open().ok().map(|open| open.record.clone());
        // A device may take its time, and whoever changes the state must not wait for that.
        drop(custody);
        findings.extend(if ask { Self::try_anchors(&anchors) } else { self.seen_silent(&anchors) });
        findings.extend(record.map(|record| self.look_for_leftovers(&record, ask)).unwrap_or_default());
        if let Some(error) = self.last_failure() {
            findings.push(bad("last unlock", &error.to_string(), error.advice()));
        }
        let tries = self.last_try_text();
        if !tries.is_empty() {
            findings.push(bad("PIN", &tries, "Find out who tried; each next try waits longer."));
        }
        findings.push(self.disk());
        findings.push(memory());
        findings
    }

    /// Whether every device whose counter is reached still answers, and stands where the state says: the only way to find
    /// out that one is gone which nothing asked since the unlock.
    fn try_anchors(anchors: &[Anchor<'_>]) -> Vec<Finding> {
        let tried = anchors.iter().map(|anchor| {
            let what = format!("counter {}", anchor.name());
            match anchor.judge() {
                _ if anchor.is_unseen() => bad(
                    &what,
                    "it was not there when officers last decided on this state, and does not vouch for it",
                    "Rotate the root (`zixt-hsm propose rotate-root`) with the PINs of all protectors: that corrects it.",
                ),
                Ok(None) => good(&what, "stands where the state says"),
                Ok(Some(why)) => bad(
                    &what,
                    &why,
                    "Lock and unlock: custody then quarantines itself, and officers activate a new consensus key.",
                ),
                Err(error) => bad(&what, &error.to_string(), error.advice()),
            }
        });
        tried.collect()
    }

    /// Which closed devices did not tell their counters when they were asked last.
    fn seen_silent(&self, anchors: &[Anchor<'_>]) -> Vec<Finding> {
        let silent =
            anchors.iter().filter_map(|anchor| Some((anchor.name(), self.last_silence(anchor.name())?)));
        silent
            .map(|(name, error)| bad(&format!("counter {name}"), &error.to_string(), error.advice()))
            .collect()
    }

    fn disk(&self) -> Finding {
        match nix::sys::statvfs::statvfs(&self.folder.0) {
            Ok(disk) => {
                let free = disk.blocks_available() * disk.fragment_size();
                let found = format!("{} MiB are free", free >> 20);
                if free < FREE_BYTES_MIN {
                    bad("disk", &found, "Make room: a full disk stops signing.")
                } else {
                    good("disk", &found)
                }
            }
            Err(error) => bad("disk", &error.to_string(), "Look at the kernel's log."),
        }
    }
}

fn protector(info: &ProtectorInfo) -> Finding {
    let what = format!("protector {}", info.name);
    match (&info.token, info.kind) {
        (_, ProtectorKind::Recovery) => good(&what, &info.problem),
        (Some(token), _) => {
            let use_ = if info.enrolled { "wraps the root" } else { "not used" };
            let found = format!("{}; {use_}", super::status::description(token));
            if info.enrolled && token.software {
                bad(&what, &found, "No hardware protects it. For a lab only.")
            } else {
                good(&what, &found)
            }
        }
        (None, _) if info.configured => {
            let advice = if info.enrolled {
                "Plug it in, or unlock by another protector. If it is lost, let the officers remove it."
            } else {
                "Plug it in, or take it out of hsmd.toml."
            };
            bad(&what, &info.problem, advice)
        }
        (None, _) => bad(
            &what,
            &info.problem,
            "Put it back into hsmd.toml and restart zixt-hsmd, or let the officers remove it.",
        ),
    }
}

/// What would be lost, or go unnoticed, when something happens.
fn safety(record: &CustodyRecord, protectors: &[ProtectorInfo]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let enrolled = protectors.iter().filter(|protector| protector.enrolled).count();
    findings.push(if enrolled < 2 {
        bad(
            "spare",
            "one protector wraps the root; when it is lost, the keys are",
            "Add a second one, and set recovery for the officers.",
        )
    } else {
        good("spare", &format!("{enrolled} protectors wrap the root"))
    });
    findings.push(match super::recover::shares(record) {
        Some((needed, of)) => good("recovery", &format!("{needed} of {of} officers can recover the root")),
        None => bad(
            "recovery",
            "officers hold no shares: nobody can recover the keys when the protectors are lost",
            "Propose `recovery` with the officers' cards.",
        ),
    });
    findings.push(rollback(record));
    if record.unpacking.is_some() {
        findings.push(bad(
            "backup",
            "custody was recovered from it, and the server's files in it were not unpacked",
            "Run `zixt-hsm recover files` with that backup.",
        ));
    }
    if let Some(pinned) = &record.pinned {
        findings.push(match pinned.unlock {
            UnlockMode::Attended => good(
                "theft",
                "attended: whoever takes the switched-off machine has to know a PIN and have the device that it opens",
            ),
            UnlockMode::Unattended => bad(
                "theft",
                "unattended: whoever takes the switched-off machine with its devices and switches it on has one that signs",
                "That was chosen in the genesis. Guard the machine accordingly.",
            ),
        });
    }
    findings
}

/// By what a state that was set back is noticed.
fn rollback(record: &CustodyRecord) -> Finding {
    let anchored = || record.protectors.iter().filter(|protector| protector.anchored.is_some());
    let names = |closed: bool| {
        let of = anchored().filter(|protector| protector.counter_auth.is_some() == closed);
        of.map(|protector| protector.name.as_str()).collect::<Vec<_>>()
    };
    let (always, while_open) = (names(true), names(false));
    match (always.as_slice(), while_open.as_slice()) {
        ([], []) => bad(
            "rollback",
            "no protector has a counter: an older state folder that is put back is not noticed",
            "Add a TPM, or a token that keeps an anchor.",
        ),
        ([], [only]) => good("rollback", &format!("an older state is noticed by {only}")),
        ([], several) => bad(
            "rollback",
            &format!(
                "an older state is noticed only by the protector that custody is unlocked by ({}): a token tells nothing \
                 without its PIN. A copy of the folder that is as old as the last use of another one is taken for current \
                 by that",
                several.join(", ")
            ),
            "Add a TPM, whose counter is asked whichever protector is used. Until then unlock by one, and keep the others \
             where nobody reaches them together with the disk.",
        ),
        (always, []) => {
            good("rollback", &format!("an older state is noticed by {} at every unlock", always.join(", ")))
        }
        (always, while_open) => good(
            "rollback",
            &format!(
                "an older state is noticed by {} at every unlock, and by {} where custody is unlocked by it",
                always.join(", "),
                while_open.join(", ")
            ),
        ),
    }
}

/// Whether secrets can be swapped out, as the kernel tells it of this process.
fn memory() -> Finding {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).map(str::trim);
    match locked {
        Some(amount) if !amount.starts_with("0 ") => {
            good("memory", "it is locked: nothing of it is swapped out")
        }
        _ => bad(
            "memory",
            "memory is not locked and may be swapped out",
            "Set LimitMEMLOCK=infinity for zixt-hsmd, or encrypt swap.",
        ),
    }
}

fn good(what: &str, found: &str) -> Finding {
    Finding { what: what.to_owned(), good: true, found: found.to_owned(), advice: String::new() }
}

fn bad(what: &str, found: &str, advice: &str) -> Finding {
    Finding { what: what.to_owned(), good: false, found: found.to_owned(), advice: advice.to_owned() }
}
