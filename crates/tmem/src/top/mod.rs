//! `tmem top`: what `tmem status` says, live, in a terminal.
//!
//! Whatever is shown comes from others: guests' names and reasons from a balancer, names of disks from whoever made them. All of it goes
//! through [`plain::plain`].
//!
//! | module | one job |
//! |---|---|
//! | `look` | what is asked each time |
//! | `rates` | how fast counters grow, from two looks |
//! | `guests` | clients and the balancer's guests as one list |
//! | `view` | what is shown now: the last looks, and what the keys chose |
//! | `keys` | which key does what |
//! | `columns` | which columns fit |
//! | `plan` | which parts get how many lines |
//! | `draw`, `head`, `foot` | the picture: all of it, what is above the list, and what is below |
//! | `plain` | foreign text that does nothing to a terminal |
//! | `events` | what there is to wait for: keys, looks, signals |
//! | `screen` | the terminal, and what is done with events |
//! | `text` | one picture as text |

mod columns;
mod draw;
mod events;
mod foot;
mod guests;
mod head;
mod keys;
mod look;
mod plain;
mod plan;
mod rates;
mod screen;
mod text;
mod view;

pub(crate) use screen::watch;
pub(crate) use text::once;
