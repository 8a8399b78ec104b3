//! Errors of the libraries, as failures.

use super::{Failure, FailureKind};
use cloud_mgmt::admin::AdminError;
use cloud_mgmt::config::ConfigError;
use cloud_mgmt::ledger::LedgerErrorKind;
use cloud_mgmt::names::TagError;
use cloud_mgmt::probe::ProbeError;
use cloud_mgmt::store::{StoreError, StoreErrorKind};
use kvfs::fuse::{MountError, MountErrorKind};

impl From<StoreErrorKind> for FailureKind {
    fn from(kind: StoreErrorKind) -> Self {
        match kind {
            StoreErrorKind::NotFound | StoreErrorKind::NoBucket => Self::NotFound,
            StoreErrorKind::Denied => Self::Denied,
            StoreErrorKind::Unavailable => Self::Unavailable,
            StoreErrorKind::NoSpace => Self::NoSpace,
            StoreErrorKind::Corrupt => Self::Corrupt,
            StoreErrorKind::Invalid => Self::InvalidInput,
            StoreErrorKind::Unsupported => Self::Unsupported,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let failure = Self::new(error.kind().into(), error.to_string());
        match error.kind() {
            StoreErrorKind::Unavailable => failure.with_hint("check the endpoint and the network, then try again"),
            StoreErrorKind::Denied => failure.with_hint("check the AWS credentials and the policy of the bucket"),
            StoreErrorKind::NoBucket => failure.with_hint("create the bucket or directory first"),
            _ => failure,
        }
    }
}

impl From<TagError> for Failure {
    fn from(error: TagError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Malformed { .. } => Self::new(FailureKind::Corrupt, error.to_string()),
            ConfigError::TooNew { .. } | ConfigError::UnknownFeature { .. } => {
                Self::new(FailureKind::TooNew, error.to_string()).with_hint("use a newer version of cbfs")
            }
        }
    }
}

impl From<LedgerErrorKind> for FailureKind {
    fn from(kind: LedgerErrorKind) -> Self {
        match kind {
            LedgerErrorKind::NotFound => Self::NotFound,
            LedgerErrorKind::Exists | LedgerErrorKind::Ambiguous => Self::Exists,
            LedgerErrorKind::EpochMismatch => Self::EpochMismatch,
            LedgerErrorKind::Deposed => Self::Deposed,
            LedgerErrorKind::Deleted | LedgerErrorKind::Gone => Self::Gone,
            LedgerErrorKind::Condemned | LedgerErrorKind::InUse => Self::Busy,
            LedgerErrorKind::Corrupt => Self::Corrupt,
            LedgerErrorKind::TooNew => Self::TooNew,
            LedgerErrorKind::Unavailable => Self::Unavailable,
            LedgerErrorKind::Denied => Self::Denied,
            LedgerErrorKind::NoSpace => Self::NoSpace,
            LedgerErrorKind::Invalid => Self::InvalidInput,
            LedgerErrorKind::Unsupported => Self::Unsupported,
            LedgerErrorKind::Local => Self::Bug,
        }
    }
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        if let AdminError::Store(error) = error {
            return error.into();
        }
        Self { kind: error.kind().into(), message: error.to_string(), hint: error.hint() }
    }
}

impl From<ProbeError> for Failure {
    fn from(error: ProbeError) -> Self {
        match error {
            ProbeError::Lies { .. } => Self::new(FailureKind::Unsupported, error.to_string())
                .with_hint("two nodes could both become master there: use another store"),
            ProbeError::Store(error) => error.into(),
        }
    }
}

impl From<toa::ErrorKind> for FailureKind {
    fn from(kind: toa::ErrorKind) -> Self {
        use toa::ErrorKind as Kind;
        match kind {
            Kind::InvalidInput => Self::InvalidInput,
            Kind::NotFound => Self::NotFound,
            Kind::Exists => Self::Exists,
            Kind::EpochMismatch => Self::EpochMismatch,
            Kind::Deposed => Self::Deposed,
            Kind::ReadOnly => Self::ReadOnly,
            Kind::Denied => Self::Denied,
            Kind::Unavailable => Self::Unavailable,
            Kind::NoSpace => Self::NoSpace,
            Kind::Corrupt => Self::Corrupt,
            Kind::TooNew => Self::TooNew,
            Kind::Unsupported => Self::Unsupported,
            Kind::Gone => Self::Gone,
            Kind::Busy => Self::Busy,
            Kind::Bug => Self::Bug,
        }
    }
}

impl From<toa::AgentError> for Failure {
    fn from(error: toa::AgentError) -> Self {
        Self { kind: error.kind().into(), message: error.to_string(), hint: error.hint() }
    }
}

impl From<toa::export::ExportError> for Failure {
    fn from(error: toa::export::ExportError) -> Self {
        Self { kind: error.kind().into(), message: error.to_string(), hint: error.hint() }
    }
}

impl From<toa::verify::VerifyError> for Failure {
    fn from(error: toa::verify::VerifyError) -> Self {
        Self { kind: error.kind().into(), message: error.to_string(), hint: error.hint() }
    }
}

impl From<MountError> for Failure {
    fn from(error: MountError) -> Self {
        let kind = match error.kind() {
            MountErrorKind::Missing => FailureKind::NotFound,
            MountErrorKind::NotDirectory | MountErrorKind::NotEmpty => FailureKind::InvalidInput,
            MountErrorKind::AlreadyMounted => FailureKind::Busy,
            MountErrorKind::Unavailable => FailureKind::Unsupported,
            MountErrorKind::System => FailureKind::Bug,
        };
        Self::new(kind, error.to_string())
    }
}
