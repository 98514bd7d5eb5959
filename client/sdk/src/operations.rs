//! Operations: waiting for them, watching them, cancelling them.

use std::collections::BTreeMap;

use cabin_api::StatusCode;
use cabin_api::operation::Operation;
use serde_json::Value;

use crate::{Address, Client, Error, Reply, Result};

impl Client {
    /// All operations, by the text of their status.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn operations(&self) -> Result<BTreeMap<String, Vec<Operation>>> {
        self.get(Address::new("/1.0/operations?recursion=1")).await
    }

    /// One operation.
    ///
    /// # Errors
    /// When it is not there any more.
    pub async fn operation(&self, id: &str) -> Result<Operation> {
        self.get(Address::new("/1.0/operations").name(id)).await
    }

    /// Cancels an operation.
    ///
    /// # Errors
    /// When it cannot be cancelled.
    pub async fn cancel_operation(&self, id: &str) -> Result<()> {
        self.delete(Address::new("/1.0/operations").name(id)).await.map(drop)
    }

    /// Waits until an operation is over, however that ended.
    ///
    /// # Errors
    /// When it is not there any more.
    pub async fn wait_operation(&self, id: &str) -> Result<Operation> {
        self.get(Address::new("/1.0/operations").name(id).then("wait").query("timeout", "-1")).await
    }

    /// Waits for what a change began, if it did not finish at once. Gives the operation, or nothing when the
    /// reply was final.
    ///
    /// # Errors
    /// [`Error::Failed`] when the operation failed.
    pub async fn finish(&self, reply: Reply) -> Result<Option<Operation>> {
        match reply {
            Reply::Done(_) => Ok(None),
            Reply::Begun(operation) => self.finish_operation(*operation).await.map(Some),
        }
    }

    /// Waits for an operation and turns its failure into an error.
    ///
    /// # Errors
    /// [`Error::Failed`] when it failed.
    pub async fn finish_operation(&self, operation: Operation) -> Result<Operation> {
        let over = if operation.status_code.is_final() {
            operation
        } else {
            self.wait_operation(&operation.id).await?
        };
        outcome(over)
    }
}

impl Reply {
    /// The operation that was begun.
    ///
    /// # Errors
    /// When the reply was final.
    pub fn operation(self) -> Result<Operation> {
        match self {
            Reply::Begun(operation) => Ok(*operation),
            Reply::Done(_) => {
                Err(Error::Unexpected { request: "the request".to_owned(), expected: "an operation" })
            }
        }
    }

    /// The metadata of a final reply; the operation's when one was begun.
    #[must_use]
    pub fn metadata(self) -> Value {
        match self {
            Reply::Done(value) => value,
            Reply::Begun(operation) => operation.metadata,
        }
    }
}

/// The operation, or its failure as an error.
fn outcome(operation: Operation) -> Result<Operation> {
    if operation.status_code == StatusCode::Success {
        return Ok(operation);
    }
    let text = match operation.err.as_str() {
        "" => format!("operation `{}` ended as {}", operation.description, operation.status),
        text => text.to_owned(),
    };
    let exit_code = operation.metadata["return"].as_i64();
    Err(Error::Failed { operation: operation.id, code: operation.status_code.into(), text, exit_code })
}
