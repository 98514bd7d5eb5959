//! Exec and console: the request and its websockets. What flows through them is the caller's.

use cabin_api::instance::{ConsolePost, ExecPost};
use cabin_api::operation::Operation;
use serde_json::Value;
use tokio::try_join;

use crate::{Address, Client, Error, Result, Socket};

/// A command that runs inside, with its websockets connected.
#[derive(Debug)]
pub struct Session {
    /// The operation; its result's `return` is the exit code.
    pub operation: Operation,
    /// Standard input; with a terminal, both directions of it.
    pub input: Socket,
    /// Standard output; none with a terminal.
    pub output: Option<Socket>,
    /// Standard error; none with a terminal.
    pub errors: Option<Socket>,
    /// Window sizes and signals.
    pub control: Socket,
}

/// An attached console.
#[derive(Debug)]
pub struct Console {
    /// The operation.
    pub operation: Operation,
    /// The terminal, both directions.
    pub terminal: Socket,
    /// Window sizes.
    pub control: Socket,
}

impl Client {
    /// Runs a command in an instance and connects to it. `wait_for_websocket` must be set.
    ///
    /// # Errors
    /// When the daemon refuses, or a websocket cannot be opened.
    pub async fn exec(&self, instance: &str, exec: &ExecPost) -> Result<Session> {
        let operation = self.post(instance_address(instance, "exec"), exec).await?.operation()?;
        let (id, metadata) = (operation.id.as_str(), &operation.metadata);
        // The input comes last: with it the daemon has all it waits for, and a short command may be over before the
        // control channel, which it does not wait for, is there.
        if exec.interactive {
            let control = self.channel(id, metadata, "control").await?;
            let input = self.channel(id, metadata, "0").await?;
            return Ok(Session { operation, input, output: None, errors: None, control });
        }
        let (output, errors, control) = try_join!(
            self.channel(id, metadata, "1"),
            self.channel(id, metadata, "2"),
            self.channel(id, metadata, "control"),
        )?;
        let input = self.channel(id, metadata, "0").await?;
        Ok(Session { operation, input, output: Some(output), errors: Some(errors), control })
    }

    /// Runs a command without websockets. The operation's metadata names the recorded output.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn exec_detached(&self, instance: &str, exec: &ExecPost) -> Result<Operation> {
        self.post(instance_address(instance, "exec"), exec).await?.operation()
    }

    /// Attaches to an instance's console.
    ///
    /// # Errors
    /// When the daemon refuses, or somebody else is attached.
    pub async fn console(&self, instance: &str, console: &ConsolePost) -> Result<Console> {
        let operation = self.post(instance_address(instance, "console"), console).await?.operation()?;
        let (id, metadata) = (operation.id.as_str(), &operation.metadata);
        let control = self.channel(id, metadata, "control").await?;
        let terminal = self.channel(id, metadata, "0").await?;
        Ok(Console { operation, terminal, control })
    }

    /// The last output of an instance's console.
    ///
    /// # Errors
    /// When there is no such instance.
    pub async fn console_log(&self, instance: &str) -> Result<String> {
        self.text(instance_address(instance, "console")).await
    }

    async fn channel(&self, operation: &str, metadata: &Value, fd: &str) -> Result<Socket> {
        let secret = metadata["fds"][fd].as_str().ok_or_else(|| Error::Unexpected {
            request: format!("operation {operation}"),
            expected: "one with websockets",
        })?;
        let address =
            Address::new("/1.0/operations").name(operation).then("websocket").query("secret", secret);
        self.websocket(&address).await
    }
}

fn instance_address(instance: &str, what: &str) -> Address {
    Address::new("/1.0/instances").name(instance).then(what)
}
