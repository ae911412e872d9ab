//! Deletion vectors: which rows of a data file are no longer part of the table.
//!
//! The vectors of one commit stand in its log entry where they are small, and the others in one file, each found by its
//! offset. Source: Delta transaction log protocol, sections "Deletion Vectors" and "Deletion Vector Format". The kernel has a
//! writer of such files, too; its checksum is computed byte by byte, which was a hundredth of the CPU of upserts.

use std::ops::Range;
use std::sync::Arc;

use alluvium_catalog::{Clock, Error, Location, Result};
use bytes::Bytes;
use deltalake::kernel::{DeletionVectorDescriptor, StorageType};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use roaring::RoaringTreemap;
use uuid::Uuid;

/// Begins every serialised vector, little endian.
const MAGIC: u32 = 1_681_511_377;

/// The first byte of a file of vectors: the version of its format.
const FILE_VERSION: u8 = 1;

/// The length of a UUID in base 85.
const UUID_CHARS: usize = 20;

/// A vector in a file has its size before it and its checksum behind it, four bytes each.
const FRAME_BYTES: u64 = 4;

/// Where the vectors of a table are kept.
#[derive(Debug, Clone)]
pub struct VectorFolder {
    /// The store rooted at the table.
    pub store: Arc<dyn ObjectStore>,
    /// The table, for messages.
    pub location: Location,
    /// Names files.
    pub clock: Arc<dyn Clock>,
    /// Vectors of at most this many bytes stand in the log; of 0, none does.
    pub inline_bytes_max: usize,
}

impl VectorFolder {
    /// What stands in the log wherever nothing else is asked for: some hundred bytes cost a commit less than a request for
    /// a file costs a reader.
    pub const INLINE_BYTES_MAX: usize = 196;

    /// Writes `vectors` and returns a descriptor for each, in order: small ones stand in the log itself, all others in one
    /// file; when all are small there is no file.
    ///
    /// # Errors
    /// `Unavailable` when the store does not take the file; `Internal` when a vector is too large for the format.
    pub async fn write(&self, vectors: &[RoaringTreemap]) -> Result<Vec<DeletionVectorDescriptor>> {
        // Random ids: the protocol derives the file's name from the id alone.
        let id = self.clock.new_id();
        let mut file = vec![FILE_VERSION];
        let mut descriptors = Vec::with_capacity(vectors.len());
        for vector in vectors {
            if vector.serialized_size() <= self.inline_bytes_max {
                descriptors.push(inline(vector)?);
                continue;
            }
            let (offset, size_in_bytes) = append(&mut file, vector)?;
            descriptors.push(DeletionVectorDescriptor {
                storage_type: StorageType::UuidRelativePath,
                path_or_inline_dv: z85::encode(id.as_bytes()),
                offset: Some(offset),
                size_in_bytes,
                cardinality: vector.len() as i64,
            });
        }
        if file.len() == size_of_val(&FILE_VERSION) {
            return Ok(descriptors);
        }
        let path = vector_path("", id);
        self.store.put(&path, file.into()).await.map_err(|cause| {
            Error::unavailable(format!("cannot write {path} of the table at {}", self.location)).with_source(cause)
        })?;
        Ok(descriptors)
    }

    /// Reads the vector that `descriptor` names.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer; `Data` when the vector is damaged or lies outside the table.
    pub async fn read(&self, descriptor: &DeletionVectorDescriptor) -> Result<RoaringTreemap> {
        let path = vector_file(descriptor, &self.location)?;
        let damaged = |why: &str| {
            let place = path.as_ref().map(|path| format!(" in {path}")).unwrap_or_default();
            Error::data(format!("a deletion vector{place} of the table at {} {why}", self.location))
        };
        let bytes: Bytes = match (descriptor.storage_type, &path) {
            (StorageType::UuidRelativePath, Some(path)) => {
                let frame = frame_of(descriptor).map_err(damaged)?;
                let framed = self.store.get_range(path, frame).await.map_err(|cause| {
                    Error::unavailable(format!("cannot read {path} of the table at {}", self.location))
                        .with_source(cause)
                })?;
                unframe(&framed, descriptor.size_in_bytes).map_err(damaged)?
            }
            (StorageType::Inline, _) => {
                let mut bytes = z85::decode(&descriptor.path_or_inline_dv).map_err(|_| damaged("is not in base 85"))?;
                bytes.truncate(descriptor.size_in_bytes.try_into().unwrap_or(0));
                bytes.into()
            }
            _ => return Err(damaged("lies outside the table, as in a shallow clone")),
        };
        let body = bytes.strip_prefix(&MAGIC.to_le_bytes()).ok_or_else(|| damaged("does not begin with its mark"))?;
        let vector =
            RoaringTreemap::deserialize_from(body).map_err(|cause| damaged("is damaged").with_source(cause))?;
        if vector.len() == u64::try_from(descriptor.cardinality).unwrap_or(u64::MAX) {
            return Ok(vector);
        }
        Err(damaged(&format!("has {} rows where its descriptor says {}", vector.len(), descriptor.cardinality)))
    }
}

