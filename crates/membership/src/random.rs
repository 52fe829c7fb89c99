//! Random numbers that nobody guesses and no two hosts draw alike.

use ring::rand::{SecureRandom, SystemRandom};

use crate::MembershipError;

/// So many random bytes, from the kernel.
pub(crate) fn bytes<const COUNT: usize>() -> Result<[u8; COUNT], MembershipError> {
    let mut bytes = [0; COUNT];
    SystemRandom::new().fill(&mut bytes).map_err(|_| MembershipError::NoRandomness)?;
    Ok(bytes)
}
