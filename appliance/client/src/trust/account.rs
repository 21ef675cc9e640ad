//! An account, replayed from its thread.

use super::{Checker, TrustError, VerifiedHeader};
use zixt_api::AccountView;
use zixt_crypto::{Keyring, digest, labels};
use zixt_ledger::{Account, label_for};
use zixt_types::{AccountId, Author, Hash, Head, Payload, Salt, Seq, SuiteId};

/// An account that was replayed and leads to the certified head of its thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckedAccount {
    /// The account.
    pub account: Account,
    /// Its name and the salt of its commitment, if the appliance knows it.
    pub name: Option<(String, Salt)>,
    /// Keys that its entries name.
    pub keys: Keyring,
    /// Hashes of all entries, in order.
    pub chain: Vec<Hash>,
    /// The last entry.
    pub head: Head,
}

impl Checker {
    /// Replays an account's thread: every signature, every rule, and the head that `header` certifies.
    ///
    /// # Errors
    /// See [`TrustError`].
    pub fn account(
        &self,
        asked: AccountId,
        view: &AccountView,
        header: &VerifiedHeader,
    ) -> Result<CheckedAccount, TrustError> {
        let thread = digest::account_thread(asked);
        let mut keys = (*self.keyring).clone();
        for key in &view.keys {
            if let Ok(suite) = SuiteId::try_from(key.suite) {
                // Named by its own hash, so a wrong one only takes space.
                keys.insert(suite, &key.key.0);
            }
        }
        let mut account: Option<Account> = None;
        let mut chain = Vec::with_capacity(view.entries.len());
        let mut last: Option<Head> = None;
        for entry in &view.entries {
            let entry = self.entry(entry)?;
            let seq = entry.seq();
            if entry.body.thread != thread {
                return Err(TrustError::OtherThread { seq, got: entry.body.thread });
            }
            let (expected, prev) = last.map_or((Seq(0), Hash::ZERO), |head| (head.seq.next(), head.hash));
            if seq != expected || entry.position.prev != prev {
                return Err(TrustError::BrokenChain(seq));
            }
            last = Some(entry.head());
            chain.push(entry.hash);
            let rules = |source| TrustError::Rules { seq, source };
            let signer = match &mut account {
                None => {
                    let invited = Account::invited(&entry.body).map_err(rules)?;
                    if !self.system.system().appoints(&invited.enroller, entry.position.time) {
                        return Err(TrustError::Enroller(asked));
                    }
                    let signer = invited.enroller;
                    account = Some(invited);
                    signer
                }
                Some(account) => {
                    if let Author::Enroller(key) = &entry.body.author
                        && !self.system.system().appoints(key, entry.position.time)
                    {
                        return Err(TrustError::Enroller(asked));
                    }
                    let time = entry.position.time;
                    let signer = account.author_key(&entry.body.author, time).map_err(rules)?;
                    account.apply(&entry.body, time).map_err(rules)?;
                    signer
                }
            };
            let verify = |hash: &Hash, label: &[u8], signature: &[u8]| {
                let key = keys.get(hash).ok_or(TrustError::KeyMissing(*hash))?;
                let suite = entry.body.suite;
                zixt_crypto::cose::verify(
                    &*self.backend,
                    suite,
                    &key.key,
                    label,
                    &entry.body_bytes,
                    signature,
                )
                .map_err(|source| TrustError::Signature { seq, source })
            };
            verify(&signer, label_for(&entry.body.author), &entry.signature)?;
            match (&entry.body.payload, &entry.possession) {
                (Payload::DeviceAdd { device, identity, .. }, Some(possession)) => {
                    if *device != digest::device_id(*identity) {
                        return Err(TrustError::OtherEntry(seq));
                    }
                    verify(identity, labels::DEVICE_CROSS_CERT, possession)?;
                }
                (Payload::DeviceAdd { .. }, None) | (_, Some(_)) => {
                    return Err(TrustError::OtherEntry(seq));
                }
                (_, None) => {}
            }
        }
        let (Some(account), Some(head)) = (account, last) else {
            return Err(TrustError::AccountHead(asked));
        };
        let (_, certified) = self.head(thread, &view.proof, header)?;
        if certified != Some(head) {
            return Err(TrustError::AccountHead(asked));
        }
        let name = match &view.name {
            None => None,
            Some(name)
                if name.account.0 == asked
                    && digest::name_commitment(&name.salt.0, &name.name) == account.name =>
            {
                Some((name.name.clone(), name.salt.0))
            }
            Some(_) => return Err(TrustError::Name(asked)),
        };
        Ok(CheckedAccount { account, name, keys, chain, head })
    }
}
