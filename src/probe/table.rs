//! The tables of the kernel programs, by the types of their keys and values.

use anyhow::{Result, anyhow};
use libbpf_rs::{MapCore, MapFlags};

use super::abi::Plain;

/// A table whose keys and values cross as they are.
pub(super) trait TypedTable: MapCore {
    /// The value of a key; `None` means that the table doesn't have it.
    fn value<Value: Plain>(&self, key: &impl Plain) -> Result<Option<Value>> {
        let bytes = self.lookup(key.bytes(), MapFlags::ANY)?;
        bytes.map(|bytes| Value::read(&bytes).ok_or_else(another_size)).transpose()
    }

    /// The value of a key on each processor, or the one that all of them share; empty: the table doesn't have it.
    fn values<Value: Plain>(&self, key: &impl Plain) -> Result<Vec<Value>> {
        self.values_of(key.bytes())
    }

    /// The same of a key by its bytes.
    fn values_of<Value: Plain>(&self, key: &[u8]) -> Result<Vec<Value>> {
        let bytes = if self.map_type().is_percpu() {
            self.lookup_percpu(key, MapFlags::ANY)?.unwrap_or_default()
        } else {
            self.lookup(key, MapFlags::ANY)?.into_iter().collect()
        };
        // The kernel pads each to eight bytes.
        let value = |bytes: &Vec<u8>| Value::read(bytes.get(..size_of::<Value>())?);
        bytes.iter().map(|bytes| value(bytes).ok_or_else(another_size)).collect()
    }

    /// All keys that are there, in no order.
    fn all_keys<Key: Plain>(&self) -> impl Iterator<Item = Result<Key>> {
        self.keys().map(|bytes| Key::read(&bytes).ok_or_else(another_size))
    }

    /// Writes the value of a key.
    fn set(&self, key: &impl Plain, value: &impl Plain) -> Result<()> {
        Ok(self.update(key.bytes(), value.bytes(), MapFlags::ANY)?)
    }
}

impl<Map: MapCore> TypedTable for Map {}

fn another_size() -> anyhow::Error {
    anyhow!("an entry of another size")
}
