//! Actions for officers, from what custody says it is.

use crate::{Failure, read};
use clap::Subcommand;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};
use zixt_ceremony::OfficerCard;
use zixt_ceremony::file::from_file;
use zixt_hsm_protocol::{KeyPurpose, KeyStatus, ProtectorInfo, StateKind, Status};
use zixt_types::{AccountId, Action, Decision, Hash, Role, ShareHolder, Timestamp};

/// How long officers have, if nothing else is said.
const DAYS: u64 = 14;

/// What officers are to decide.
#[derive(Subcommand)]
pub(crate) enum What {
    /// Let one more device unwrap the root key
    AddProtector {
        /// Its name in the configuration
        name: String,
    },
    /// Take a device away, and replace the root key
    RemoveProtector {
        /// Its name
        name: String,
    },
    /// Replace the root key
    RotateRoot,
    /// Give officers new shares of the recovery key
    Recovery {
        /// How many shares recover the root
        #[arg(long)]
        threshold: u8,
        /// The officers' cards
        #[arg(required = true)]
        cards: Vec<PathBuf>,
    },
    /// Put the pending key of a purpose in the place of the active one
    Activate {
        /// consensus or enroller
        #[arg(value_parser = crate::purpose)]
        purpose: KeyPurpose,
        /// In quarantine: the key that the ledger has, if custody's state is older than the ledger (`zixt-admin fsck` says it)
        #[arg(long, value_parser = hash)]
        retires: Option<Hash>,
        /// In quarantine: a number after the ledger's last one, if custody's state is older than the ledger
        #[arg(long)]
        number: Option<u64>,
    },
    /// Destroy a retired key
    Destroy {
        /// Its purpose
        #[arg(value_parser = crate::purpose)]
        purpose: KeyPurpose,
        /// Its hash, as `zixt-hsm list` shows it
        #[arg(value_parser = hash)]
        key: Hash,
    },
    /// Give an account other roles: the only way to make a security officer or an administrator
    SetRoles {
        /// The account, as 32 hexadecimal digits (`zixt-admin people` lists them)
        #[arg(value_parser = account)]
        account: AccountId,
        /// All its roles from then on
        #[arg(required = true, value_parser = role)]
        roles: Vec<Role>,
    },
}

fn account(text: &str) -> Result<AccountId, String> {
    AccountId::from_hex(text).ok_or_else(|| "an account's id has 32 hexadecimal digits".to_owned())
}

fn role(text: &str) -> Result<Role, String> {
    let known = || Role::ALL.map(Role::name).join(", ");
    Role::from_name(text).ok_or_else(|| format!("there is no role {text:?}; there are {}", known()))
}

fn hash(text: &str) -> Result<Hash, String> {
    Hash::from_hex(text).ok_or_else(|| "a hash has 96 hexadecimal digits".to_owned())
}

/// The action that custody would take next.
pub(crate) fn action(status: &Status, what: &What) -> Result<Action, Failure> {
    let (Some(genesis), Some(appliance)) = (status.genesis, status.appliance) else {
        return Err("no network is pinned yet: nothing needs the officers' approval".into());
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let now = u64::try_from(now)?;
    Ok(Action {
        version: Action::VERSION,
        genesis,
        appliance,
        sequence: number(status, what)?,
        expires_at: Timestamp(now + DAYS * 86_400_000),
        decision: decision(status, what)?,
    })
}

/// The number of the decision: custody's next one, or the one that an older state has to go on from.
fn number(status: &Status, what: &What) -> Result<u64, Failure> {
    match what {
        What::Activate { retires, number, .. } if retires.is_some() || number.is_some() => {
            if status.state != StateKind::Quarantined {
                return Err("--retires and --number are for custody in quarantine".into());
            }
            match number {
                Some(number) if *number < status.sequence => {
                    Err(format!("custody has decided more already: its next number is {}", status.sequence)
                        .into())
                }
                number => Ok(number.unwrap_or(status.sequence)),
            }
        }
        _ => Ok(status.sequence),
    }
}

fn decision(status: &Status, what: &What) -> Result<Decision, Failure> {
    let protector = |name: &str| -> Result<&ProtectorInfo, Failure> {
        let found = status.protectors.iter().find(|protector| protector.name == name);
        let known = || status.protectors.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ");
        found.ok_or_else(|| format!("there is no protector {name:?}; there are {}", known()).into())
    };
    Ok(match what {
        What::AddProtector { name } => {
            let info = protector(name)?;
            let (Some(id), Some(token)) = (info.id, &info.token) else {
                return Err(format!("{name} cannot be seen: {}", info.problem).into());
            };
            Decision::AddProtector {
                protector: id,
                kind: info.kind,
                description: zixt_hsm::service::description(token),
            }
        }
        What::RemoveProtector { name } => {
            let id = protector(name)?.id.ok_or("it does not wrap the root")?;
            Decision::RemoveProtector { protector: id }
        }
        What::RotateRoot => Decision::RotateRoot,
        What::Recovery { threshold, cards } => {
            let mut holders = Vec::new();
            for path in cards {
                let card: OfficerCard =
                    from_file(&read(path)?).map_err(|error| format!("{}: {error}", path.display()))?;
                card.verify(&zixt_crypto::Reference)?;
                holders.push(ShareHolder {
                    officer: card.officer(),
                    kem: zixt_crypto::digest::kem_key_hash(&card.kem),
                });
            }
            holders.sort();
            Decision::SetRecovery { threshold: *threshold, holders }
        }
        What::Activate { purpose, retires, .. } => {
            let of = |wanted| status.keys.iter().find(|key| key.purpose == *purpose && key.status == wanted);
            let new = of(KeyStatus::Pending)
                .ok_or_else(|| format!("no {0} key is pending: `zixt-hsm generate {0}`", purpose.name()))?;
            let old = of(KeyStatus::Active).ok_or("no key is active")?;
            Decision::ActivateKey {
                purpose: *purpose,
                retires: retires.unwrap_or(old.hash),
                activates: new.hash,
                suite: new.suite,
                custody: new.custody,
            }
        }
        What::Destroy { purpose, key } => Decision::DestroyKey { purpose: *purpose, key: *key },
        What::SetRoles { account, roles } => {
            let mut roles = roles.clone();
            roles.sort();
            roles.dedup();
            if !zixt_types::are_roles(&roles) {
                return Err("nobody may have these roles together".into());
            }
            Decision::SetRoles { account: *account, roles }
        }
    })
}
