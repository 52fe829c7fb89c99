//! Names of threads, so that `top -H` tells whose they are.

use std::ffi::CString;

/// Most bytes of a thread's name on Linux, without the final zero.
const MAX_BYTES: usize = 15;

/// `PREFIX-NAME` and a suffix. Where that is too long, the name is cut.
pub fn of(prefix: &str, name: &str, suffix: &str) -> String {
    let mut end = name.len().min(MAX_BYTES.saturating_sub(prefix.len() + 1 + suffix.len()));
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{prefix}-{}{suffix}", &name[..end])
}

/// Names the calling thread.
pub fn set(name: &str) {
    // A name with a zero byte can't be set; the thread then keeps the one it has.
    if let Ok(name) = CString::new(name) {
        // SAFETY: a valid string, and this thread.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_keep_the_queue() {
        assert_eq!(of("vhost", "swap0", "-q0"), "vhost-swap0-q0");
        assert_eq!(of("vhost", "a-long-disk-name", "-q12"), "vhost-a-lon-q12");
        assert_eq!(of("vhost", "äöüß", "-q0"), "vhost-äöü-q0");
    }

    #[test]
    fn a_thread_can_be_named() {
        std::thread::spawn(|| {
            set("vhost-x-q3");
            assert_eq!(std::fs::read_to_string("/proc/thread-self/comm").unwrap(), "vhost-x-q3\n");
        })
        .join()
        .unwrap();
    }
}
