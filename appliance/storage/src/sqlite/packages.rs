//! Key packages: each one-time package is handed out once, and that is durable before anybody sees it.

use super::rows::Reading;
use super::{SqliteStore, int};
use crate::{KeyPackage, KeyPackageCounts, PutKeyPackagesError, StoreError};
use sqlx::SqliteConnection;
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
        let put = match writer.begin().await {
            Ok(connection) => put(connection, device, one_time, last_resort).await,
            Err(error) => Err(error.into()),
        };
        writer.end(put).await
    }

    pub(crate) async fn claim_key_packages(
        &self,
        devices: &[DeviceId],
    ) -> Result<Vec<Option<KeyPackage>>, StoreError> {
        let mut writer = self.writer().await;
        let claimed = match writer.begin().await {
            Ok(connection) => claim_all(connection, devices).await,
            Err(error) => Err(error),
        };
        // From here on they are spent, whether or not the answer reaches anybody.
        writer.end(claimed).await
    }

    pub(crate) async fn key_package_counts(&self, device: &DeviceId) -> Result<KeyPackageCounts, StoreError> {
        counts(&mut *self.reader().await?, device).await
    }
}

async fn put(
    connection: &mut SqliteConnection,
    device: &DeviceId,
    one_time: &[Vec<u8>],
    last_resort: Option<&[u8]>,
) -> Result<KeyPackageCounts, PutKeyPackagesError> {
    let stored = counts(connection, device).await?.one_time;
    for package in one_time {
        add(connection, device, package, false).await?;
    }
    let max = limits::KEY_PACKAGES_MAX;
    if counts(connection, device).await?.one_time > max {
        return Err(PutKeyPackagesError::TooMany { stored, offered: one_time.len(), max });
    }
    if let Some(package) = last_resort {
        replace_last_resort(connection, device, package).await?;
    }
    forget_spent(connection, device).await?;
    Ok(counts(connection, device).await?)
}

async fn claim_all(
    connection: &mut SqliteConnection,
    devices: &[DeviceId],
) -> Result<Vec<Option<KeyPackage>>, StoreError> {
    let mut claimed = Vec::with_capacity(devices.len());
    for device in devices {
        claimed.push(claim(connection, device).await?);
    }
    Ok(claimed)
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
