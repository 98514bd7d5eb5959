//! Networks: `/1.0/networks`.

use cabin_api::network::{Allocation, Lease, Network, NetworkState, NetworksPost};
use cabin_api::profile::RenamePost;
use cabin_api::storage::ConfigPut;

use crate::{Address, Client, ETag, Reply, Result, Tagged};

fn root() -> Address {
    Address::new("/1.0/networks")
}

impl Client {
    /// The names of all networks.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn network_names(&self) -> Result<Vec<String>> {
        self.names(root()).await
    }

    /// All networks, the host's own interfaces too.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn networks(&self) -> Result<Vec<Network>> {
        self.get(root().query("recursion", "1")).await
    }

    /// One network.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn network(&self, name: &str) -> Result<Tagged<Network>> {
        self.get_tagged(root().name(name)).await
    }

    /// What a network's interface does now.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn network_state(&self, name: &str) -> Result<NetworkState> {
        self.get(root().name(name).then("state")).await
    }

    /// Addresses given out on a network.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn network_leases(&self, name: &str) -> Result<Vec<Lease>> {
        self.get(root().name(name).then("leases")).await
    }

    /// Makes a network.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn create_network(&self, network: &NetworksPost) -> Result<Reply> {
        self.post(root(), network).await
    }

    /// Replaces a network's config.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn update_network(&self, name: &str, put: &ConfigPut, etag: Option<&ETag>) -> Result<Reply> {
        self.put(root().name(name), put, etag).await
    }

    /// The addresses that networks and instances have.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn network_allocations(&self) -> Result<Vec<Allocation>> {
        self.get(Address::new("/1.0/network-allocations")).await
    }

    /// Gives a network a new name.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn rename_network(&self, name: &str, new: &str) -> Result<Reply> {
        self.post(root().name(name), &RenamePost { name: new.to_owned() }).await
    }

    /// Deletes a network.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn delete_network(&self, name: &str) -> Result<Reply> {
        self.delete(root().name(name)).await
    }
}
