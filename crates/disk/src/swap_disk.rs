//! The disk itself.

use std::sync::Arc;

use tmem_store::{
    Client, ClientKind, ClientOptions, Dedup, GetError, Got, Keys, ObjectId, PAGE_BYTES, PageIndex,
    PageTarget, Persistence, Pool, Store, Weight,
};

use crate::{
    error::{DiskError, IoError},
    page_order::PageOrder,
    pieces::Pieces,
    segment::Segment,
    swap_header,
};

/// Logical block of every swap disk, in bytes: one page.
pub const BLOCK_BYTES: u64 = PAGE_BYTES as u64;

/// A swap disk's pool has one object.
pub(crate) const OBJECT: ObjectId = ObjectId(0);

const MIN_SIZE_BYTES: u64 = 1 << 20;

/// The index has 32-bit slots: just under 2^32 pages, 16 TiB. 15 TiB is a number people can remember.
const MAX_SIZE_BYTES: u64 = 15 << 40;

/// What a new disk holds before anybody writes to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// A Linux swap area labelled `tmem`: a guest only needs `swapon`.
    #[default]
    Swap,
    /// Nothing: it reads as zeroes.
    None,
}

/// How a disk is to be.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// Its name, which is also its client's in the store.
    pub name: String,
    /// Its size in bytes: a multiple of 4096 from 1 MiB to 15 TiB. It takes memory only as it is written to.
    pub size_bytes: u64,
    /// The most memory its pages may take, in bytes.
    pub cap_bytes: Option<u64>,
    /// Its share of the pool under pressure, relative to others'.
    pub weight: Weight,
    /// With whose pages its own may share memory.
    pub dedup: Dedup,
    /// What it holds at first.
    pub format: Format,
}

/// A thin block device of compressed pages. Shared by all queues of a transport: all methods may run on many threads at once.
///
/// Requests on the same block that run at the same time happen in some order, page by page. Two sets of requests must not run at the
/// same time on one disk, because only the second looks out for writes of parts of a page: [`read`](Self::read),
/// [`write`](Self::write), [`write_zeroes`](Self::write_zeroes) by the block, straight in a guest's memory; and
/// [`read_bytes`](Self::read_bytes), [`write_bytes`](Self::write_bytes), [`zero_bytes`](Self::zero_bytes) by the byte. A disk has one
/// transport, and each transport uses one set. Dropping the disk forgets its pages.
#[derive(Debug)]
pub struct SwapDisk {
    store: Arc<Store>,
    client: Arc<Client>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) order: PageOrder,
    options: DiskOptions,
}

impl SwapDisk {
    /// Makes a disk, with a client of its name in the store. Errors: a name taken, a size out of bounds, no room for the header.
    pub fn create(store: &Arc<Store>, options: DiskOptions) -> Result<SwapDisk, DiskError> {
        let (name, size_bytes) = (options.name.clone(), options.size_bytes);
        if !size_bytes.is_multiple_of(BLOCK_BYTES) || !(MIN_SIZE_BYTES..=MAX_SIZE_BYTES).contains(&size_bytes)
        {
            return Err(DiskError::Size { name, size_bytes });
        }
        let client = ClientOptions {
            name: name.clone(),
            kind: ClientKind::Disk,
            cap_bytes: options.cap_bytes,
            weight: options.weight,
            dedup: options.dedup.clone(),
        };
        let client =
            store.create_client(client).map_err(|source| DiskError::Store { name: name.clone(), source })?;
        let keys = Keys::Flat { pages: size_bytes / BLOCK_BYTES };
        let pool = match client.create_pool(Persistence::Persistent, keys) {
            Ok(pool) => pool,
            Err(source) => {
                let _never_missing = store.remove_client(&client);
                return Err(DiskError::Store { name, source });
            }
        };
        // From here on dropping the disk removes the client.
        let disk = SwapDisk { store: store.clone(), client, pool, order: PageOrder::default(), options };
        if disk.options.format == Format::Swap {
            disk.write_swap_header().map_err(|source| DiskError::Format { name, source })?;
        }
        Ok(disk)
    }

    /// The disk of that name that a store had when it was opened; of `options`, what the store does not know of it is taken. Errors: there is no
    /// such client, or its pool is not such a disk's. The client stays as it is then.
    pub fn open(store: &Arc<Store>, options: DiskOptions) -> Result<SwapDisk, DiskError> {
        let name = options.name.clone();
        let missing = || DiskError::NotLeft { name: name.clone() };
        let client = store.client(&name).ok_or_else(missing)?;
        let [pool] = <[_; 1]>::try_from(client.pools()).map_err(|_| missing())?;
        let keys = Keys::Flat { pages: options.size_bytes / BLOCK_BYTES };
        if pool.keys() != keys || pool.persistence() != Persistence::Persistent {
            return Err(missing());
        }
        Ok(SwapDisk { store: store.clone(), client, pool, order: PageOrder::default(), options })
    }

