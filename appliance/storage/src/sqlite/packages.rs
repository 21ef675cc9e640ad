//! Key packages: each one-time package is handed out once, and that is durable before anybody sees it.

use super::rows::Reading;
use super::{SqliteStore, int};
use crate::{KeyPackage, KeyPackageCounts, PutKeyPackagesError, StoreError};
use sqlx::{Connection, SqliteConnection};
use zixt_crypto::digest;
use zixt_types::{DeviceId, limits};

/// Digests of handed-out packages kept per device, so that an upload repeated late does not bring one back.
const SPENT_MAX: i64 = 1000;

impl SqliteStore {
    pub(crate) async fn put_key_packages(
        &self,
        device: &DeviceId,
        one_time: &[Vec<u8>],
        last_resort: Option<&[u8]>,
    ) -> Result<KeyPackageCounts, PutKeyPackagesError> {
        let max = limits::KEY_PACKAGE_BYTES_MAX;
        let lengths = one_time.iter().map(Vec::len).chain(last_resort.map(<[u8]>::len));
        if let Some(got) = lengths.max().filter(|got| *got > max) {
            return Err(PutKeyPackagesError::TooLong { got, max });
        }
        let mut writer = self.writer().await;
        let mut transaction =
            writer.connection.begin_with("BEGIN IMMEDIATE").await.map_err(StoreError::from)?;
        let before = counts(&mut transaction, device).await?;
        for package in one_time {
            add(&mut transaction, device, package, false).await?;
        }
        let after = counts(&mut transaction, device).await?;
        if after.one_time > limits::KEY_PACKAGES_MAX {
            // Dropping the transaction undoes it.
            return Err(PutKeyPackagesError::TooMany {
                stored: before.one_time,
                offered: one_time.len(),
                max: limits::KEY_PACKAGES_MAX,
            });
        }
        if let Some(package) = last_resort {
            replace_last_resort(&mut transaction, device, package).await?;
        }
        forget_spent(&mut transaction, device).await?;
        let after = counts(&mut transaction, device).await?;
        transaction.commit().await.map_err(StoreError::from)?;
        Ok(after)
    }

    pub(crate) async fn claim_key_packages(
        &self,
        devices: &[DeviceId],
    ) -> Result<Vec<Option<KeyPackage>>, StoreError> {
        let mut writer = self.writer().await;
        let mut transaction = writer.connection.begin_with("BEGIN IMMEDIATE").await?;
        let mut claimed = Vec::with_capacity(devices.len());
        for device in devices {
            claimed.push(claim(&mut transaction, device).await?);
        }
        // From here on they are spent, whether or not the answer reaches anybody.
        transaction.commit().await?;
        Ok(claimed)
    }

    pub(crate) async fn key_package_counts(&self, device: &DeviceId) -> Result<KeyPackageCounts, StoreError> {
        counts(&mut *self.readers().acquire().await?, device).await
    }
}

async fn claim(
    connection: &mut SqliteConnection,
    device: &DeviceId,
) -> Result<Option<KeyPackage>, StoreError> {
    // One-time packages first, the oldest first.
    let sql = "SELECT id, digest, last_resort, package FROM key_packages \
               WHERE device = ? AND package IS NOT NULL ORDER BY last_resort, id LIMIT 1";
    let found = sqlx::query(sql).bind(device.as_ref()).fetch_optional(&mut *connection).await?;
    let Some(row) = found else { return Ok(None) };
    let id: i64 =
        sqlx::Row::try_get(&row, "id").map_err(|error| StoreError::corrupt("key_packages", "?", error))?;
    let row = Reading { row: &row, table: "key_packages", key: id.to_string() };
    let package = KeyPackage { bytes: row.get("package")?, last_resort: row.get::<i64>("last_resort")? != 0 };
    if digest::attachment_digest(&package.bytes).as_ref() != row.get::<&[u8]>("digest")? {
        return Err(row.corrupt("the package does not have the stored digest"));
    }
    if !package.last_resort {
        sqlx::query("UPDATE key_packages SET package = NULL WHERE id = ?")
            .bind(id)
            .execute(connection)
            .await?;
    }
    Ok(Some(package))
}

async fn add(
    connection: &mut SqliteConnection,
    device: &DeviceId,
    package: &[u8],
    last_resort: bool,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO key_packages (device, digest, last_resort, package) VALUES (?, ?, ?, ?) \
         ON CONFLICT (device, digest) DO NOTHING",
    )
    .bind(device.as_ref())
    .bind(digest::attachment_digest(package).as_ref())
    .bind(i64::from(last_resort))
    .bind(package)
    .execute(connection)
    .await?;
    Ok(())
}

async fn replace_last_resort(
    connection: &mut SqliteConnection,
    device: &DeviceId,
    package: &[u8],
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM key_packages WHERE device = ? AND last_resort <> 0")
        .bind(device.as_ref())
        .execute(&mut *connection)
        .await?;
    add(connection, device, package, true).await
}

/// Keeps the digests of the last ones only.
async fn forget_spent(connection: &mut SqliteConnection, device: &DeviceId) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM key_packages WHERE device = ?1 AND package IS NULL AND id <= \
         (SELECT id FROM key_packages WHERE device = ?1 AND package IS NULL ORDER BY id DESC LIMIT 1 OFFSET ?2)",
    )
    .bind(device.as_ref())
    .bind(SPENT_MAX)
    .execute(connection)
    .await?;
    Ok(())
}

async fn counts(
    connection: &mut SqliteConnection,
    device: &DeviceId,
) -> Result<KeyPackageCounts, StoreError> {
    let sql =
        "SELECT count(*) FROM key_packages WHERE device = ? AND package IS NOT NULL AND last_resort = ?";
    let mut of = [0i64; 2];
    for (count, last_resort) in of.iter_mut().zip(0i64..) {
        *count = sqlx::query_scalar(sql)
            .bind(device.as_ref())
            .bind(int(last_resort as u64))
            .fetch_one(&mut *connection)
            .await?;
    }
    Ok(KeyPackageCounts { one_time: usize::try_from(of[0]).unwrap_or(0), last_resort: of[1] > 0 })
}
