//! The temporary files of a verification: copies of index runs, rows that are being sorted, the pack at hand.

use super::error::VerifyError;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// See the file's first line.
#[derive(Debug)]
pub(super) struct Scratch {
    dir: PathBuf,
    copies: Copies,
}

/// Whether copies of objects outlive the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copies {
    /// No file has a name: whatever becomes of the process, nothing stays.
    Go,
    /// They have names, so that the next process finds them.
    Stay,
}

impl Scratch {
    /// In the system's folder of temporary files.
    pub fn temporary() -> Self {
        Self { dir: std::env::temp_dir(), copies: Copies::Go }
    }

    /// In the folder `dir`, which is made, and stays until [`Scratch::remove`].
    pub fn lasting(dir: &Path) -> Result<Self, VerifyError> {
        fs::create_dir_all(dir).map_err(VerifyError::scratch("create", dir))?;
        Ok(Self { dir: dir.to_owned(), copies: Copies::Stay })
    }

    /// Ends a lasting folder.
    pub fn remove(dir: &Path) -> Result<(), VerifyError> {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(VerifyError::scratch("remove", dir)(error)),
            _ => Ok(()),
        }
    }

    /// A file without a name.
    pub fn file(&self) -> Result<File, VerifyError> {
        tempfile::tempfile_in(&self.dir).map_err(self.failed("create"))
    }

    /// The copy of an object that an interrupted verification left, if it has its size.
    pub fn old_copy(&self, object: &str, size: u64) -> Option<File> {
        let file = File::open(self.name_of(object)).ok().filter(|_| self.copies == Copies::Stay)?;
        file.metadata().is_ok_and(|meta| meta.len() == size).then_some(file)
    }

    /// A file for a copy of an object. A later process finds it once it is [finished](NewCopy::finish).
    pub fn new_copy(&self, object: &str) -> Result<NewCopy, VerifyError> {
        if self.copies == Copies::Go {
            return Ok(NewCopy { file: self.file()?, names: None });
        }
        let name = self.name_of(object);
        let coming = name.with_extension("part");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let file = options.open(&coming).map_err(self.failed("create"))?;
        Ok(NewCopy { file, names: Some((coming, name)) })
    }

    /// Object names are never used twice; they are not trusted as paths.
    fn name_of(&self, object: &str) -> PathBuf {
        self.dir.join(blake3::hash(object.as_bytes()).to_hex().as_str())
    }

    /// The folder, for messages.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// For `map_err`.
    pub fn failed(&self, operation: &'static str) -> impl FnOnce(io::Error) -> VerifyError {
        VerifyError::scratch(operation, &self.dir)
    }
}

/// A copy of an object that is being made.
pub(super) struct NewCopy {
    pub file: File,
    /// While it is made, and when it is complete.
    names: Option<(PathBuf, PathBuf)>,
}

impl NewCopy {
    /// It is complete.
    pub fn finish(self) -> Result<File, VerifyError> {
        if let Some((coming, name)) = &self.names {
            fs::rename(coming, name).map_err(VerifyError::scratch("rename", name))?;
        }
        Ok(self.file)
    }
}
