//! Users of etcd's, with what they may do.

use etcd_client::{Client, ConnectOptions, Error, Permission};

use super::etcd::{Etcd, Ways};

const ROOT: (&str, &str) = ("root", "of all");

/// Servers whose tokens are good for so many seconds, and that take little time for a password.
pub fn ways(token_seconds: u32) -> Ways {
    let arguments = ["--bcrypt-cost", "4", "--auth-token-ttl", &token_seconds.to_string()].map(str::to_owned);
    Ways { arguments: arguments.to_vec(), ..Ways::default() }
}

impl Etcd {
    /// Nobody does anything any more without being a user.
    pub fn enable_users(&mut self, options: ConnectOptions) {
        self.ask(async |client| enable(client).await).unwrap();
        self.ask_as(options.with_user(ROOT.0, ROOT.1));
    }

    /// A user who may do this; a user without a password is known by a certificate alone.
    pub fn add_user(&self, user: &str, password: &str, permissions: &[Permission]) {
        self.ask(async |mut client| {
            client.role_add(user).await?;
            client.user_add(user, password, None).await?;
            client.user_grant_role(user, user).await.map(drop)
        })
        .unwrap();
        self.grant(user, permissions);
    }

    pub fn grant(&self, user: &str, permissions: &[Permission]) {
        for permission in permissions {
            self.ask(async |mut client| client.role_grant_permission(user, permission.clone()).await)
                .unwrap();
        }
    }

    pub fn change_password(&self, user: &str, password: &str) {
        self.ask(async |mut client| client.user_change_password(user, password).await).unwrap();
    }

    /// How many tokens of a user have expired so far.
    pub fn expired_tokens(&self, user: &str) -> usize {
        let is_one =
            |line: &&str| line.contains("deleted a simple token") && line.contains(&format!("\"{user}\""));
        self.log().lines().filter(is_one).count()
    }
}

async fn enable(mut client: Client) -> Result<(), Error> {
    client.user_add(ROOT.0, ROOT.1, None).await?;
    client.role_add(ROOT.0).await?;
    client.user_grant_role(ROOT.0, ROOT.0).await?;
    client.auth_enable().await.map(drop)
}