/// Checks that `deleted` names rows of the file at `path` only, which has `n_rows`. Rows behind the end count as gone wherever
/// rows are counted, and the file would leave the table while others of it live.
///
/// # Errors
/// `Data` when a row is behind the end of the file.
pub fn check_fit(deleted: &RoaringTreemap, (path, n_rows): (&str, u64), location: &Location) -> Result<()> {
    match deleted.max() {
        Some(last) if last >= n_rows => Err(Error::data(format!(
            "the deletion vector of {path} of the table at {location} deletes row {last} of a file of {n_rows} rows"
        ))),
        _ => Ok(()),
    }
}

/// Returns the part of its file that belongs to a vector, with what stands before and behind it; else what is wrong.
fn frame_of(descriptor: &DeletionVectorDescriptor) -> std::result::Result<Range<u64>, &'static str> {
    let size = u64::try_from(descriptor.size_in_bytes).map_err(|_| "has a negative size")?;
    let offset = u64::try_from(descriptor.offset.unwrap_or(1)).map_err(|_| "has a negative offset")?;
    Ok(offset..offset + size + 2 * FRAME_BYTES)
}

/// Checks size and checksum of a vector from a file, and returns what lies between; else what is wrong.
fn unframe(framed: &Bytes, size: i32) -> std::result::Result<Bytes, &'static str> {
    let (head, rest) = framed.split_first_chunk().ok_or("is cut off")?;
    let (body, checksum) = rest.split_last_chunk().ok_or("is cut off")?;
    if i32::from_be_bytes(*head) != size {
        return Err("has another size than the log says");
    }
    if crc32fast::hash(body) != u32::from_be_bytes(*checksum) {
        return Err("does not have its checksum");
    }
    Ok(framed.slice(head.len()..head.len() + body.len()))
}

/// Appends `vector` to a file of vectors, and returns where it begins there and its size.
fn append(file: &mut Vec<u8>, vector: &RoaringTreemap) -> Result<(i32, i32)> {
    let too_large = |_| Error::internal("deletion vectors are too large for the format");
    let offset = i32::try_from(file.len()).map_err(too_large)?;
    let size = i32::try_from(size_of_val(&MAGIC) + vector.serialized_size()).map_err(too_large)?;
    file.extend(size.to_be_bytes());
    let begun = file.len();
    serialize(file, vector)?;
    file.extend(crc32fast::hash(&file[begun..]).to_be_bytes());
    Ok((offset, size))
}

fn serialize(bytes: &mut Vec<u8>, vector: &RoaringTreemap) -> Result<()> {
    bytes.extend(MAGIC.to_le_bytes());
    let failed = |cause| Error::internal("cannot write a deletion vector").with_source(cause);
    vector.serialize_into(bytes).map_err(failed)
}

/// Returns the descriptor that holds the vector itself.
fn inline(vector: &RoaringTreemap) -> Result<DeletionVectorDescriptor> {
    let mut bytes = Vec::new();
    serialize(&mut bytes, vector)?;
    let size = bytes.len();
    // Base 85 turns four bytes into five characters; readers go by the bitmap's own length.
    bytes.resize(size.next_multiple_of(4), 0);
    Ok(DeletionVectorDescriptor {
        storage_type: StorageType::Inline,
        path_or_inline_dv: z85::encode(&bytes),
        offset: None,
        size_in_bytes: size as i32,
        cardinality: vector.len() as i64,
    })
}

/// Returns the file that holds the vector of `descriptor`; `None` where the log itself holds it, or another table.
///
/// # Errors
/// `Data` when the descriptor's path cannot be read.
pub fn vector_file(descriptor: &DeletionVectorDescriptor, location: &Location) -> Result<Option<Path>> {
    if descriptor.storage_type != StorageType::UuidRelativePath {
        return Ok(None);
    }
    relative_path(&descriptor.path_or_inline_dv)
        .map(Some)
        .ok_or_else(|| Error::data(format!("a deletion vector of the table at {location} has no readable path")))
}

fn vector_path(prefix: &str, id: Uuid) -> Path {
    let folder = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    Path::from(format!("{folder}deletion_vector_{id}.bin"))
}

