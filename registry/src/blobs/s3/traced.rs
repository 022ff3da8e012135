//! A span for each call of the object store, from its beginning to the head of its answer, its repetitions included.

use aws_sdk_s3::config::interceptors::{
    BeforeSerializationInterceptorContextRef, FinalizerInterceptorContextRef,
};
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_types::config_bag::{Storable, StoreReplace};
use tracing::Span;

use crate::telemetry::span::object_call;

/// Hears of every call.
#[derive(Debug)]
pub(super) struct Traced;

/// The call's span, kept with the call.
#[derive(Debug)]
struct Call(Span);

impl Storable for Call {
    type Storer = StoreReplace<Self>;
}

impl Intercept for Traced {
    fn name(&self) -> &'static str {
        "Traced"
    }

    // The first hook that knows which operation it is.
    fn read_before_serialization(
        &self,
        _: &BeforeSerializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let operation = bag.load::<Metadata>().map_or("call", Metadata::name);
        let span = object_call(operation);
        if !span.is_disabled() {
            bag.interceptor_state().store_put(Call(span));
        }
        Ok(())
    }

    fn read_after_execution(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let Some(Call(span)) = bag.load::<Call>() else {
            return Ok(());
        };
        if context.output_or_error().is_some_and(|outcome| outcome.is_err()) {
            span.record("otel.status_code", "ERROR");
        }
        // The bag may outlive the call, and the span with it.
        bag.interceptor_state().unset::<Call>();
        Ok(())
    }
}
