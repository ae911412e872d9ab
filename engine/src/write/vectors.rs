//! Deletion vectors: which rows of a data file are no longer part of the table.
//!
//! All vectors of one commit go into one file, each found by its offset. The format is the kernel's; only where the file
//! lies is decided here. Source: Delta transaction log protocol, sections "Deletion Vectors" and "Deletion Vector
//! Format".

use std::sync::Arc;

use alluvium_catalog::{Clock, Error, Location, Result};
use bytes::Bytes;
use delta_kernel::actions::deletion_vector_writer::{DeletionVector, StreamingDeletionVectorWriter};
use deltalake::kernel::{DeletionVectorDescriptor, StorageType};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use roaring::RoaringTreemap;
use uuid::Uuid;

/// Begins every serialised vector, little endian.
const MAGIC: u32 = 1_681_511_377;

/// The length of a UUID in base 85.
const UUID_CHARS: usize = 20;

/// Where the vectors of a table are kept.
#[derive(Debug, Clone)]
pub struct VectorFolder {
    /// The store rooted at the table.
    pub store: Arc<dyn ObjectStore>,
    /// The table, for messages.
    pub location: Location,
    /// Names files.
    pub clock: Arc<dyn Clock>,
}

impl VectorFolder {
    /// Writes `vectors` into one file and returns a descriptor for each, in order.
    ///
    /// # Errors
    /// `Unavailable` when the store does not take the file; `Internal` when a vector is too large for the format.
    pub async fn write(&self, vectors: &[RoaringTreemap]) -> Result<Vec<DeletionVectorDescriptor>> {
        if vectors.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |cause: delta_kernel::Error| Error::internal("cannot write a deletion vector").with_source(cause);
        // Random ids: the protocol derives the file's name from the id alone.
        let id = self.clock.new_id();
        let mut bytes = Vec::new();
        let mut writer = StreamingDeletionVectorWriter::new(&mut bytes);
        let mut descriptors = Vec::with_capacity(vectors.len());
        for vector in vectors {
            let written = writer.write_deletion_vector(Bits(vector)).map_err(failed)?;
            descriptors.push(DeletionVectorDescriptor {
                storage_type: StorageType::UuidRelativePath,
                path_or_inline_dv: z85::encode(id.as_bytes()),
                offset: Some(written.offset),
                size_in_bytes: written.size_in_bytes,
                cardinality: written.cardinality,
            });
        }
        writer.finalize().map_err(failed)?;
        let path = vector_path("", id);
        self.store.put(&path, bytes.into()).await.map_err(|cause| {
            Error::unavailable(format!("cannot write {path} of the table at {}", self.location)).with_source(cause)
        })?;
        Ok(descriptors)
    }

    /// Reads the vector that `descriptor` names.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer; `Data` when the vector is damaged or lies outside the table.
    pub async fn read(&self, descriptor: &DeletionVectorDescriptor) -> Result<RoaringTreemap> {
        let damaged = |why: &str| Error::data(format!("a deletion vector of the table at {} {why}", self.location));
        let size = u64::try_from(descriptor.size_in_bytes).map_err(|_| damaged("has a negative size"))?;
        let bytes: Bytes = match descriptor.storage_type {
            StorageType::Inline => {
                let mut bytes = z85::decode(&descriptor.path_or_inline_dv).map_err(|_| damaged("is not in base 85"))?;
                bytes.truncate(descriptor.size_in_bytes.try_into().unwrap_or(0));
                bytes.into()
            }
            StorageType::UuidRelativePath => {
                let path =
                    relative_path(&descriptor.path_or_inline_dv).ok_or_else(|| damaged("has no readable path"))?;
                // The vector's own size, four bytes, stands before it.
                let start =
                    u64::try_from(descriptor.offset.unwrap_or(0)).map_err(|_| damaged("has a negative offset"))? + 4;
                self.store.get_range(&path, start..start + size).await.map_err(|cause| {
                    Error::unavailable(format!("cannot read {path} of the table at {}", self.location))
                        .with_source(cause)
                })?
            }
            StorageType::AbsolutePath => return Err(damaged("lies outside the table, as in a shallow clone")),
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

fn vector_path(prefix: &str, id: Uuid) -> Path {
    let folder = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    Path::from(format!("{folder}deletion_vector_{id}.bin"))
}

fn relative_path(encoded: &str) -> Option<Path> {
    let (prefix, id) = encoded.split_at_checked(encoded.len().checked_sub(UUID_CHARS)?)?;
    let id = Uuid::from_slice(&z85::decode(id).ok()?).ok()?;
    Some(vector_path(prefix, id))
}

/// A vector as the kernel's writer takes it, without copying bit by bit.
#[derive(Debug)]
struct Bits<'a>(&'a RoaringTreemap);

impl<'a> DeletionVector for Bits<'a> {
    type IndexIterator = roaring::treemap::Iter<'a>;

    fn into_iter(self) -> Self::IndexIterator {
        self.0.iter()
    }

    fn cardinality(&self) -> u64 {
        self.0.len()
    }

    fn serialize(self) -> delta_kernel::DeltaResult<Bytes> {
        let mut bytes = Vec::with_capacity(self.0.serialized_size());
        self.0
            .serialize_into(&mut bytes)
            .map_err(|cause| delta_kernel::Error::generic(format!("cannot serialise a bitmap: {cause}")))?;
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use alluvium_catalog::SystemClock;
    use object_store::memory::InMemory;

    use super::*;

    fn folder() -> Result<VectorFolder> {
        Ok(VectorFolder {
            store: Arc::new(InMemory::new()),
            location: "memory:///t".parse()?,
            clock: Arc::new(SystemClock),
        })
    }

    #[tokio::test]
    async fn vectors_of_one_file_come_back() -> Result<()> {
        let folder = folder()?;
        let vectors = [RoaringTreemap::from_iter([0, 7]), RoaringTreemap::from_iter(5..70_000), RoaringTreemap::new()];
        let descriptors = folder.write(&vectors).await?;
        assert_eq!(descriptors[0].path_or_inline_dv, descriptors[1].path_or_inline_dv);
        for (descriptor, vector) in descriptors.iter().zip(&vectors) {
            assert_eq!(&folder.read(descriptor).await?, vector);
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
