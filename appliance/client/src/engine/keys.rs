//! Key packages are published before they run out, and conversations renew their keys in time.

use super::{Engine, with_sources};
use crate::error::ClientError;
use crate::records::{self, KeyPackageRecord};
use crate::shared::now;
use crate::store::{Batch, Space};
use zixt_api::{Bytes64, KeyPackageUpload};
use zixt_messaging::KeyPackageUse;
use zixt_types::Timestamp;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Fewer one-time key packages than this are filled up.
const ONE_TIME_MIN: u32 = 10;
/// To this number: a person is added to few conversations between two connections.
const ONE_TIME_TARGET: u32 = 20;
/// Life of a one-time key package.
const ONE_TIME_MS: u64 = 60 * DAY_MS;
/// Life of the last-resort key package.
const LAST_RESORT_MS: u64 = 90 * DAY_MS;
/// It is replaced after this time, long before its end.
const LAST_RESORT_RENEW_MS: u64 = 30 * DAY_MS;

const LAST_RESORT_AT: &[u8] = b"keys/last-resort";

impl Engine {
    /// Publishes key packages if few are left, and forgets private parts that are over.
    pub async fn publish_keys(&mut self) -> Result<(), ClientError> {
        let api = self.core.api.clone();
        let counts = api.key_package_counts().await?;
        let made: Option<Timestamp> = match self.core.store.get(Space::Fact, LAST_RESORT_AT).await? {
            Some(bytes) => Some(records::decode(Space::Fact, &bytes)?),
            None => None,
        };
        let renew = !counts.last_resort
            || made.is_none_or(|made| now().0.saturating_sub(made.0) > LAST_RESORT_RENEW_MS);
        let one_time = if counts.one_time < ONE_TIME_MIN { ONE_TIME_TARGET - counts.one_time } else { 0 };
        if one_time == 0 && !renew {
            return Ok(());
        }
        let mut batch = Batch::new();
        let mut upload = KeyPackageUpload::default();
        for _ in 0..one_time {
            let public = self.new_package(&mut batch, KeyPackageUse::OneTime, ONE_TIME_MS)?;
            upload.one_time.push(public);
        }
        if renew {
            upload.last_resort =
                Some(self.new_package(&mut batch, KeyPackageUse::LastResort, LAST_RESORT_MS)?);
            batch.put(Space::Fact, LAST_RESORT_AT, records::encode(&now()));
        }
        for (id, bytes) in self.core.store.scan(Space::KeyPackage, &[], &[], u32::MAX).await? {
            let record: KeyPackageRecord = records::decode(Space::KeyPackage, &bytes)?;
            if record.expires_at.0.saturating_add(DAY_MS) < now().0 {
                batch.delete(Space::KeyPackage, id);
            }
        }
        // The private parts first: nobody may be able to add a device that cannot join.
        self.commit(batch, Vec::new()).await?;
        api.upload_key_packages(&upload).await?;
        Ok(())
    }

    fn new_package(
        &self,
        batch: &mut Batch,
        usage: KeyPackageUse,
        lifetime_ms: u64,
    ) -> Result<Bytes64, ClientError> {
        let package = self
            .core
            .device
            .generate_key_package(usage, now(), lifetime_ms)
            .map_err(|error| ClientError::Messaging(with_sources(&error)))?;
        let record = KeyPackageRecord {
            version: records::VERSION,
            sealed: package.private.sealed,
            expires_at: package.info.expires_at,
        };
        batch.put(Space::KeyPackage, package.info.id.0.as_ref().to_vec(), records::encode(&record));
        Ok(Bytes64(package.public))
    }

    /// Renews the keys of every conversation whose time has come.
    pub async fn rotate_due(&mut self) -> Result<(), ClientError> {
        for record in self.core.threads().await? {
            if record.removed || record.blocked.is_some() {
                continue;
            }
            match self.tidy_before_sending(record.thread, true).await {
                Ok(()) => {}
                Err(error @ ClientError::Connection(_)) => return Err(error),
                Err(error @ ClientError::Trust(_)) => {
                    self.noticed(error, Some(record.thread)).await?;
                }
                Err(error) => log::warn!("renewing keys: {}", with_sources(&error)),
            }
        }
        Ok(())
    }
}
