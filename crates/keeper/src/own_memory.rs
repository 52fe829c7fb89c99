//! The keeper's own memory.

/// Where the host swaps to its own tmem, the keeper must not be swapped out, nor wait for I/O when the kernel finds memory for a fork: that might be
/// I/O of the worker that it is about to start. It is small, so it never does, where that is allowed. Only pages that are touched take memory.
/// Workers inherit the second and decide for themselves.
pub(crate) fn stay_in_memory() {
    /// Of `include/uapi/linux/prctl.h`.
    const PR_SET_IO_FLUSHER: libc::c_int = 57;
    let (on, none): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: both take numbers.
    unsafe {
        libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT);
        libc::prctl(PR_SET_IO_FLUSHER, on, none, none, none);
    }
}