fn relative_path(encoded: &str) -> Option<Path> {
    let (prefix, id) = encoded.split_at_checked(encoded.len().checked_sub(UUID_CHARS)?)?;
    let id = Uuid::from_slice(&z85::decode(id).ok()?).ok()?;
    Some(vector_path(prefix, id))
}

#[cfg(test)]
mod tests {
    use alluvium_catalog::{ErrorKind, SystemClock};
    use delta_kernel::actions::deletion_vector::DeletionVectorDescriptor as KernelDescriptor;
    use delta_kernel::actions::deletion_vector_writer::{DeletionVector, StreamingDeletionVectorWriter};
    use object_store::memory::InMemory;

    use super::*;

    fn folder() -> Result<VectorFolder> {
        Ok(VectorFolder {
            store: Arc::new(InMemory::new()),
            location: "memory:///t".parse()?,
            clock: Arc::new(SystemClock),
            inline_bytes_max: VectorFolder::INLINE_BYTES_MAX,
        })
    }

    #[tokio::test]
    async fn vectors_of_one_file_come_back() -> Result<()> {
        let folder = folder()?;
        let (many, more) = ((0..900).map(|row| row * 70), (0..900).map(|row| row * 80));
        let vectors =
            [RoaringTreemap::from_iter(many), RoaringTreemap::from_iter(more), RoaringTreemap::from_iter([1, 1 << 40])];
        let descriptors = folder.write(&vectors).await?;
        assert_eq!(descriptors[0].path_or_inline_dv, descriptors[1].path_or_inline_dv);
        assert_eq!(descriptors[2].storage_type, StorageType::Inline);
        for (descriptor, vector) in descriptors.iter().zip(&vectors) {
            assert_eq!(&folder.read(descriptor).await?, vector);
        }
        Ok(())
    }

