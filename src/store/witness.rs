//! A file whose pages have to read back as they were last seen.
//!
//! redb verifies a page against its tree when it opens, and trusts whatever it reads later. A
//! page that rots in between would give a wrong value, lose a key, or be copied into the next
//! commit under a fresh checksum. So its seam remembers a checksum of each page: 4 bytes in
//! memory for 4 KiB on disk.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::disk::DiskFile;

/// redb's smallest page; every read and write of its is whole pages, but for the header in the
/// first one, which it reads only when it opens.
const PAGE_BYTES: usize = 4096;

#[derive(Debug)]
pub(super) struct Witness {
    file: Box<dyn DiskFile>,
    /// By page; 0: not seen yet. A page is not read while it is written, so nothing is lost by
    /// noting it before or after.
    seen: Mutex<Vec<u32>>,
}

impl Witness {
    pub(super) fn new(file: Box<dyn DiskFile>) -> Self {
        Self {
            file,
            seen: Mutex::new(Vec::new()),
        }
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    pub(super) fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)?;
        let sums = sums_of_whole_pages(offset, out);
        let mut seen = self.seen();
        for (page, sum) in sums {
            match note(&mut seen, page) {
                unseen @ 0 => *unseen = sum,
                known if *known == sum => {}
                _ => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("page {page} is damaged: it reads other than it was written"),
                    ));
                }
            }
        }
        Ok(())
    }

    pub(super) fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        {
            let (first, last) = (offset, offset + bytes.len() as u64);
            let mut seen = self.seen();
            for page in first / PAGE_BYTES as u64..last.div_ceil(PAGE_BYTES as u64) {
                *note(&mut seen, page as usize) = 0;
            }
            for (page, sum) in sums_of_whole_pages(offset, bytes) {
                *note(&mut seen, page) = sum;
            }
        }
        self.file.write_at(offset, bytes)
    }

    pub(super) fn set_len(&self, len: u64) -> io::Result<()> {
        self.seen().truncate(len as usize / PAGE_BYTES);
        self.file.set_len(len)
    }

    /// No panic leaves it half changed.
    fn seen(&self) -> MutexGuard<'_, Vec<u32>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note(seen: &mut Vec<u32>, page: usize) -> &mut u32 {
    if seen.len() <= page {
        seen.resize(page + 1, 0);
    }
    &mut seen[page]
}

/// The pages that `bytes`, which lie at `offset`, hold in full.
fn sums_of_whole_pages(offset: u64, bytes: &[u8]) -> Vec<(usize, u32)> {
    let offset = offset as usize;
    let first = offset.div_ceil(PAGE_BYTES);
    let skipped = (first * PAGE_BYTES - offset).min(bytes.len());
    let pages = bytes[skipped..].chunks_exact(PAGE_BYTES);
    pages
        .enumerate()
        // 0 has a meaning of its own.
        .map(|(page, bytes)| (first + page, crc32fast::hash(bytes).max(1)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::disk::Disk;
    use super::super::sim::SimDisk;
    use super::*;

    fn witness() -> (SimDisk, Witness) {
        let disk = SimDisk::new(1);
        let file = Witness::new(disk.open("file").unwrap());
        file.write_at(0, &[7; 3 * PAGE_BYTES]).unwrap();
        (disk, file)
    }

    fn read(file: &Witness, page: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; PAGE_BYTES];
        file.read_at((page * PAGE_BYTES) as u64, &mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn a_page_that_changes_by_itself_cannot_be_read() {
        let (disk, file) = witness();
        disk.damage("file", |bytes| bytes[PAGE_BYTES + 5] ^= 1);
        assert_eq!(read(&file, 0).unwrap(), [7; PAGE_BYTES]);
        let error = read(&file, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("page 1"), "{error}");
        let mut both = vec![0; 2 * PAGE_BYTES];
        assert!(file.read_at(PAGE_BYTES as u64, &mut both).is_err());
    }

    #[test]
    fn a_page_is_remembered_from_the_first_read_if_it_was_not_written_here() {
        let (disk, _) = witness();
        let file = Witness::new(disk.open("file").unwrap());
        assert!(read(&file, 1).is_ok());
        disk.damage("file", |bytes| bytes[2 * PAGE_BYTES - 1] ^= 128);
        assert!(read(&file, 1).is_err());
    }

    #[test]
    fn what_is_written_or_cut_off_is_known_anew() {
        let (_, file) = witness();
        file.write_at(PAGE_BYTES as u64, &[8; PAGE_BYTES]).unwrap();
        assert_eq!(read(&file, 1).unwrap(), [8; PAGE_BYTES]);
        file.write_at(10, &[9; 20]).unwrap();
        assert_eq!(read(&file, 0).unwrap()[10], 9);
        file.set_len(PAGE_BYTES as u64).unwrap();
        file.set_len(2 * PAGE_BYTES as u64).unwrap();
        assert_eq!(read(&file, 1).unwrap(), [0; PAGE_BYTES]);
    }
}
