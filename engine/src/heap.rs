//! How much freed memory the C library's allocator keeps for itself.
//!
//! A batch is some ten pieces of many megabytes, which one thread makes and another frees; a checkpoint is millions of
//! small pieces on a blocking thread. Left alone, glibc keeps both in the arena of the thread that made them, for good.
//! `docs/decisions/0015-the-system-s-allocator.md` has the figures. Other allocators are left as they are.
//!
//! **Why `unsafe`:** glibc is told by these calls, or by variables that have to be in the environment before the program
//! begins. Both calls take numbers, and neither frees what is in use. `mallopt` must not run beside another of its kind, nor
//! beside the first allocation of another thread: [`settle`] is called once, before there are other threads.
#![expect(unsafe_code, reason = "glibc has no safe call that bounds what it keeps; the argument stands above")]

/// Pieces of this size and more go back to the system when they are freed: the records of a batch do, 25 MB of them. To take
/// and clear their pages anew for each batch costs, so that smaller pieces, such as columns, come out of an arena.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_FROM: libc::c_int = 16 << 20;

/// So much that is free at the end of an arena stays there.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_AT_THE_END: libc::c_int = 32 << 20;

/// Lets large pieces go back to the system when they are freed, and threads share one arena a core instead of having one
/// each, so that what one of them frees another finds. To be called once, before there are other threads; where the
/// environment speaks of the allocator (`MALLOC_ARENA_MAX` and its like), that counts instead.
pub fn settle() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (option, value, variable) in [
        (libc::M_MMAP_THRESHOLD, MAPPED_FROM, "MALLOC_MMAP_THRESHOLD_"),
        (libc::M_TRIM_THRESHOLD, KEPT_AT_THE_END, "MALLOC_TRIM_THRESHOLD_"),
        (libc::M_ARENA_MAX, n_cores(), "MALLOC_ARENA_MAX"),
    ] {
        if std::env::var_os(variable).is_none() {
            // SAFETY: both are numbers, and the caller says that there is no other thread. A refusal leaves all as it was.
            let _accepted = unsafe { libc::mallopt(option, value) };
        }
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn n_cores() -> libc::c_int {
    let n_cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    libc::c_int::try_from(n_cores).unwrap_or(libc::c_int::MAX)
}

/// Gives back to the system what is free in the midst of arenas. Takes milliseconds, in which other threads may wait for
/// memory: to be called after work that has left much behind, on a thread that may block.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes a number, may be called by any thread, and gives back whole pages that hold nothing.
    let _gave = unsafe { libc::malloc_trim(0) };
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    /// Returns the memory of this process that is in RAM, in pages.
    fn resident_pages() -> usize {
        let told = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        told.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0)
    }

    #[test]
    fn what_is_free_in_the_midst_of_an_arena_is_given_back() {
        const PIECES: usize = 50_000;
        let mut pieces: Vec<Vec<u8>> = (0..PIECES).map(|_| vec![1; 4_000]).collect();
        let held = resident_pages();
        // The last one keeps the arena from shrinking.
        let last = pieces.pop();
        drop(pieces);
        give_back();
        let kept = resident_pages();
        assert!(last.is_some() && kept + PIECES / 2 < held, "{held} pages before, {kept} after");
    }
}
