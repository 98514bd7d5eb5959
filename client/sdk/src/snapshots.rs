//! Snapshots of instances: `/1.0/instances/{name}/snapshots`.

use cabin_api::diff::InstanceDiff;
use cabin_api::snapshot::{InstanceSnapshot, InstanceSnapshotPost, InstanceSnapshotsPost};
use serde_json::json;

use crate::{Address, Client, Reply, Result};

fn root(instance: &str) -> Address {
    Address::new("/1.0/instances").name(instance).then("snapshots")
}

impl Client {
    /// The snapshots of an instance, the oldest first.
    ///
    /// # Errors
    /// When the instance is not there.
    pub async fn snapshots(&self, instance: &str) -> Result<Vec<InstanceSnapshot>> {
        self.get(root(instance).query("recursion", "1")).await
    }

    /// What differs between two states of an instance's files: `from` is a snapshot, or empty for the image; `to` is
    /// a snapshot, or empty for what is now.
    ///
    /// # Errors
    /// When the instance or a snapshot is not there.
    pub async fn instance_diff(&self, instance: &str, from: &str, to: &str) -> Result<InstanceDiff> {
        let address = Address::new("/1.0/instances").name(instance).then("diff");
        self.get(address.query("from", from).query("to", to)).await
    }

    /// One snapshot.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn snapshot(&self, instance: &str, name: &str) -> Result<InstanceSnapshot> {
        self.get(root(instance).name(name)).await
    }

    /// Takes a snapshot.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn create_snapshot(&self, instance: &str, post: &InstanceSnapshotsPost) -> Result<Reply> {
        self.post(root(instance), post).await
    }

    /// Gives a snapshot a new name.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn rename_snapshot(&self, instance: &str, name: &str, new: &str) -> Result<Reply> {
        let post = InstanceSnapshotPost { name: new.to_owned(), migration: false };
        self.post(root(instance).name(name), &post).await
    }

    /// Deletes a snapshot.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn delete_snapshot(&self, instance: &str, name: &str) -> Result<Reply> {
        self.delete(root(instance).name(name)).await
    }

    /// Brings back what a snapshot holds; with `disk_only` the files alone.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn restore_snapshot(
        &self,
        instance: &str,
        name: &str,
        disk_only: bool,
        volumes: bool,
    ) -> Result<Reply> {
        let put = json!({ "restore": name, "disk_only": disk_only, "volumes": volumes });
        self.put(Address::new("/1.0/instances").name(instance), &put, None).await
    }
}
