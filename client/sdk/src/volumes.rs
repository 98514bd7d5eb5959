//! Storage volumes and their snapshots: `/1.0/storage-pools/{pool}/volumes`.

use cabin_api::storage::Volume;
use cabin_api::volume::{
    VolumePost, VolumeSnapshot, VolumeSnapshotPost, VolumeSnapshotsPost, VolumeState, VolumesPost,
};
use serde_json::json;

use crate::{Address, Client, Reply, Result, Tagged};

fn root(pool: &str) -> Address {
    Address::new("/1.0/storage-pools").name(pool).then("volumes")
}

/// The address of a custom volume.
#[must_use]
pub fn custom_volume(pool: &str, volume: &str) -> Address {
    root(pool).then("custom").name(volume)
}

fn snapshots(pool: &str, volume: &str) -> Address {
    custom_volume(pool, volume).then("snapshots")
}

impl Client {
    /// The volumes of a pool.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn volumes(&self, pool: &str) -> Result<Vec<Volume>> {
        self.get(root(pool).query("recursion", "1")).await
    }

    /// One volume.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn volume(&self, pool: &str, kind: &str, volume: &str) -> Result<Tagged<Volume>> {
        self.get_tagged(root(pool).name(kind).name(volume)).await
    }

    /// What a volume uses.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn volume_state(&self, pool: &str, kind: &str, volume: &str) -> Result<VolumeState> {
        self.get(root(pool).name(kind).name(volume).then("state")).await
    }

    /// Makes a custom volume, or a copy of one.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn create_volume(&self, pool: &str, post: &VolumesPost) -> Result<Reply> {
        self.post(root(pool).then("custom"), post).await
    }

    /// Gives a custom volume a new name or another pool.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn move_volume(&self, pool: &str, volume: &str, post: &VolumePost) -> Result<Reply> {
        self.post(custom_volume(pool, volume), post).await
    }

    /// Deletes a custom volume.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn delete_volume(&self, pool: &str, volume: &str) -> Result<Reply> {
        self.delete(custom_volume(pool, volume)).await
    }

    /// Brings back what a snapshot of a custom volume holds.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn restore_volume(&self, pool: &str, volume: &str, snapshot: &str) -> Result<Reply> {
        self.put(custom_volume(pool, volume), &json!({ "restore": snapshot }), None).await
    }

    /// The snapshots of a volume, the oldest first, by their whole names.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn volume_snapshots(&self, pool: &str, volume: &str) -> Result<Vec<VolumeSnapshot>> {
        self.get(snapshots(pool, volume).query("recursion", "1")).await
    }

    /// One snapshot.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn volume_snapshot(&self, pool: &str, volume: &str, name: &str) -> Result<VolumeSnapshot> {
        self.get(snapshots(pool, volume).name(name)).await
    }

    /// Takes a snapshot of a custom volume.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn create_volume_snapshot(
        &self,
        pool: &str,
        volume: &str,
        post: &VolumeSnapshotsPost,
    ) -> Result<Reply> {
        self.post(snapshots(pool, volume), post).await
    }

    /// Gives a snapshot of a custom volume a new name.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn rename_volume_snapshot(
        &self,
        pool: &str,
        volume: &str,
        name: &str,
        new: &str,
    ) -> Result<Reply> {
        let post = VolumeSnapshotPost { name: new.to_owned(), migration: false };
        self.post(snapshots(pool, volume).name(name), &post).await
    }

    /// Deletes a snapshot of a custom volume.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn delete_volume_snapshot(&self, pool: &str, volume: &str, name: &str) -> Result<Reply> {
        self.delete(snapshots(pool, volume).name(name)).await
    }
}
