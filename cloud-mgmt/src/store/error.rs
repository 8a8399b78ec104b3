//! Why a store did not do it.

/// What the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// The object is not there.
    NotFound,
    /// The bucket or directory itself is not there.
    NoBucket,
    /// Wrong or missing credentials, or no permission. Never means "free".
    Denied,
    /// No clean answer within the limits: it may or may not have been applied.
    Unavailable,
    /// The store is full.
    NoSpace,
    /// An answer that contradicts itself (short body, wrong length).
    Corrupt,
    /// The address or a name is malformed.
    Invalid,
    /// The store cannot do that.
    Unsupported,
}

/// A failed call: kind, what was done on which object, and the store's words.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{operation} {object}: {detail}")]
pub struct StoreError {
    kind: StoreErrorKind,
    operation: &'static str,
    object: String,
    detail: String,
}

impl StoreError {
    /// A failure of `operation` ("get", "put", …) on `object` (name or URL, no credentials).
    pub fn new(
        kind: StoreErrorKind,
        operation: &'static str,
        object: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self { kind, operation, object: object.into(), detail: detail.into() }
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Whether it is [`StoreErrorKind::NotFound`].
    pub fn is_not_found(&self) -> bool {
        self.kind == StoreErrorKind::NotFound
    }

    /// The object that it is about.
    pub fn object(&self) -> &str {
        &self.object
    }
}
