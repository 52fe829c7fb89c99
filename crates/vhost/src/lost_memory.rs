//! Guest memory that is taken away while it is in use.
//!
//! Whoever shares a file can cut it short, and then each access to a page that is gone is a SIGBUS (mmap(2)). That would end the daemon for
//! all guests, and the next worker as well, since the session is told to it. Seals of the file (`F_SEAL_SHRINK`) would rule it out, but not
//! all hypervisors set them, and a plain file can have none. So a handler puts zeroes in the place of the part of memory that
//! the access was to, notes that, and lets the access go on; requests that were being served are not answered, and the connection ends.
//! Only a thread that [`watch`]es a guest's memory, and only for addresses in it: any other SIGBUS ends the process as ever.

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, compiler_fence};

use vm_memory::{GuestMemoryBackend, GuestMemoryMmap};

/// What a thread is at.
struct Watch {
    memory: *const GuestMemoryMmap,
    lost: *const AtomicBool,
}

thread_local! {
    /// Constant and without a destructor: a handler may read it at any time.
    static WATCH: Cell<*const Watch> = const { Cell::new(ptr::null()) };
}

/// Who handled the signal before.
static BEFORE: OnceLock<Option<libc::sigaction>> = OnceLock::new();

/// Ends a watch, also when what was watched panics.
struct Ends(*const Watch);

impl Drop for Ends {
    fn drop(&mut self) {
        compiler_fence(Ordering::SeqCst);
        WATCH.set(self.0);
    }
}

/// Does `work`, which this thread may use `memory` for. If a part of that turns out to be gone, `lost` is set before anybody can read
/// zeroes in its place.
pub(crate) fn watch<R>(memory: &GuestMemoryMmap, lost: &AtomicBool, work: impl FnOnce() -> R) -> R {
    BEFORE.get_or_init(|| install().inspect_err(|error| log::error!("cannot handle SIGBUS: {error}")).ok());
    let watch = Watch { memory, lost };
    let _ends = Ends(WATCH.replace(&raw const watch));
    // The handler runs on this thread: what it reads is written before anything of the guest's is touched.
    compiler_fence(Ordering::SeqCst);
    work()
}

/// Whether memory that this thread watches is gone.
pub(crate) fn is_lost() -> bool {
    let watch = WATCH.get();
    // SAFETY: a watch that is set lives, and so does what it points to, until `watch` returns.
    !watch.is_null() && unsafe { (*(*watch).lost).load(Ordering::SeqCst) }
}

fn install() -> io::Result<libc::sigaction> {
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all zeroes is a valid action. The handler has the signature that SA_SIGINFO asks for, and calls what is safe in one.
    unsafe {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = handle;
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        if libc::sigaction(libc::SIGBUS, &raw const action, before.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(before.assume_init())
    }
}

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel gave a valid siginfo, which has an address where the kernel itself sent the signal.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    if code == libc::BUS_ADRERR && replace(address) {
        return;
    }
    let before = BEFORE.get().copied().flatten();
    // SAFETY: sigaction() and raise() may be called in a handler; all zeroes is the default action.
    unsafe {
        let before = before.unwrap_or_else(|| MaybeUninit::zeroed().assume_init());
        libc::sigaction(signal, &raw const before, ptr::null_mut());
        // The access comes again by itself; what a process sent does not.
        if code <= 0 {
            libc::raise(signal);
        }
    }
}

/// Puts zeroes in the place of the part of watched memory that has the address. False: there is none.
fn replace(address: usize) -> bool {
    let watch = WATCH.get();
    if watch.is_null() {
        return false;
    }
    // SAFETY: a watch that is set lives, and so does what it points to; this thread is inside `watch`. Looking through the regions takes
    // no lock and no memory.
    let (memory, lost) = unsafe { (&*(*watch).memory, &*(*watch).lost) };
    let has_it = |start: usize, bytes: usize| (start..start.saturating_add(bytes)).contains(&address);
    let Some(region) = memory.iter().find(|region| has_it(region.as_ptr() as usize, region.size())) else {
        return false;
    };
    lost.store(true, Ordering::SeqCst);
    let (protection, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
    );
    // SAFETY: the range is the region's own mapping, which is only used through pointers, and is unmapped with it. mmap() is a plain system
    // call, so it may be called here.
    let mapped = unsafe { libc::mmap(region.as_ptr().cast(), region.size(), protection, flags, -1, 0) };
    mapped != libc::MAP_FAILED
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use vm_memory::{Bytes, FileOffset, GuestAddress};

    use super::*;

    fn file(bytes: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes).unwrap();
        file
    }

    #[test]
    fn what_is_gone_reads_as_zeroes_and_is_noted() {
        let (short, whole) = (file(8192), file(4096));
        let offset = |file: &File| Some(FileOffset::new(file.try_clone().unwrap(), 0));
        let ranges = [(GuestAddress(0), 8192, offset(&short)), (GuestAddress(1 << 20), 4096, offset(&whole))];
        let memory = GuestMemoryMmap::from_ranges_with_files(ranges).unwrap();
        memory.write_slice(&[7; 8192], GuestAddress(0)).unwrap();
        memory.write_slice(&[9; 4096], GuestAddress(1 << 20)).unwrap();
        let lost = AtomicBool::new(false);
        let read = |address| {
            let mut page = [1; 4096];
            watch(&memory, &lost, || {
                memory.read_slice(&mut page, GuestAddress(address)).unwrap();
                (page, is_lost())
            })
        };
        assert_eq!(read(4096), ([7; 4096], false));
        short.set_len(4096).unwrap();
        assert_eq!(read(4096), ([0; 4096], true));
        assert_eq!(read(1 << 20).0, [9; 4096], "another part stays as it is");
        assert!(lost.load(Ordering::SeqCst));
        assert!(!is_lost(), "nothing is watched any more");
    }

    #[test]
    fn watches_lie_within_each_other() {
        let memory = GuestMemoryMmap::new();
        let (outer, inner) = (AtomicBool::new(true), AtomicBool::new(false));
        watch(&memory, &outer, || {
            watch(&memory, &inner, || assert!(!is_lost()));
            assert!(is_lost());
        });
    }
}
