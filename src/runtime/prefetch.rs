/// Bytes that the processor fetches at once.
pub const LINE_BYTES: usize = 64;

/// Has the processor fetch the line that holds the start of this, where it knows how.
#[inline]
pub fn prefetch<T>(what: *const T) {
    const { assert!(size_of::<T>() <= LINE_BYTES) };
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint, which does nothing for an address that cannot be read; every
    // x86-64 processor has SSE.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(what.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = what;
}
