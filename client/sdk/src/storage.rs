//! Storage pools: `/1.0/storage-pools`.

use cabin_api::storage::{ConfigPut, Pool, PoolResources, PoolsPost};

use crate::{Address, Client, ETag, Reply, Result, Tagged};

/// Pools, as a list.
pub type StoragePools = Vec<Pool>;

fn root() -> Address {
    Address::new("/1.0/storage-pools")
}

impl Client {
    /// The names of all pools.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn pool_names(&self) -> Result<Vec<String>> {
        self.names(root()).await
    }

    /// All pools.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn pools(&self) -> Result<StoragePools> {
        self.get(root().query("recursion", "1")).await
    }

    /// One pool.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn pool(&self, name: &str) -> Result<Tagged<Pool>> {
        self.get_tagged(root().name(name)).await
    }

    /// What a pool has left.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn pool_resources(&self, name: &str) -> Result<PoolResources> {
        self.get(root().name(name).then("resources")).await
    }

    /// Makes a pool.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn create_pool(&self, pool: &PoolsPost) -> Result<Reply> {
        self.post(root(), pool).await
    }

    /// Replaces a pool's config.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn update_pool(&self, name: &str, put: &ConfigPut, etag: Option<&ETag>) -> Result<Reply> {
        self.put(root().name(name), put, etag).await
    }

    /// Deletes a pool.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn delete_pool(&self, name: &str) -> Result<Reply> {
        self.delete(root().name(name)).await
    }
}
