//! How a client is set up: endpoint, region, credentials, limits.

use super::super::url::Addressing;
use super::super::{S3Address, StoreError, StoreErrorKind, StoreOptions};
use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::{EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider};
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Config, RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use std::time::Duration;

/// Attempts of a request that may be repeated.
const ATTEMPTS: u32 = 3;
/// Before the second attempt; doubled after that.
const BACKOFF: Duration = Duration::from_millis(100);
/// The region that a server with an endpoint of its own is taken to be in: most ignore it, but it is signed.
const REGION_OF_ENDPOINTS: &str = "us-east-1";

/// What a client is built from.
pub(super) struct Plan {
    pub(super) config: Config,
    /// What will answer, for messages.
    pub(super) endpoint: String,
}

/// Settles everything that the address leaves open.
pub(super) async fn plan(
    address: &S3Address,
    options: StoreOptions,
    credentials: Option<SharedCredentialsProvider>,
) -> Result<Plan, StoreError> {
    let endpoint = address.endpoint.clone().or_else(endpoint_of_environment);
    let shared = match &endpoint {
        Some(endpoint) => load_elsewhere(address, endpoint, credentials).await,
        None => load_aws(address, credentials).await,
    };
    let region = shared.region().ok_or_else(|| {
        let detail = "no region: add ?region=… to the address or set AWS_REGION";
        StoreError::new(StoreErrorKind::Invalid, "connect", address.to_string(), detail)
    })?;
    // A profile may name an endpoint, too.
    let endpoint = shared.endpoint_url().map(str::to_owned);
    let by_path = match address.addressing {
        Some(addressing) => addressing == Addressing::Path,
        None => endpoint.is_some(),
    };
    let config = aws_sdk_s3::config::Builder::from(&shared)
        .force_path_style(by_path)
        .retry_config(retries(ATTEMPTS))
        .timeout_config(timeouts(options))
        .stalled_stream_protection(
            StalledStreamProtectionConfig::enabled()
                .grace_period(Duration::from_millis(options.attempt_timeout_ms))
                .build(),
        )
        // Other servers than AWS know the older forms best.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build();
    let endpoint = endpoint.unwrap_or_else(|| format!("AWS S3 in {region}"));
    Ok(Plan { config, endpoint })
}

/// Repetitions of requests that may be repeated.
pub(super) fn retries(attempts: u32) -> RetryConfig {
    RetryConfig::standard().with_max_attempts(attempts).with_initial_backoff(BACKOFF)
}

fn timeouts(options: StoreOptions) -> TimeoutConfig {
    let attempt = Duration::from_millis(options.attempt_timeout_ms);
    TimeoutConfig::builder()
        .connect_timeout(attempt)
        .read_timeout(attempt)
        .operation_attempt_timeout(attempt)
        .operation_timeout(Duration::from_millis(options.operation_timeout_ms))
        .build()
}

/// What AWS tools honour; looked up here because much depends on whether there is one.
fn endpoint_of_environment() -> Option<String> {
    let variables = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
    variables.into_iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

/// AWS itself: the whole default chain, as a machine there expects.
async fn load_aws(address: &S3Address, credentials: Option<SharedCredentialsProvider>) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest());
    if let Some(region) = &address.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(credentials) = credentials {
        loader = loader.credentials_provider(credentials);
    }
    loader.load().await
}

/// Another server: nothing may ask the metadata service of a cloud, which is not there and costs seconds to find out.
async fn load_elsewhere(
    address: &S3Address,
    endpoint: &str,
    credentials: Option<SharedCredentialsProvider>,
) -> SdkConfig {
    let given = address.region.clone().map(Region::new);
    let region = RegionProviderChain::first_try(given)
        .or_else(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::new())
        .or_else(REGION_OF_ENDPOINTS)
        .region()
        .await;
    let credentials = credentials.unwrap_or_else(|| SharedCredentialsProvider::new(chain_without_metadata(&region)));
    aws_config::defaults(BehaviorVersion::latest())
        .region(region)
        .endpoint_url(endpoint)
        .credentials_provider(credentials)
        .load()
        .await
}

fn chain_without_metadata(region: &Option<Region>) -> CredentialsProviderChain {
    let config = ProviderConfig::without_region().with_region(region.clone());
    CredentialsProviderChain::first_try("Environment", EnvironmentVariableCredentialsProvider::new())
        .or_else("Profile", ProfileFileCredentialsProvider::builder().configure(&config).build())
        .or_else("WebIdentityToken", WebIdentityTokenCredentialsProvider::builder().configure(&config).build())
        .or_else("Container", EcsCredentialsProvider::builder().configure(&config).build())
}