    fn write_swap_header(&self) -> Result<(), IoError> {
        // Without a random UUID the area is as good; nothing of ours looks it up by UUID.
        let uuid = swap_header::random_uuid().unwrap_or_default();
        let header = swap_header::swap_header(self.pages(), uuid);
        self.pool.put(OBJECT, PageIndex(0), (&header).into())?;
        Ok(())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// Its client in the store.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Its size in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.options.size_bytes
    }

    /// What it held at first.
    pub fn format(&self) -> Format {
        self.options.format
    }

    /// Fills the segments, in order, from the disk. Their lengths sum up to the request's length. Errors: some of the segments may
    /// have been written to.
    pub fn read(&self, offset_bytes: u64, segments: &[Segment<'_>]) -> Result<(), IoError> {
        let len_bytes = segments.iter().map(|segment| segment.len() as u64).sum();
        let mut pieces = Pieces::new(segments);
        let mut pages = self.pages_of(offset_bytes, len_bytes)?;
        let mut result = Ok(());
        while !pages.is_empty() {
            // Up to one that lies in several pieces.
            let whole = std::iter::from_fn(|| {
                let page = Some(pages.start).filter(|_| !pages.is_empty())?;
                let target = pieces.whole_target()?;
                pages.start += 1;
                Some((PageIndex(page), target))
            });
            self.pool.get_many(OBJECT, whole, |_, target, got| result = result.and(settle(target, got)));
            if let Some(page) = pages.next() {
                result = result.and(pieces.write_page(|target| self.read_page(PageIndex(page), target)));
            }
        }
        result
    }

    pub(crate) fn read_page(&self, page: PageIndex, mut target: PageTarget<'_>) -> Result<(), IoError> {
        let got = self.pool.get(OBJECT, page, target.reborrow());
        settle(target, got)
    }

    /// Stores the segments, in order, on the disk. Errors: a page of the request was refused. Every page of it was tried, so each
    /// holds what was written or not what was there before: a page that held something is lost, one that held nothing still does.
    pub fn write(&self, offset_bytes: u64, segments: &[Segment<'_>]) -> Result<(), IoError> {
        let len_bytes = segments.iter().map(|segment| segment.len() as u64).sum();
        let mut pieces = Pieces::new(segments);
        let mut result = Ok(());
        for page in self.pages_of(offset_bytes, len_bytes)? {
            let put = pieces.read_page(|source| self.pool.put(OBJECT, PageIndex(page), source));
            result = result.and(put);
        }
        Ok(result?)
    }

    /// Forgets blocks; they read as zeroes afterwards and take no memory. A discard may cover part of a block, which then stays as
    /// it is: discarding is a hint.
    pub fn discard(&self, offset_bytes: u64, len_bytes: u64) -> Result<(), IoError> {
        let end = self.checked_end(offset_bytes, len_bytes)?;
        let pages = offset_bytes.div_ceil(BLOCK_BYTES)..end / BLOCK_BYTES;
        if !pages.is_empty() {
            self.pool.flush_range(OBJECT, pages);
        }
        Ok(())
    }

    /// Makes blocks read as zeroes. They take no memory.
    pub fn write_zeroes(&self, offset_bytes: u64, len_bytes: u64) -> Result<(), IoError> {
        let pages = self.pages_of(offset_bytes, len_bytes)?;
        self.pool.flush_range(OBJECT, pages);
        Ok(())
    }

    /// Nothing to wait for: an accepted page is in the store when its write returns, which is as lasting as it gets here.
    pub fn flush(&self) -> Result<(), IoError> {
        Ok(())
    }

    fn pages(&self) -> u64 {
        self.options.size_bytes / BLOCK_BYTES
    }

    fn pages_of(&self, offset_bytes: u64, len_bytes: u64) -> Result<std::ops::Range<u64>, IoError> {
        let end = self.checked_end(offset_bytes, len_bytes)?;
        if !offset_bytes.is_multiple_of(BLOCK_BYTES) || !len_bytes.is_multiple_of(BLOCK_BYTES) {
            return Err(IoError::Unaligned);
        }
        Ok(offset_bytes / BLOCK_BYTES..end / BLOCK_BYTES)
    }

    pub(crate) fn checked_end(&self, offset_bytes: u64, len_bytes: u64) -> Result<u64, IoError> {
        let end = offset_bytes.checked_add(len_bytes).ok_or(IoError::OutOfRange)?;
        if end > self.options.size_bytes { Err(IoError::OutOfRange) } else { Ok(end) }
    }
}

/// What a get came to, as a disk has it: what is not stored reads as zeroes.
pub(crate) fn settle(mut target: PageTarget<'_>, got: Result<Got, GetError>) -> Result<(), IoError> {
    if got? == Got::Nothing {
        target.fill_zero();
    }
    Ok(())
}

impl Drop for SwapDisk {
    fn drop(&mut self) {
        let _never_missing = self.store.remove_client(&self.client);
    }
}