    /// A vector as the kernel's writer takes it.
    struct Bits<'a>(&'a RoaringTreemap);

    impl<'a> DeletionVector for Bits<'a> {
        type IndexIterator = roaring::treemap::Iter<'a>;

        fn into_iter(self) -> Self::IndexIterator {
            self.0.iter()
        }

        fn cardinality(&self) -> u64 {
            self.0.len()
        }
    }

    #[tokio::test]
    async fn a_file_is_byte_for_byte_what_the_kernel_writes() -> Result<()> {
        let folder = VectorFolder { inline_bytes_max: 0, ..folder()? };
        let many = RoaringTreemap::from_iter((0..200_000).filter(|row| row % 7 < 5));
        let vectors = [RoaringTreemap::from_iter([3, 1 << 40]), many, RoaringTreemap::from_iter(0..70_000)];
        let descriptors = folder.write(&vectors).await?;
        let failed = |cause: delta_kernel::Error| Error::internal("the kernel does not write").with_source(cause);
        let mut expected = Vec::new();
        let mut writer = StreamingDeletionVectorWriter::new(&mut expected);
        for (descriptor, vector) in descriptors.iter().zip(&vectors) {
            let written = writer.write_deletion_vector(Bits(vector)).map_err(failed)?;
            let told = (descriptor.offset, descriptor.size_in_bytes, descriptor.cardinality);
            assert_eq!(told, (Some(written.offset), written.size_in_bytes, written.cardinality));
        }
        writer.finalize().map_err(failed)?;
        let path =
            vector_file(&descriptors[0], &folder.location)?.ok_or_else(|| Error::internal("it stands inline"))?;
        let missing = |cause| Error::internal("the file is not there").with_source(cause);
        let file = folder.store.get(&path).await.map_err(missing)?.bytes().await.map_err(missing)?;
        assert!(file == expected, "{} bytes, {} of the kernel", file.len(), expected.len());
        Ok(())
    }

    #[tokio::test]
    async fn small_vectors_stand_in_the_log_and_make_no_file() -> Result<()> {
        let folder = folder()?;
        let vectors = [RoaringTreemap::new(), RoaringTreemap::from_iter([3]), RoaringTreemap::from_iter(0..70)];
        let descriptors = folder.write(&vectors).await?;
        for (descriptor, vector) in descriptors.iter().zip(&vectors) {
            assert_eq!((descriptor.storage_type, descriptor.offset), (StorageType::Inline, None));
            assert_eq!(&folder.read(descriptor).await?, vector);
            let kernel: KernelDescriptor = descriptor.clone().try_into().map_err(|cause: delta_kernel::Error| {
                Error::internal("the kernel refuses the descriptor").with_source(cause)
            })?;
            assert_eq!(kernel.cardinality, descriptor.cardinality);
        }
        assert!(futures::TryStreamExt::try_next(&mut folder.store.list(None)).await.is_ok_and(|file| file.is_none()));
        Ok(())
    }

    /// `docs/UPSERT.md` and `docs/FORMATS.md` say where the border is.
    #[tokio::test]
    async fn a_vector_of_84_rows_of_a_block_stands_in_the_log_and_one_more_makes_a_file() -> Result<()> {
        let failed = |cause| Error::internal("the file is not there").with_source(cause);
        let folder = folder()?;
        let [inline, filed] = [84, 85].map(|n_rows| RoaringTreemap::from_iter((0..n_rows).map(|row| row * 2)));
        let descriptors = folder.write(&[inline, filed]).await?;
        let [inline, filed] = &descriptors[..] else { return Err(Error::internal("not two descriptors")) };
        assert_eq!((inline.storage_type, inline.size_in_bytes, inline.offset), (StorageType::Inline, 200, None));
        assert_eq!(
            (filed.storage_type, filed.size_in_bytes, filed.offset),
            (StorageType::UuidRelativePath, 202, Some(1))
        );
        let path = vector_file(filed, &folder.location)?.ok_or_else(|| Error::internal("it stands inline"))?;
        assert_eq!(folder.store.head(&path).await.map_err(failed)?.size, 211);
        Ok(())
    }

    #[tokio::test]
    async fn without_room_in_the_log_every_vector_stands_in_the_file() -> Result<()> {
        let folder = VectorFolder { inline_bytes_max: 0, ..folder()? };
        let vectors = [RoaringTreemap::new(), RoaringTreemap::from_iter([3]), RoaringTreemap::from_iter(0..900)];
        let descriptors = folder.write(&vectors).await?;
        for (descriptor, vector) in descriptors.iter().zip(&vectors) {
            assert_eq!(descriptor.storage_type, StorageType::UuidRelativePath);
            assert_eq!(&folder.read(descriptor).await?, vector);
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_flipped_bit_anywhere_in_a_vector_is_noticed_and_the_file_is_named() -> Result<()> {
        let failed = |cause| Error::internal("the file cannot be damaged").with_source(cause);
        let folder = folder()?;
        let (vector, other) =
            (RoaringTreemap::from_iter((0..100).map(|row| row * 70)), RoaringTreemap::from_iter(0..99));
        let descriptors = folder.write(&[vector.clone(), other.clone()]).await?;
        let path =
            vector_file(&descriptors[0], &folder.location)?.ok_or_else(|| Error::internal("it stands inline"))?;
        let whole = folder.store.get(&path).await.map_err(failed)?.bytes().await.map_err(failed)?.to_vec();
        let frame = frame_of(&descriptors[0]).map_err(Error::internal)?;
        for at in frame.start as usize..frame.end as usize {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            folder.store.put(&path, flipped.into()).await.map_err(failed)?;
            let refused = folder.read(&descriptors[0]).await.map_err(|error| (error.kind(), error.to_string()));
            let is_named = |text: &String| text.contains(&format!("in {path} of the table at memory:///t"));
            assert!(matches!(&refused, Err((ErrorKind::Data, text)) if is_named(text)), "byte {at}: {refused:?}");
            assert_eq!(folder.read(&descriptors[1]).await?, other, "another vector of the file is whole");
        }
        folder.store.put(&path, whole.into()).await.map_err(failed)?;
        assert_eq!(folder.read(&descriptors[0]).await?, vector);
        Ok(())
    }

    #[test]
    fn a_vector_fits_a_file_that_has_all_of_its_rows() -> Result<()> {
        let folder = folder()?;
        let cases: [(&[u64], u64, bool); 4] =
            [(&[], 0, true), (&[0], 0, false), (&[0, 2], 3, true), (&[0, 3], 3, false)];
        for (rows, n_rows, fits) in cases {
            let deleted = RoaringTreemap::from_iter(rows.iter().copied());
            let checked = check_fit(&deleted, ("a", n_rows), &folder.location);
            assert_eq!(checked.map_err(|error| error.kind()), if fits { Ok(()) } else { Err(ErrorKind::Data) });
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_vector_that_disagrees_with_its_descriptor_is_refused() -> Result<()> {
        let folder = folder()?;
        let mut descriptor = folder.write(&[RoaringTreemap::from_iter([1, 2, 3])]).await?.remove(0);
        descriptor.cardinality = 4;
        assert!(folder.read(&descriptor).await.is_err());
        descriptor.path_or_inline_dv = "x".to_owned();
        assert!(folder.read(&descriptor).await.is_err());
        Ok(())
    }
}
