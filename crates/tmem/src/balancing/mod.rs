//! The balancer as a process: looks at guests and at the pool, has a policy decide, and tells guests.
//!
//! | file | job |
//! |---|---|
//! | `looking` | asks all guests at once, and remembers what they said |
//! | `scene` | what the policy sees: guests, their swap-ins as the pool counts them, and what may be given |
//! | `running` | the loop |
//! | `records` | the log of decisions, and traces |
//!
//! It is a process of its own: it talks to monitors, which may have been taken over by their guests, and the process that serves pages talks to nobody.
//! Should it die, guests stay as they are.

mod looking;
mod records;
mod running;
mod scene;

pub(crate) use looking::LEAST_CHANGE_BYTES;
pub(crate) use records::Records;
pub(crate) use running::{Balancing, policy};
